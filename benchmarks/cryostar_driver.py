"""Train official cryoSTAR from a checkout, by turns, on one set; run by `peers.py`, not by hand.

Nothing of cryoSTAR is copied here: its own `train_atom.train()` runs, with its own configuration file for
adenylate kinase. What is changed from outside, so that it runs on a CPU at all:

- `torchvision`, `cv2`, `umap` and `numba` are replaced by stand-ins (only `resize` is ever called, and only
  for boxes above 256 pixels);
- the process group is `gloo` in place of the hard-coded `nccl`;
- the pictures of images at the start are not drawn;
- one device, 32-bit, no loader processes, and CTF version 2 (version 1, the shipped choice, has two faults
  that its own docstring lists).

Runs in cryoSTAR's environment: Python >= 3.10 with torch, lightning, mmengine, biotite < 1, numpy < 2.
"""

from __future__ import annotations

import argparse
import os
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from turns import Turns


def install_stand_ins() -> None:
    """Make the imports of drawing and clustering packages succeed without them."""

    def resize(image: torch.Tensor, size: list[int], antialias: bool = True) -> torch.Tensor:
        return torch.nn.functional.interpolate(
            image[None], size=size, mode="bilinear", align_corners=False, antialias=antialias
        )[0]

    def unavailable(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("this package is replaced by a stand-in in the benchmark")

    modules: dict[str, dict[str, Any]] = {
        "torchvision": {},
        "torchvision.transforms": {"ToPILImage": unavailable},
        "torchvision.transforms.functional": {"resize": resize},
        "torchvision.utils": {"make_grid": unavailable},
        "cv2": {},
        "umap": {"UMAP": type("UMAP", (), {})},
        "numba": {},
        "numba.core": {},
        "numba.core.errors": {
            "NumbaDeprecationWarning": type("NumbaDeprecationWarning", (Warning,), {}),
            "NumbaPendingDeprecationWarning": type("NumbaPendingDeprecationWarning", (Warning,), {}),
        },
    }
    for name, members in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(members)
        # Other packages ask importlib whether these exist, which needs a spec.
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def write_config(arguments: argparse.Namespace) -> Path:
    """The checkout's own configuration with the paths and the device of this machine."""
    from mmengine import Config

    config = Config.fromfile(arguments.checkout / "projects/star/atom_configs/1ake.py")
    star = arguments.star.resolve()
    config.merge_from_dict(
        {
            "dataset_attr.dataset_dir": str(star.parent),
            "dataset_attr.starfile_path": str(star),
            "dataset_attr.apix": None,
            "dataset_attr.side_shape": None,
            "dataset_attr.ref_pdb_path": str(arguments.model.resolve()),
            "data_loader.train_batch_per_gpu": arguments.batch,
            "data_loader.workers_per_gpu": 0,
            "seed": arguments.seed,
            "do_ref_init": not arguments.no_ref_init,
            "model.ctf": "v2",
            "trainer.max_steps": arguments.steps,
            # The end-of-training validation is done here, and needs no pictures or clusters.
            "trainer.val_check_interval": arguments.steps + 1,
            "trainer.devices": 1,
            "trainer.precision": "32-true",
        }
    )
    path = arguments.out / "cryostar_config.py"
    config.dump(str(path))
    return path


def decode_all(task: Any, batch: int) -> np.ndarray:
    """Coordinates of every particle at the posterior mean, in the frame of the model: (N, residues, 3)."""
    loader = torch.utils.data.DataLoader(task.trainer.val_dataloaders.dataset, batch_size=batch)
    task.model.eval()
    with torch.no_grad():
        parts = []
        for item in loader:
            mean, _ = task.model.encode(item["proj"].flatten(1), item["idx"])
            parts.append(task.deformer.transform(task.model.decoder(mean), task.gmm_centers).numpy())
    task.model.train()
    return np.concatenate(parts).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--star", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="PDB, origin at the box centre")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--block", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-ref-init", action="store_true", help="skip the fit of zero displacement")
    parser.add_argument("--coords", type=Path, help="write the decoded coordinates here (.npy)")
    parser.add_argument("--turns", type=int, nargs=2, required=True, metavar=("READ", "WRITE"))
    arguments = parser.parse_args()
    arguments.checkout, arguments.out = arguments.checkout.resolve(), arguments.out.resolve()
    if arguments.coords:
        arguments.coords = arguments.coords.resolve()
    turns = Turns(*arguments.turns, arguments.block)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

    # Lightning looks for torchvision while it is imported, and must not find the stand-in.
    import lightning.pytorch as pl
    from lightning.pytorch.strategies import DDPStrategy

    install_stand_ins()
    sys.path[:0] = [str(arguments.checkout), str(arguments.checkout / "projects/star")]
    config = write_config(arguments)
    # cryoSTAR writes below the working directory.
    os.chdir(arguments.out)

    import train_atom

    class Clock(pl.Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            turns.ready()

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            turns.step()

        def on_train_end(self, trainer: Any, module: Any) -> None:
            turns.flush()
            if arguments.coords:
                np.save(arguments.coords, decode_all(module, arguments.batch))

    def trainer(**settings: Any) -> pl.Trainer:
        # The preliminary fit has its own trainer, recognised by its epochs; only the real one is timed.
        clocks = [] if "max_epochs" in settings else [Clock()]
        return pl.Trainer(callbacks=clocks, **settings)

    def strategy(process_group_backend: str, **settings: Any) -> DDPStrategy:
        return DDPStrategy(process_group_backend="gloo", **settings)

    train_atom.pl = types.SimpleNamespace(Trainer=trainer)
    train_atom.DDPStrategy = strategy
    train_atom.save_tensor_image = lambda *_args, **_kwargs: None
    sys.argv = ["train_atom.py", str(config)]
    train_atom.train()
    turns.done(torch=torch.__version__, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
