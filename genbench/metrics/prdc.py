"""Precision, recall, density and coverage of k-nearest-neighbour manifolds."""

from math import inf

import numpy as np

from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import BLOCKS, T95_19, jackknife, manifolds
from genbench.statistics import Features

_RANGES = ((0.0, 1.0), (0.0, 1.0), (0.0, inf), (0.0, 1.0))


def _cut(x: Features, n: int, rng: np.random.Generator) -> tuple[Features, Features]:
    """n rows, drawn without replacement, and the others."""
    order = rng.permutation(len(x))
    first, rest = np.sort(order[:n]), np.sort(order[n:])
    return Features(x.x[first], x.extractor), Features(x.x[rest], x.extractor)


@metric(
    Quantity("precision", "higher", range=_RANGES[0]),
    Quantity("recall", "higher", range=_RANGES[1]),
    Quantity("density", "higher", range=_RANGES[2]),
    Quantity("coverage", "higher", range=_RANGES[3]),
    cost="n² d",
    source="Kynkäänniemi et al. 2019, eqs. 1-2; Naeem et al. 2020, eqs. 2-3",
)
def prdc(ref: Features, gen: Features, *, k: int = 5, equal: bool = True, baseline: bool = True, seed: int = 0) -> tuple[Outcome, ...]:
    """How much of the generated set lies in the reference's manifold, and the other way round.

    With B(x) the ball around x that reaches to its k-th nearest neighbour in x's own set, boundary included:
        precision = share of g inside some B(r)          recall   = share of r inside some B(g)
        density   = mean over g of #{r: g in B(r)} / k   coverage = share of r with some g in B(r)

    Args:
        ref: reference rows (m, d).
        gen: generated rows (n, d).
        k: neighbours, 5 in Naeem et al. (the original precision and recall have 3).
        equal: cut the larger side to the smaller one's size by a seeded draw; manifolds of different sizes differ in radius.
        baseline: also note what two real samples of this size read; precision, recall and coverage of equal laws are not 1.
        seed: of the draws.

    Returns:
        Four values, higher is better; precision, recall and coverage in [0, 1], density in [0, ∞). Interval: ± t(19) times the jackknife
        standard error over 20 blocks (row index mod 20; the rows of a block are deleted on both sides). A bootstrap would repeat rows,
        and a repeated row is its own neighbour.

    Note:
        Distances are compared with <=, as in the original; tools that use < read 0 on identical discrete data. A collapsed generator has
        high precision and low recall. Precision and density improve under blur and truncation, and an outlier inflates a ball.
        Float64 distances; copies are at distance exactly 0.

    References:
        Improved Precision and Recall Metric (Kynkäänniemi et al. 2019), eqs. 1-2, https://arxiv.org/abs/1904.06991
        Reliable Fidelity and Diversity Metrics (Naeem et al. 2020), eqs. 2-3, https://arxiv.org/abs/2002.09797

    Example:
        >>> x = Features(np.arange(40.0).reshape(20, 2))
        >>> [e.value for e in prdc(ref=x, gen=x, k=3).values()][:2]
        [1.0, 1.0]
    """
    n, m = len(gen), len(ref)
    smaller = min(n, m)
    if k < 1 or smaller <= k:
        return (Undefined(f"k must be from 1 to less than the number of samples on each side, found k = {k} for {n} and {m}"),) * 4
    rng = np.random.default_rng(seed)
    notes: list[str] = []
    others: Features | None = None
    if n != m and equal:
        notes.append(f"{n:,} samples against {m:,}: the larger side was cut to {smaller:,}, since the manifolds' radii depend on n")
        gen = _cut(gen, smaller, rng)[0] if n > m else gen
        ref, others = _cut(ref, smaller, rng) if m > n else (ref, None)
    elif n != m:
        notes.append(f"{n:,} samples against {m:,}: the manifolds' radii depend on n, so the values are not those of equal sizes")
    blocks = BLOCKS if smaller >= 4 * BLOCKS and smaller - -(-smaller // BLOCKS) > k else 1
    values = manifolds(gen, ref, k, blocks)
    if baseline and smaller >= 2 * (k + 1):
        notes.append(_equal_law(ref, others, smaller, k, rng))
    if blocks == 1:
        notes.append(f"no interval: {smaller} samples, the jackknife over {BLOCKS} blocks needs {4 * BLOCKS}")
        return tuple(Estimate(float(v), None, None, n, None, notes=tuple(notes)) for v in values[0])
    half = T95_19 * jackknife(values[1:])
    return tuple(
        Estimate(float(v), max(float(v - h), low), min(float(v + h), high), n, "jackknife-20", notes=tuple(notes))
        for v, h, (low, high) in zip(values[0], half, _RANGES, strict=True)
    )


def _equal_law(ref: Features, others: Features | None, n: int, k: int, rng: np.random.Generator) -> str:
    if others is not None and len(others) >= n:
        real, size = _cut(others, n, rng)[0], n
    else:
        size = len(ref) // 2
        real, ref = _cut(ref, size, rng)
        ref = _cut(ref, size, rng)[0]
    p, r, d, c = manifolds(real, ref, k)[0]
    return f"two real samples of {size:,} read precision {p:.3f}, recall {r:.3f}, density {d:.3f}, coverage {c:.3f}"
