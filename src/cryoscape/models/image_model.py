"""Encoder, decoder and likelihood as one module: the generative model of the images and its inverse."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cryoscape.data.images import ImageBatch
from cryoscape.models import features
from cryoscape.models.decoders.base import AtomicScene, Decoder, Scene
from cryoscape.models.encoders import Encoder, GivenPosterior
from cryoscape.models.likelihoods import Likelihood
from cryoscape.models.posteriors import Posterior


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
    spacing : float
        Grid of the field features, Angstrom.
    """

    kinds: tuple[str, ...]
    window: int
    phase_flip: bool = True
    max_beads: int = 512
    spacing: float = 8.0


class FeatureMap(nn.Module):
    """Features of a batch, taken at an anchor: a structure or a map.

    Parameters
    ----------
    settings : FeatureSettings
    anchor : Tensor
        The first anchor: an object of the decoder, usually its reference.
    likelihood : Likelihood
        Its gain and noise spectra are copied: features keep their meaning while the model's own spectra move.
    points : Tensor, shape (M, 3), optional
        Where the field features are taken, world frame, Angstrom.
    """

    anchor: Tensor
    pooling: Tensor
    points: Tensor

    def __init__(
        self,
        settings: FeatureSettings,
        anchor: Tensor,
        likelihood: Likelihood,
        points: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.likelihood = copy.deepcopy(likelihood)
        self.register_buffer("anchor", anchor.clone())
        beads = len(anchor) if "score" in settings.kinds else 1
        self.register_buffer("pooling", features.pooling_matrix(beads, settings.max_beads), persistent=False)
        self.register_buffer("points", torch.zeros(0, 3) if points is None else points, persistent=False)

    @property
    def size(self) -> int:
        """Length of the feature vector."""
        sizes = {"image": self.settings.window**2, "score": 3 * len(self.pooling), "field": len(self.points)}
        return sum(sizes[kind] for kind in self.settings.kinds)

    def take_anchor(self, anchor: Tensor, likelihood: Likelihood) -> None:
        """Move the anchor to another object and take over the current gain and noise."""
        self.anchor.copy_(anchor)
        self.likelihood.load_state_dict(likelihood.state_dict())

    def forward(self, batch: ImageBatch, scene: Scene) -> Tensor:
        """Features (B, size) of a batch, without gradient; `scene` is that of the anchor."""
        args = (self.likelihood, batch.images, batch.ctf, batch.group)
        with torch.no_grad():
            return torch.cat(
                [self._of_kind(kind, args, batch.rotations, scene) for kind in self.settings.kinds], 1
            )

    def _of_kind(
        self, kind: str, args: tuple[Likelihood, Tensor, Tensor, Tensor], rotations: Tensor, scene: Scene
    ) -> Tensor:
        settings = self.settings
        if kind == "image":
            return features.image_features(*args, settings.window, settings.phase_flip)
        if kind == "field":
            likelihood = args[0]
            projections = scene.project(rotations, likelihood.box, likelihood.pixel_size)
            return features.field_features(*args, rotations, projections, self.points, settings.spacing / 3)
        assert isinstance(scene, AtomicScene)
        scatterers = scene.scatterers
        points = scatterers(scene.coords)[0]
        score = features.score_features(*args, rotations, points, scene.point_weights)
        score = scatterers.per_residue(score, len(self.anchor))
        if len(self.pooling) < score.shape[1]:
            score = torch.einsum("kn,bni->bki", self.pooling, score)
        return score.flatten(1)


class ImageModel(nn.Module):
    """Everything that is learnt from the images, except the prior.

    Parameters
    ----------
    feature_map : FeatureMap
    encoder : Encoder
    decoder : Decoder
    likelihood : Likelihood
    """

    def __init__(
        self,
        feature_map: FeatureMap,
        encoder: Encoder | GivenPosterior,
        decoder: Decoder,
        likelihood: Likelihood,
    ) -> None:
        super().__init__()
        self.feature_map = feature_map
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood

    def features(self, batch: ImageBatch) -> Tensor:
        """Encoder input of a batch, shape (B, F)."""
        return self.feature_map(batch, self.decoder.scene(self.feature_map.anchor[None]))

    def project(self, z: Tensor, batch: ImageBatch) -> Tensor:
        """Predicted Fourier projections of latents (B, d) in the poses of a batch."""
        scene = self.decoder(z)
        return scene.project(batch.rotations, self.likelihood.box, self.likelihood.pixel_size)

    def log_likelihood(self, z: Tensor, batch: ImageBatch) -> Tensor:
        """Log p(x | z) over pure noise, shape (B,), nats."""
        return self.likelihood.log_prob(batch.images, self.project(z, batch), batch.ctf, batch.group)

    def scene_log_likelihood(self, scene: Scene, batch: ImageBatch) -> Tensor:
        """Log p(x | one fixed scene) over pure noise, shape (B,), nats."""
        y = scene.project(batch.rotations, self.likelihood.box, self.likelihood.pixel_size)
        return self.likelihood.log_prob(batch.images, y, batch.ctf, batch.group)

    def posterior(self, feature_rows: Tensor) -> Posterior:
        """q(z | x) from encoder input (B, F)."""
        return self.encoder(feature_rows)
