"""Large models: memory must not grow with batch times residues times box."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, torch
from cryoscape.physics import gaussians
from cryoscape.physics.rotations import random_rotations

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
batch, points, box = 64, 13000, {box}
coords = 80 * torch.randn(batch, points, 3, generator=generator)
rotations = random_rotations(batch, generator).float()
weights = torch.ones(points)
small = coords[:1, :50].clone().requires_grad_()
gaussians.project_fourier(small, weights[:50], rotations[:1], box, 3.0).abs().sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
coords.requires_grad_()
gaussians.project_fourier(coords, weights, rotations, box, 3.0).abs().square().sum().backward()
assert torch.isfinite(coords.grad).all()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_projections_of_a_large_assembly_stay_within_the_table_budget() -> None:
    """64 images of 13,000 points in a box of 96 px: 0.64 GB of tables, and twice that if all were kept."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(box=96)], capture_output=True, text=True, check=True
    )
    grown = float(done.stdout)
    # One piece of tables, products of its size in the gradient, and the coordinates a few times.
    assert grown < 700, f"{grown:.0f} MiB"
