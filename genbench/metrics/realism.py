"""Realism of every generated sample."""

from math import inf, isfinite

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Detail, Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import EPS, SAME, TILE, nearest, neighbours, squared_differences, wilson
from genbench.statistics import Features

TINY = 1e-280  # squared radii below it are of copies: their inverse would overflow
SURE = 1e-11  # relative error of a quotient that is left as the matrix product gives it
EXCESS = 1.5  # on the design effects' excess over 1: they come from parts smaller than the whole, and few (simulated)
LARGEST = 1e140  # squares of larger features overflow


@metric(
    Quantity("realistic_share", "higher", range=(0, 1), placed=True),
    Quantity("realism_median", "higher", range=(0, inf), placed=True),
    cost="(n + m) m d",
    source="Kynkäänniemi et al. 2019, eq. 4",
)
def realism(ref: Features, gen: Features, *, k: int = 3, ref_size: int = 10_000, seed: int = 0) -> tuple[Outcome, Outcome]:
    """How near each generated sample is to the reference, in units of the reference's own neighbour distances.

        R(g) = max over r of radius_k(r)/‖g − r‖,     over the half of ref with the smaller radii

    with radius_k(r) the distance of r to its k-th nearest other reference sample. R >= 1 means: inside the ball of such a sample.

    Args:
        ref: reference features (m, d), m > k.
        gen: generated features (n, d).
        k: neighbours, the sample itself not counted; 3 in the paper.
        ref_size: reference samples that are used, a seeded subset of a larger reference; 0 for all, whose own distances cost m² d.
        seed: of that subset, and of the parts that the intervals are made of, by position.

    Returns:
        Two numbers without unit, higher is better; neither has a fixed value for equal laws, and both follow m: compare equal
        references.

        `realistic_share`, in [0, 1]: the share of gen with R >= 1, which is precision with the large balls left out. Wilson's
        interval at n/D samples, z = 2. `realism_median`, in [0, ∞): the median of R, whose mean would not be robust, as R is
        unbounded near a reference sample. Its interval is between the order statistics at Wilson's interval of 1/2 at n/D'
        samples. Undefined where half of gen are exact copies of such reference samples, whose R is infinite.

        Samples that share balls are not independent, and the reference is a sample too: D is the variance between 2 to 20 random parts
        of both sides, times n over the number of parts, over that of independent samples, of the share with R >= 1; D' that of the
        share above the parts' common median. They are taken as 1 + 1.5 (D − 1). No interval where a part would have fewer than
        2 (k + 5) rows. Simulated coverage: benchmarks/coverage.md.

        The table "realism" has every generated sample, the least real first.

    Note:
        Blind to dropped classes and to copies of training data, and improves under truncation, as precision does. Rare but correct
        samples read low, since the balls of rare reference samples are the large ones that are left out.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019), eq. 4 and section 5.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> ref, near, far = (Features(rng.normal(size=(300, 2)) + shift) for shift in (0, 0, 9))
        >>> [realism(ref=ref, gen=gen)["realistic_share"].value > 0.2 for gen in (near, far)]
        [True, False]
    """
    if k < 1 or ref_size < 0:
        raise UsageError(f"realism needs k >= 1 and ref_size >= 0, found {k} and {ref_size}")
    whole, ref = len(ref), ref.cut(ref_size or len(ref), seed)
    n, m = len(gen), len(ref)
    notes: tuple[str, ...] = (f"{m:,} of the {whole:,} reference samples are used",) if m < whole else ()
    if m <= k or n < 1:
        return (Undefined(f"needs more than k = {k} reference samples and a generated one, found {m} and {n}"),) * 2
    if max(float(np.abs(gen.x).max()), float(np.abs(ref.x).max())) > LARGEST:
        return (Undefined("the features are too large for float64: squared distances overflow; rescale them"),) * 2
    least = _least(gen, ref, k)
    with np.errstate(divide="ignore"):
        score = 1 / np.sqrt(least)
    order = np.argsort(score, kind="stable")
    table = Detail("realism", ("gen", "realism"), tuple((int(i), float(score[i])) for i in order))
    inside = _inside(least)
    share, median = float(inside.mean()), float(np.median(score))
    copies = int((least == 0).sum())
    if copies:
        notes += (f"{copies:,} generated samples are exact copies of reference samples with a ball: their realism is infinite",)
    design = _design(gen, ref, k, seed)
    if design is None:
        notes += (f"no interval: {min(n, m)} samples are too few for k = {k}",)
        first = Estimate(share, None, None, n, None, notes=notes, details=(table,))
    else:
        low, high = wilson(share, n / design[0], 2.0)
        first = Estimate(share, low, high, n, "Wilson with design effect", notes=notes, details=(table,), influence={"gen": inside - share})
    if not isfinite(median):
        return first, Undefined(
            f"{copies:,} of {n:,} samples are exact copies of reference samples with a ball: the median realism is infinite"
        )
    if design is None:
        return first, Estimate(median, None, None, n, None, notes=notes, details=(table,))
    low, high = wilson(0.5, n / design[1], 2.0)
    ends = score[order[int(low * (n - 1))]], score[order[int(np.ceil(high * (n - 1)))]]
    if not np.isfinite(ends[1]):
        notes += ("no interval: its upper end is among the exact copies",)
        return first, Estimate(median, None, None, n, None, notes=notes, details=(table,))
    return first, Estimate(median, float(ends[0]), float(ends[1]), n, "order statistics with design effect", notes=notes, details=(table,))


