"""Resizing in named modes: the only file that resizes or rescales pixels.

The same images at the same size through another resize give another score (by 4 to 8 grey levels on average, Parmar et al.
2022), so the mode is part of a protocol.

| mode       | resize                                                | scaling         | as in                          |
|------------|-------------------------------------------------------|-----------------|--------------------------------|
| `clean`    | bicubic (a = -1/2), antialiased, floats per channel   | (x - 128) / 128 | clean-fid (Parmar et al. 2022) |
| `tf1`      | bilinear, no half-pixel centres, not antialiased      | (x - 128) / 128 | TTUR (Heusel et al. 2017), torch-fidelity |
| `torch`    | bilinear, half-pixel centres, not antialiased         | x / 127.5 - 1   | pytorch-fid                    |
| `torch-aa` | bilinear, half-pixel centres, antialiased             | (x - 128) / 128 | torchmetrics (antialias=True)  |

All four are separable: an image B becomes W_h B W_wᵀ with one weight matrix per axis, made in float64 and applied in float32.
A weight matrix is banded, so it is applied in blocks of rows that see only their own band: the work grows with the output and
the width of the filter, not with the product of both sizes.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genbench.errors import near_miss

if TYPE_CHECKING:
    import torch

MODES = ("clean", "tf1", "torch", "torch-aa")


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic kernel with a = -1/2 (Keys 1981, eq. 4), the one that PIL calls BICUBIC; support 2."""
    x, a = np.abs(x), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The kernel of linear interpolation; support 1."""
    return np.maximum(1 - np.abs(x), 0.0)


def _antialiased(n_in: int, n_out: int, cubic: bool) -> NDArray[np.float64]:
    """PIL's weights: the kernel stretched by the scale when an axis shrinks, its taps cut at the border and normalised to 1."""
    scale = n_in / n_out
    stretch = max(scale, 1.0)
    support = (2.0 if cubic else 1.0) * stretch
    centre = (np.arange(n_out) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)  # (n_out,)
    last = np.minimum((centre + support + 0.5).astype(np.int64), n_in)
    at = np.arange(n_in)
    w = (_cubic if cubic else _triangle)((at[None] - centre[:, None] + 0.5) / stretch)
    w[(at[None] < first[:, None]) | (at[None] >= last[:, None])] = 0
    return w / w.sum(axis=1, keepdims=True)


def _bilinear(n_in: int, n_out: int, half_pixel: bool) -> NDArray[np.float64]:
    """Two taps per output. The positions are rounded to float32 as the references round them: at 256 px that moves a level by 0.004."""
    scale = np.float32(n_in / n_out)
    i = np.arange(n_out, dtype=np.float32)
    if half_pixel:
        position = np.maximum(scale * (i + np.float32(0.5)) - np.float32(0.5), np.float32(0))
    else:
        position = i * scale
    low = np.minimum(position.astype(np.int64), n_in - 1)
    high = np.minimum(low + 1, n_in - 1)
    part = np.clip((position - low.astype(np.float32)).astype(np.float64), 0.0, 1.0)
    w = np.zeros((n_out, n_in))
    rows = np.arange(n_out)
    w[rows, low] += 1 - part
    w[rows, high] += part
    return w


@lru_cache(maxsize=64)
def weights(mode: str, n_in: int, n_out: int) -> NDArray[np.float64]:
    """The weight matrix of one axis; each row sums to 1.

    Args:
        mode: one of MODES.
        n_in: length of the axis.
        n_out: length that it becomes.

    Returns:
        (n_out, n_in) float64, not to be written to.

    Raises:
        UsageError: an unknown mode.

    Example:
        >>> weights("tf1", 2, 4)
        array([[1. , 0. ],
               [0.5, 0.5],
               [0. , 1. ],
               [0. , 1. ]])
    """
    if mode not in MODES:
        raise near_miss(mode, MODES, "preprocessing mode")
    w = _antialiased(n_in, n_out, mode == "clean") if mode in ("clean", "torch-aa") else _bilinear(n_in, n_out, mode == "torch")
    w.setflags(write=False)
    return w


@lru_cache(maxsize=64)
def _blocks(mode: str, n_in: int, n_out: int, device: str) -> "tuple[tuple[int, int, int, int, torch.Tensor], ...]":
    """The weight matrix as blocks (first row, last row, first column, last column, weights (rows, columns) float32) without its zeros."""
    import torch

    w, blocks = weights(mode, n_in, n_out), []
    step = 32 if n_in <= 128 else 16  # the faster ones when measured; one dense matrix is as fast at 32 px and 4 times slower at 256 px
    for a in range(0, n_out, step):
        b = min(a + step, n_out)
        used = np.flatnonzero(w[a:b].any(axis=0))
        lo, hi = int(used[0]), int(used[-1]) + 1
        blocks.append((a, b, lo, hi, torch.from_numpy(w[a:b, lo:hi].astype(np.float32)).to(device)))
    return tuple(blocks)


def resize(images: "torch.Tensor", size: tuple[int, int], mode: str) -> "torch.Tensor":
    """Images of another size, in grey levels.

    Args:
        images: (n, c, h, w) uint8 or float32, levels in [0, 255], on any device.
        size: (height, width) that they get.
        mode: one of MODES.

    Returns:
        (n, c, *size) float32 in [0, 255], not rounded to whole levels.

    Raises:
        UsageError: an unknown mode.

    References:
        Parmar, Zhang, Zhu 2022, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation"; Heusel et al. 2017.
    """
    import torch

    if mode not in MODES:
        raise near_miss(mode, MODES, "preprocessing mode")
    n, c, h, w = images.shape
    height, width = size
    device = str(images.device)
    x = images.to(torch.float32)
    if w != width:
        wide = torch.empty((n * c * h, width), device=x.device)
        rows = x.reshape(n * c * h, w)
        for a, b, lo, hi, block in _blocks(mode, w, width, device):
            torch.mm(rows[:, lo:hi], block.T, out=wide[:, a:b])
        x = wide.view(n, c, h, width)
    if h != height:
        tall = torch.empty((n * c, height, width), device=x.device)
        planes = x.reshape(n * c, h, width)
        for a, b, lo, hi, block in _blocks(mode, h, height, device):
            torch.matmul(block, planes[:, lo:hi], out=tall[:, a:b])
        x = tall.view(n, c, height, width)
    return x.clamp_(0, 255) if mode == "clean" and (h, w) != size else x


def rescale(levels: "torch.Tensor", mode: str) -> "torch.Tensor":
    """Grey levels in [0, 255] scaled to about [-1, 1] for the Inception network, as the mode's reference does (see the table above).

    Args:
        levels: float32.
        mode: one of MODES.
    """
    return levels.div(127.5).sub_(1) if mode == "torch" else levels.sub(128).div_(128)


def standardise(levels: "torch.Tensor", mean: tuple[float, float, float], std: tuple[float, float, float]) -> "torch.Tensor":
    """(levels / 255 - mean) / std per channel, for networks trained that way.

    Args:
        levels: (n, 3, h, w) float32 in [0, 255].
        mean: of the training images in [0, 1].
        std: of the training images in [0, 1].
    """
    m = levels.new_tensor([255 * v for v in mean])[:, None, None]
    s = levels.new_tensor([255 * v for v in std])[:, None, None]
    return (levels - m) / s
