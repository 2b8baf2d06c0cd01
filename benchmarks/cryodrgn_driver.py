"""Train cryoDRGN on one set and decode its volumes; runs in cryoDRGN's environment.

    PYTHON benchmarks/cryodrgn_driver.py train --star SET/particles.star --out OUT --epochs 20 [-- OPTION ...]
    PYTHON benchmarks/cryodrgn_driver.py decode --out OUT --epoch 20 --z z.npy --volumes volumes.npy

Nothing of cryoDRGN is copied or changed: its own `parse_pose_star`, `parse_ctf_star` and `train_vae` run with
their defaults but for what is named in `SETTINGS`; options after `--` are handed on. A clock is put around
them from outside: the CPU-seconds at the end of every epoch go to OUT/clock.jsonl, without what cryoDRGN
spends on encoding all images for a checkpoint.

cryoDRGN's CTF has the opposite sign to RELION's and it inverts the images by default, so that images whose
protein is white with RELION's CTF give volumes whose protein is white: the default is right for such sets.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from turns import Turns

# Width 256 is cryoDRGN's own choice for small boxes and for its papers' simulated sets; 4.x defaults to 1024.
SETTINGS = "--zdim 8 --enc-dim 256 --enc-layers 3 --dec-dim 256 --dec-layers 3 --no-amp --no-analysis"


class EnoughStepsError(Exception):
    """Ends a training of a given number of steps."""


def read_parsers(star: Path, out: Path) -> tuple[Path, Path]:
    """Write poses.pkl and ctf.pkl with cryoDRGN's own readers of RELION's tables."""
    from cryodrgn.commands import parse_ctf_star, parse_pose_star

    poses, ctf = out / "poses.pkl", out / "ctf.pkl"
    for command, arguments in (
        (parse_pose_star, [str(star), "-o", str(poses)]),
        (parse_ctf_star, [str(star), "-o", str(ctf)]),
    ):
        parser = argparse.ArgumentParser()
        command.add_args(parser)
        command.main(parser.parse_args(arguments))
    return poses, ctf


class Clock(logging.Handler):
    """Hears cryoDRGN's line at the end of an epoch and writes the CPU time at that moment."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._aside = 0.0
        self._epoch = 0
        path.write_text("")

    def aside(self, function: Any) -> Any:
        """Wrap a function whose time does not belong to training."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            result = function(*args, **kwargs)
            self._aside += time.process_time() - start
            return result

        return timed

    def note(self, **facts: Any) -> None:
        """Append a line."""
        line = {"cpu_seconds": time.process_time() - self._aside, "load": os.getloadavg()[0], **facts}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def emit(self, record: logging.LogRecord) -> None:
        """Note the end of an epoch."""
        if (text := record.getMessage()).startswith("# =====> Epoch:"):
            self._epoch += 1
            self.note(epoch=self._epoch, message=text, encoding_cpu_seconds=self._aside)


def train(arguments: argparse.Namespace) -> None:
    """Train, with a clock and perhaps by turns."""
    from cryodrgn.commands import train_vae

    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    poses, ctf = read_parsers(arguments.star, out)
    parser = argparse.ArgumentParser()
    train_vae.add_args(parser)
    given = [str(arguments.star), "--poses", str(poses), "--ctf", str(ctf), "-o", str(out)]
    given += ["--datadir", str(arguments.star.resolve().parent), "-n", str(arguments.epochs)]
    given += ["--seed", str(arguments.seed), "--max-threads", "1", *SETTINGS.split(), *arguments.options]
    clock = Clock(out / "clock.jsonl")
    logging.getLogger(train_vae.__name__).addHandler(clock)
    turns = Turns(*arguments.turns, arguments.block) if arguments.turns else None
    train_batch, steps = train_vae.train_batch, 0

    def step(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        if turns and steps == 0:
            turns.ready()
        elif turns:
            # From here to here, so that a step includes loading its images.
            turns.step()
        if steps == 0:
            clock.note(epoch=0, message="first step")
        elif steps == arguments.steps:
            raise EnoughStepsError
        steps += 1
        return train_batch(*args, **kwargs)

    train_vae.train_batch = step
    train_vae.eval_z = clock.aside(train_vae.eval_z)
    with contextlib.suppress(EnoughStepsError):
        train_vae.main(parser.parse_args(given))
    if turns:
        import cryodrgn

        turns.done(torch=torch.__version__, threads=torch.get_num_threads(), version=cryodrgn.__version__)


def decode(arguments: argparse.Namespace) -> None:
    """Volumes (n, D, D, D) at latents (n, zdim), as `cryodrgn eval_vol` makes them; protein white."""
    import cryodrgn.config
    from cryodrgn.models import HetOnlyVAE

    config = cryodrgn.config.load(str(arguments.out / "config.yaml"))
    weights = arguments.out / f"weights.{arguments.epoch}.pkl"
    model, lattice = HetOnlyVAE.load(config, str(weights), device=torch.device("cpu"))
    model.eval()
    norm = [float(x) for x in config["dataset_args"]["norm"]]
    volumes = [
        model.decoder.eval_volume(lattice.coords, lattice.D, lattice.extent, norm, z).numpy()
        for z in np.load(arguments.z)
    ]
    np.save(arguments.volumes, np.stack(volumes).astype(np.float32))


def latents(arguments: argparse.Namespace) -> None:
    """Posterior means of all particles after an epoch, as .npy."""
    with (arguments.out / f"z.{arguments.epoch}.pkl").open("rb") as file:
        np.save(arguments.z, np.asarray(pickle.load(file), dtype=np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    sub = commands.add_parser("train")
    sub.set_defaults(run=train)
    sub.add_argument("--star", type=Path, required=True)
    sub.add_argument("--out", type=Path, required=True)
    sub.add_argument("--epochs", type=int, default=20)
    sub.add_argument("--steps", type=int, help="end after so many steps")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--block", type=int, default=20)
    sub.add_argument("--turns", type=int, nargs=2, metavar=("READ", "WRITE"))
    sub.add_argument("options", nargs="*", help="after --: options of `cryodrgn train_vae`")
    for name, function in (("decode", decode), ("latents", latents)):
        sub = commands.add_parser(name)
        sub.set_defaults(run=function)
        sub.add_argument("--out", type=Path, required=True)
        sub.add_argument("--epoch", type=int, required=True)
        sub.add_argument("--z", type=Path, required=True)
        if name == "decode":
            sub.add_argument("--volumes", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
