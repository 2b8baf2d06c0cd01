"""Schedules as pure functions of the step, so that a resumed run needs no state for them."""

from __future__ import annotations

import math

from cryoscape.training.config import ObjectiveConfig, TrainingConfig


def kl_weight(step: int, total: int, objective: ObjectiveConfig) -> float:
    """Weight of the KL term: held low first, then raised to its final value.

    With the full weight from the start the posterior collapses at low SNR before the decoder has learnt
    anything worth encoding; holding it back for half of the run prevents that.
    """
    fraction = step / max(total, 1)
    if fraction <= objective.hold:
        return objective.beta_start
    if fraction >= objective.ramp:
        return objective.beta
    rise = (fraction - objective.hold) / (objective.ramp - objective.hold)
    return objective.beta_start + rise * (objective.beta - objective.beta_start)


def learning_rate(step: int, total: int, training: TrainingConfig) -> float:
    """One-cycle (cosine up over 30 %, cosine down to zero; Smith and Topin 2019) or constant."""
    if training.schedule == "constant":
        return training.lr
    warm = 0.3 * total
    if step < warm:
        low = training.lr / 25
        return low + (training.lr - low) * 0.5 * (1 - math.cos(math.pi * step / warm))
    rest = (step - warm) / max(total - warm, 1e-9)
    return training.lr * (0.5 * (1 + math.cos(math.pi * min(rest, 1.0))) * (1 - 1e-5) + 1e-5)


def total_steps(training: TrainingConfig, n_particles: int) -> int:
    """Length of the run in optimiser steps."""
    per_epoch = max(1, math.ceil(n_particles / training.batch))
    if training.steps is not None:
        return training.steps
    if training.epochs is not None:
        return max(1, round(training.epochs * per_epoch))
    return max(2000, 30 * per_epoch)
