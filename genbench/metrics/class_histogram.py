"""Histogram of predicted classes, generated against reference."""

from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Detail, Estimate, Quantity, Undefined
from genbench.histograms import absence_variance, divergence_floor, divergence_interval, variance_of
from genbench.metric import Outcome, metric
from genbench.numerics import Z95, Float, wilson
from genbench.statistics import Probabilities

Whole = NDArray[np.integer[Any]]
LISTED = 10  # classes that the notes name


@metric(
    Quantity("class_kl", "lower", unit="nats", ideal=0.0),
    Quantity("missing_classes", "lower", unit="classes", ideal=0.0, range=(0, inf)),
    cost="n k",
    source="Richardson & Weiss 2018, section 2; Santurkar et al. 2018, section 3",
)
def class_histogram(ref: Probabilities, gen: Probabilities, *, share: float = 0.2) -> tuple[Outcome, Outcome]:
    """How the classes of the generated samples, as a classifier sees them, are shared out, against those of the reference.

        class_kl = Σ_c p_c log(p_c/q_c) − floor_n − (Σ_c p_c/q_c − 1)/(2m)

    with p and q the shares of the most probable classes of gen and of ref; floor_n, about (K − 1)/(2n), is the bias of gen's entropy, by
    the estimator of Chao, Wang & Jost.

    Args:
        ref: class probabilities (m, k) of the reference samples.
        gen: class probabilities (n, k) of the generated samples.
        share: a class is missing if gen has significantly less than this part of its share in ref; in (0, 1).

    Returns:
        `class_kl` in nats, lower is better, 0 for equal histograms, slightly negative values are usual there: the bias from both samples is
        taken off, so samples of different sizes compare. Its interval inverts the noncentral χ² law (Sankaran's
        root), which holds for nearly equal histograms, stretched to the delta method's variance for unequal ones; both samples count.
        None where gen has a class that ref has not (the divergence has no finite upper bound; half a sample is put in its place), or more
        than a tenth of gen are alone in their classes. With two classes it is up to 1.7 times too wide.

        `missing_classes`, a count, lower is better: classes of ref whose share is below `share` of ref's by an exact binomial test at
        0.025/K. Its interval runs to the number of classes that are not shown to be above it; it is one number where none is in doubt.

        Notes name each missing class, and those with significantly less than half or more than twice their share. The table "classes"
        has every class, with Wilson's interval of its share.

    Note:
        Sees predicted classes only: not quality, not diversity within a class, not copies of training data. The classifier's own errors
        are in both histograms, but on poor samples it errs in its own way.

    References:
        A Classification-Based Study of Covariate Shift in GAN Distributions (Santurkar et al., 2018), section 3.
        On GANs and GMMs (Richardson & Weiss, 2018), section 2: tests of proportions.
        Entropy and the Species Accumulation Curve (Chao, Wang & Jost, 2013): the floor.
        On the Non-central Chi-square Distribution (Sankaran, 1959): the root.

    Example:
        >>> one, other = (Probabilities(np.eye(4)[np.arange(n) % k]) for n, k in ((400, 4), (300, 3)))
        >>> kl, missing = class_histogram.function(one, other)
        >>> missing.value, missing.notes
        (1.0, ('class 3 is missing: 0 of 300 samples, 75 expected',))
    """
    if not 0 < share < 1:
        raise UsageError(f"class_histogram needs 0 < share < 1, found {share}")
    n, m, k = len(gen), len(ref), gen.p.shape[1]
    if ref.p.shape[1] != k:
        return (Undefined(f"the histograms need the same classes, found {k} of gen and {ref.p.shape[1]} of ref"),) * 2
    if min(n, m) < 2:
        return (Undefined(f"a histogram needs at least 2 samples on each side, found {n} and {m}"),) * 2
    at, other = gen.p.argmax(axis=1), ref.p.argmax(axis=1)
    a, b = np.bincount(at, minlength=k), np.bincount(other, minlength=k)
    return _divergence(a, b, at, other), _missing(a, b, share, gen.classes or tuple(str(i) for i in range(k)))


