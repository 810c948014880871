"""Stacked MNIST: how many of its 1,000 modes are there, and how evenly."""

from math import comb, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.estimate import Estimate, Quantity, Undefined
from genbench.histograms import absence_variance, divergence_floor, divergence_interval, variance_of
from genbench.metric import Outcome, metric
from genbench.numerics import Z95, Float
from genbench.statistics import Probabilities

Whole = NDArray[np.integer[Any]]
MODES = 1000
USUAL = 26_000  # samples in the literature
ORDER = 10  # terms of the smoothed series of counts


@metric(
    Quantity("stacked_modes", "higher", unit="modes", range=(0, MODES)),
    Quantity("stacked_kl", "lower", unit="nats", range=(0, float("inf"))),
    Quantity("stacked_kl_debiased", "lower", unit="nats", ideal=0.0),
    cost="n k",
    source="Srivastava et al. 2017, section 4.2; Lin et al. 2018, section 4.2",
)
def stacked_modes(ref: Probabilities, gen: Probabilities, *, even: bool = False) -> tuple[Outcome, ...]:
    """Modes of stacked MNIST that the samples reach, and the divergence of their histogram from the reference's law.

        stacked_modes       = number of k with p_k > 0
        stacked_kl          = Σ_k p_k log(p_k/q_k)
        stacked_kl_debiased = stacked_kl − floor_n − Σ_c Σ_a p_ca (1 − q_ca)/(2 m q_ca)

    p are the shares of the 1,000 most probable classes (three digits) in gen; floor_n, about 999/(2n), is the bias of their entropy, by
    the estimator of Chao, Wang & Jost. The reference stacks independent digits, so q_abc = q_1a q_2b q_3c from the 30 shares of ref's
    digits: a histogram of its own would add 999/(2m) to the floor.

    Args:
        ref: class probabilities (m, 1000) of stacked MNIST by the extractor `stacked_mnist`.
        gen: class probabilities (n, 1000) of the generated samples; 26,000 in the literature.
        even: take q = 1/1000, as many implementations do; real digits are 0.004 to 0.006 away from that.

    Returns:
        `stacked_modes` in 0 ... 1000, higher is better. Grows with n: compare at n = 26,000 only. Interval for its mean over new samples
        of this size: its variance is the number of modes that a second sample would add (Good & Toulmin's series, smoothed).

        `stacked_kl` in [0, ∞) nats, lower is better: the published number, whose floor is about 999/(2n), 0.019 at n = 26,000. Interval
        for its mean at this n.

        `stacked_kl_debiased` in nats, lower is better: less that floor, 0 for the reference's law; compares across n. Its interval
        inverts the noncentral χ² law (Sankaran's root), stretched to the delta method's variance for uneven modes. Both have none where
        more than a tenth of the samples are alone in their modes.

        Undefined for other than 1,000 classes; the divergences also where gen has a digit in a channel that ref never has there.

    Note:
        Blind to quality (noise is classified too) and to copies. One sample is enough to reach a mode, as published: an error rate of
        0.4 % in the classifier reaches many of the empty ones.

    References:
        Unrolled Generative Adversarial Networks (Metz et al., 2017), section 3.3.1: the data and the counts.
        VEEGAN (Srivastava et al., 2017), section 4.2. PacGAN (Lin et al., 2018), section 4.2.
        Entropy and the Species Accumulation Curve (Chao, Wang & Jost, 2013): the floor.
        The number of new species (Good & Toulmin, 1956); Estimating the Number of Unseen Species (Efron & Thisted, 1976): the smoothing.

    Example:
        >>> every = Probabilities(np.eye(1000)[np.arange(3000) % 1000])
        >>> [round(e.value, 6) for e in stacked_modes.function(every, every)][:2]
        [1000.0, 0.0]
    """
    n, m = len(gen), len(ref)
    if gen.p.shape[1] != MODES or ref.p.shape[1] != MODES:
        found = gen.p.shape[1] if gen.p.shape[1] != MODES else ref.p.shape[1]
        return (Undefined(f"needs the 1,000 classes of stacked MNIST, found {found}; choose @stacked_mnist"),) * 3
    if min(n, m) < 2:
        return (Undefined(f"a histogram needs at least 2 samples on each side, found {n} and {m}"),) * 3
    at = gen.p.argmax(axis=1)
    counts = np.bincount(at, minlength=MODES)
    notes = () if n == USUAL else (f"published numbers are of {USUAL:,} samples, these are {n:,}",)
    covered = _covered(counts, n, notes)
    digits = np.array([np.bincount(c, minlength=10) for c in np.unravel_index(ref.p.argmax(axis=1), (10, 10, 10))])
    q = np.full((3, 10), 0.1) if even else digits / m
    law = np.einsum("a,b,c->abc", *q).ravel()
    if (counts[law == 0] > 0).any():
        why = Undefined("gen has a digit in a channel where the reference never has it: the divergence is infinite; check the reference")
        return covered, why, why
    return covered, *_divergence(counts, at, q, law, 0 if even else m, notes)


