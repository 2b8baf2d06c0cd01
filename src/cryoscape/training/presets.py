"""Named configurations: nothing but settings, with the source of each.

The published programs train on the correlation objective. Their weights are in its scale: image term 1,
restraints as means over terms, KL / (d n); multiplied through by the n degrees of freedom of the band, as
`CorrelationLikelihood` does, the KL weight is beta / d and the restraints carry a factor n.
"""

from __future__ import annotations

from typing import Any

from cryoscape.errors import InputError

_CORRELATION: dict[str, Any] = {"kind": "correlation", "sigma": 2.0}
# cryoSTAR adds up the pixels of a disc of radius 0.9375 and takes standard deviations over the whole box,
# so its image term is box / disc = 1 / (pi 0.9375^2 / 4) times the correlation.
_DISC: dict[str, Any] = {**_CORRELATION, "weight": 1.45}

# cryoSTAR, official code b64aa39, atom_configs/1ake.py: encoder 512-256-128-64-32 on the image, decoder
# mirrored, AdamW 1e-4 without schedule, KL 0 -> 0.5 over 10,000 of 96,000 steps as a mean over dimensions
# (hence / 8) with 3 nats of free bits per dimension.
_CRYOSTAR: dict[str, Any] = {
    "encoder": {
        "kind": "image",
        "hidden": (512, 256, 128, 64, 32),
        "activation": "relu",
        "phase_flip": False,
    },
    "decoder": {
        "kind": "atomic",
        "hidden": (32, 64, 128, 256, 512),
        "activation": "relu",
        "scatter_from": "bead",
    },
    "likelihood": _DISC,
    "restraints": {
        "bond": 1.0,
        "network": 1.0,
        "clash": 1.0,
        "keep": 80.0,
        "relax_on": "squared_error",
        "fraction": 1.0,
        "mean": True,
        "through_latent": True,
    },
    "objective": {"beta_start": 0.0, "beta": 0.0625, "hold": 0.0, "ramp": 1.0, "free_bits": 3.0},
    "training": {"lr": 1e-4, "schedule": "constant", "weight_decay": 0.01},
}

PRESETS: dict[str, dict[str, Any]] = {
    "cryoscape": {},
    "cryostar": _CRYOSTAR,
    # The baseline of the cryoSTAR paper without elastic network: continuity alone (section 3.1).
    "cont": {**_CRYOSTAR, "restraints": {**_CRYOSTAR["restraints"], "network": 0.0, "clash": 0.0}},
    # The paper's NMA baseline: amplitudes of the 16 lowest modes and a rigid correction, no restraints.
    "nma": {
        **_CRYOSTAR,
        "decoder": {"kind": "modes", "n_modes": 16, "cutoff": 12.0, "scatter_from": "bead"},
        "restraints": {"bond": 0.0, "network": 0.0, "clash": 0.0},
    },
    # cryoSPHERE, official code 66d0bd8, parameters.yaml: 20 segments, encoder 512-256-64-64, Adam 3e-5,
    # batch 128, KL 0 -> 1 over the first half as a sum (no free bits), continuity and clash 0.1.
    "cryosphere": {
        "encoder": {
            "kind": "image",
            "hidden": (512, 256, 64, 64),
            "activation": "leaky_relu",
            "phase_flip": False,
        },
        "decoder": {
            "kind": "segments",
            "n_segments": 20,
            "hidden": (512, 512),
            "activation": "leaky_relu",
            "scatter_from": "bead",
        },
        "likelihood": _CORRELATION,
        "restraints": {
            "bond": 0.1,
            "network": 0.0,
            "clash": 0.1,
            "fraction": 1.0,
            "mean": True,
            "through_latent": True,
        },
        "objective": {"beta_start": 0.0, "beta": 1.0, "hold": 0.0, "ramp": 0.5},
        "training": {"lr": 3e-5, "schedule": "constant", "weight_decay": 0.0, "batch": 128},
    },
    # cryoDRGN 4.3.0, train_vae: residual encoder and decoder, Gaussian encoding with feat_sigma 0.5 (which
    # is a spread of the positions of 0.5 / (4 pi) of the box), Adam 1e-4, batch 16, 20 epochs, KL weight
    # 1 / z_dim from the start. Its width 1024 is made for GPUs; 256 is that of its papers' simulated sets.
    "cryodrgn": {
        "encoder": {
            "kind": "image",
            "network": "residual",
            "hidden": (256, 256, 256),
            "activation": "relu",
            "phase_flip": False,
            "start": "random",
        },
        "decoder": {
            "kind": "field",
            "hidden": (256, 256, 256),
            "activation": "relu",
            "encoding": "gaussian",
            "sigma": 0.0398,
            "domain": "fourier",
            "consensus": False,
            "subset": 1.0,
            "lr": 1e-4,
            "window": 0.85,
        },
        "likelihood": {"kind": "mse"},
        "objective": {"beta_start": 0.125, "beta": 0.125, "hold": 0.0, "ramp": 0.0},
        "training": {"lr": 1e-4, "schedule": "constant", "weight_decay": 0.0, "batch": 16, "epochs": 20},
    },
}


def preset(name: str) -> dict[str, Any]:
    """Settings of a preset, as a nested dict that `Config` takes.

    Raises
    ------
    InputError
        If there is no such preset.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise InputError(f"there is no preset {name!r}", remedy=f"Choose one of {known}.")
    return {"preset": name, **PRESETS[name]}


def merged(base: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Nested settings with those of `extra` on top; a new `kind` replaces its whole section."""
    out = dict(base)
    for key, value in extra.items():
        old = out.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and _same_kind(old, value):
            out[key] = merged(old, value)
        else:
            out[key] = value
    return out


def _same_kind(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return "kind" not in old or "kind" not in new or old["kind"] == new["kind"]
