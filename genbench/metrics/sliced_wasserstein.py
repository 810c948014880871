"""Sliced Wasserstein distance."""

from dataclasses import dataclass
from math import gcd, inf

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import TILE, Float, student95
from genbench.statistics import Features

FOLDS = 4  # of the debiased value: its second-order noise is FOLDS/(FOLDS − 1) of the smallest possible
SPREAD = 32  # parts at most behind the second-order variance
ROWS = 10  # of a part at least


@metric(
    Quantity("sliced_wasserstein", "lower", unit="feature²", range=(0, inf)),
    Quantity("sliced_wasserstein_debiased", "lower", unit="feature²", ideal=0.0, placed=True),
    cost="directions (n d + n log n)",
    source="Bonneel et al. 2015, section 3; Deshpande et al. 2018",
)
def sliced_wasserstein(ref: Features, gen: Features, *, directions: int = 128, seed: int = 0) -> tuple[Outcome, ...]:
    """Mean over directions of the squared 2-Wasserstein distance of the projections, between samples of any two sizes.

        SW² = 1/L Σ_l ∫₀¹ (F_l⁻¹(t) − G_l⁻¹(t))² dt        F_l, G_l: empirical laws of u_l·x over gen and of u_l·y over ref

    The L unit vectors u_l form orthonormal frames, so that a shift by v reads |v|²/d exactly where d <= L. They are fixed by the seed
    and a part of the quantity. The integral is exact for unequal sizes: both quantile functions are steps, merged at all their ends.

    The plug-in value is biased upwards by about 1/n. The debiased one has four disjoint parts of each side, each with the quantile
    function D̃ = 2 D − (mean over its two halves) of gen less ref, and is Σ_{a≠b} ⟨D̃_a, D̃_b⟩/12: the parts are independent, so that equal
    laws read 0 on average, and the halves remove the bias of order 1/n elsewhere.

    Interval: value + c (t² + 1)/4 ± t sqrt(v + c²/4) with v = max(v1 − v2, v2) for the plug-in value (for its expectation at these
    sizes) and max(v1 − ⅔ v2, 4/3 v2) for the debiased one. v1 = Var(φ)/n + Var(ψ)/m with the Kantorovich potentials, φ' = 2 (x − T(x)),
    averaged over directions: the first-order variance and, where the laws are close, 2 v2 of noise. v2 = 2 tr K² is the second-order
    variance, K the covariance of the quantile functions' difference, from up to 32 disjoint parts. c = v1/SW² is how fast the variance
    grows with the distance, which skews it to the right; t has the degrees of freedom that the potentials' kurtosis leaves. The lower
    end is not below 0 (the plug-in value's: not below 0.6 of its bias), or else it is the value.

    Args:
        ref: reference features (m, d).
        gen: generated features (n, d).
        directions: L; rounded up to whole frames where d < L, and 1 for d = 1.
        seed: of the directions.

    Returns:
        The squared distance in [0, ∞), whose expectation grows as the samples shrink, so that only equal sizes compare; and the debiased
        one in (−∞, ∞), 0 on average for equal laws, slightly negative values are usual for close ones. Both in squared units of the
        features, lower is better. A note tells how much other directions would move them. No interval below 40 samples on either side,
        no debiased value below 16; it leaves out up to 7 rows of a side.

    Note:
        Sees marginals along lines only: in many dimensions a defect in a few features is divided by d. Not divided by the spread of the
        features, so values compare within one extractor only. The distance itself, as some tools print, is the root. Heavy tails (no
        finite fourth moment) make the interval too narrow. MIND (Berthet et al., 2026) also is built on a sliced distance of Inception
        features; no equality with its scale is claimed.

    References:
        Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015), section 3.
        Generative Modeling Using the Sliced Wasserstein Distance (Deshpande et al., 2018).
        Orthogonal Estimation of Wasserstein Distances (Rowland et al., 2019): orthonormal directions.
        Central Limit Theorems for General Transportation Costs (del Barrio, González-Sanz & Loubes, 2024): variance of the potentials.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> found, debiased = sliced_wasserstein.function(Features(x), Features(x + [3.0, 0.0, 0.0]))
        >>> round(found.value, 9)
        3.0
    """
    if directions < 1:
        raise UsageError(f"sliced_wasserstein needs directions >= 1, found {directions}")
    n, m = len(gen), len(ref)
    smallest = min(n, m)
    if smallest < 1:
        return (Undefined(f"needs at least 1 sample on each side, found {n} and {m}"),) * 2
    if max(float(np.abs(f.x).max()) for f in (gen, ref)) > 1e70:  # v2 holds fourth powers
        return (Undefined("the features are too large for float64: their fourth powers overflow; rescale them"),) * 2
    u, frame = _directions(gen.d, directions, seed)
    centre = ref.x.mean(axis=0, dtype=np.float64)
    x, y = _projected(gen.x, centre, u), _projected(ref.x, centre, u)  # (directions, rows)
    plug = _plug_in(x, y)
    value = float(plug.values.mean())
    notes: tuple[str, ...] = ()
    if len(u) > 1:
        units = plug.values[: len(u) // frame * frame].reshape(-1, frame).mean(axis=1) if len(u) >= 2 * frame else plug.values
        notes += (f"the choice of the {len(u)} directions has a standard error of {units.std(ddof=1) / np.sqrt(len(units)):.2g}",)
    influence = {"gen": plug.phi, "ref": plug.psi}
    debiased = _debiased(x, y) if smallest >= 4 * FOLDS else None
    if smallest < 4 * ROWS:
        few = (*notes, f"no interval: {smallest} samples")
        return (
            Estimate(value, None, None, n, None, notes=few),
            Undefined(f"needs at least {4 * FOLDS} samples on each side, found {n} and {m}")
            if debiased is None
            else Estimate(debiased, None, None, n, None, notes=few),
        )
    assert debiased is not None
    v1, freedom = _first(plug.phi, plug.psi)
    v2, z = _second(x, y), student95(freedom)
    slope = v1 / value if value > 0 else 0.0  # the variance grows with the distance: that skews it to the right
    excess, shift = FOLDS / (FOLDS - 1), slope * (z * z + 1) / 4
    out = []
    for point, least, variance in (
        (value, 0.6 * max(value - debiased, 0.0), max(v1 - v2, v2)),
        (debiased, 0.0, max(v1 + (excess - 2) * v2, excess * v2)),
    ):
        half = z * float(np.sqrt(variance + slope**2 / 4))
        low = max(point + shift - half, min(point, least))
        high = point + shift + half
        out.append(Estimate(point, min(low, point), high, n, "transport potentials", notes=notes, influence=influence, degenerate=v2))
    return tuple(out)


def _first(phi: Float, psi: Float) -> tuple[float, float]:
    """Var(φ)/n + Var(ψ)/m, and the degrees of freedom that the fourth moments leave to it."""
    parts = [(float(h.var(ddof=1)) / len(h), len(h), _kurtosis(h)) for h in (phi, psi)]
    v1 = sum(v for v, _, _ in parts)
    noise = sum(v**2 * (k - 1) / n for v, n, k in parts)
    return v1, max(2 * v1**2 / noise, 4.0) if noise > 0 else 1e9


def _kurtosis(h: Float) -> float:
    """Fourth standardised moment, at least 1; 1 for a constant."""
    centred = h - h.mean()
    variance = float((centred**2).mean())
    return float((centred**4).mean()) / variance**2 if variance > 0 else 1.0


def _directions(d: int, count: int, seed: int) -> tuple[Float, int]:
    """Unit vectors (L, d) in orthonormal frames, and the size of a frame."""
    if d == 1:
        return np.ones((1, 1)), 1
    rng = np.random.default_rng(seed)
    frame = min(d, count)
    return np.concatenate([np.linalg.qr(rng.standard_normal((d, frame)))[0].T for _ in range(-(-count // frame))]), frame


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


@dataclass(frozen=True)
class _PlugIn:
    """Plug-in transport along every direction.

    Args:
        values: (L,) squared distances.
        phi: (n,) centred potentials of the first side's rows, mean over directions.
        psi: (m,) of the second side's.
    """

    values: NDArray[np.float64]
    phi: NDArray[np.float64]
    psi: NDArray[np.float64]


def _plug_in(x: Float, y: Float) -> _PlugIn:
    steps = _Steps.of(x.shape[1], y.shape[1])
    first_i, first_j = (np.flatnonzero(np.diff(k, prepend=-1)) for k in (steps.i, steps.j))
    values, phi, psi = np.empty(len(x)), np.zeros(x.shape[1]), np.zeros(y.shape[1])
    for line in range(len(x)):
        order_x, order_y = np.argsort(x[line]), np.argsort(y[line])
        a, b = x[line, order_x][steps.i], y[line, order_y][steps.j]
        values[line] = steps.weight @ (a - b) ** 2
        # φ_i + ψ_j = (x_i − y_j)² along the merged pieces; where both step at once, the mean of the two ways round.
        slope = a[1:] + a[:-1] - b[1:] - b[:-1]
        phi[order_x] += np.concatenate([[0.0], np.cumsum(np.diff(a) * slope)])[first_i]
        psi[order_y] -= np.concatenate([[0.0], np.cumsum(np.diff(b) * slope)])[first_j]
    return _PlugIn(values, (phi - phi.mean()) / len(x), (psi - psi.mean()) / len(x))


def _parts(x: Float, parts: int, size: int) -> NDArray[np.float64]:
    """(L, parts, size) sorted: disjoint parts, every one with its even share of any run of rows."""
    return np.sort(x[:, : parts * size].reshape(len(x), size, parts).transpose(0, 2, 1), axis=2)


def _debiased(x: Float, y: Float) -> float:
    """Mean over directions of Σ_{a≠b} ⟨D̃_a, D̃_b⟩/(FOLDS (FOLDS − 1))."""
    half = min(x.shape[1], y.shape[1]) // (2 * FOLDS)
    total = 0.0
    for line in range(len(x)):
        d = _quantiles(x[line], half) - _quantiles(y[line], half)  # (FOLDS, 2 half)
        total += float((d.sum(axis=0) ** 2 - (d**2).sum(axis=0)).mean())
    return total / (len(x) * FOLDS * (FOLDS - 1))


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


def _second(x: Float, y: Float) -> float:
    """2 tr K², K the covariance of the quantile functions' difference at the full sizes, from disjoint parts."""
    n, m = x.shape[1], y.shape[1]
    parts = min(min(n, m) // ROWS, SPREAD)
    steps = _Steps.of(n // parts, m // parts)
    gram = np.zeros((parts, parts))
    for line in range(len(x)):
        px, py = (_parts(z[line : line + 1], parts, z.shape[1] // parts)[0] for z in (x, y))
        d = px[:, steps.i] - py[:, steps.j]
        d -= d.mean(axis=0)
        gram += (d * steps.weight) @ d.T
    cov = gram / (len(x) * (parts - 1))  # shares its eigenvalues with the sample covariance
    square = float((cov**2).sum()) - float(np.trace(cov)) ** 2 / (parts - 1)
    # unbiased for tr K² of Gaussian parts (Bai & Saranadasa 1996, eq. 3.7), and never below what the trace's share allows
    unbiased = (parts - 1) ** 2 / ((parts - 2) * (parts + 1)) * square
    return 2 * max(unbiased, 0.0) / parts**2