def _covered(counts: Whole, n: int, notes: tuple[str, ...]) -> Estimate:
    found = int((counts > 0).sum())
    times = np.bincount(counts, minlength=ORDER + 1)[1 : ORDER + 1]  # modes that were met once, twice, ...
    tails = np.array([sum(comb(ORDER, i) for i in range(j, ORDER + 1)) for j in range(1, ORDER + 1)]) / 2.0**ORDER
    added = float(times @ (tails * (-1.0) ** np.arange(ORDER)))
    once = float(times[0])
    variance = max(added - once**2 / n, once / 4, 0.0)  # n is fixed: the counts are not Poisson
    half = Z95 * sqrt(variance)
    low = max(found - half, 1.0)
    high = min(found + max(half, 3.0), float(min(MODES, n)))  # modes whose shares sum to 3/n may all be absent by chance
    return Estimate(float(found), low, high, n, "Good–Toulmin", notes=notes)


def _divergence(counts: Whole, at: Whole, q: Float, law: Float, m: int, notes: tuple[str, ...]) -> tuple[Estimate, Estimate]:
    n = int(counts.sum())
    p = counts / n
    ratio = np.zeros(MODES)
    ratio[p > 0] = np.log(p[p > 0] / law[p > 0])
    raw = max(float(p @ ratio), 0.0)
    bias, variance = divergence_floor(counts), variance_of(p, ratio) / n
    if m:
        cube = p.reshape(10, 10, 10)
        for own, axes in zip(q, ((1, 2), (0, 2), (0, 1)), strict=True):
            mine = cube.sum(axis=axes)
            weight = np.divide(mine, own, out=np.zeros(10), where=own > 0)
            bias += float(weight @ (1 - own)) / (2 * m)
            variance += variance_of(own, weight) / m
    value = raw - bias
    influence = {"gen": ratio[at] - p @ ratio}
    notes += (f"the floor of {n:,} samples is {(MODES - 1) / (2 * n):.3g}; the digits' law itself is {_from_even(law):.3g} from even",)
    if 10 * int((counts == 1).sum()) > n:
        notes += (f"no interval: {n:,} samples are too few for their modes",)
        plain, debiased = (Estimate(v, None, None, n, None, notes=notes, influence=influence) for v in (raw, value))
        return plain, debiased
    low, high = divergence_interval(value, raw, variance, 2 * n, absence_variance(raw, float(law[counts == 0].sum()), n))
    return (
        Estimate(raw, min(max(low + bias, 0.0), raw), max(high + bias, raw), n, "noncentral χ², same n", notes=notes, influence=influence),
        Estimate(value, low, high, n, "noncentral χ²", influence=influence),
    )


def _from_even(law: Float) -> float:
    some = law[law > 0]
    return float(some @ np.log(MODES * some))
