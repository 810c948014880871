"""Maximum mean discrepancy with a Gaussian kernel."""

from dataclasses import dataclass
from math import isfinite

import numpy as np

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import EPS, Float, KernelSums, degenerate_across, degenerate_within, mmd_interval
from genbench.statistics import Features

MOST = 2000  # rows of a side behind the median distance and the permutations: their pairs fill 64 MB
LARGE = 20_000  # rows of a side behind the value: 60,000 take ten times as long, for an interval at most 1.7 times as wide
TILE = 1024  # 8 MiB tiles stay in the cache


@metric(
    Quantity("mmd", "lower", ideal=0.0, range=(-2, 2), placed=True),
    Quantity("mmd_p", "higher", range=(0, 1), interval=False, placed=True),
    cost="n² d",
    source="Gretton et al. 2012, eq. 3",
)
def mmd(ref: Features, gen: Features, *, bandwidth: float | None = None, permutations: int = 200, seed: int = 0) -> tuple[Outcome, Outcome]:
    """Squared maximum mean discrepancy with the kernel k(x, y) = exp(−‖x − y‖²/(2 σ²)), unbiased, and its permutation test.

        MMD² = Σ_{i≠j} k(x_i, x_j)/(n(n−1)) + Σ_{i≠j} k(y_i, y_j)/(m(m−1)) − 2 Σ_{ij} k(x_i, y_j)/(n m)

    Args:
        ref: reference features (m, d).
        gen: generated features (n, d). A side of more than 20,000 is cut to as many (seeded), which leaves the value unbiased.
        bandwidth: σ; None for the median distance of the pooled sample (of at most 2,000 evenly spaced rows of a side).
        permutations: of the labels, for the p-value; at least 1.
        seed: of that cut and of the permutations.

    Returns:
        `mmd`, at most 2, lower is better, 0 for equal laws; slightly negative values are usual for close ones. Unbiased for the σ it
        uses. The median distance depends on both samples: give `bandwidth` to compare models.

        Interval: from the variance of a two-sample U-statistic, v1 from its first-order projections, to which each row's influence on
        the median is added where σ is not given, and v2 of the degenerate part that is left where the laws are equal. Where the laws are
        close, v1 follows the value (κ MMD²) and the value is a square plus noise: the ends are those of MMD² = θ with (√θ ± t √κ/2)²
        along the effect and t sqrt(v2 − κ²/8) across (`_interval`). Far from 0 this is value ± t sqrt(v1). t has the degrees of
        freedom that the projections' kurtosis leaves. None below 4 samples. Simulated coverage: benchmarks/coverage.md.

        `mmd_p`, a p-value for equal laws in [0, 1]: the share of relabellings with as large a value, exact at every n, on at most 2,000
        rows of a side; at least 1/(permutations + 1). It has no interval. Uniform under equal laws: higher means less evidence.

    Note:
        Sees all differences at scale σ, and few at others: modes that are small compared with the median distance, and differences in
        many dimensions where all distances are alike, move it little. Not invariant to the scale of single features.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012), eq. 3 (the estimate) and section 8 (median heuristic and permutations).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> value, p = mmd.function(Features(rng.normal(size=(300, 4))), Features(rng.normal(size=(300, 4))))
        >>> value.low < 0 < value.high, p.value > 0.01
        (True, True)
    """
    if permutations < 1 or (bandwidth is not None and not (bandwidth > 0 and isfinite(bandwidth))):
        raise UsageError(f"mmd needs permutations >= 1 and a bandwidth > 0, found {permutations} and {bandwidth}")
    n, m = len(gen), len(ref)
    if min(n, m) < 2:
        why = Undefined(f"a U-statistic needs at least 2 samples on each side, found {n} and {m}")
        return why, why
    if not 1e-140 < (bandwidth or 1.0) < 1e140 or float(max(np.abs(gen.x).max(), np.abs(ref.x).max())) > 1e140:
        why = Undefined("the features or the bandwidth are outside of 1e-140 to 1e140: squared distances overflow; rescale them")
        return why, why
    told: tuple[str, ...] = ()
    if max(n, m) > LARGE:
        gen, ref = gen.cut(LARGE, seed), ref.cut(LARGE, seed)
        told = (f"{n:,} generated and {m:,} reference samples are cut to {len(gen):,} and {len(ref):,}",)
    count, n, m = n, len(gen), len(ref)
    at_x, at_y = (np.linspace(0, k - 1, min(k, MOST)).astype(np.int64) for k in (n, m))
    pooled = np.concatenate([gen.x[at_x], ref.x[at_y]]).astype(np.float64)
    centre = pooled.mean(axis=0)
    median, slowness = (bandwidth**2, 0.0) if bandwidth is not None else _median(pooled, centre)
    p, below = _permuted(pooled, centre, len(at_x), median, permutations, seed)
    xx, yy, xy = _sums(gen.x, None, centre, median), _sums(ref.x, None, centre, median), _sums(gen.x, ref.x, centre, median)
    rx, ry, cx, cy = xx.rows / (n - 1), yy.rows / (m - 1), xy.rows / m, xy.columns / n
    value = float(rx.mean() + ry.mean() - 2 * cx.mean())
    cut = (f"the p-value is of {len(at_x):,} generated and {len(at_y):,} reference samples",) if max(n, m) > MOST else ()
    second = Estimate(
        p, None, None, count, None, notes=(*cut, f"a p-value from {permutations} permutations, at least 1/{permutations + 1}")
    )
    told += () if bandwidth is not None else (f"bandwidth {median**0.5:.4g}, the median distance; give it to compare models",)
    if min(n, m) < 4:
        return Estimate(value, None, None, count, None, notes=(*told, f"no interval: {min(n, m)} samples")), second
    # Influence of every row, times its side's size: on the kernel's means, and through the median
    slope = xx.slope / (n * (n - 1)) + yy.slope / (m * (m - 1)) - 2 * xy.slope / (n * m)
    pull = 2 * slope * slowness / len(below)
    ix, iy = 2 * (rx - cx - (rx - cx).mean()), 2 * (ry - cy - (ry - cy).mean())
    ix[at_x] += n * pull * (below[: len(at_x)].mean() - below[: len(at_x)])
    iy[at_y] += m * pull * (below[len(at_x) :].mean() - below[len(at_x) :])
    v2 = (
        2 * degenerate_within(xx, n) / (n * (n - 1))
        + 2 * degenerate_within(yy, m) / (m * (m - 1))
        + 4 * degenerate_across(xy, n, m) / (n * m)
    )
    low, high = mmd_interval(value, -float(rx.mean()) / n - float(ry.mean()) / m, ix, iy, n, m, v2)
    first = Estimate(value, low, high, count, "U-statistic variance", notes=told, influence={"gen": ix, "ref": iy}, degenerate=v2)
    return first, second


