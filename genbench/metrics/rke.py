"""Rényi kernel entropy: the effective number of modes."""

from math import exp, inf, sqrt

import numpy as np

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Float, student95
from genbench.statistics import Features

TILE = 1024
RULE = 1000  # reference rows behind the rule for the bandwidth
FEW = 10  # pairs within reach of the kernel, at least


@metric(Quantity("rke", "higher", unit="modes", range=(1, inf)), cost="n² d", source="Jalali et al. 2023, definition 1")
def rke(ref: Features, gen: Features, *, bandwidth: float = 0.0, fraction: float = 0.25, rows: int = 10_000, seed: int = 0) -> Outcome:
    """Exponential of the order-2 Rényi entropy of the kernel matrix K/n, K_ij = exp(−‖x_i − x_j‖²/(2 σ²)): a count of modes.

        RKE = 1/( Σ_{i≠j} K_ij²/(n (n − 1)) )

    The paper's form, 1/‖K/n‖²_F, keeps the diagonal, which bounds it by n; without it the sum is unbiased, and sizes compare.

    Args:
        ref: reference features; only σ depends on them.
        gen: generated features (n, d).
        bandwidth: σ; 0 for `fraction` of the median distance of at most 1,000 samples of ref. The paper chooses it for each data set, as
            small as the sample allows; scores with different σ do not compare.
        fraction: of that median distance.
        rows: generated samples that are used, at most (a seeded subset).
        seed: of the subsets.

    Returns:
        A number >= 1, higher is more diverse: M for M far apart equal modes much narrower than σ, less for uneven ones. A note says σ
        and what the reference reads with it. Interval: variance of the U-statistic, max of first and second order, on the scale of the
        logarithm; it is conditional on σ. None below 8 samples, undefined where fewer than 10 pairs are within reach of the kernel.

    Note:
        Diversity alone: noise scores high. Modes wider than σ count as several.

    References:
        An Information-Theoretic Evaluation of Generative Models in Learning Multi-modal Distributions (Jalali et al., 2023), definition 1.

    Example:
        >>> x = Features(np.arange(400)[:, None] % 4 * 100.0)
        >>> round(rke.function(x, x, bandwidth=1.0).value, 2)
        4.03
    """
    if bandwidth < 0 or fraction <= 0 or rows < 2:
        raise UsageError(f"rke needs bandwidth >= 0, fraction > 0 and rows >= 2, found {bandwidth}, {fraction} and {rows}")
    n = len(gen)
    if n < 2:
        return Undefined(f"needs at least 2 samples, found {n}")
    sigma = bandwidth
    some = ref.cut(RULE, seed).x.astype(np.float64)
    if not bandwidth:
        if len(some) < 2:
            return Undefined(f"the bandwidth needs at least 2 reference samples, found {len(some)}; set bandwidth")
        i, j = np.triu_indices(len(some), 1)
        sigma = fraction * sqrt(float(np.median(_squares(some, some)[i, j])))
        if sigma == 0:
            return Undefined("half of the reference's pairs are copies, so their median distance is 0; set bandwidth")
    used = gen.cut(rows, seed).x.astype(np.float64)
    count = len(used)
    notes: tuple[str, ...] = (f"bandwidth {sigma:.6g}",)
    if count < n:
        notes += (f"computed on {count:,} of {n:,} samples",)
    if len(some) > 1:
        base = float(_sums(some, sigma)[0].sum()) / (len(some) * (len(some) - 1))
        if base > 0:
            notes += (f"the reference reads {1 / base:.4g} (of {len(some):,} samples)",)
    sums, squares = _sums(used, sigma)
    row = sums / (count - 1)
    mean = float(row.mean())
    if mean * count * (count - 1) / 2 < min(FEW, count / 2):
        return Undefined(f"fewer than {FEW} of the pairs are within reach of bandwidth {sigma:.3g}; take a larger one, or more samples")
    value = max(1 / mean, 1.0)
    if value > count:
        notes += ("more modes than samples: the bandwidth is too small to tell modes from spread",)
    if count < 8:
        return Estimate(value, None, None, n, None, notes=(*notes, f"no interval: {n} samples"))
    centred = row - mean
    v1 = 4 * float(centred @ centred) / (count - 1) / count
    rest = squares - count * (count - 1) * mean**2 - 2 * count * float(centred @ centred)
    v2 = 2 * max(rest, 0.0) / (count * (count - 1)) ** 2
    half = student95(count - 1) * sqrt(max(v1, v2)) / mean
    influence = {"gen": -2 * centred / mean**2} if count == n else None
    return Estimate(value, max(value * exp(-half), 1.0), value * exp(half), n, "U-statistic variance", notes=notes, influence=influence)


def _squares(x: Float, y: Float) -> Float:
    """(n, m) squared distances, not below 0."""
    apart = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2 * (x @ y.T)
    return np.asarray(np.maximum(apart, 0.0))


def _sums(x: Float, sigma: float) -> tuple[Float, float]:
    """Row sums of K² without the diagonal, and the sum of K⁴."""
    x = (x - x.mean(axis=0)) / sigma
    sums, squares = np.zeros(len(x)), 0.0
    for a in range(0, len(x), TILE):
        for c in range(a, len(x), TILE):
            k = np.exp(-_squares(x[a : a + TILE], x[c : c + TILE]))
            if a == c:
                np.fill_diagonal(k, 0.0)
            else:
                sums[c : c + TILE] += k.sum(axis=0)
            sums[a : a + TILE] += k.sum(axis=1)
            squares += float((k * k).sum()) * (1 if a == c else 2)
    return sums, squares
