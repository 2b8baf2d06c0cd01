"""Encoder features of all particles: kept where they fit, computed on demand where they do not."""

from __future__ import annotations

import torch
from torch import Tensor

from cryoscape.data.images import BandImages, ImageBatch
from cryoscape.models.image_model import ImageModel
from cryoscape.progress import ProgressReporter, reporter_or_silent


class FeatureTable:
    """Features by row.

    Parameters
    ----------
    model : ImageModel
        Its feature map is used as it stands when `build` is called.
    images : BandImages
    device : torch.device
    memory : float
        GiB up to which the table is kept.
    given : Tensor, optional, shape (N, F)
        The table itself, where nothing is to be computed.
    """

    def __init__(
        self,
        model: ImageModel,
        images: BandImages,
        device: torch.device,
        memory: float,
        given: Tensor | None = None,
    ) -> None:
        self._model, self._images, self._device = model, images, device
        self._keep = given is None and len(images) * model.feature_map.size * 4 <= memory * 2**30
        self._table = given

    def build(self, progress: ProgressReporter | None = None, chunk: int = 256) -> None:
        """Compute all features, if they are kept."""
        if not self._keep:
            return
        n = len(self._images)
        table = torch.empty(n, self._model.feature_map.size)
        with reporter_or_silent(progress).task("encoder features", n, "images") as task:
            for rows in torch.arange(n).split(chunk):
                batch = self._images.batch(rows).to(self._device)
                table[rows[0] : rows[-1] + 1] = self._model.features(batch).cpu()
                task.advance(len(rows))
        self._table = table

    def rows(self, batch: ImageBatch) -> Tensor:
        """Features (B, F) of a batch, on the device."""
        if self._table is None:
            return self._model.features(batch)
        return self._table[batch.rows.cpu()].to(self._device, non_blocking=True)

    def sample(self, n: int) -> Tensor:
        """Features of up to n particles, evenly spread over the table."""
        total = len(self._images)
        rows = torch.linspace(0, total - 1, min(n, total)).long()
        parts = [self.rows(self._images.batch(part).to(self._device)) for part in rows.split(256)]
        return torch.cat(parts)
