"""Precision and recall of distributions (PRD)."""

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Detail, Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.statistics import Features

Vector = NDArray[np.float64]
BETA = 8.0
DRAWS = 100
HALF = 2.35  # half width in standard errors (simulated)
FIRST = 1e-10  # the first angle, and the last one's distance from π/2, as in the authors' code
CURVE = 101  # points in the table


@metric(
    Quantity("prd_f8", "higher", ideal=1.0, range=(0, 1), placed=True),
    Quantity("prd_f1_8", "higher", ideal=1.0, range=(0, 1), placed=True),
    cost="n d clusters runs",
    source="Sajjadi et al. 2018, algorithm 1 and section 4",
)
def prd(ref: Features, gen: Features, *, clusters: int = 20, angles: int = 1001, runs: int = 10, seed: int = 0) -> tuple[Outcome, ...]:
    """Precision-recall curve of two histograms over k-means clusters of the union, as F_8 (recall) and F_1/8 (precision).

        precision(λ) = Σ_c min(λ R_c, G_c),   recall(λ) = precision(λ)/λ,   λ = tan of `angles` angles from 0 to π/2
        F_β = max_λ (1 + β²) precision recall/(β² precision + recall) = max_λ (1 + β²) precision(λ)/(1 + β² λ)

    R and G are the shares of ref and gen in a cluster; the curve is the mean over `runs` clusterings (mini-batch k-means from one start
    each; the authors take the best of ten).

    Args:
        ref: reference features (m, d).
        gen: generated features (n, d); the larger side is cut to the smaller one's size, or else the clusters would be mostly its own.
        clusters: k-means clusters of the union; fewer where there are fewer distinct rows.
        angles: points of the curve, 3 to 10,000.
        runs: clusterings.
        seed: of the cut and of the clusterings.

    Returns:
        Two numbers in [0, 1] without unit, higher is better: prd_f8 weighs recall, prd_f1_8 precision. Table "curve": every tenth point.
        Two samples of equal laws read below 1, more so with fewer samples and more clusters: only values of equal n and settings compare.

        Interval, for the expectation at this n: the standard deviation of 100 bootstrap draws of the rows of both sides with their clusters
        (no neighbours are involved: copies do no harm), times (1 − value)/(1 − mean of the draws), since a draw adds its own floor to the
        sample's and noise grows with it; and the variance of the mean of the runs. Half width 2.35 standard errors; values are skewed to
        the left, so the interval is taken on the scale of sqrt(1 − value), as for KID. None below 8 samples a side.

    Note:
        Sees how mass is spread over clusters, not what is within one: blur, copies and missing details are invisible to it; with few
        samples per cluster all is noise. A doubled class lowers precision, a dropped class recall.

    References:
        Assessing Generative Models via Precision and Recall (Sajjadi et al., 2018), algorithm 1, equation 4 and section 4.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(400, 2)) + 9 * rng.integers(0, 2, (400, 1))
        >>> f8, f1_8 = prd.function(Features(x), Features(x[x[:, 0] < 4.5]), clusters=4)  # one of two modes
        >>> f1_8.value > 0.9 > 0.6 > f8.value
        True
    """
    if clusters < 2 or not 3 <= angles <= 10_000 or runs < 1:
        raise UsageError(f"prd needs clusters >= 2, angles from 3 to 10,000 and runs >= 1, found {clusters}, {angles} and {runs}")
    n, m = len(gen), len(ref)
    size = min(n, m)
    if size < 1:
        return (Undefined(f"needs samples on both sides, found {n} generated and {m} of the reference"),) * 2
    notes: tuple[str, ...] = ()
    if n != m:
        notes += (f"{n:,} samples against {m:,} of the reference: the larger side is cut to {size:,}",)
    if size < 10 * clusters:
        notes += (f"{size} samples a side are few for {clusters} clusters: equal laws read well below 1",)
    labels = _clustered(gen.cut(size, seed), ref.cut(size, seed), clusters, runs, seed) + clusters * np.arange(runs)[:, None]
    slopes = np.tan(np.linspace(FIRST, np.pi / 2 - FIRST, angles))
    each = _precision(labels[:, :size], labels[:, size:], clusters, slopes)
    precision = each.mean(axis=0)
    recall = np.minimum(precision / slopes, 1.0)
    shown = np.linspace(0, angles - 1, min(angles, CURVE)).astype(np.int64)
    table = Detail("curve", ("precision", "recall"), tuple(zip(precision[shown].tolist(), recall[shown].tolist(), strict=True)))
    factors = np.array([(1 + beta**2) / (1 + beta**2 * slopes) for beta in (BETA, 1 / BETA)])  # (2, angles)
    values = np.minimum((factors * precision).max(axis=1), 1.0)
    if size < 8:
        notes += (f"no interval: {size} samples",)
        return tuple(Estimate(float(v), None, None, n, None, notes=notes, details=(table,)) for v in values)
    draw, found = np.random.default_rng(seed), np.empty((DRAWS, 2))
    for b in range(DRAWS):
        of_gen, of_ref = draw.integers(0, size, size), draw.integers(size, 2 * size, size)
        again = _precision(labels[:, of_gen], labels[:, of_ref], clusters, slopes).mean(axis=0)
        found[b] = (factors * again).max(axis=1)
    out = []
    for value, factor, draws in zip(values.tolist(), factors, found.T, strict=True):
        best = int(np.argmax(factor * precision))
        between = float((factor * each)[:, best].var(ddof=1)) / runs if runs > 1 else 0.0
        floor = (1 - value + 1 / size) / (1 - float(draws.mean()) + 1 / size)
        half = HALF * sqrt(floor**2 * float(draws.var(ddof=1)) + between)
        shift = half**2 / (4 * max(1 - value, half)) if half > 0 else 0.0
        low, high = max(value - half - shift, 0.0), min(value + half - shift, 1.0)
        out.append(Estimate(value, low, high, n, "bootstrap of rows", notes=notes, details=(table,)))
    return tuple(out)


def _precision(gen: NDArray[np.int64], ref: NDArray[np.int64], clusters: int, slopes: Vector) -> Vector:
    """(runs, slopes) Σ_c min(λ R_c, G_c) from (runs, n) clusters, numbered on from run to run."""
    g, r = (np.bincount(side.ravel(), minlength=clusters * len(side)).reshape(len(side), 1, -1) / side.shape[1] for side in (gen, ref))
    return np.minimum(np.minimum(slopes[:, None] * r, g).sum(axis=2), 1.0)


def _clustered(gen: Features, ref: Features, clusters: int, runs: int, seed: int) -> NDArray[np.int32]:
    """(runs, 2 n) clusters of the rows of gen, then of ref."""
    from sklearn.cluster import MiniBatchKMeans

    x = np.concatenate([gen.x, ref.x])
    count = min(clusters, len(np.unique(x, axis=0)))
    return np.array(
        [MiniBatchKMeans(count, n_init=1, random_state=int(s)).fit(x).labels_ for s in np.random.default_rng(seed).integers(0, 2**31, runs)]
    )
