"""Repeats among generated samples."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Detail, Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import SHARED, Z95, below_order_statistic, mover, neighbours, wilson
from genbench.statistics import Features

Vector = NDArray[np.float64]
Index = NDArray[np.int64]
GROUPS = 100  # rows of the table


@metric(
    Quantity("duplicates", "lower", range=(0, 1)),
    Quantity("near_duplicates", "lower", ideal=0.01, range=(0, 1)),
    cost="n² d",
    source="Chao 1984 and Colwell et al. 2012 for the interval; nearest neighbours calibrated on the reference",
)
def duplicates(gen: Features, ref: Features, *, alpha: float = 0.01, seed: int = 0) -> tuple[Outcome, ...]:
    """Share of samples that repeat another one exactly, and share that have a neighbour nearer than all but a share alpha of the reference.

        duplicates      = 1 − K/n,   K = number of different contents among n samples (by digest, or by features without one)
        near_duplicates = share of gen whose nearest other gen sample is nearer than the α-quantile of that distance within ref

    The larger side is cut to the smaller one's size for near_duplicates, since neighbours come nearer in a larger sample. The quantile
    is the interpolated order statistic of number α (m/2 + 1) among every second distance, since the nearest rows come in pairs, and ties
    are shared out as if broken at random: near_duplicates is about α for equal laws, discrete ones too.

    Args:
        gen: generated features (n, d).
        ref: reference features.
        alpha: share of the reference that is called a near-duplicate by mistake, between 0 and 1.
        seed: of the cut (by position).

    Returns:
        Two numbers in [0, 1] without unit, lower is better. duplicates has no ideal but what the reference itself reads at this size,
        which a note tells where it is not 0; near_duplicates is about α for equal laws. Both members of a close pair count in
        near_duplicates, all but one of a group in duplicates.

        Intervals are for the expectation at this n. duplicates: with f₁ and f₂ contents that are there once and twice, and
        S = K + f₁²/(2 f₂) (Chao's estimate of all contents), Var(K) = K (1 − K/S) − f₁²/n, at most the jackknife's f₁ (1 − f₁/n) and at
        least 1; with the effective size that follows, Clopper–Pearson. near_duplicates: rows of a pair count together, so that the units
        are not independent; the variance of their number is the smallest of three estimates, each too large but for its own case: rows
        in connected groups with these as units, rows alone as units, and a jackknife over rows. With the effective sizes of both sides,
        the interval of the proportion at a given quantile (Wilson) is joined with that of the quantile's own level (Beta) as roots of
        squares (MOVER).

        Table "groups": one sample of each repeated content and how often it is there, the most frequent first, at most 100.

    Note:
        Both grow with n for a model that repeats itself: compare at one n. Samples that are less spread out than the reference have
        nearer neighbours without a repeat. Blind to dropped classes and to copies of training data. Repeats under noise larger than
        the spacing of real samples hide.

    References:
        Nonparametric Estimation of the Number of Classes in a Population (Chao, 1984): S.
        Models and Estimators Linking Individual-Based and Sample-Based Rarefaction, Extrapolation and Comparison of Assemblages
        (Colwell et al., 2012): K (1 − K/S) where the size of the sample is random; f₁²/n less where it is fixed.
        Construction of Confidence Limits about Effect Measures (Zou and Donner, 2008): MOVER.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(500, 4))
        >>> found = duplicates.function(Features(np.concatenate([x[:200], x[:50]])), Features(x[250:]))
        >>> found[0].value, round(found[1].value, 1)
        (0.2, 0.4)
    """
    if not 0 < alpha < 1:
        raise UsageError(f"duplicates needs 0 < alpha < 1, found {alpha}")
    n, size = len(gen), min(len(gen), len(ref))
    if n < 2:
        return (Undefined(f"needs at least 2 generated samples, found {n}"),) * 2
    first, copies = _contents(gen)
    value, low, high = _repeats(copies)
    real = _contents(ref.cut(n, seed))[1]
    told = f"{n - len(copies):,} of {n:,} samples repeat another one"
    if len(real) < real.sum():
        told += f", of the reference {real.sum() - len(real):,} of {real.sum():,}"
    proper = len(copies) == n or (len(real) < real.sum() and low <= _repeats(real)[2])  # no more repeats than real samples have
    order = np.lexsort((first, -copies))[:GROUPS]
    groups = Detail("groups", ("gen", "copies"), tuple((int(first[i]), int(copies[i])) for i in order if copies[i] > 1))
    notes = (told,) if len(copies) < n else ()
    exact = Estimate(value, low, high, n, "Clopper–Pearson at effective size", notes=notes, details=(groups,))

    if min(alpha, 1 - alpha) * (size // 2 + 1) < 1:
        need = 2 * int(np.ceil(1 / min(alpha, 1 - alpha) - 1e-9)) - 2
        return exact, Undefined(f"the {alpha}-quantile of neighbours needs at least {need} samples on each side, found {n} and {len(ref)}")
    value, low, high = _calibrated(gen.cut(size, seed), ref.cut(size, seed), alpha)
    verdict = f"{100 * value:.3g} % of samples are nearer to another one than {100 * alpha:.3g} % of the reference are"
    if n != len(ref):
        verdict += f" (at {size:,} each)"
    if low > alpha:
        verdict += ": repeats, or samples that are less spread out than the reference"
    elif proper:
        verdict = f"no sign of repetition: {verdict}"
    return exact, Estimate(value, low, high, n, "MOVER of Wilson and Beta at effective sizes", notes=(verdict,))


def _contents(x: Features) -> tuple[Index, Index]:
    """The first row of each different content and how many rows have it."""
    rows = np.ascontiguousarray(x.x + 0.0 if x.digests is None else x.digests)  # -0.0 is 0.0
    if not len(rows):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    keys = rows.view(f"V{rows.itemsize * rows.shape[1]}").ravel()
    _, first, copies = np.unique(keys, return_index=True, return_counts=True)
    return first, copies


def _repeats(copies: Index) -> tuple[float, float, float]:
    """1 − K/n and its interval."""
    from scipy.special import betaincinv

    count, n = len(copies), int(copies.sum())
    value, units = (n - count) / n, float(n)
    if count < n:
        once, twice = int((copies == 1).sum()), int((copies == 2).sum())
        unseen = once**2 / (2 * twice) if twice else once * (once - 1) / 2
        variance = min(count * unseen / (count + unseen) - once**2 / n, once * (1 - once / n))
        units = n**2 * value * (1 - value) / max(variance, 1.0)
    low = float(betaincinv(value * units, (1 - value) * units + 1, 0.025)) if value else 0.0
    high = float(betaincinv(value * units + 1, (1 - value) * units, 0.975))
    return value, min(low, value), max(min(high, 1 - 1 / n), value)


def _calibrated(gen: Features, ref: Features, alpha: float) -> tuple[float, float, float]:
    """Share of gen whose neighbour is nearer than the alpha-quantile of that distance within ref, and its interval."""
    from scipy.special import betaincinv

    m = len(ref)
    (a, near_a), (b, near_b) = (neighbours(v, None, min(SHARED, m - 1)) for v in (gen, ref))
    pairs = np.sort(b[:, 0])[1::2]  # the nearest neighbours of all come in pairs: one order statistic of each
    place = alpha * (len(pairs) + 1)
    value = float(below_order_statistic(a[:, 0], pairs, place).mean())
    counted, counted_b = (below_order_statistic(v, pairs, max(round(place), 1)) for v in (a, b))
    within = wilson(value, _units(counted, near_a), Z95)
    own = below_order_statistic(pairs, pairs, max(round(place), 1))
    ties = min((float(own @ own) + 0.25) / float(own.sum()), 1.0)  # a quarter: the quantile's own pair is tied to itself
    units = min(_units(counted_b > 0, near_b), m / 2) / ties
    ends = betaincinv(alpha * (units + 1), (1 - alpha) * (units + 1), [0.025, 0.975])
    below = [float(below_order_statistic(a[:, 0], pairs, level * (len(pairs) + 1)).mean()) for level in ends]
    low, high = mover(value, within, (below[0], below[1]))
    return value, max(low, 0.0), min(high, 1.0)


def _units(counted: NDArray[Any], near: Index) -> float:
    """Effective number of independent rows behind the share of rows that have a near one, of the first few neighbours.

    Args:
        counted: (n, k) weight of each neighbour, 0 where it is not near.
        near: (n, k) their rows.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(near)
    edges = counted > 0
    inside = edges[:, 0]
    share = float(inside.mean())
    if not inside.any():
        return n / 2
    effect = inside + np.bincount(near[inside & ~edges[:, 1], 0], minlength=n)  # by how much the number falls without the row
    row, k = np.nonzero(edges)
    _, label = connected_components(coo_matrix((np.ones(len(row)), (row, near[row, k])), shape=(n, n)), directed=False)
    mean = float(effect.mean())
    clusters = float((np.bincount(label[inside]) ** 2).sum()) - n * mean**2
    jackknife = float((effect**2).sum()) - n * mean**2
    alone = float((~inside).sum()) - n * (1 - mean) ** 2
    variance = max(min(clusters, jackknife, alone), 1.0)
    part = float(counted[:, 0].mean()) / share  # ties at the quantile count in part
    value = part * share
    return n**2 * value * max(1 - value, 1 / n) / (part**2 * variance)
