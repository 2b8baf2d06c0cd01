"""Checkpoints: tensors in safetensors, the rest as its JSON header; whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cryoscape.errors import InputError
from cryoscape.files import atomic_path


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of an optimiser as flat tensors, keyed by position of the parameter and name of the entry."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value.detach().cpu() if isinstance(value, Tensor) else torch.tensor(value)
        for index, entries in state.items()
        for name, value in entries.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put tensors from `optimizer_tensors` back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def save(path: Path, modules: dict[str, dict[str, Tensor]], header: dict[str, Any]) -> None:
    """Write groups of tensors and a header.

    Parameters
    ----------
    path : Path
        Ends in .safetensors.
    modules : dict of dict of Tensor
        State by group ("model", "prior", "optimizer", ...).
    header : dict
        Anything JSON can hold.

    Raises
    ------
    InputError
        If the disk is full. The old file stays.
    """
    flat: dict[str, Tensor] = {}
    seen: set[int] = set()
    for group, tensors in modules.items():
        for name, value in tensors.items():
            tensor = value.detach().cpu().contiguous()
            storage = tensor.untyped_storage()
            # The format knows no tensors that share memory; all others are written from where they are.
            if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
                tensor = tensor.clone()
            seen.add(tensor.untyped_storage().data_ptr())
            flat[f"{group}/{name}"] = tensor
    with atomic_path(path) as temporary:
        try:
            save_file(flat, temporary, metadata={"header": json.dumps(header)})
        except SafetensorError as error:
            # The library hides the errno in its text: 28 is ENOSPC.
            if "os error 28" in str(error) or "No space" in str(error):
                raise OSError(28, "No space left on device") from error
            raise


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what `save` wrote.

    Raises
    ------
    InputError
        If the file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(
            "there is no checkpoint", file=path, remedy="Train without --resume, or with --force."
        )
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as stream:
            header = json.loads(stream.metadata()["header"])
            for key in stream.keys():  # noqa: SIM118 - not a mapping
                group, name = key.split("/", 1)
                groups.setdefault(group, {})[name] = stream.get_tensor(key)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "the checkpoint cannot be read", file=path, remedy="Train again with --force."
        ) from error
    return groups, header


def load_module(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Put a state into a module.

    Raises
    ------
    InputError
        If names or shapes differ: the checkpoint belongs to another configuration.
    """
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            "the checkpoint belongs to another configuration",
            file=path,
            remedy="Resume with the settings of config.yaml, or train into another folder.",
        ) from error
