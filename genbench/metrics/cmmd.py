"""Maximum mean discrepancy of CLIP embeddings (CMMD)."""

from dataclasses import dataclass
from math import inf

import numpy as np

from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Float, student95
from genbench.statistics import Features

SIGMA = 10.0
SCALE = 1000.0
TILE = 1024  # 8 MiB tiles stay in the cache


@metric(
    Quantity("cmmd", "lower", ideal=0.0, range=(0, inf)),
    Quantity("cmmd_debiased", "lower", ideal=0.0),
    cost="n² d",
    source="Jayasumana et al. 2024, section 4",
    extractor="clip",
)
def cmmd(ref: Features, gen: Features) -> tuple[Outcome, Outcome]:
    """Squared maximum mean discrepancy of embeddings on the unit sphere, times 1000, with a wide Gaussian kernel.

        CMMD = 1000 ( Σ_{ij} k(x_i, x_j)/n² + Σ_{ij} k(y_i, y_j)/m² − 2 Σ_{ij} k(x_i, y_j)/(n m) ),   k(x, y) = exp(−‖x − y‖²/(2·10²))

    with rows divided by their norms. Published values are of CLIP ViT-L/14 at 336 pixels, and include the diagonals as here.

    Args:
        ref: reference embeddings (m, d).
        gen: generated embeddings (n, d).

    Returns:
        Two quantities without unit, lower is better.

        `cmmd`, in [0, ∞): the published definition. The diagonals lift it: equal laws read 1000 (1 − E k(x, x')) (1/n + 1/m), which a
        note gives. Compare only equal n and m. Its interval is for the expectation at this n and m.

        `cmmd_debiased`, in (−∞, ∞), 0 for equal laws: without the diagonals, over n(n−1) and m(m−1). The number to compare across
        sample sizes.

        Intervals: from the variance of a two-sample U-statistic, first-order projections v1 and degenerate part v2; along the effect on
        the scale of the square root, as in `mmd`; Student's t for the projections' kurtosis. No interval below 4 samples, and
        no value below 2. A row of zeros has no direction: it stays zero, at distance 1 from all others, and a note counts such rows.

    Note:
        On the sphere ‖x − y‖ <= 2, far below σ = 10, so k is nearly linear in the inner product and the value nearly 10 times the
        squared distance of the mean embeddings: it sees their mean, and hardly their variance or a mode's shape. The prints of the
        embedding (CLIP's training data, its 336-pixel resize) are its own: on other features no published value compares.

    References:
        Rethinking FID: Towards a Better Evaluation Metric for Image Generation (Jayasumana et al., 2024), section 4 and eq. 5.
        A Kernel Two-Sample Test (Gretton et al., 2012), eqs. 3 and 5: the unbiased and the biased estimate.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, y = (Features(rng.normal(size=(400, 8)) + [1, 0, 0, 0, 0, 0, 0, 0], "clip") for _ in range(2))
        >>> raw, debiased = cmmd.function(x, y)
        >>> raw.value > 0, debiased.low < 0 < debiased.high
        (True, True)
    """
    n, m = len(gen), len(ref)
    if min(n, m) < 2:
        why = Undefined(f"a U-statistic needs at least 2 samples on each side, found {n} and {m}")
        return why, why
    notes: tuple[str, ...] = () if gen.extractor == "clip" else (f"on {gen.extractor} features: published values are of clip",)
    (x, lost_x), (y, lost_y) = _directions(gen.x), _directions(ref.x)
    if lost_x or lost_y:
        notes += (f"{lost_x} generated and {lost_y} reference rows are zero and have no direction: they stay zero",)
    xx, yy, xy = _sums(x, None), _sums(y, None), _sums(x, y)
    rx, ry, cx, cy = SCALE * xx.rows / (n - 1), SCALE * yy.rows / (m - 1), SCALE * xy.rows / m, SCALE * xy.columns / n
    value = float(rx.mean() + ry.mean() - 2 * cx.mean())
    lift = -float(rx.mean()) / n - float(ry.mean()) / m  # of the diagonals, where k − 1 is 0
    notes_raw = (*notes, f"the diagonals lift it by {lift:.3g}, which two samples of one law read at these sizes")
    if min(n, m) < 4:
        notes, notes_raw = ((*some, f"no interval: {min(n, m)} samples") for some in (notes, notes_raw))
        return Estimate(max(value + lift, 0.0), None, None, n, None, notes=notes_raw), Estimate(value, None, None, n, None, notes=notes)
    ix, iy = 2 * (rx - cx - (rx - cx).mean()), 2 * (ry - cy - (ry - cy).mean())
    var_x, var_y = float(ix.var(ddof=1)) / n, float(iy.var(ddof=1)) / m
    v1 = var_x + var_y
    v2 = 2 * _degenerate(xx, n) / (n * (n - 1)) + 2 * _degenerate(yy, m) / (m * (m - 1)) + 4 * _degenerate_cross(xy, n, m) / (n * m)
    v2 *= SCALE**2
    noise = var_x**2 * (_kurtosis(ix) - 1) / n + var_y**2 * (_kurtosis(iy) - 1) / m
    t = student95(max(2 * v1**2 / noise, 4.0) if noise > 0 else 1e9)
    low, high = _interval(value, lift, v1, v2, t)
    found = []
    for move, least, told in ((lift, 0.0, notes_raw), (0.0, -inf, notes)):
        v, bottom, top = (max(w + move, least) for w in (value, low, high))
        found.append(Estimate(v, bottom, top, n, "U-statistic variance", notes=told, influence={"gen": ix, "ref": iy}, degenerate=v2))
    return found[0], found[1]


