"""Kernel distance (KID on Inception features)."""

from math import log

import numpy as np

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import (
    Float,
    KernelSums,
    cubic_moments,
    cubic_sums,
    cubic_total,
    degenerate_across,
    degenerate_within,
    mmd_interval,
    polynomial_mmd,
    polynomial_sums,
)
from genbench.statistics import Features

THIN = 2048  # rows behind the second-order variance in the linear-time form: a mean over their 2 million pairs
PROJECTED = 8192  # rows behind the first-order variance in the linear-time form: its own error is then about 3 %


@metric(Quantity("kid", "lower", ideal=0.0), cost="n d³, or n² d for large d", source="Bińkowski et al. 2018, eq. 4")
def kid(ref: Features, gen: Features, *, subsets: int = 0, subset_size: int = 1000, degree: int = 3, seed: int = 0) -> Outcome:
    """Squared maximum mean discrepancy with the kernel k(x, y) = (x·y/d + 1)^degree, unbiased, on the full samples.

        KID = Σ_{i≠j} k(x_i, x_j)/(n(n−1)) + Σ_{i≠j} k(y_i, y_j)/(m(m−1)) − 2 Σ_{ij} k(x_i, y_j)/(n m)

    Interval: the variance of a two-sample U-statistic. With r_i and c_i the row means of the kernel matrices within and across,
    v1 = 4 Var(r − c)/n + 4 Var(r' − c')/m, v2 = 2 h_x/(n(n−1)) + 2 h_y/(m(m−1)) + 4 h_xy/(n m) with h the mean squares of the doubly
    centred kernels (the part that is left where the laws are equal). The ends are those of a square plus noise (`numerics.mmd_interval`):
    normal far from equality, where v1 rules, and right at equality, where v2 does. For d² < n + m (2 d² for float32 features of 64 or
    more dimensions) the sums come from the first three moments, in time linear in n, v1 from at most 8,192 rows of a side and v2 from
    at most 2,048.

    Args:
        ref: reference features (m, d).
        gen: generated features (n, d).
        subsets: 0 for the full samples; else the mean over that many random subsets, as other tools print. Both are unbiased for the
            same number; the subsets' spread is not a standard error of anything, so no interval is given.
        subset_size: rows drawn from each side per subset, without replacement.
        degree: of the kernel, at least 1; 3 in the paper.
        seed: of the subsets, drawn as torch-fidelity does (its own default is 2020).

    Returns:
        A number in (−∞, ∞), lower is better, 0 for equal laws; slightly negative values are usual for close ones. Unbiased at every n,
        so samples of different sizes compare. In units of the kernel (no unit).

    Note:
        Sees the first `degree` moments only. A doubled class hardly moves it. Not invariant to the scale of the features.

    References:
        Demystifying MMD GANs (Bińkowski et al., 2018), eq. 4 and section 4.
        A Kernel Two-Sample Test (Gretton et al., 2012), eq. 3: the unbiased estimate.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = kid.function(Features(rng.normal(size=(300, 4))), Features(rng.normal(size=(300, 4))))
        >>> found.low < 0 < found.high
        True
    """
    if degree < 1 or subsets < 0 or subset_size < 2:
        raise UsageError(f"kid needs degree >= 1, subsets >= 0 and subset_size >= 2, found {degree}, {subsets} and {subset_size}")
    n, m = len(gen), len(ref)
    if min(n, m) < 2:
        return Undefined(f"a U-statistic needs at least 2 samples on each side, found {n} and {m}")
    x, y = gen.x, ref.x
    bound = max(float(max(z.max(), -z.min())) for z in (x, y))
    if 2 * degree * log(bound * bound + 1) + 2 * log(n + m) > 700:  # Σ K² < e^700 is below the largest float64
        return Undefined("the features are too large for float64: the kernel overflows; rescale them")
    if subsets:
        if subset_size > min(n, m):
            return Undefined(f"subsets of {subset_size:,} need as many samples on each side, found {n:,} and {m:,}; set subset_size")
        draw = np.random.RandomState(seed)
        found = np.empty(subsets)
        for s in range(subsets):
            xs, ys = (z[draw.choice(len(z), subset_size, replace=False)] for z in (x, y))
            found[s] = polynomial_mmd(xs, ys, degree)
        note = f"the {subsets} subsets have a standard deviation of {found.std():.3g}, which is not a standard error: no interval"
        return Estimate(float(found.mean()), None, None, n, None, notes=(note,))

    value, within_x, within_y, hx1, hy1, sums = _projected(x, y, degree)
    if min(n, m) < 4:
        return Estimate(value, None, None, n, None, notes=(f"no interval: {min(n, m)} samples",))
    xx, yy, xy = sums or _pairs(_thinned(x, THIN), _thinned(y, THIN), degree)
    hx, hy = (degenerate_within(z, len(z.rows)) for z in (xx, yy))
    hxy = degenerate_across(xy, len(xx.rows), len(yy.rows))
    v2 = 2 * hx / (n * (n - 1)) + 2 * hy / (m * (m - 1)) + 4 * hxy / (n * m)
    own_x, own_y = (float(_own(z, degree).mean()) for z in (x, y))
    low, high = mmd_interval(value, (own_x - within_x) / n + (own_y - within_y) / m, 2 * hx1, 2 * hy1, n, m, v2)
    # rows that stand for all are scaled, so that Var/len is Var/n
    influence = {role: 2 * h * np.sqrt(len(h) / count) for role, h, count in (("gen", hx1, n), ("ref", hy1, m))}
    return Estimate(value, low, high, n, "U-statistic variance", influence=influence, degenerate=v2)


