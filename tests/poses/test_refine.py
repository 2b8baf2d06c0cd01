"""Refinement: to the maximum, never below the start, with honest standard deviations."""

import math

import torch

from cryoscape.physics.rotations import geodesic_angle
from cryoscape.poses.refine import refine
from cryoscape.poses.templates import Band
from tests.poses.scene import PIXEL, POINTS, batch, evidence, likelihood, poses, project, turned

RADIUS = 25.0
BAND = Band.of(likelihood().weights, PIXEL)


def predict(rotations):
    values = project(POINTS, rotations).flatten(1)[:, BAND.index]
    return torch.stack([values.real, values.imag], dim=1)


def test_a_near_start_ends_at_the_truth():
    rotations, shifts = poses(8)
    images, noise = batch(POINTS, rotations, shifts, math.inf)
    start = turned(rotations, 4)
    found = refine(predict, evidence(images, noise), start, shifts + 1.5, radius=RADIUS, steps=6)
    assert float(geodesic_angle(found.rotations, rotations).max()) < math.radians(0.1)
    assert float((found.shifts - shifts).abs().max()) < 0.05


def test_errors_are_as_large_as_said():
    n = 60
    rotations, shifts = poses(n)
    images, noise = batch(POINTS, rotations, shifts, 0.5)
    seen = evidence(images, noise)
    found = refine(predict, seen, rotations, shifts, radius=RADIUS, steps=5)
    turn = found.rotations @ rotations.transpose(1, 2)
    vector = torch.stack([turn[:, 2, 1], turn[:, 0, 2], turn[:, 1, 0]], dim=-1)
    error = torch.cat([vector, found.shifts - shifts], dim=1)
    # Squared errors in units of the covariance: chi-square of 5 degrees of freedom, mean 5.
    chi2 = torch.einsum("ni,nij,nj->n", error, torch.linalg.inv(found.covariance), error)
    assert 3.7 < float(chi2.mean()) < 6.6


def test_no_step_downhill():
    rotations, shifts = poses(10)
    images, noise = batch(POINTS, rotations, shifts, 0.0)
    seen = evidence(images, noise)
    start = seen.log_prob(predict(rotations), shifts)
    found = refine(predict, seen, rotations, shifts, radius=RADIUS)
    assert bool((found.log_prob >= start).all())
