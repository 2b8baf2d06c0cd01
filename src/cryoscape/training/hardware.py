"""Where a run computes: device, precision and threads."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision

from cryoscape.errors import InputError
from cryoscape.training.config import Config


def set_threads(threads: int) -> None:
    """CPU threads of PyTorch (0 leaves its own choice), and denormals flushed to zero.

    Subnormal numbers in Gaussian tails cost a factor of two on x86 and carry no information.
    """
    if threads > 0:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def find_device(name: str) -> torch.device:
    """Resolve a device's name; `auto` is the GPU where there is one.

    Raises
    ------
    InputError
        If there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "a GPU was asked for and none is there",
            remedy="Give --device cpu, or install a CUDA build of torch.",
        )
    known = name == "cpu" or (
        kind == "cuda" and (name == kind or (index.isdigit() and int(index) < torch.cuda.device_count()))
    )
    if not known:
        raise InputError(f"there is no device {name!r}", remedy="Give --device auto, cpu, cuda or cuda:1.")
    return torch.device(name)


def build_fabric(config: Config) -> Fabric:
    """Device and precision of a configuration, as Lightning Fabric's object.

    Raises
    ------
    InputError
        If a device is asked for that is not there.
    """
    device = find_device(config.training.device)
    kind = device.type
    precision = config.training.precision
    if precision == "auto":
        precision = "bf16" if _computes_in_bf16(kind) else "32"
    chosen: Precision = Precision()
    if precision != "32":
        chosen = _MixedProducts("bf16-mixed" if precision == "bf16" else "16-mixed", kind)
    # Its notices about mixed precision would break into the progress lines.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    devices: Any = 1 if device.index is None else [device.index]
    return Fabric(accelerator=kind, devices=devices, plugins=chosen)


class _MixedProducts(MixedPrecision):
    """Mixed precision of products alone: poses and transfer functions are not rounded on the way in.

    Eight bits of mantissa would turn every pose by a tenth of a degree.
    """

    def convert_input(self, data: Any) -> Any:
        """Return the input as it is."""
        return data


def _computes_in_bf16(kind: str) -> bool:
    """Whether a device multiplies bfloat16 in hardware; emulation is slower than float32."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return kind == "cpu" and bool(known.get("avx512_bf16", False))