def _divergence(a: Whole, b: Whole, at: Whole, other: Whole) -> Estimate:
    n, m = int(a.sum()), int(b.sum())
    p, absent = a / n, (a > 0) & (b == 0)
    q = np.where(absent, 0.5, b) / m
    known = q > 0
    ratio = np.zeros(len(p))
    ratio[p > 0] = np.log(p[p > 0] / q[p > 0])
    raw = max(float(p @ ratio), 0.0)
    weight = np.divide(p, q, out=np.zeros(len(p)), where=known)
    value = raw - divergence_floor(a) - (float(weight.sum()) - 1) / (2 * m)
    if absent.any():
        why = f"no interval: {int(a[absent].sum()):,} samples are of {int(absent.sum())} classes that the reference has not"
        return Estimate(value, None, None, n, None, notes=(why,))
    influence = {"gen": ratio[at] - p @ ratio, "ref": 1 - weight[other]}
    note = f"the raw divergence is {raw:.4g}; equal histograms of these sizes read {(int(known.sum()) - 1) / 2 * (1 / n + 1 / m):.3g}"
    if 10 * int((a == 1).sum()) > n:
        why = f"no interval: {n} samples are too few for these classes"
        return Estimate(value, None, None, n, None, notes=(note, why), influence=influence)
    variance = variance_of(p, ratio) / n + variance_of(q, weight) / m
    low, high = divergence_interval(value, raw, variance, 2 / (1 / n + 1 / m), absence_variance(raw, float(q[a == 0].sum()), n))
    return Estimate(value, low, high, n, "noncentral χ²", notes=(note,), influence=influence)


def _missing(a: Whole, b: Whole, share: float, names: tuple[str, ...]) -> Estimate:
    n, m = int(a.sum()), int(b.sum())
    level = 0.025 / len(a)
    expected = b / m * n
    lost = (b > 0) & (_chance_below(a, b, share) <= level)
    doubtful = (b > 0) & (_chance_above(a, b, share) > level)
    scarce = (b > 0) & ~lost & (_chance_below(a, b, 0.5) <= level)
    excess = (a > 0) & (_chance_above(a, b, 2.0) <= level)
    notes: tuple[str, ...] = ()
    for found, what in ((lost, "is missing"), (scarce, "is under-represented"), (excess, "is over-represented")):
        which = np.flatnonzero(found)
        told = which if len(which) <= LISTED else which[: LISTED - 1]
        notes += tuple(f"class {names[i]} {what}: {a[i]:,} of {n:,} samples, {expected[i]:,.4g} expected" for i in told)
        if len(told) < len(which):
            notes += (f"{len(which) - len(told)} more classes: each {what}",)
    rows = tuple((names[i], int(a[i]), float(a[i] / n), float(b[i] / m), *wilson(float(a[i] / n), n, Z95)) for i in range(len(a)))
    columns = ("class", "gen_count", "gen_share", "ref_share", "low", "high")
    count = float(lost.sum())
    return Estimate(
        count,
        count,
        float((lost | doubtful).sum()),
        n,
        "simultaneous binomial tests",
        notes=notes,
        details=(Detail("classes", columns, rows),),
    )


def _chance_below(a: Whole, b: Whole, share: float) -> Float:
    """P(so few in gen or fewer) if gen had `share` of ref's share: given the sum of both counts, gen's is binomial."""
    from scipy.special import bdtr

    return np.asarray(bdtr(a, a + b, _portion(a, b, share)))


def _chance_above(a: Whole, b: Whole, share: float) -> Float:
    """P(so many in gen or more)."""
    from scipy.special import bdtrc

    return np.where(a > 0, bdtrc(np.maximum(a - 1, 0), a + b, _portion(a, b, share)), 1.0)


def _portion(a: Whole, b: Whole, share: float) -> float:
    n, m = int(a.sum()), int(b.sum())
    return share * n / (share * n + m)
