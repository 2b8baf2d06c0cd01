"""From Gaussian atoms to images: exact, separable, differentiable.

A rotated isotropic 3-D Gaussian projects to a 2-D Gaussian, which is a product of two 1-D ones, in
real space and in Fourier space alike. A sum over atoms is therefore one batched matrix product of
two thin tables, with no interpolation and no voxel grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TABLE_MEMORY = 256 * 2**20
"""Bytes that the sine and cosine tables of a projection may take; larger batches are done in pieces."""


def project_real(
    coords: Tensor,
    weights: Tensor,
    sigma: float,
    rotations: Tensor,
    box: int,
    pixel_size: float,
    shifts: Tensor | None = None,
) -> Tensor:
    """Images of a set of Gaussians in given poses, sampled in real space.

    I(y, x) = sum_n w_n / (2 pi sigma^2) exp(-((x - X_n)^2 + (y - Y_n)^2) / (2 sigma^2)),
    (X, Y) = (A r_n)_xy + t.

    Parameters
    ----------
    coords : Tensor, shape (B, N, 3) or (1, N, 3)
        Positions in the world frame (origin at the box centre), Angstrom.
    weights : Tensor, shape (N,)
        Integral of each Gaussian (electrons).
    sigma : float
        Standard deviation, Angstrom.
    rotations : Tensor, shape (B, 3, 3)
        From model to view.
    box : int
        Side of the image.
    pixel_size : float
        Angstrom.
    shifts : Tensor, shape (B, 2), optional
        (x, y) by which the image is moved, Angstrom.

    Returns
    -------
    Tensor, shape (B, box, box)
        Projected density per square Angstrom.
    """
    view = torch.matmul(coords, rotations[:, :2].transpose(1, 2).to(coords.dtype))
    if shifts is not None:
        view = view + shifts[:, None, :].to(coords.dtype)
    axis = (torch.arange(box, device=coords.device, dtype=coords.dtype) - box // 2) * pixel_size
    norm = (2 * torch.pi) ** 0.5 * sigma
    ex = torch.exp(-0.5 * ((axis - view[..., 0, None]) / sigma) ** 2) / norm
    ey = torch.exp(-0.5 * ((axis - view[..., 1, None]) / sigma) ** 2) / norm
    return torch.bmm(ey.transpose(1, 2) * weights, ex)


def voxelise(coords: Tensor, weights: Tensor, sigma: float, box: int, pixel_size: float) -> Tensor:
    """Density map of a set of Gaussians.

    Parameters
    ----------
    coords : Tensor, shape (N, 3)
        World frame, Angstrom.
    weights : Tensor, shape (N,)
        Integral of each Gaussian.
    sigma : float
        Angstrom.
    box : int
        Voxels a side, centre at box // 2.
    pixel_size : float
        Angstrom.

    Returns
    -------
    Tensor, shape (box, box, box)
        (z, y, x), density per cubic Angstrom.
    """
    axis = (torch.arange(box, device=coords.device, dtype=coords.dtype) - box // 2) * pixel_size
    norm = (2 * torch.pi) ** 0.5 * sigma
    ex, ey, ez = (torch.exp(-0.5 * ((axis - coords[:, i, None]) / sigma) ** 2) / norm for i in range(3))
    # Chunks over residues keep the (N, box * box) table small for large assemblies.
    volume = coords.new_zeros(box, box * box)
    for part in torch.arange(len(coords), device=coords.device).split(2048):
        plane = (ey[part, :, None] * ex[part, None, :]).reshape(len(part), -1)
        volume += (ez[part] * weights[part, None]).T @ plane
    return volume.reshape(box, box, box)


def _trig_table(angles: Tensor, n: int, amplitude: Tensor | None = None) -> Tensor:
    """W cos(m a) for m = 0 .. n - 1 above w sin(m a): (B, N) -> (B, 2 n, N).

    Built by doubling, (cos, sin)((m + s) a) from (cos, sin)(m a) and (cos, sin)(s a), which costs a few
    multiplications an entry where the library's sine costs tens; the error grows with log2(n) only.
    """
    table = angles.new_empty(angles.shape[0], 2 * n, angles.shape[1])
    cos, sin = table[:, :n], table[:, n:]
    cos[:, 0] = 1.0 if amplitude is None else amplitude
    sin[:, 0] = 0.0
    filled = 1
    while filled < n:
        step = min(filled, n - filled)
        cs, ss = torch.cos(filled * angles)[:, None], torch.sin(filled * angles)[:, None]
        torch.mul(cos[:, :step], cs, out=cos[:, filled : filled + step])
        cos[:, filled : filled + step].addcmul_(sin[:, :step], ss, value=-1)
        torch.mul(sin[:, :step], cs, out=sin[:, filled : filled + step])
        sin[:, filled : filled + step].addcmul_(cos[:, :step], ss)
        filled += step
    return table


class _FourierProjection(torch.autograd.Function):
    """Structure factor of points on the half-plane below Nyquist, by one real matrix product.

    With c_m, s_m the cosine and sine tables of the two axes, m = 0 .. box/2 - 1, the four products cc, ss,
    sc, cs give both signs of ky: Y(kx, +-ky) = (cc -+ ss) - i (cs +- sc).
    """

    @staticmethod
    def forward(ctx: Any, view: Tensor, weights: Tensor, box: int, step: float, dtype: torch.dtype) -> Tensor:
        n = box // 2
        ctx.step, ctx.n, ctx.dtype = step, n, dtype
        # Where the gradient in the weights is wanted, tables come without them: a weight may be zero.
        free = ctx.needs_input_grad[1]
        pieces = list(torch.arange(len(view)).split(_images_at_once(view, n, dtype)))
        out = torch.zeros(view.shape[0], box, n + 1, 2, dtype=view.dtype, device=view.device)
        tables: tuple[Tensor, ...] = ()
        for piece in pieces:
            here = slice(int(piece[0]), int(piece[-1]) + 1)
            some = _of(weights, here)
            tables = _tables(view[here], None if free else some, step, n, dtype)
            weighted = (tables[1] * some[..., None, :]).to(dtype) if free else tables[1]
            products = torch.bmm(weighted, tables[0].transpose(1, 2)).to(view.dtype)
            _half_plane(products, out[here])
        # Tables that came in pieces are too large to be kept: the gradient makes them again.
        ctx.save_for_backward(view, weights, *(tables if len(pieces) == 1 else ()))
        return torch.view_as_complex(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        view, weights, *kept = ctx.saved_tensors
        n, dtype = ctx.n, ctx.dtype
        parts = []
        at_once = len(view) if kept else _images_at_once(view, n, dtype)
        for piece in torch.arange(len(view)).split(at_once):
            here = slice(int(piece[0]), int(piece[-1]) + 1)
            some = _of(weights, here)
            free = ctx.needs_input_grad[1]
            tables = kept or _tables(view[here], None if free else some, ctx.step, n, dtype)
            parts.append(_table_gradients(grad[here], tables, some, ctx.step, ctx.needs_input_grad))
        grad_view, grad_weights = (None if column[0] is None else torch.cat(column) for column in zip(*parts))
        if grad_weights is not None and weights.dim() == 1:
            grad_weights = grad_weights.sum(0)
        return grad_view, grad_weights, None, None, None


def _of(weights: Tensor, images: slice) -> Tensor:
    """Weights (N,) or (B, N) of some of the images."""
    return weights if weights.dim() == 1 else weights[images]


def _images_at_once(view: Tensor, n: int, dtype: torch.dtype) -> int:
    """How many images' tables fit into `TABLE_MEMORY`, at least one."""
    each = 2 * 2 * n * view.shape[1] * torch.empty(0, dtype=dtype).element_size()
    return max(1, TABLE_MEMORY // max(each, 1))


def _tables(
    view: Tensor, weights: Tensor | None, step: float, n: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Tables (B, 2 n, N) of the x and y axis, the latter times the weights where given."""
    angles = 2 * torch.pi * step * view
    # The weights ride on the y table, where they cost one row instead of a pass over a table.
    tx, ty = _trig_table(angles[..., 0], n), _trig_table(angles[..., 1], n, weights)
    return tx.to(dtype), ty.to(dtype)


def _half_plane(products: Tensor, out: Tensor) -> None:
    """Put products of the tables (B, 2 n, 2 n) into coefficients (B, 2 n, n + 1, 2)."""
    n = products.shape[1] // 2
    cc, cs = products[:, :n, :n], products[:, :n, n:]
    sc, ss = products[:, n:, :n], products[:, n:, n:]
    # Rows 0 .. n - 1 are ky >= 0; row n is Nyquist; rows n + 1 .. box - 1 are ky = -(n - 1) .. -1.
    torch.sub(cc, ss, out=out[:, :n, :n, 0])
    torch.add(cs, sc, out=out[:, :n, :n, 1]).neg_()
    out[:, n + 1 :, :n, 0] = (cc + ss)[:, 1:].flip(1)
    out[:, n + 1 :, :n, 1] = (sc - cs)[:, 1:].flip(1)


def _table_gradients(
    grad: Tensor, tables: Sequence[Tensor], weights: Tensor, step: float, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients in the view (B, N, 2) and in the weights (B, N), from that of the coefficients.

    The tables are without the weights if the gradient in these is needed, and hold them otherwise.
    """
    tx, ty = tables
    g = _product_gradient(grad, tx.shape[1] // 2)
    grad_view = grad_weights = None
    if needed[0]:
        # d cos(m a) = -m sin(m a), d sin(m a) = m cos(m a): rows of g are swapped and scaled first,
        # which is cheaper than doing so to the tables.
        scale = 2 * torch.pi * step
        grad_x = _contract(_turned(g.transpose(1, 2), scale), ty, tx)
        if not needed[1]:
            grad_y = _contract(_turned(g, scale), tx, ty)
            return torch.stack([grad_x, grad_y], dim=-1), None
    # One product serves both the weights and y.
    h = torch.bmm(g.to(tx.dtype), tx)
    grad_weights = (ty * h).sum(1).to(g.dtype)
    if needed[0]:
        n = g.shape[1] // 2
        order = torch.arange(n, dtype=g.dtype, device=g.device) * scale
        crossed = torch.addcmul(ty[:, :n] * h[:, n:], ty[:, n:], h[:, :n], value=-1)
        grad_y = torch.matmul(order.to(crossed.dtype), crossed).to(g.dtype)
        grad_view = torch.stack([grad_x, grad_y], dim=-1) * weights[..., None]
    return grad_view, grad_weights


def _contract(g: Tensor, table: Tensor, other: Tensor) -> Tensor:
    """Sum over m of other_m (g @ table)_m, shape (B, N), in the precision of g."""
    return (other * torch.bmm(g.to(table.dtype), table)).sum(1).to(g.dtype)


def _product_gradient(grad: Tensor, n: int) -> Tensor:
    """Gradient of the table product (B, 2 n, 2 n) from that of the coefficients (B, 2 n, n + 1)."""
    real, imag = torch.view_as_real(grad)[:, :, :n].unbind(-1)
    up_r, up_i = real[:, :n], imag[:, :n]
    zero = torch.zeros_like(up_r[:, :1])
    down_r, down_i = (torch.cat([zero, part[:, n + 1 :].flip(1)], dim=1) for part in (real, imag))
    cosines = torch.cat([up_r + down_r, -up_i - down_i], dim=2)
    sines = torch.cat([down_i - up_i, down_r - up_r], dim=2)
    return torch.cat([cosines, sines], dim=1)


def _turned(g: Tensor, scale: float) -> Tensor:
    """Rows (cos block, sin block) -> scale * m * (sin block, -cos block), for the derivative in the angle."""
    n = g.shape[1] // 2
    order = torch.arange(n, dtype=g.dtype, device=g.device)[:, None] * scale
    return torch.cat([g[:, n:] * order, g[:, :n] * -order], dim=1)


def project_fourier(
    coords: Tensor, weights: Tensor, rotations: Tensor, box: int, pixel_size: float
) -> Tensor:
    """Structure factor of points in given poses: the Fourier slice of a sum of delta functions.

    Y(k) = sum_n w_n exp(-2 pi i k . (A r_n)_xy)

    The Gaussian envelope exp(-2 pi^2 sigma^2 k^2) and every radial factor are left to the caller, who
    multiplies them into the transfer function once. Exact: no sampling, no aliasing.

    Parameters
    ----------
    coords : Tensor, shape (B, N, 3) or (1, N, 3)
        World frame, Angstrom.
    weights : Tensor, shape (N,), (B, N) or (1, N)
        Scattering weight of each point, zero where it is absent.
    rotations : Tensor, shape (B, 3, 3)
        From model to view.
    box : int
        Even side of the box.
    pixel_size : float
        Angstrom.

    Returns
    -------
    Tensor, shape (B, box, box // 2 + 1)
        Complex, in the layout of `fourier.forward`. The value at k = 0 is the sum of the weights. The Nyquist
        row and column, whose sign a sampled image does not tell, are zero. Under `torch.autocast` the
        products of the tables run in its type (bfloat16 rounds each term by 0.4 % at most, far below the
        noise of an image); positions and phases are never rounded.

    Raises
    ------
    ValueError
        If the box is odd.
    """
    if box % 2:
        raise ValueError(f"the Fourier projection needs an even box, got {box}")
    device = coords.device.type
    product = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else coords.dtype
    with torch.autocast(device, enabled=False):
        view = torch.matmul(coords, rotations[:, :2].transpose(1, 2).to(coords.dtype))
        step = 1.0 / (box * pixel_size)
        weights = weights.to(coords.dtype)
        # One structure in many poses.
        weights = weights.expand(len(view), -1) if weights.dim() == 2 else weights
        return _FourierProjection.apply(view, weights, box, step, product)