def _inside(least: NDArray[np.float64]) -> NDArray[np.bool_]:
    """R >= 1, where the two squared distances are one up to their own rounding."""
    return least * (1 - SAME) <= 1


def _least(gen: Features, ref: Features, k: int) -> NDArray[np.float64]:
    """(n,) smallest ‖g − r‖²/radius_k(r)², one over R²: 0 for copies of r, infinite where no ball has a radius.

    One matrix product gives all quotients of a tile; the smallest are computed again from differences, and so are all that rounding
    could have hidden.
    """
    radius = neighbours(ref, None, k)[0][:, -1]
    kept = np.flatnonzero(radius <= np.median(radius))
    balls, points = kept[radius[kept] > TINY], kept[radius[kept] <= TINY]
    least = np.full(len(gen), np.inf)
    if len(points):
        least[nearest(gen.x, ref.x[points], 1)[0][:, 0] == 0] = 0.0
    mean = ref.x.mean(axis=0, dtype=np.float64)
    error = 4 * EPS * (8 + np.sqrt(gen.d))
    for c in range(0, len(balls), TILE):
        at = balls[c : c + TILE]
        y, over = ref.x[at] - mean, 1 / radius[at]
        norms = np.einsum("ij,ij->i", y, y) * over
        right = np.concatenate([-2 * y * over[:, None], over[:, None], norms[:, None]], axis=1).T
        for a in range(0, len(gen), TILE):
            x = gen.x[a : a + TILE] - mean
            square = np.einsum("ij,ij->i", x, x)
            quotient = np.concatenate([x, square[:, None], np.ones((len(x), 1))], axis=1) @ right
            best = quotient.argmin(axis=1)
            rows = np.arange(a, a + len(x))
            found = squared_differences(gen.x, rows, ref.x, at[best]) / radius[at[best]]
            found = np.minimum(found, least[rows])
            rounding = error * (square * np.max(over) + np.max(norms))
            unsure = np.flatnonzero((rounding > SURE * found) & (quotient.min(axis=1) <= found + rounding) & (found > 0))
            if len(unsure):
                i, j = np.nonzero(quotient[unsure] <= (found + rounding)[unsure, None])
                i = unsure[i]
                np.minimum.at(found, i, squared_differences(gen.x, rows[i], ref.x, at[j]) / radius[at[j]])
            least[rows] = found
    return least


def _design(gen: Features, ref: Features, k: int, seed: int) -> tuple[float, float] | None:
    """Design effects, at least 1, of the share with R >= 1 and of the share above the median."""
    smallest = min(len(gen), len(ref))
    parts = int(np.clip(smallest // 1000, 4 if smallest >= 16 * (k + 1) else 2, 20))
    if smallest // parts < 2 * (k + 5):
        return None
    draw = np.random.default_rng(seed)
    between, units = [], []
    for _ in range(-(-30 // (parts - 1))):  # 30 degrees of freedom
        order_g, order_r = draw.permutation(len(gen)), draw.permutation(len(ref))
        found = [_least(gen.take(np.sort(order_g[p::parts])), ref.take(np.sort(order_r[p::parts])), k) for p in range(parts)]
        middle = np.median(np.concatenate(found))
        shares = np.array([[_inside(f).mean(), (f <= middle).mean()] for f in found])
        between.append(shares.var(axis=0, ddof=1))
        units.append((shares * (1 - shares)).mean(axis=0))
    effect = len(gen) / parts * np.mean(between, axis=0) / np.maximum(np.mean(units, axis=0), 1 / smallest)
    return 1 + EXCESS * max(float(effect[0]) - 1, 0.0), 1 + EXCESS * max(float(effect[1]) - 1, 0.0)
