"""Precision, recall, density and coverage."""

from math import inf

import numpy as np

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import manifold, manifold_design, wilson
from genbench.statistics import Features

EXCESS = 1.5  # on the design effects' excess over 1: they have 30 degrees of freedom and come from parts smaller than the whole (simulated)
NAMES = ("precision", "recall", "density", "coverage")


@metric(
    Quantity("precision", "higher", range=(0, 1)),
    Quantity("recall", "higher", range=(0, 1)),
    Quantity("density", "higher", range=(0, inf)),
    Quantity("coverage", "higher", range=(0, 1)),
    cost="n² d",
    source="Kynkäänniemi et al. 2019, eqs. 1-3; Naeem et al. 2020, eqs. 3-4",
)
def prdc(
    ref: Features, gen: Features, *, k: int = 5, closed: bool = True, equal: bool = True, baseline: bool = True, seed: int = 0
) -> tuple[Outcome, ...]:
    """Precision, recall, density and coverage of the balls around samples that reach to their k-th nearest neighbour.

        B(x) = { z : ‖z − x‖ <= distance of x to the k-th nearest other sample of its own side }

        precision = share of gen in at least one ball of ref          recall   = share of ref in at least one ball of gen
        density   = mean over gen of (number of ref balls it is in)/k coverage = share of ref whose own ball holds a gen sample

    Balls are closed (`<=`), as in the original: with `<`, as in later tools (`closed=false`), identical discrete data read 0, 0, 0, 0.

    Args:
        ref: reference features (m, d), m > k.
        gen: generated features (n, d), n > k.
        k: neighbours, the sample itself not counted. 5 in Naeem et al.; 3 (on VGG16) in Kynkäänniemi et al.
        closed: count points at exactly a ball's radius; False for the strict inequality of later tools.
        equal: cut the larger side to the smaller one's size (seeded, by position), since the size of a manifold grows with its sample.
        baseline: also tell in a note what two real samples of this size read; takes one more pass.
        seed: of that cut, and of the parts that the interval is made of.

    Returns:
        Four numbers without unit, higher is better: precision, recall and coverage in [0, 1], density in [0, ∞) (1 for equal laws). At
        equal laws the others are not 1: a note says what two real samples of this size read, where the reference is large enough.

        Interval, for the expectation at this n and k: balls share points, so the units are not independent. Their design effect D is
        found by parting both sides into 4 to 20 parts, several times (`numerics.manifold_design`), and taken as 1 + 1.5 (D − 1).
        Precision, recall and coverage have Wilson's interval at n/D samples, z = 2 (for precision and recall D is at most the smaller
        of the counts inside and outside); density has value ± 2.25 sqrt(D Var/n). A single ball that alone holds more than 2 % of the
        samples adds the square of its share to the variance. No interval below 4 (k + 5) samples. Simulated coverage:
        benchmarks/coverage.md; a jackknife is up to 2.2 times too wide here.

    Note:
        Precision and density are blind to dropped classes and improve under blur and truncation; all four are blind to copies of training
        data. One outlier in ref has a huge ball, which density and coverage resist better. In many dimensions a few hubs decide. Where one
        side lies beyond the other's edge in few dimensions (Gaussians 1 to 4 SD apart in 1 to 8 dimensions), the outermost balls decide
        and the interval of precision and recall covers 0.83 to 0.95.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019), eqs. 1-3.
        Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020), eqs. 3 and 4.

    Example:
        >>> x = Features(np.random.default_rng(0).normal(size=(100, 3)))
        >>> [round(e.value, 6) for e in prdc.function(x, x)][::3]
        [1.0, 1.0]
    """
    if k < 1:
        raise UsageError(f"prdc needs k >= 1, found {k}")
    n, m = len(gen), len(ref)
    smallest = min(n, m)
    if smallest <= k:
        return (Undefined(f"needs more than k = {k} samples on each side, found {n} and {m}"),) * 4
    notes: tuple[str, ...] = ()
    x, y = gen, ref
    if n != m and equal:
        notes += (f"{n:,} samples against {m:,} of the reference: the larger side is cut to {smallest:,}",)
        x, y = gen.cut(smallest, seed), ref.cut(smallest, seed)
    elif n != m:
        notes += (f"{n:,} samples against {m:,} of the reference: manifolds of unequal sizes do not compare with those of equal ones",)
    size = min(smallest, m // 2)
    if baseline and size > k:
        order = np.random.default_rng(seed).permutation(m)
        base = manifold(ref.take(np.sort(order[size : 2 * size])), ref.cut(size, seed), k, closed).value
        read = ", ".join(f"{name} {value:.3g}" for name, value in zip(NAMES, base, strict=True))
        notes += (f"two real samples of {'this size' if size == smallest else f'{size:,}'} read {read}",)
    found = manifold(x, y, k, closed)
    design = manifold_design(x, y, k, seed)
    if design is None:
        notes += (f"no interval: {smallest} samples are too few for k = {k}",)
        return tuple(Estimate(float(v), None, None, n, None, notes=notes) for v in found.value)
    out = []
    for name, value, variance, excess, hanging in zip(NAMES, found.value, found.variance, design - 1, found.hanging, strict=True):
        v, effect = float(value), 1 + EXCESS * float(excess)
        if name == "density":
            half = 2.25 * float(np.sqrt(max(effect * variance / smallest, hanging, 2 / smallest**2)))  # at least the rule of three
            low, high = max(v - half, 0.0), v + half
        else:
            if name != "coverage":  # one cluster cannot hold more than all rows inside, or all outside
                effect = min(effect, max(1.0, smallest * min(v, 1 - v)))
            if variance > 0:  # parts of the sample cannot tell that a single ball decides
                effect = max(effect, 1 + smallest * float(hanging / variance))
            low, high = wilson(v, smallest / effect, 2.0)
        out.append(Estimate(v, low, high, n, "Wilson with design effect" if name != "density" else "design effect", notes=notes))
    return tuple(out)
