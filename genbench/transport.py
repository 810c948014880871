"""Sliced transport: squared 2-Wasserstein distances of projections, their bias and their variance (metrics/sliced_wasserstein.py, mind.py).

Every projection is a line; both samples' quantile functions are steps, merged at all their ends, so that unequal sizes are exact.
"""

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from genbench.estimate import Estimate, Undefined
from genbench.numerics import TILE, Float, first_order, student95
from genbench.statistics import Features

FOLDS = 4  # of the debiased value: its second-order noise is FOLDS/(FOLDS − 1) of the smallest possible
SPREAD = 32  # parts at most behind the second-order variance
ROWS = 10  # of a part at least
LINES = 64  # projected at a time


@dataclass(frozen=True)
class Sliced:
    """The mean over directions of the squared distance along them.

    Args:
        values: (L,) plug-in values per direction.
        debiased: the debiased mean; None below 4 FOLDS samples on a side.
        interval: ends for the plug-in mean, and for the debiased one; None below 4 ROWS samples on a side.
        influence: of the rows of gen and ref.
        degenerate: second-order variance.
    """

    values: NDArray[np.float64]
    debiased: float | None
    interval: tuple[tuple[float, float], tuple[float, float]] | None
    influence: dict[str, NDArray[np.float64]]
    degenerate: float

    @property
    def value(self) -> float:
        """Plug-in mean."""
        return float(self.values.mean())


