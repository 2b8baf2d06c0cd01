"""Encoders: image features in, q(z | x) out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from cryoscape.models.networks import Activation, ConvolutionalNetwork, mlp, residual_mlp, shrink_
from cryoscape.models.posteriors import Bernoulli, DiagonalGaussian
from cryoscape.models.relaxations import Exponential, Relaxation

Network = Literal["mlp", "residual", "cnn"]
Support = Literal["real", "binary"]

LARGEST_LOGIT = 12.0
"""Of a bit: probabilities stay 6e-6 away from 0 and 1, where a logit has lost its gradient."""


class Encoder(nn.Module):
    """Standardised features -> diagonal Gaussian posterior, or Bernoulli posterior of bits.

    Parameters
    ----------
    n_features : int
        Length of the feature vector.
    z_dim : int
        Dimension of z.
    network : {"mlp", "residual", "cnn"}
        `cnn` takes features that are a square image.
    hidden : sequence of int
        Widths.
    activation : str
        Of the hidden layers.
    dropout : float
        Share of the features that are left out, at random, in each training step.
    linear : bool
        Add a linear map of the features to what the network gives; it can be set before training.
    support : {"real", "binary"}
        Where z lives.
    relaxation : Relaxation, optional
        Of binary z; exponential by default.
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(
        self,
        n_features: int,
        z_dim: int,
        *,
        network: Network = "mlp",
        hidden: Sequence[int] = (512, 256, 128, 64),
        activation: Activation = "relu",
        dropout: float = 0.0,
        linear: bool = False,
        support: Support = "real",
        relaxation: Relaxation | None = None,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.support: Support = support
        self.relaxation = relaxation or Exponential()
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_scale", torch.ones(n_features))
        n_out = 2 * z_dim if support == "real" else z_dim
        if network == "cnn":
            side = round(n_features**0.5)
            self.network: nn.Module = ConvolutionalNetwork(side, hidden, n_out)
            last = cast(nn.Linear, cast(ConvolutionalNetwork, self.network).head[-1])
        else:
            build = mlp if network == "mlp" else residual_mlp
            sequence = build(n_features, hidden, n_out, activation)
            self.network, last = sequence, cast(nn.Linear, sequence[-1])
        shrink_(last, 0.1 if linear else 0.3)
        self.linear = nn.Linear(n_features, n_out) if linear else None

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Set mean and scale of the features from a sample (n, n_features)."""
        spread = features.std(0, correction=0)
        self.feature_mean.copy_(features.mean(0))
        # A feature that is the same in every image says nothing; its inverse spread would shout rounding.
        alive = spread > 1e-5 * self.feature_mean.abs() + 1e-12
        self.feature_scale.copy_(torch.where(alive, 1.0 / spread, 0.0))

    def standardised(self, features: Tensor) -> Tensor:
        """Features (B, n_features) less their mean, in units of their spread."""
        return (features - self.feature_mean) * self.feature_scale

    def forward(self, features: Tensor) -> DiagonalGaussian | Bernoulli:
        """(B, n_features) -> posterior of z."""
        seen = self.dropout(self.standardised(features))
        out = self.network(seen)
        if self.linear is not None:
            out = out + self.linear(seen)
        if self.support == "binary":
            return Bernoulli(out.clamp(-LARGEST_LOGIT, LARGEST_LOGIT), self.relaxation)
        mean, log_var = out.chunk(2, dim=-1)
        # Bounded so that one bad image cannot overflow the KL: standard deviations of 1e-4 to 20.
        return DiagonalGaussian(mean, log_var.clamp(-18.0, 6.0))


class GivenPosterior(nn.Module):
    """Posteriors that are known: the "features" of a particle are its mean and log-variance, or its logits.

    Parameters
    ----------
    z_dim : int
    support : {"real", "binary"}
        Where z lives.
    relaxation : Relaxation, optional
        Of binary z; exponential by default.
    """

    def __init__(self, z_dim: int, support: Support = "real", relaxation: Relaxation | None = None) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.support: Support = support
        self.relaxation = relaxation or Exponential()

    def standardise(self, features: Tensor) -> None:
        """Nothing is to be standardised."""

    def forward(self, features: Tensor) -> DiagonalGaussian | Bernoulli:
        """(B, 2 * z_dim), or (B, z_dim) of bits -> posterior of z."""
        if self.support == "binary":
            # A saved probability of exactly 1 has no logit.
            return Bernoulli(features.clamp(-LARGEST_LOGIT, LARGEST_LOGIT), self.relaxation)
        mean, log_var = features.chunk(2, dim=-1)
        return DiagonalGaussian(mean, log_var)
