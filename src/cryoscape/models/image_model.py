"""Encoder, decoder and likelihood as one module: the generative model of the images and its inverse."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cryoscape.data.images import ImageBatch
from cryoscape.models import features
from cryoscape.models.decoders.base import StructureDecoder
from cryoscape.models.encoders import Encoder
from cryoscape.models.likelihoods import Likelihood
from cryoscape.models.posteriors import DiagonalGaussian
from cryoscape.models.scattering import BeadScatterers, Scatterers


@dataclass(frozen=True)
class FeatureSettings:
    """Which features the encoder gets.

    Attributes
    ----------
    kinds : tuple of str
        Some of "image", "score", "field".
    window : int
        Side of the image window in band-limited pixels.
    phase_flip : bool
        Whether image features are phase-flipped and whitened.
    max_beads : int
        Score features are pooled to at most this many.
    spacing, margin : float
        Grid of the field features, Angstrom.
    """

    kinds: tuple[str, ...]
    window: int
    phase_flip: bool = True
    max_beads: int = 512
    spacing: float = 8.0
    margin: float = 15.0


class FeatureMap(nn.Module):
    """Features of a batch, taken at an anchor structure.

    Parameters
    ----------
    settings : FeatureSettings
    reference : Tensor, shape (N, 3)
        The first anchor, world frame, Angstrom.
    scatterers : Scatterers or BeadScatterers
        The decoder's.
    likelihood : Likelihood
        Its gain and noise spectra are copied: features keep their meaning while the model's own spectra move.
    """

    anchor: Tensor
    pooling: Tensor
    points: Tensor

    def __init__(
        self,
        settings: FeatureSettings,
        reference: Tensor,
        scatterers: Scatterers | BeadScatterers,
        likelihood: Likelihood,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.likelihood = copy.deepcopy(likelihood)
        self.register_buffer("anchor", reference.clone())
        self.scatterers = scatterers
        self.register_buffer(
            "pooling", features.pooling_matrix(len(reference), settings.max_beads), persistent=False
        )
        points = torch.zeros(0, 3)
        if "field" in settings.kinds:
            points = features.field_grid(reference.cpu(), settings.spacing, settings.margin)
        self.register_buffer("points", points, persistent=False)

    @property
    def size(self) -> int:
        """Length of the feature vector."""
        sizes = {"image": self.settings.window**2, "score": 3 * len(self.pooling), "field": len(self.points)}
        return sum(sizes[kind] for kind in self.settings.kinds)

    def take_anchor(self, structure: Tensor, likelihood: Likelihood) -> None:
        """Move the anchor to a structure (N, 3) and take over the current gain and noise."""
        self.anchor.copy_(structure)
        self.likelihood.load_state_dict(likelihood.state_dict())

    def forward(self, batch: ImageBatch) -> Tensor:
        """Features (B, size) of a batch, without gradient."""
        args = (self.likelihood, batch.images, batch.ctf, batch.group)
        settings = self.settings
        points = self.scatterers(self.anchor[None])[0]
        parts = []
        with torch.no_grad():
            for kind in settings.kinds:
                if kind == "image":
                    parts.append(features.image_features(*args, settings.window, settings.phase_flip))
                elif kind == "score":
                    score = features.score_features(*args, batch.rotations, points, self.scatterers.weights)
                    score = self.scatterers.per_residue(score, len(self.anchor))
                    if len(self.pooling) < score.shape[1]:
                        score = torch.einsum("kn,bni->bki", self.pooling, score)
                    parts.append(score.flatten(1))
                else:
                    parts.append(
                        features.field_features(
                            *args,
                            batch.rotations,
                            points,
                            self.scatterers.weights,
                            self.points,
                            self.settings.spacing / 3,
                        )
                    )
        return torch.cat(parts, dim=1)


class ImageModel(nn.Module):
    """Everything that is learnt from the images, except the prior.

    Parameters
    ----------
    feature_map : FeatureMap
    encoder : Encoder
    decoder : StructureDecoder
    likelihood : Likelihood
    """

    def __init__(
        self, feature_map: FeatureMap, encoder: Encoder, decoder: StructureDecoder, likelihood: Likelihood
    ) -> None:
        super().__init__()
        self.feature_map = feature_map
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood

    def features(self, batch: ImageBatch) -> Tensor:
        """Encoder input of a batch, shape (B, F)."""
        return self.feature_map(batch)

    def project(self, z: Tensor, batch: ImageBatch) -> Tensor:
        """Predicted Fourier projections of latents (B, d) in the poses of a batch."""
        scene = self.decoder(z)
        return scene.project(batch.rotations, self.likelihood.box, self.likelihood.pixel_size)

    def log_likelihood(self, z: Tensor, batch: ImageBatch) -> Tensor:
        """Log p(x | z) over pure noise, shape (B,), nats."""
        return self.likelihood.log_prob(batch.images, self.project(z, batch), batch.ctf, batch.group)

    def structure_log_likelihood(self, coords: Tensor, batch: ImageBatch) -> Tensor:
        """Log p(x | one fixed structure (N, 3)) over pure noise, shape (B,), nats."""
        scene = self.decoder.scene(coords[None].expand(len(batch.rows), -1, -1))
        y = scene.project(batch.rotations, self.likelihood.box, self.likelihood.pixel_size)
        return self.likelihood.log_prob(batch.images, y, batch.ctf, batch.group)

    def posterior(self, feature_rows: Tensor) -> DiagonalGaussian:
        """q(z | x) from encoder input (B, F)."""
        return self.encoder(feature_rows)
