"""Kernel Inception Distance: maximum mean discrepancy under a polynomial kernel."""

import numpy as np
from numpy.typing import NDArray

from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Z95, cubic_row_sums, polynomial_sums
from genbench.statistics import Features

DEGENERATE_ROWS = 2048  # rows behind the second-order variance: a mean over their 2 million pairs is exact to a few per cent


def _row_sums(x: NDArray[np.float64], y: NDArray[np.float64], degree: int, same: bool) -> NDArray[np.float64]:
    d = x.shape[1]
    if degree == 3 and d * d < len(y):  # linear in n; dearer than the pairs where d² exceeds their number
        sums = cubic_row_sums(x, y)
        return sums - ((x * x).sum(axis=1) / d + 1) ** 3 if same else sums
    return polynomial_sums(x, y, degree, same=same)[0]


def _spread(x: NDArray[np.float64], degree: int) -> float:
    """E (k(x,x') − k̄(x) − k̄(x') + k̄)², the variance of the doubly centred kernel, from row sums and the sum of squares alone."""
    n = len(x)
    sums, _, squares = polynomial_sums(x, x, degree, same=True)
    r = sums / (n - 1)
    mean = r.mean()
    # Σ_{i≠j} (k_ij − r_i − r_j + r̄)² with Σ_j k_ij = (n−1) r_i
    total = squares - 2 * (n - 1) * (r @ r) + 2 * (r.sum() ** 2 - r @ r) - n * (n - 1) * mean**2
    return max(float(total), 0.0) / (n * (n - 1))


def _cross_spread(x: NDArray[np.float64], y: NDArray[np.float64], degree: int) -> float:
    rows, columns, squares = polynomial_sums(x, y, degree)
    n, m = len(x), len(y)
    r, c = rows / m, columns / n
    return max(float(squares / (n * m) - (r @ r) / n - (c @ c) / m + r.mean() ** 2), 0.0)


def _some(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x if len(x) <= DEGENERATE_ROWS else x[np.linspace(0, len(x) - 1, DEGENERATE_ROWS).astype(np.int64)]


def _subsets(gen: Features, ref: Features, subsets: int, size: int, degree: int, seed: int) -> Outcome:
    size_max = min(len(gen), len(ref))
    if size > size_max or size < 2:
        return Undefined(f"subset_size must be from 2 to the smaller side's {size_max:,} samples, found {size:,}; pass kid:subset_size={size_max}")
    # The legacy generator on purpose: torch-fidelity draws with it, and the same seed then gives the same subsets.
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x = gen.x[rng.choice(len(gen), size, replace=False)].astype(np.float64)
        y = ref.x[rng.choice(len(ref), size, replace=False)].astype(np.float64)
        xx, yy = (polynomial_sums(z, z, degree, same=True)[0].sum() for z in (x, y))
        xy = polynomial_sums(x, y, degree)[0].sum()
        values.append((xx + yy) / (size * (size - 1)) - 2 * xy / size**2)
    note = f"mean over {subsets} subsets of {size:,}, standard deviation {np.std(values):.3g}: a spread of subsets, not a standard error"
    return Estimate(float(np.mean(values)), None, None, len(gen), None, notes=(note,))


@metric(Quantity("kid", "lower", unit="1", ideal=0.0), cost="n d³, or n² d", source="Bińkowski et al. 2018, eq. 4")
def kid(ref: Features, gen: Features, *, subsets: int = 0, subset_size: int = 1000, degree: int = 3, seed: int = 0) -> Outcome:
    """Squared maximum mean discrepancy under k(x, y) = (x·y/d + 1)^degree.

        KID = mean_{i≠j} k(g_i, g_j) + mean_{i≠j} k(r_i, r_j) − 2 mean_{ij} k(g_i, r_j)

    The unbiased U-statistic on the full samples, float64; for d² < n in time linear in n, through the first three moments.

    Args:
        ref: reference rows (m, d).
        gen: generated rows (n, d).
        subsets: 0 for the full sample; else the mean over so many random subsets, as other tools print (100 of 1000).
        subset_size: rows of a subset on each side.
        degree: of the kernel, from 1 on; 3 in the paper.
        seed: of the subsets.

    Returns:
        KID, lower is better, 0 for equal laws, negative values are possible. Interval: ± 1.96 sqrt(v1 + v2), the U-statistic's own
        variance: v1 from the first-order projections less the noise that they carry, v2 the degenerate part, which is all that remains
        for equal laws (from at most 2,048 rows of a side). With subsets there is no interval: their spread is not a standard error.

    Note:
        Blind to a doubled class and to copies of the training set. The kernel is not characteristic: it compares moments up to `degree`.

    References:
        Demystifying MMD GANs (Bińkowski et al. 2018), eq. 4, https://arxiv.org/abs/1801.01401
        A Kernel Two-Sample Test (Gretton et al. 2012), lemma 6 and its variance, JMLR 13

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, y = Features(rng.normal(size=(500, 4))), Features(rng.normal(size=(500, 4)))
        >>> out = kid(ref=x, gen=y)["kid"]
        >>> bool(out.low < 0 < out.high)
        True
    """
    n, m = len(gen), len(ref)
    if min(n, m) < 2:
        return Undefined(f"a U-statistic needs at least 2 samples on each side, found {n} and {m}")
    if degree < 1:
        return Undefined(f"degree must be at least 1, found {degree}")
    if subsets > 0:
        return _subsets(gen, ref, subsets, subset_size, degree, seed)
    x, y = gen.x.astype(np.float64), ref.x.astype(np.float64)
    xx, yy = _row_sums(x, x, degree, True) / (n - 1), _row_sums(y, y, degree, True) / (m - 1)
    xy, yx = _row_sums(x, y, degree, False) / m, _row_sums(y, x, degree, False) / n
    value = float(xx.mean() + yy.mean() - 2 * xy.mean())
    if min(n, m) < 4:
        return Estimate(value, None, None, n, None, notes=(f"no interval: {min(n, m)} samples",))
    few_x, few_y = _some(x), _some(y)
    sx, sy, sxy = _spread(few_x, degree), _spread(few_y, degree), _cross_spread(few_x, few_y, degree)
    # The sample variance of the projections contains the degenerate part's noise once: subtract it, never below 0.
    v1_gen = 4 * max(float((xx - xy).var(ddof=1)) - sx / (n - 1) - sxy / m, 0.0) / n
    v1_ref = 4 * max(float((yy - yx).var(ddof=1)) - sy / (m - 1) - sxy / n, 0.0) / m
    v2 = 2 * sx / (n * (n - 1)) + 2 * sy / (m * (m - 1)) + 4 * sxy / (n * m)
    half = Z95 * float(np.sqrt(v1_gen + v1_ref + v2))
    return Estimate(value, value - half, value + half, n, "U-statistic variance")
