"""What an encoder sees of an image.

`image`: the particle itself, CTF-corrected and cut to the particle's window. `score`: the gradient of
the log-likelihood at the reference structure, pulled back to the model's frame, where it depends on pose
and CTF only through what the image says (EMAN2's e2gmm feeds its encoder the same way). `field`: the
matched-filter residual sampled on a coarse grid around the structure, for motions too large for a gradient.
"""

from __future__ import annotations

import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from cryoscape.models.likelihoods import Likelihood
from cryoscape.physics import fourier, gaussians


def pooling_matrix(n_residues: int, n_beads: int) -> Tensor:
    """Averages consecutive residues into at most `n_beads` beads, shape (beads, residues)."""
    n_beads = min(n_beads, n_residues)
    bead = torch.arange(n_residues) * n_beads // n_residues
    matrix = functional.one_hot(bead, n_beads).T.float()
    return matrix / matrix.sum(1, keepdim=True).sqrt()


def score_features(
    likelihood: Likelihood,
    images: Tensor,
    ctf: Tensor,
    group: Tensor,
    rotations: Tensor,
    coords: Tensor,
    weights: Tensor,
) -> Tensor:
    """Gradient of the log-likelihood with respect to every scattering point of a structure.

    Parameters
    ----------
    likelihood : Likelihood
        Its gain and noise spectra are used.
    images, ctf, group, rotations
        The batch.
    coords : Tensor, shape (P, 3)
        Scattering points at which the gradient is taken, world frame, Angstrom.
    weights : Tensor, shape (P,)
        Electrons, normalised as the decoder's.

    Returns
    -------
    Tensor, shape (B, P, 3)
        Nats per Angstrom, in the model's frame.
    """
    with torch.enable_grad():
        leaf = coords.expand(images.shape[0], -1, -1).clone().requires_grad_()
        y = gaussians.project_fourier(leaf, weights, rotations, likelihood.box, likelihood.pixel_size)
        residual = likelihood.score_residual(images, y.detach(), ctf, group)
        inner = (torch.view_as_real(residual) * torch.view_as_real(y)).sum()
        return torch.autograd.grad(inner, leaf)[0]


def field_grid(coords: Tensor, spacing: float, margin: float) -> Tensor:
    """Points of a cubic grid within `margin` of the structure, shape (M, 3), Angstrom."""
    coords = coords.cpu()
    low, high = coords.amin(0) - margin, coords.amax(0) + margin
    axes = [torch.arange(float(a), float(b) + spacing, spacing) for a, b in zip(low, high)]
    grid = torch.cartesian_prod(*axes).to(coords)
    # A tree, because the table of all distances of a large assembly takes gigabytes.
    distance, _ = cKDTree(coords.numpy()).query(grid.numpy(), distance_upper_bound=margin)
    return grid[torch.from_numpy(distance <= margin)]


def density_support(volume: Tensor, voxel_size: float, margin: float) -> Tensor:
    """Where a map has density, and `margin` A around it.

    The map is blurred to 15 A; density is what exceeds five median absolute deviations of the map, and a
    tenth of the strongest, inside the inscribed sphere.

    Parameters
    ----------
    volume : Tensor, shape (D, D, D)
        (z, y, x), any scale, protein positive.
    voxel_size : float
        Angstrom.
    margin : float
        Angstrom.

    Returns
    -------
    Tensor, shape (M, 3)
        Voxels (x, y, z), world frame, Angstrom.
    """
    box = len(volume)
    smooth = torch.from_numpy(gaussian_filter(volume.double().cpu().numpy(), 15.0 / 2.35 / voxel_size))
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) * voxel_size
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    sphere = x**2 + y**2 + z**2 < (box / 2 * voxel_size) ** 2
    values = smooth[sphere]
    spread = (values - values.median()).abs().median() * 1.4826
    dense = sphere & (smooth > torch.maximum(5 * spread, 0.1 * values.max()))
    far = torch.from_numpy(distance_transform_edt(~dense.numpy())) * voxel_size
    near = sphere & (far <= margin)
    return torch.stack([x[near], y[near], z[near]], dim=-1).float()


def spread_points(support: Tensor, voxel_size: float, spacing: float, limit: int) -> tuple[Tensor, float]:
    """A grid over the support of a density, widened until it has at most `limit` points.

    Returns
    -------
    points : Tensor, shape (K, 3)
    spacing : float
        Of the grid, Angstrom.
    """
    step = max(1, round(spacing / voxel_size))
    cells = (support / voxel_size).round().long()
    while True:
        keep = (cells % step == 0).all(dim=-1)
        if int(keep.sum()) <= limit:
            return support[keep], step * voxel_size
        step += 1


def field_features(
    likelihood: Likelihood,
    images: Tensor,
    ctf: Tensor,
    group: Tensor,
    rotations: Tensor,
    projections: Tensor,
    points: Tensor,
    blur: float,
) -> Tensor:
    """Log-likelihood gained by a unit of blurred density at each grid point, to first order.

    Parameters
    ----------
    projections : Tensor, shape (B, box, box // 2 + 1)
        Of the anchor, in the poses of the images.
    points : Tensor, shape (M, 3)
        World frame, Angstrom.
    blur : float
        Standard deviation of the probe density, Angstrom.
    likelihood, images, ctf, group, rotations
        As in `score_features`.

    Returns
    -------
    Tensor, shape (B, M)
    """
    box, pixel = likelihood.box, likelihood.pixel_size
    residual = likelihood.score_residual(images, projections, ctf, group)
    k2 = fourier.frequency_grid(box, pixel, device=images.device).square().sum(-1)
    # The residual carries the pair weight 2, which the inverse transform puts in by itself.
    field = fourier.inverse(residual * 0.5 * torch.exp(-2 * torch.pi**2 * blur**2 * k2), box)
    view = torch.matmul(points, rotations[:, :2].transpose(1, 2))
    # grid_sample's -1 .. 1 are the outer edges of the first and last pixel (align_corners=False).
    where = (2 * (view / pixel + box // 2) + 1) / box - 1
    return functional.grid_sample(
        field[:, None], where[:, None], mode="bilinear", padding_mode="zeros", align_corners=False
    )[:, 0, 0]


def image_features(
    likelihood: Likelihood, images: Tensor, ctf: Tensor, group: Tensor, side: int, phase_flip: bool = True
) -> Tensor:
    """The band-limited image, phase-flipped and whitened, cut to a window around the particle.

    Parameters
    ----------
    side : int
        Pixels of the window, even.
    phase_flip : bool
        False gives the image as it was recorded, as cryoSTAR's encoder sees it.
    likelihood, images, ctf, group
        As in `score_features`.

    Returns
    -------
    Tensor, shape (B, side * side)
    """
    noise = likelihood.noise[group][:, likelihood.shells].sqrt()
    inside = (likelihood.weights > 0).to(noise.dtype)
    factor = torch.sign(ctf) * inside / noise if phase_flip else inside
    real = fourier.inverse(images * factor, likelihood.box)
    start = likelihood.box // 2 - side // 2
    return real[:, start : start + side, start : start + side].flatten(1)
