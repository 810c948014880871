"""Fréchet distance extrapolated to infinitely many samples."""

from math import isfinite

import numpy as np

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Z95, Float, frechet, frechet_spread
from genbench.statistics import Features, Moments

POINTS, FEW = 15, 5  # sizes up to SMALL_D dimensions, and above, where a distance takes seconds
SMALL_D = 512
PER_FEATURE = 8  # samples per dimension from which the bias is close to a line in 1/n (simulated)


@metric(
    Quantity("fid_infinity", "lower", unit="feature²", ideal=0.0, placed=True),
    cost="n d² + d³ per size",
    source="Chong & Forsyth 2020, section 3",
)
def fid_infinity(ref: Features | Moments, gen: Features, *, points: int = 0, seed: int = 0) -> Outcome:
    """Intercept of the line through the Fréchet distances of subsets of several sizes, as a function of one over the size.

        FD(N) ≈ FID∞ + c/N,     FID∞ = Σ_j w_j FD(N_j),     Σ_j w_j = 1,  Σ_j w_j/N_j = 0   (ordinary least squares)

    The sizes lie evenly between max(n/10, min(8 d, n/2)) and n. Every size has a random subset of its own, and the same share of
    both sides is taken: with a whole reference against parts of the samples, the line would end at a value that keeps the
    reference's own bias.

    Args:
        ref: reference features (m, d), or moments alone, which are taken as the target itself and not subsampled.
        gen: generated features (n, d).
        points: number of sizes, at least 3; 0 for 15 as in the paper, and 5 above 512 dimensions, where every one costs d³.
        seed: of the subsets, by position.

    Returns:
        A number in (−∞, ∞) in squared feature units, lower is better, 0 for equal laws; it may be negative where the laws are close.
        It estimates the same distance of the two laws as `fid_debiased`, with a larger error.

        Interval: the standard error of the regression (which covers 60 to 78 % of the time) is not used. A row's influence on the value
        is its influence on the distance (`numerics.frechet_spread`) times its weight a_i = Σ_j w_j [i in subset j]/f_j, f_j the shares:
        v1 = Var(a IF)/n summed over the sides. The second-order variance grows by κ2 = 1 + Σ_j w_j² (1/f_j² − 1), as each pair of
        rows is in subset j with chance f_j². Half width 1.96 sqrt(max(v1, κ1 max(u1 − 2 v2, 0) + κ2 v2)), where u1 and v2 are those of
        all rows and κ1 = 1 + Σ_j w_j² (1/f_j − 1). As the estimate is skewed, the interval is taken on the scale of its square root,
        which shifts it up by half²/(4 max(value, half)). Simulated coverage: benchmarks/coverage.md.

        Undefined for n <= 2 d on either side: the smallest subset needs more rows than dimensions. Note "low n" below 16 d.

    Note:
        For comparison with published values; `fid_debiased` has the shorter interval and needs fewer distances. The value follows the
        seed, by as much as the interval allows for. Means and covariances only, as `fid`.

    References:
        Effectively Unbiased FID and Inception Score and Where to Find Them (Chong & Forsyth, 2020), section 3.

    Example:
        >>> rng = np.random.default_rng(3)
        >>> a, b = Features(rng.normal(size=(500, 2))), Features(rng.normal(size=(500, 2)) + [1, 0])
        >>> found = fid_infinity.function(a, b)
        >>> found.low < 1 < found.high
        True
    """
    if points and points < 3:
        raise UsageError(f"fid_infinity needs points >= 3, or 0 for {POINTS} of them, found {points}")
    n, d = len(gen), gen.d
    smallest = n if isinstance(ref, Moments) else min(n, len(ref))
    if smallest < 2 * (d + 2):
        return Undefined(
            f"the smallest subset, half of the samples, needs more rows than the {d:,} dimensions: expected at least {2 * (d + 2):,} "
            f"samples on each side, found {smallest:,}"
        )
    count = points or (POINTS if d <= SMALL_D else FEW)
    first = max(smallest / 10, min(PER_FEATURE * d, smallest / 2), d + 2)
    shares = np.linspace(first / smallest, 1, count)
    across = 1 / shares - (1 / shares).mean()
    line = 1 / count - across * (1 / shares).mean() / (across @ across)

    draws = np.random.default_rng((seed, 0)), np.random.default_rng((seed, 1))  # the reference's do not depend on the samples
    sides = [x for x in (gen, ref) if isinstance(x, Features)]
    weights = [np.zeros(len(x)) for x in sides]
    values = np.empty(count)
    for j, share in enumerate(shares):
        taken = []
        for x, draw, weight in zip(sides, draws, weights, strict=False):
            rows = np.sort(draw.permutation(len(x))[: round(share * len(x))])
            weight[rows] += line[j] * len(x) / len(rows)
            taken.append(x.take(rows) if len(rows) < len(x) else x)
        values[j] = frechet(taken[0], taken[1] if len(taken) > 1 else ref)
    if not np.isfinite(values).all():
        return Undefined("the features are too large for float64: a distance overflows; rescale them")
    value = float(line @ values)

    spread = frechet_spread(gen, ref, Moments.of(gen), ref if isinstance(ref, Moments) else Moments.of(ref))
    first_order: list[Float] = [(a * f) for a, f in zip(weights, (spread.inf_gen, spread.inf_ref), strict=False) if f is not None]
    influence = {role: f - f.mean() for role, f in zip(("gen", "ref"), first_order, strict=False)}
    v1 = sum(float(f.var(ddof=1)) / len(f) for f in influence.values())
    k1, k2 = (1 + float(line**2 @ (1 / shares**p - 1)) for p in (1, 2))
    second = k2 * spread.v2
    variance = max(v1, k1 * max(spread.v1 - 2 * spread.v2, 0.0) + second)
    half = Z95 * float(np.sqrt(variance))
    if not isfinite(half):
        return Undefined("the features are too large for float64: the variance overflows; rescale them")
    shift = half**2 / (4 * max(value, half)) if value > 0 else 0.0
    residual = values - values.mean() - (across @ values) / (across @ across) * across
    regression = float(np.sqrt(residual @ residual / (count - 2) * (line @ line)))
    notes: tuple[str, ...] = (
        f"{count} sizes from {round(first):,} to {smallest:,}; the regression's own standard error, {regression:.3g}, is too small "
        "and is not used; fid_debiased estimates the same distance with less error",
    )
    if isinstance(ref, Moments):
        notes += ("the reference is moments only: it is taken as the target itself, its sampling error is not in the interval",)
    if smallest < 2 * PER_FEATURE * d:
        notes += (f"low n: {smallest:,} samples for {d:,} features; {2 * PER_FEATURE} per feature make the bias a line in 1/n",)
    return Estimate(
        value, value - half + shift, value + half + shift, n, "influence functions", notes=notes, influence=influence, degenerate=second
    )
