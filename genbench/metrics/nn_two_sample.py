"""Nearest-neighbour two-sample test."""

import numpy as np
from numpy.typing import NDArray

from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import EPS, SAME, Float, neighbours, student95, wilson
from genbench.statistics import Features

BLOCK, TILE = 256, 2048  # tied rows, and rows they are compared with, at a time


@metric(
    Quantity("nn_accuracy", "closer", ideal=0.5, range=(0, 1)),
    Quantity("nn_accuracy_real", "closer", ideal=0.5, range=(0, 1)),
    Quantity("nn_accuracy_gen", "closer", ideal=0.5, range=(0, 1)),
    cost="n² d",
    source="Xu et al. 2018, section 2; Schilling 1986",
)
def nn_two_sample(ref: Features, gen: Features, *, seed: int = 0) -> tuple[Outcome, ...]:
    """Leave-one-out accuracy of the nearest neighbour as a classifier of generated against reference samples.

        nn_accuracy = 1/(2n) Σ_z (share of the side of z among the samples nearest to z),     z in the union of n gen and n ref

    The share is 1 or 0 but where samples of both sides are equally near (copies, grids, bits): there it is a fraction, as if one of
    them were drawn. So no order of rows matters, and discrete laws that differ in their frequencies are told apart.

    Args:
        ref: reference features (m, d).
        gen: generated features (n, d). The larger side is cut to the smaller one's size, since neighbours come from the larger one more
            often.
        seed: of that cut.

    Returns:
        Three shares in [0, 1], closer to 0.5 is better; equal laws read (n − 1)/(2n − 1). `nn_accuracy_real` is the part of the reference
        samples and `nn_accuracy_gen` that of the generated ones; `nn_accuracy` is their mean.

        gen high, real low: a collapsed or truncated generator, inside the data. Both low: samples lie closer to the reference's than
        those to each other, as near copies of them do; gen = ref reads 0. Both high: the laws lie apart.

        Intervals, for the expectation at this n: Wilson's with n/D samples. D is the design effect of neighbourhoods that share points,
        found in closed form: with e(i) the neighbour of i and u the deviations of the shares from their mean, pairs of rows are dependent
        where {i, e(i)} and {j, e(j)} meet, and the sizes of both sides are fixed, so that

            D Var(u) n = Σ_v (W_v − mean of W on the side of v)² − Σ_i u_i² − Σ_{e(e(i)) = i} u_i u_e(i),     W_v = u_v + Σ_{e(i) = v} u_i

        Under equal laws it is Schilling's variance, D = 1 + share of mutual neighbours for the total. Ties spread over all rows that are
        equally near. Undefined below 2 samples on a side. Simulated coverage: benchmarks/coverage.md.

    Note:
        Blind to what the distance hides: in many dimensions hubs decide, and a slight contraction reads like a collapse. The total can
        read 0.5 while its two parts are far from it: look at all three. Grows with n where the laws differ.

    References:
        An empirical study on evaluation metrics of generative adversarial networks (Xu et al., 2018), section 2, "1-NN".
        Multivariate Two-Sample Tests Based on Nearest Neighbors (Schilling, 1986), theorem 3.1.
        A multivariate two-sample test based on the number of nearest neighbor type coincidences (Henze, 1988), theorem 4.1.
        Cluster-Robust Variance Estimation for Dyadic Data (Aronow, Samii & Assenova, 2015), eq. 2: the sum over pairs that meet.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> [e.value for e in nn_two_sample.function(Features(x), Features(x))]
        [0.0, 0.0, 0.0]
        >>> [e.value for e in nn_two_sample.function(Features(x), Features(x + 100))]
        [1.0, 1.0, 1.0]
    """
    n = min(len(gen), len(ref))
    if n < 2:
        return (Undefined(f"leave-one-out needs at least 2 samples on each side, found {len(gen)} and {len(ref)}"),) * 3
    if float(max(np.abs(gen.x).max(), np.abs(ref.x).max())) > 1e150:
        return (Undefined("the features are too large for float64: squared distances overflow; rescale them"),) * 3
    notes: tuple[str, ...] = ()
    if len(gen) != len(ref):
        notes = (f"{len(gen):,} samples against {len(ref):,} of the reference: the larger side is cut to {n:,}",)
    x, y = gen.cut(n, seed), ref.cut(n, seed)
    vote, edge, tied, spread = _votes(x, y)
    units = np.zeros((3, 2 * n))  # rows of the union: gen, then ref
    for u, part in zip(units, (slice(None), slice(n, None), slice(n)), strict=True):
        u[part] = vote[part] - vote[part].mean()
    count = np.array([2 * n, n, n])
    mean = np.array([vote.mean(), vote[n:].mean(), vote[:n].mean()])
    # What a row does to its own share and to those of the rows whose neighbour it is
    free = np.flatnonzero(~tied)
    mutual = free[(edge[edge[free]] == free) & ~tied[edge[free]]]
    effect = units + np.stack([spread.sum(axis=0), spread[1], spread[0]])
    for w, u in zip(effect, units, strict=True):
        w += np.bincount(edge[free], u[free], 2 * n)
    effect = (effect.reshape(3, 2, n) - effect.reshape(3, 2, n).mean(axis=2, keepdims=True)).reshape(3, 2 * n)
    squares = (effect**2).sum(axis=1)
    variance = squares - (units[:, free] ** 2).sum(axis=1) - (units[:, mutual] * units[:, edge[mutual]]).sum(axis=1)
    # Where nearly all shares are equal the sum says little: one more unit, with the design effect of mutual pairs. And hubs, which rule
    # in many dimensions, are found in part: at n = 50 the sum is 5 to 15 % low (simulated)
    variance *= 1 + 5 / n
    design = np.maximum((variance + 2) / (count * mean * (1 - mean) + 1), np.maximum(0.5 * len(free) / (2 * n), 1 / n))
    noise = ((effect**2 - squares[:, None] / (2 * n)) ** 2).sum(axis=1)
    out = []
    for v, size, d, s, e in zip(mean, count, design, squares, noise, strict=True):
        low, high = wilson(float(v), float(size / d), student95(max(2 * s * s / e, 4.0) if e > 0 else 1e9))
        out.append(Estimate(float(v), low, high, len(gen), "Wilson with design effect", notes=notes))
    return tuple(out)