@dataclass(frozen=True)
class _Sums(KernelSums):
    """Of L_ij = k(x_i, y_j) − 1, and Σ dk/d log σ²."""

    slope: float


def _distances(x: Float, y: Float, centre: Float) -> Float:
    """(rows of x, rows of y) squared distances, up to rounding."""
    x, y = x - centre, y - centre
    found = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * (x @ y.T)
    return np.maximum(found, 0.0, out=found)


def _sums(x: Float, y: Float | None, centre: Float, median: float) -> _Sums:
    """Sums of the kernel, tile by tile; half the tiles where y is None, for x itself."""
    other = x if y is None else y
    rows, columns, squares, slope = np.zeros(len(x)), np.zeros(len(other)), 0.0, 0.0
    for a in range(0, len(x), TILE):
        for c in range(a if y is None else 0, len(other), TILE):
            t = _distances(x[a : a + TILE], other[c : c + TILE], centre)
            t /= -2 * median
            k = np.exp(t)
            twice = 1 if y is not None or a == c else 2
            slope -= twice * float(np.vdot(t, k))
            k -= 1.0
            squares += twice * float(np.vdot(k, k))
            rows[a : a + len(k)] += k.sum(axis=1)
            if y is not None or a != c:
                (rows if y is None else columns)[c : c + k.shape[1]] += k.sum(axis=0)
    return _Sums(rows, rows if y is None else columns, squares, slope)


def _median(x: Float, centre: Float) -> tuple[float, float]:
    """Median of the squared distances of rows, and how its logarithm moves with the share of distances below it: 1/density.

    Where most rows are copies, the median of those distances that are not 0; 1 where all are.
    """
    count = len(x)
    apart, filled = np.empty(count * (count - 1) // 2), 0
    for a in range(0, count, TILE):
        d = _distances(x[a : a + TILE], x[a:], centre)
        i, j = np.triu_indices(len(d), 1, d.shape[1])
        apart[filled : filled + len(i)] = d[i, j]
        filled += len(i)
    at = [int(q * (len(apart) - 1)) for q in (0.45, 0.5, 0.55)]
    apart.partition(at)
    rounding = 8 * EPS * (8 + np.sqrt(x.shape[1])) * float(np.max(((x - centre) ** 2).sum(axis=1)))
    if apart[at[1]] <= rounding:
        apart = apart[apart > rounding]
        return (float(np.median(apart)), 0.0) if len(apart) else (1.0, 0.0)
    low, median, high = (float(apart[k]) for k in at)
    return median, float(np.log(high / max(low, rounding))) / 0.1


def _permuted(x: Float, centre: Float, n: int, median: float, permutations: int, seed: int) -> tuple[float, Float]:
    """p-value of the first n rows against the rest under relabelling, and each row's share of distances up to the median."""
    count = len(x)
    m = count - n
    draw = np.random.default_rng(seed)
    first = np.zeros((count, 1 + permutations))
    first[:n, 0] = 1
    for column in first.T[1:]:
        column[draw.permutation(count)[:n]] = 1
    below, own, total, sums = np.empty(count), np.zeros(1 + permutations), 0.0, np.zeros(1 + permutations)
    for a in range(0, count, TILE):
        d = _distances(x[a : a + TILE], x, centre)
        own_rows = np.arange(len(d))
        below[a : a + len(d)] = ((d <= median).sum(axis=1) - 1) / (count - 1)
        k = np.exp(d / (-2 * median)) - 1
        k[own_rows, own_rows + a] = 0.0
        total += float(k.sum())
        sums += k.sum(axis=1) @ first[a : a + len(d)]
        own += np.einsum("ij,ij->j", first[a : a + len(d)], k @ first)
    across = sums - own
    values = own / (n * (n - 1)) + (total - own - 2 * across) / (m * (m - 1)) - 2 * across / (n * m)
    # Relabellings that change nothing are ties, whatever the rounding
    ties = 1e-12 * float(np.abs(values).max() + abs(total) / count**2)
    return (1 + int((values[1:] >= values[0] - ties).sum())) / (1 + permutations), below
