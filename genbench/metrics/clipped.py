"""Clipped Density and Clipped Coverage."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import SAME, TILE, neighbours, squared_differences
from genbench.statistics import Features, Float

Vector = NDArray[np.float64]
EXCESS = 1.5  # on the design effects' excess over 1: they have 30 degrees of freedom and come from parts smaller than the whole (simulated)
HALF = 2.1  # half width in standard errors: skewness near 0 and 1 (simulated)


@metric(
    Quantity("clipped_density", "higher", ideal=1.0, range=(0, 1)),
    Quantity("clipped_coverage", "higher", ideal=1.0, range=(0, 1)),
    cost="n² d",
    source="Salvy et al. 2025, sections 4 and 5",
)
def clipped(ref: Features, gen: Features, *, k: int = 5, seed: int = 0) -> tuple[Outcome, ...]:
    """Clipped Density and Clipped Coverage: density and coverage that read as shares of good samples.

        r_j = distance of ref j to its k-th nearest other ref,   ρ_j = min(r_j, median r)

        D(z)             = mean over z of min(1, number of other ref j with ‖z − j‖ <= ρ_j over k)
        clipped_density  = min(1, D(gen)/D(ref))

        C                = mean over ref j of min(k, number of gen within r_j)/k
        clipped_coverage = x with f(x) = C,   f(i/n) = E min(k, J)/k,   J ~ Beta-binomial(i, k, m − k)

    f is what C is expected to be where x of the n gen samples are of the law of ref and the others are nowhere near: the mass of the ball
    to the k-th of m − 1 neighbours is Beta(k, m − k) in any continuous law. One bad sample counts once, in either quantity; one outlier
    in ref has at most the median ball (density), or is one row of m (coverage).

    Departures from the authors' code: balls are closed in both quantities (theirs are open for coverage), so that ties of discrete data
    count; D(ref) counts all other rows in a ball, theirs at most the k nearest, which is the same without ties; f is inverted by linear
    interpolation between the shares i/n, theirs rounds up to i/(n + 1); the larger side is cut to the smaller one's size.

    Args:
        ref: reference features (m, d), m > k.
        gen: generated features (n, d), n > k.
        k: neighbours, the sample itself not counted.
        seed: of the cut, and of the parts that the interval is made of.

    Returns:
        Two numbers in [0, 1] without unit, higher is better, 1 for equal laws up to noise: what is above 1 is clipped (a note says what it
        was), so that equal laws read slightly below 1 on average.

        Interval, for the expectation at this n and k: rows share balls, so they are not independent. Their design effect D is found by
        parting both sides into 4 to 20 parts, several times, and taken as 1 + 1.5 (D − 1); the half width is 2.1 sqrt(D Var/n), that of
        C mapped through the inverse of f. No interval below 4 (k + 5) samples.

    Note:
        Bad samples lower both quantities, a dropped class only coverage; both are blind to copies of training data. Duplicates in ref make
        balls of radius 0. Samples that are all slightly off read as the mixture of good and far samples that has the same D or C.

    References:
        Enhanced Generative Model Evaluation with Clipped Density and Coverage (Salvy, Talbot & Thirion, 2025), sections 4 and 5.
        Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020): the unclipped forms.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.normal(size=(2, 400, 3))
        >>> y[:200] += 100  # half of the generated samples are bad
        >>> [round(e.value, 1) for e in clipped.function(Features(x), Features(y))]
        [0.5, 0.5]
    """
    if k < 1:
        raise UsageError(f"clipped needs k >= 1, found {k}")
    n, m = len(gen), len(ref)
    size = min(n, m)
    if size <= k:
        return (Undefined(f"needs more than k = {k} samples on each side, found {n} and {m}"),) * 2
    notes: tuple[str, ...] = ()
    if n != m:
        notes += (f"{n:,} samples against {m:,} of the reference: the larger side is cut to {size:,}",)
    x, y = gen.cut(size, seed), ref.cut(size, seed)
    (density, raw), variance = _units(x, y, k)
    expected = _expected(size, size, k)
    coverage = _share(raw, expected)
    above = (f"before it was clipped at 1 it read {density:.3g}",) if density > 1 else ()
    kept = (f"C = {raw:.3g} is more than the {expected[-1]:.3g} expected of equal laws",) if raw > expected[-1] else ()
    design = _design(x, y, k, seed)
    if design is None:
        few = f"no interval: {size} samples are too few for k = {k}"
        return (
            Estimate(min(density, 1.0), None, None, n, None, notes=(*notes, *above, few)),
            Estimate(coverage, None, None, n, None, notes=(*notes, *kept, few)),
        )
    effect = 1 + EXCESS * (design - 1)
    half = HALF * np.sqrt(np.maximum(effect * variance / size, 2 / size**2))  # at least the rule of three
    # Above the clip the lower end starts from 1: the mean of a clipped value is below 1 even for equal laws.
    low = max(min(density, 1.0) - float(half[0]), 0.0), _share(min(raw, expected[-1]) - half[1], expected)
    high = min(density + float(half[0]), 1.0), _share(raw + half[1], expected)
    return (
        Estimate(min(density, 1.0), low[0], high[0], n, "design effect", notes=notes + above),
        Estimate(coverage, low[1], high[1], n, "design effect", notes=notes + kept),
    )


def _units(gen: Features, ref: Features, k: int) -> tuple[tuple[float, float], Vector]:
    """(density ratio, C), and the (2,) variances that they would have per row, were rows independent."""
    radius = neighbours(ref, None, k)[0][:, -1]
    clipped_radius = np.minimum(radius, float(np.median(np.sqrt(radius))) ** 2)
    good = np.minimum((_balls(ref.x, ref.x, clipped_radius) - 1) / k, 1.0)  # without its own ball
    generated = np.minimum(_balls(gen.x, ref.x, clipped_radius) / k, 1.0)
    covered = (neighbours(ref, gen, k)[0] * (1 - SAME) <= radius[:, None]).mean(axis=1)
    base = float(good.mean())  # not 0: rows with up to the median radius hold k others
    ratio = float(generated.mean()) / base
    variance = np.array([(generated.var() + ratio**2 * good.var()) / base**2, covered.var()])
    return (ratio, float(covered.mean())), variance


def _balls(x: Float, y: Float, radius: Vector) -> Vector:
    """For each row of x, the number of rows of y within whose squared radius it is; exact for ties and copies."""
    mean, d = y.mean(axis=0, dtype=np.float64), x.shape[1]
    kind: Any = np.float32 if d >= 64 and x.dtype == y.dtype == np.float32 else np.float64
    counts = np.zeros(len(x))
    for c in range(0, len(y), TILE):
        right, reach = y[c : c + TILE] - mean, radius[c : c + TILE]
        norm_y = np.einsum("ij,ij->i", right, right)
        right = np.column_stack([-2 * right, norm_y - reach, np.ones(len(right))]).astype(kind)
        for a in range(0, len(x), TILE):
            left = x[a : a + TILE] - mean
            norm_x = np.einsum("ij,ij->i", left, left)
            left = np.column_stack([left, np.ones(len(left)), norm_x]).astype(kind)
            tile: Float = left @ right.T  # squared distance − squared radius
            rounding = 4 * float(np.finfo(kind).eps) * (8 + np.sqrt(d)) * float(np.max(norm_x) + np.max(norm_y) + np.max(reach))
            sure = tile < -rounding
            i, j = np.nonzero((tile <= rounding) ^ sure)
            inside = squared_differences(x, i + a, y, j + c) * (1 - SAME) <= reach[j]
            counts[a : a + TILE] += sure.sum(axis=1) + np.bincount(i[inside], minlength=len(left))
    return counts


def _expected(n: int, m: int, k: int) -> Vector:
    """(n + 1,) f(i/n): the expected C where i of n generated samples are of the law of ref."""
    from scipy.special import betaln, gammaln

    i, j = np.arange(n + 1.0)[:, None], np.arange(k)
    possible = j <= i
    rest = np.where(possible, i - j, 0.0)
    log_p = gammaln(i + 1) - gammaln(j + 1) - gammaln(rest + 1) + betaln(j + k, rest + m - k) - betaln(k, m - k)
    p = np.where(possible, np.exp(log_p), 0.0)  # J = j < k
    return 1 - (p * (k - j)).sum(axis=1) / k


def _share(raw: float, expected: Vector) -> float:
    """The inverse of f, within [0, 1]."""
    return float(np.interp(raw, expected, np.linspace(0, 1, len(expected))))


def _design(gen: Features, ref: Features, k: int, seed: int) -> Vector | None:
    """(2,) sampling variances over those of independent rows, at least 1, from parts as in `numerics.manifold_design`."""
    size = len(gen)
    parts = int(np.clip(size // 1000, 4 if size >= 16 * (k + 1) else 2, 20))
    if size // parts < 2 * (k + 5):
        return None
    draw = np.random.default_rng(seed)
    between, units = [], []
    for _ in range(-(-30 // (parts - 1))):  # 30 degrees of freedom
        order_g, order_r = draw.permutation(size), draw.permutation(size)
        found = [_units(gen.take(np.sort(order_g[p::parts])), ref.take(np.sort(order_r[p::parts])), k) for p in range(parts)]
        between.append(np.var([value for value, _ in found], axis=0, ddof=1))
        units.append(np.mean([variance for _, variance in found], axis=0))
    return np.maximum((size / parts) * np.mean(between, axis=0) / np.maximum(np.mean(units, axis=0), 1 / size), 1.0)
