"""Number of statistically different bins (NDB) and the Jensen–Shannon divergence of the bins' histograms."""

from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Detail, Estimate, Quantity, Undefined
from genbench.histograms import divergence_interval, variance_of
from genbench.metric import Outcome, metric
from genbench.numerics import Z95, Float, wilson
from genbench.statistics import Features

Whole = NDArray[np.integer[Any]]
FITTED = 100  # reference rows per bin that k-means is fitted on, at most
COUNTED = 10  # expected rows per bin, at least, for the normal test of two proportions
STEPS = 30  # of Lloyd's algorithm
TILE = 4096


@metric(
    Quantity("ndb", "lower", ideal=0.05, range=(0, 1), placed=True),
    Quantity("ndb_js", "lower", unit="nats", ideal=0.0, placed=True),
    cost="(n + m) bins d",
    source="Richardson & Weiss 2018, section 2",
)
def ndb(ref: Features, gen: Features, *, bins: int = 100, seed: int = 0) -> tuple[Outcome, Outcome]:
    """Share of k-means bins in which generated and reference samples differ significantly in number, and the divergence of the bins.

        ndb    = share of bins with |p − q| > 1.96 sqrt(r (1 − r) (1/n + 1/m)),   r = (n p + m q)/(n + m)
        ndb_js = JS(p, q) − first-order bias,   JS(p, q) = ½ KL(p ‖ ½(p + q)) + ½ KL(q ‖ ½(p + q))

    p and q are the bins' shares of gen and ref. The original counts the rows that k-means was fitted on; these lie closer to the centres
    than new ones do. Here the bins are fitted on one half of ref, or 100 rows per bin of it, and the m rows left are counted, so that
    5 % of the bins differ for equal laws.

    Args:
        ref: reference features, the training set in the paper.
        gen: generated features (n, d).
        bins: number of bins, at most; 100 in the paper. Fewer where a bin would expect fewer than 10 rows of a side.
        seed: of the halves and of k-means' start.

    Returns:
        `ndb` in [0, 1], lower is better, 0.05 for equal laws. It grows with n and m, as every test's power does: compare equal sizes
        only. Interval for its mean at these sizes: Wilson's, with the number of trials that the variance is worth: half way between
        that of the tests alone, found by fitting a mixture to their statistics, and the binomial one (simulated).

        `ndb_js` in nats, at most log 2, lower is better, 0 for equal laws, slightly negative values are usual there. Its interval
        inverts the noncentral χ² law (Sankaran's root), stretched to the delta method's variance where histograms differ. It does not
        count the choice of the bins.

        The table "bins" has the shares and the test statistic of every bin.

    Note:
        Sees proportions of bins only: blind to quality within a bin (a far sample belongs to the nearest centre) and to copies.
        k-means weighs features by their scale; many features of small variance decide little.

    References:
        On GANs and GMMs (Richardson & Weiss, 2018), section 2, arXiv:1805.12462.
        On the Non-central Chi-square Distribution (Sankaran, 1959): the root.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> different, js = ndb.function(*(Features(rng.normal(size=(1000, 2))) for _ in range(2)), bins=20)
        >>> different.low <= 0.05 <= different.high, js.low <= 0 <= js.high
        (True, True)
    """
    if bins < 2:
        raise UsageError(f"ndb needs bins >= 2, found {bins}")
    n = len(gen)
    fitted = min(len(ref) // 2, FITTED * bins)
    m = len(ref) - fitted
    size = min(bins, n // COUNTED, m // COUNTED)
    if size < 2:
        return (
            Undefined(f"two bins of {COUNTED} samples need {2 * COUNTED} of gen and {4 * COUNTED} of ref, found {n} and {len(ref)}"),
        ) * 2
    draw = np.random.default_rng(seed)
    direction = draw.standard_normal(ref.d)
    order = np.argsort(ref.x @ direction, kind="stable")[draw.permutation(len(ref))]  # by content: the halves do not follow places
    centres = _kmeans(ref.x[order[:fitted]].astype(np.float64), size, draw)
    if len(centres) < 2:
        return (Undefined("the reference has no two different samples, so there are no bins"),) * 2
    notes = () if size == bins else (f"{size} bins instead of {bins}: a bin should expect {COUNTED} samples of each side",)
    at = _assign(gen.x, centres)
    other = _assign(ref.x[order[fitted:]], centres)
    k = len(centres)
    p, q = np.bincount(at, minlength=k) / n, np.bincount(other, minlength=k) / m
    return _different(p, q, n, m, notes), _divergence(p, q, at, m, notes)


def _different(p: Float, q: Float, n: int, m: int, notes: tuple[str, ...]) -> Estimate:
    k = len(p)
    r = (n * p + m * q) / (n + m)
    z = np.divide(p - q, np.sqrt(r * (1 - r) * (1 / n + 1 / m)), out=np.zeros(k), where=(r > 0) & (r < 1))
    value = float((np.abs(z) > Z95).mean())
    binomial = value * (1 - value)
    trials = k * max(2 * binomial / (binomial + _spread(np.abs(z))), 1.0)  # half way: k-means places its bins at random too
    low, high = wilson(value, trials, Z95)
    rows = tuple((i, float(p[i]), float(q[i]), float(z[i])) for i in np.argsort(-np.abs(z), kind="stable").tolist())
    table = Detail("bins", ("bin", "gen_share", "ref_share", "z"), rows)
    return Estimate(value, low, high, n, "Wilson with mixture of powers", notes=notes, details=(table,))


def _spread(z: Float) -> float:
    """Mean over bins of π (1 − π), π a bin's chance to be called different.

    The statistics are |N(θ, 1)|; the law of θ is fitted by expectation maximisation on a grid, since the tests' own results, taken for
    their chances, would count a bin that is surely different together with one that surely is not.
    """
    from scipy.special import ndtr

    theta = np.arange(0.0, 12.25, 0.25)
    seen = np.minimum(z, theta[-1])[:, None]
    like = np.exp(-((seen - theta) ** 2) / 2) + np.exp(-((seen + theta) ** 2) / 2)  # (bins, grid)
    weight = np.full(len(theta), 1 / len(theta))
    for _ in range(200):
        part = like * weight
        weight = (part / part.sum(axis=1, keepdims=True)).mean(axis=0)
    power = ndtr(theta - Z95) + ndtr(-theta - Z95)
    return float(weight @ (power * (1 - power)))


def _divergence(p: Float, q: Float, at: Whole, m: int, notes: tuple[str, ...]) -> Estimate:
    n, k = len(at), len(p)
    both = p + q
    ratio_p, ratio_q = (np.log(np.divide(2 * s, both, out=np.ones(k), where=s > 0)) for s in (p, q))
    raw = min(max(float(p @ ratio_p + q @ ratio_q) / 2, 0.0), log(2))
    share = np.divide(1.0, both, out=np.zeros(k), where=both > 0)
    bias = float((q * (1 - p)) @ share) / (4 * n) + float((p * (1 - q)) @ share) / (4 * m)
    variance = (variance_of(p, ratio_p) / n + variance_of(q, ratio_q) / m) / 4
    full = int((both > 0).sum())
    low, high = divergence_interval(raw - bias, raw, variance, 8 / (1 / n + 1 / m))
    notes += (f"the raw divergence is {raw:.4g}; equal laws read {(full - 1) / 8 * (1 / n + 1 / m):.3g} at these sizes",)
    influence = {"gen": (ratio_p[at] - p @ ratio_p) / 2}
    return Estimate(raw - bias, low, max(min(high, log(2)), raw - bias), n, "noncentral χ²", notes=notes, influence=influence)


def _kmeans(x: Float, k: int, draw: np.random.Generator) -> Float:
    """Centres by Lloyd's algorithm from a k-means++ start (Arthur & Vassilvitskii 2007); fewer than k where x has fewer values."""
    chosen = [int(draw.integers(len(x)))]
    nearest = ((x - x[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < k and nearest.max() > 0:
        mass = np.cumsum(nearest / nearest.max())
        chosen.append(min(int(np.searchsorted(mass, draw.random() * mass[-1], side="right")), len(x) - 1))
        nearest = np.minimum(nearest, ((x - x[chosen[-1]]) ** 2).sum(axis=1))
        nearest[chosen[-1]] = 0.0
    centres = x[chosen]
    at = np.full(len(x), -1)
    for _ in range(STEPS):
        before, at = at, _assign(x, centres)
        if (at == before).all():
            break
        order = np.argsort(at, kind="stable")
        filled, start = np.unique(at[order], return_index=True)
        sums = np.add.reduceat(x[order], start, axis=0)
        centres = centres.copy()
        centres[filled] = sums / np.diff(np.append(start, len(x)))[:, None]
    return centres


def _assign(x: Float, centres: Float) -> Whole:
    """Number of the nearest centre of every row."""
    middle = centres.mean(axis=0)
    c = centres - middle
    norms = (c * c).sum(axis=1)
    at = np.empty(len(x), np.int64)
    for a in range(0, len(x), TILE):
        apart = norms - 2 * ((x[a : a + TILE].astype(np.float64) - middle) @ c.T)
        at[a : a + TILE] = apart.argmin(axis=1)
    return at