Sums = tuple[KernelSums, KernelSums, KernelSums]
"""Of the kernels within x, within y and across."""


def _pairs(x: Float, y: Float, degree: int) -> Sums:
    return polynomial_sums(x, None, degree), polynomial_sums(y, None, degree), polynomial_sums(x, y, degree)


def _projected(x: Float, y: Float, degree: int) -> tuple[float, float, float, Float, Float, Sums | None]:
    """The U-statistic, the mean kernels within x and within y, r − c of rows of x and of y (mean kernel within the own side, without
    itself, less that to the other), and the sums over all pairs where these were taken."""
    n, m, d = len(x), len(y), x.shape[1]
    cheap = 2 if d >= 64 and x.dtype == y.dtype == np.float32 else 1  # products of pairs are float32 then; measured
    if degree != 3 or cheap * d * d >= n + m:  # for such d the pairs cost less than the third moments
        within_x, within_y, across = sums = _pairs(x, y, degree)
        rx, ry = within_x.rows / (n - 1), within_y.rows / (m - 1)
        cx, cy = across.rows / m, across.columns / n
        return float(rx.mean() + ry.mean() - 2 * cx.mean()), float(rx.mean()), float(ry.mean()), rx - cx, ry - cy, sums
    mx, my = cubic_moments(x), cubic_moments(y)
    own_x, own_y = (float(_own(z).sum()) for z in (x, y))
    mean_x, mean_y = (cubic_total(mx, mx) - own_x) / (n * (n - 1)), (cubic_total(my, my) - own_y) / (m * (m - 1))
    few_x, few_y = _thinned(x, PROJECTED), _thinned(y, PROJECTED)
    (xx, xy), (yy, yx) = cubic_sums(few_x, [mx, my]), cubic_sums(few_y, [my, mx])
    value = mean_x + mean_y - 2 * cubic_total(mx, my) / (n * m)
    return value, mean_x, mean_y, (xx - _own(few_x)) / (n - 1) - xy / m, (yy - _own(few_y)) / (m - 1) - yx / n, None


def _own(x: Float, degree: int = 3) -> Float:
    """k(x_i, x_i)."""
    norms: Float = np.einsum("ij,ij->i", x, x, dtype=np.float64)
    return (norms / x.shape[1] + 1) ** degree


def _thinned(x: Float, keep: int) -> Float:
    """At most `keep` rows, evenly spaced: enough for a variance."""
    return x if len(x) <= keep else x[np.linspace(0, len(x) - 1, keep).astype(np.int64)]