def _directions(rows: Float) -> tuple[Float, int]:
    """Rows divided by their norms, and how many are zero, which stay so."""
    x = rows.astype(np.float64)
    x /= np.maximum(np.abs(x).max(axis=1, keepdims=True), 1e-300)  # squares of huge and tiny values stay in range
    norms = np.sqrt((x**2).sum(axis=1, keepdims=True))
    return x / np.where(norms > 0, norms, 1.0), int((norms == 0).sum())


@dataclass(frozen=True)
class _Sums:
    """Of L_ij = k(x_i, y_j) − 1, without the diagonal where y is x: row and column sums, and Σ L²."""

    rows: Float
    columns: Float
    squares: float


def _sums(x: Float, y: Float | None) -> _Sums:
    """Sums of the kernel less 1, which keeps the digits that a wide kernel would lose; half the tiles where y is None, for x itself."""
    other = x if y is None else y
    rows, columns, squares = np.zeros(len(x)), np.zeros(len(other)), 0.0
    norms, other_norms = (x**2).sum(axis=1), (other**2).sum(axis=1)
    for a in range(0, len(x), TILE):
        for c in range(a if y is None else 0, len(other), TILE):
            k = norms[a : a + TILE, None] + other_norms[c : c + TILE] - 2 * (x[a : a + TILE] @ other[c : c + TILE].T)
            k = np.expm1(np.maximum(k, 0.0, out=k) / (-2 * SIGMA**2))
            if y is None and a == c:
                np.fill_diagonal(k, 0.0)
            twice = 1 if y is not None or a == c else 2
            squares += twice * float(np.vdot(k, k))
            rows[a : a + len(k)] += k.sum(axis=1)
            if y is not None or a != c:
                (rows if y is None else columns)[c : c + k.shape[1]] += k.sum(axis=0)
    return _Sums(rows, rows if y is None else columns, squares)


def _interval(value: float, lift: float, v1: float, v2: float, t: float) -> tuple[float, float]:
    """Ends of the interval of an unbiased squared distance.

    Along the effect the estimate is a square, (√θ + noise)² less its mean, and the other directions add noise of their own. `along` is
    four times the variance of the first: v1 over the biased estimate, which 2 v2 of noise and θ share; at least what v1 − 2 v2 asks for.

    Args:
        value: the unbiased estimate.
        lift: what the diagonals would add to it.
        v1: plug-in variance of the first-order part; holds 2 v2 of noise.
        v2: variance of the degenerate part.
        t: quantile.
    """
    if v1 <= 0 or v2 <= 0:
        half = t * float(np.sqrt(max(v1, v2, 0.0)))
        return value - half, value + half
    along = max(v1 / max(value + lift, 0.05 * lift), (v1 - 2 * v2) / max(value, 2 * float(np.sqrt(v2))))
    # An effect in a steeper direction than the mean one is short at the upper end; sqrt(8 v2) is `along` were there no other direction
    steep = max(along, 0.8 * along + 0.2 * float(np.sqrt(8 * v2)))
    ends = []
    for slope, sign in ((along, -1), (steep, 1)):
        root = float(np.sqrt(max(value + slope / 4, 0.0)))
        end = max(root + sign * t * float(np.sqrt(slope)) / 2, 0.0) ** 2
        ends.append(value + sign * float(np.sqrt(max(sign * (end - value), 0.0) ** 2 + t**2 * max(v2 - slope**2 / 8, 0.0))))
    return ends[0], ends[1]


def _kurtosis(h: Float) -> float:
    """Fourth standardised moment, at least 1; 1 for a constant."""
    centred = h - h.mean()
    variance = float((centred**2).mean())
    return float((centred**4).mean()) / variance**2 if variance > 0 else 1.0


def _degenerate(k: _Sums, n: int) -> float:
    """Mean of (L_ij − r_i − r_j + r̄)² over i ≠ j with r = row sums/(n − 1), from the sums alone."""
    r = k.rows / (n - 1)
    mean = float(r.mean())
    r = r - mean
    return max(k.squares - n * (n - 1) * mean**2 - 2 * n * float(r @ r), 0.0) / (n * (n - 1))


def _degenerate_cross(k: _Sums, n: int, m: int) -> float:
    """Mean of (L_ij − r_i − c_j + L̄)² with r and c the row and column means."""
    r, c = k.rows / m, k.columns / n
    return max(k.squares / (n * m) - float((r**2).mean() + (c**2).mean() - r.mean() ** 2), 0.0)