def _votes(x: Features, y: Features) -> tuple[Float, NDArray[np.int64], NDArray[np.bool_], Float]:
    """Of the union of x and y: shares, neighbours, which rows have several, and (2, 2n) what each row does to the shares of such rows of
    x and of y."""
    n = len(x)
    vote, edge, tied, spread = np.empty(2 * n), np.empty(2 * n, np.int64), np.empty(2 * n, bool), np.zeros((2, 2 * n))
    for s, (own, other) in enumerate(((x, y), (y, x))):
        part = slice(s * n, (s + 1) * n)
        near, at = neighbours(own, None, min(2, n - 1))
        across, there = neighbours(own, other, 2)
        first, second = near[:, 0], across[:, 0]
        vote[part] = first < second
        edge[part] = np.where(first < second, at[:, 0] + s * n, there[:, 0] + (1 - s) * n)
        several = np.stack([first, second, near[:, -1] if n > 2 else np.full(n, np.inf), across[:, 1]])
        radius = several[:2].min(axis=0)
        tied[part] = (several <= radius * (1 + SAME)).sum(axis=0) > 1
        rows = np.flatnonzero(tied[part])
        for a in range(0, len(rows), BLOCK):
            some = rows[a : a + BLOCK]
            here, over = _within(own, own, some, radius[some]), _within(own, other, some, radius[some])
            here[np.arange(len(some)), some] = False
            total = np.maximum(here.sum(axis=1) + over.sum(axis=1), 1)
            share = here.sum(axis=1) / total
            vote[some + s * n] = share
            spread[s, part] += ((1 - share) / total) @ here
            spread[s, (1 - s) * n : (2 - s) * n] -= (share / total) @ over
    return vote, edge, tied, spread


def _within(x: Features, y: Features, rows: NDArray[np.int64], radius: Float) -> NDArray[np.bool_]:
    """Which rows of y are within the squared radius of some rows of x, up to rounding."""
    mean = y.x.mean(axis=0, dtype=np.float64)
    a = x.x[rows] - mean
    squares = (a**2).sum(axis=1)[:, None]
    out = np.empty((len(rows), len(y)), bool)
    for c in range(0, len(y), TILE):
        b = y.x[c : c + TILE] - mean
        norms = squares + (b**2).sum(axis=1)
        rounding = 4 * EPS * (8 + np.sqrt(x.d)) * norms
        out[:, c : c + TILE] = norms - 2 * a @ b.T <= radius[:, None] * (1 + SAME) + rounding
    return out