def sliced(gen: Float, ref: Float, u: Float) -> Sliced:
    """Transport along the lines u, with the interval that metrics/sliced_wasserstein.py describes.

    Args:
        gen: (n, d).
        ref: (m, d).
        u: (L, d) unit vectors.
    """
    n, m, lines = len(gen), len(ref), len(u)
    smallest = min(n, m)
    parts = min(smallest // ROWS, SPREAD)
    centre = ref.mean(axis=0, dtype=np.float64)
    values, phi, psi = np.empty(lines), np.zeros(n), np.zeros(m)
    total, gram = 0.0, np.zeros((parts, parts))
    for a in range(0, lines, LINES):
        x, y = _projected(gen, centre, u[a : a + LINES]), _projected(ref, centre, u[a : a + LINES])  # (LINES, rows)
        values[a : a + LINES] = _plug_in(x, y, phi, psi)
        total += _cross(x, y) if smallest >= 4 * FOLDS else 0.0
        gram += _gram(x, y, parts) if smallest >= 4 * ROWS else 0.0
    phi, psi = (phi - phi.mean()) / lines, (psi - psi.mean()) / lines
    debiased = total / (lines * FOLDS * (FOLDS - 1)) if smallest >= 4 * FOLDS else None
    influence = {"gen": phi, "ref": psi}
    if smallest < 4 * ROWS or debiased is None:
        return Sliced(values, debiased, None, influence, 0.0)
    value = float(values.mean())
    v1, freedom = first_order((phi, n), (psi, m))
    v2, z = _second(gram / lines, parts), student95(freedom)
    slope = v1 / value if value > 0 else 0.0  # the variance grows with the distance: that skews it to the right
    excess, shift = FOLDS / (FOLDS - 1), slope * (z * z + 1) / 4
    ends = []
    for point, least, variance in (
        (value, 0.6 * max(value - debiased, 0.0), max(v1 - v2, v2)),
        (debiased, 0.0, max(v1 + (excess - 2) * v2, excess * v2)),
    ):
        half = z * float(np.sqrt(variance + slope**2 / 4))
        ends.append((min(max(point + shift - half, min(point, least)), point), point + shift + half))
    return Sliced(values, debiased, (ends[0], ends[1]), influence, v2)


def refused(gen: Features, ref: Features) -> Undefined | None:
    """Why there is no transport between two samples; None where there is."""
    if min(len(gen), len(ref)) < 1:
        return Undefined(f"needs at least 1 sample on each side, found {len(gen)} and {len(ref)}")
    if max(float(np.abs(f.x).max()) for f in (gen, ref)) > 1e70:  # the second-order variance holds fourth powers
        return Undefined("the features are too large for float64: their fourth powers overflow; rescale them")
    return None


def estimates(
    found: Sliced, gen: Features, ref: Features, notes: tuple[str, ...], *, scale: float = 1.0, whole: bool = True
) -> tuple[Estimate | Undefined, ...]:
    """The plug-in mean and the debiased one as estimates.

    Args:
        found: from `sliced`.
        gen: generated features as they were given.
        ref: reference features as they were given.
        notes: of both.
        scale: factor on the distance.
        whole: whether `found` is of all rows, so that its influences are theirs.
    """
    n, m = len(gen), len(ref)
    points = (found.value, found.debiased)
    if found.interval is None:
        notes += (f"no interval: {min(n, m)} samples",)
        small = Undefined(f"needs at least {4 * FOLDS} samples on each side, found {n} and {m}")
        return tuple(small if point is None else Estimate(scale * point, None, None, n, None, notes=notes) for point in points)
    influence = {role: scale * h for role, h in found.influence.items()} if whole else None
    degenerate = scale**2 * found.degenerate
    return tuple(
        Estimate(
            scale * point, scale * low, scale * high, n, "transport potentials", notes=notes, influence=influence, degenerate=degenerate
        )
        for point, (low, high) in zip(points, found.interval, strict=True)
        if point is not None
    )


def _projected(x: Float, centre: Float, u: Float) -> NDArray[np.float64]:
    """(L, n) projections in rows of their own."""
    out = np.empty((len(u), len(x)))
    for a in range(0, len(x), TILE):
        out[:, a : a + TILE] = u @ (x[a : a + TILE].astype(np.float64) - centre).T
    return out


@dataclass(frozen=True)
class _Steps:
    """Two step functions on [0, 1] with n and m equal steps, merged.

    Args:
        i: step of the first in every merged piece.
        j: step of the second.
        weight: length of the piece.
    """

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    weight: NDArray[np.float64]

    @classmethod
    def of(cls, n: int, m: int) -> "_Steps":
        """In whole numbers: ends at multiples of m/g and n/g of 1/lcm(n, m)."""
        g = gcd(n, m)
        first, second = m // g, n // g  # lengths of the steps
        ends = np.union1d(np.arange(1, n + 1) * first, np.arange(1, m + 1) * second)
        starts = np.concatenate([[0], ends[:-1]])
        return cls(starts // first, starts // second, (ends - starts) / ends[-1])


def _plug_in(x: Float, y: Float, phi: NDArray[np.float64], psi: NDArray[np.float64]) -> NDArray[np.float64]:
    """Plug-in distance along every line; both sides' potentials are added to phi and psi."""
    steps = _Steps.of(x.shape[1], y.shape[1])
    first_i, first_j = (np.flatnonzero(np.diff(k, prepend=-1)) for k in (steps.i, steps.j))
    values = np.empty(len(x))
    for line in range(len(x)):
        order_x, order_y = np.argsort(x[line]), np.argsort(y[line])
        a, b = x[line, order_x][steps.i], y[line, order_y][steps.j]
        values[line] = steps.weight @ (a - b) ** 2
        # φ_i + ψ_j = (x_i − y_j)² along the merged pieces; where both step at once, the mean of the two ways round.
        slope = a[1:] + a[:-1] - b[1:] - b[:-1]
        phi[order_x] += np.concatenate([[0.0], np.cumsum(np.diff(a) * slope)])[first_i]
        psi[order_y] -= np.concatenate([[0.0], np.cumsum(np.diff(b) * slope)])[first_j]
    return values


def _parts(x: Float, parts: int, size: int) -> NDArray[np.float64]:
    """(L, parts, size) sorted: disjoint parts, every one with its even share of any run of rows."""
    return np.sort(x[:, : parts * size].reshape(len(x), size, parts).transpose(0, 2, 1), axis=2)


def _cross(x: Float, y: Float) -> float:
    """Σ over lines of Σ_{a≠b} ⟨D̃_a, D̃_b⟩."""
    half = min(x.shape[1], y.shape[1]) // (2 * FOLDS)
    total = 0.0
    for line in range(len(x)):
        d = _quantiles(x[line], half) - _quantiles(y[line], half)  # (FOLDS, 2 half)
        total += float((d.sum(axis=0) ** 2 - (d**2).sum(axis=0)).mean())
    return total


def _quantiles(x: Float, half: int) -> NDArray[np.float64]:
    """(FOLDS, 2 half) quantile functions 2 Q − (mean over halves) of disjoint parts of a line's values.

    Steps have the same bias on both sides only where both have the same number of them: a larger part is covered by blocks of the
    smaller part's size, which overlap as little as they can, and the blocks' functions are averaged.
    """
    part = len(x) // FOLDS
    blocks = -(-part // (2 * half))
    rows = x[: part * FOLDS].reshape(part, FOLDS).T
    starts = np.linspace(0, part - 2 * half, blocks).astype(np.int64)
    out = np.zeros((FOLDS, 2 * half))
    for start in starts:
        block = rows[:, start : start + 2 * half]
        whole = np.sort(block, axis=1)
        halves = np.sort(block.reshape(FOLDS, half, 2), axis=1).mean(axis=2)
        out += 2 * whole - np.repeat(halves, 2, axis=1)
    return out / blocks


def _gram(x: Float, y: Float, parts: int) -> NDArray[np.float64]:
    """Σ over lines of the inner products of the quantile functions' difference in disjoint parts, less their mean."""
    steps = _Steps.of(x.shape[1] // parts, y.shape[1] // parts)
    gram = np.zeros((parts, parts))
    for line in range(len(x)):
        px, py = (_parts(z[line : line + 1], parts, z.shape[1] // parts)[0] for z in (x, y))
        d = px[:, steps.i] - py[:, steps.j]
        d -= d.mean(axis=0)
        gram += (d * steps.weight) @ d.T
    return gram


def _second(gram: NDArray[np.float64], parts: int) -> float:
    """2 tr K², K the covariance of the quantile functions' difference at the full sizes, from their inner products per line."""
    cov = gram / (parts - 1)  # shares its eigenvalues with the sample covariance
    square = float((cov**2).sum()) - float(np.trace(cov)) ** 2 / (parts - 1)
    # unbiased for tr K² of Gaussian parts (Bai & Saranadasa 1996, eq. 3.7), and never below what the trace's share allows
    unbiased = (parts - 1) ** 2 / ((parts - 2) * (parts + 1)) * square
    return 2 * max(unbiased, 0.0) / parts**2
