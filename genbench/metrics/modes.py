"""Modes covered, and their evenness, for a mixture whose modes are known."""

from math import exp, inf, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.estimate import Detail, Estimate, Quantity, Undefined
from genbench.histograms import absence_variance, divergence_floor, divergence_interval, variance_of
from genbench.metric import Outcome, metric
from genbench.numerics import Z95, Float, wilson
from genbench.statistics import Features, Law

Whole = NDArray[np.integer[Any]]
REACH = 3.0  # standard deviations
PLANE = 1 - exp(-(REACH**2) / 2)  # 0.98889, the share within 3 σ in two dimensions


@metric(
    Quantity("modes", "higher", unit="modes", range=(0, inf)),
    Quantity("high_quality", "closer", ideal=PLANE, range=(0, 1)),
    Quantity("mode_kl", "lower", unit="nats", ideal=0.0),
    cost="n K d",
    source="Srivastava et al. 2017, section 4.1; Lin et al. 2018, section 4.1",
)
def modes(ref: Law, gen: Features) -> tuple[Outcome, ...]:
    """Modes of an equal mixture of K isotropic Gaussians that the samples cover, the share of samples near one, and how even they are.

        high_quality = share of gen within 3 σ of the nearest centre
        modes        = number of centres nearest to at least 1/(5 K) of the high-quality samples
        mode_kl      = Σ_k p_k log(K p_k) − floor,   p the modes' shares of the N high-quality samples

    The floor is what a sample of this size reads too much: about (K − 1)/(2 N), by the estimator of Chao, Wang & Jost.

    Args:
        ref: the law, with its centres and σ.
        gen: generated points (n, d).

    Returns:
        `modes` in 0 ... K, higher is better. A fifth of its due share is asked for, since a mode that one stray sample reaches is not
        covered: a blob over all of grid25 reaches 25 with 2 % of high quality. Its interval runs from the number of modes that are above
        that threshold to the number that are not below it, by exact binomial tests at 0.025/K: it holds the true number in at least
        95 %, and is one number where no mode is in doubt.

        `high_quality` in [0, 1], closer to its ideal is better: 98.89 % in two dimensions, P(χ_d <= 3) in d (a note says it). More than
        that means modes that are too narrow. Wilson's interval.

        `mode_kl` in nats, lower is better, 0 for even modes, log K for a single one: the reverse divergence from the even histogram
        less its floor; slightly negative values are usual for even modes. Its interval inverts the noncentral χ² law (Sankaran's root),
        stretched to the delta method's variance where modes are uneven; an empty mode may hold a little all the same, which
        makes it up to twice too wide where the others are even. None where more than a tenth of the N samples are alone in
        their modes.

        Undefined where the law has no separate modes.

    Note:
        Blind to the shape inside a mode and to copies of training data. The nearest centre decides: wide neighbouring modes leak.

    References:
        VEEGAN (Srivastava et al., 2017), section 4.1.
        PacGAN (Lin et al., 2018), section 4.1: high-quality samples and reverse KL.
        Entropy and the Species Accumulation Curve (Chao, Wang & Jost, 2013): the floor.
        On the Non-central Chi-square Distribution (Sankaran, 1959): the root.

    Example:
        >>> law = Law("two points", 2, lambda x: np.zeros(len(x)), 0.0, np.array([[0.0, 0.0], [9.0, 0.0]]), 1.0)
        >>> covered, quality, _ = modes.function(law, Features(np.random.default_rng(0).normal(size=(500, 2))))
        >>> covered.value, quality.value > 0.97
        (1.0, True)
    """
    if ref.modes is None or ref.sigma is None:
        return (Undefined(f"{ref.name} has no separate modes; the mixtures ring8 and grid25, for example, have them"),) * 3
    n, centres = len(gen), np.asarray(ref.modes, np.float64)
    if n == 0:
        return (Undefined("needs at least 1 sample, found 0"),) * 3
    k, d = centres.shape
    at, squared = _nearest(gen.x, centres)
    good = squared <= (REACH * ref.sigma) ** 2
    counts = np.bincount(at[good], minlength=k)
    total = int(good.sum())

    least, most, enough = _between(counts, total, 1 / (5 * k))
    share = counts / max(total, 1)
    rows = tuple(
        (i, ", ".join(f"{v:.4g}" for v in centres[i]), int(counts[i]), float(share[i]), *wilson(float(share[i]), max(total, 1), Z95))
        for i in range(k)
    )
    notes: tuple[str, ...] = ()
    if enough < k:
        lost = [str(i) for i in range(k) if total == 0 or 5 * k * counts[i] < total]
        listed = ", ".join(lost[:10]) + (f" and {len(lost) - 10} more" if len(lost) > 10 else "")
        notes += (f"{k - enough} of {k} modes hold fewer than 1 in {5 * k} of the high-quality samples: mode {listed}",)
    if 2 * total < n:
        notes += (f"only {total:,} of {n:,} samples are within 3 σ of a mode; the modes are counted among these",)
    columns = ("mode", "centre", "count", "share", "low", "high")
    covered = Estimate(
        float(enough), float(least), float(most), n, "simultaneous binomial tests", notes=notes, details=(Detail("modes", columns, rows),)
    )

    low, high = wilson(total / n, n, Z95)
    ideal = _ideal(d)
    told: tuple[str, ...] = () if d == 2 else (f"in {d} dimensions the ideal is {ideal:.2%}",)
    if low > ideal:
        told += ("above the ideal share: the modes are too narrow",)
    quality = Estimate(total / n, low, high, n, "Wilson", notes=told)

    if k < 2:
        return covered, quality, Undefined("a single mode cannot be uneven")
    if total < 2:
        return covered, quality, Undefined(f"a histogram needs at least 2 samples within 3 σ of a mode, found {total}")
    return covered, quality, _evenness(counts, total, at, good, n)


def _nearest(x: Float, centres: Float) -> tuple[Whole, Float]:
    """Number of the nearest centre and squared distance to it."""
    at, squared = np.empty(len(x), np.int64), np.empty(len(x))
    step = max(1, 2**20 // centres.size)
    for a in range(0, len(x), step):
        apart = ((x[a : a + step, None].astype(np.float64) - centres) ** 2).sum(axis=2)
        at[a : a + step] = apart.argmin(axis=1)
        squared[a : a + step] = apart.min(axis=1)
    return at, squared


def _ideal(d: int) -> float:
    from scipy.special import gammainc

    return float(gammainc(d / 2, REACH**2 / 2))


def _between(counts: Whole, total: int, threshold: float) -> tuple[int, int, int]:
    """Number of shares surely at or above the threshold, not surely below it, and seen to be there."""
    from scipy.special import bdtr, bdtrc

    if total == 0:
        return 0, len(counts), 0
    level = 0.025 / len(counts)
    chance_above = np.where(counts > 0, bdtrc(np.maximum(counts - 1, 0), total, threshold), 1.0)  # P(X >= count) at the threshold
    seen = counts >= threshold * total
    above, below = (chance_above <= level) & seen, (bdtr(counts, total, threshold) <= level) & ~seen
    return int(above.sum()), int((~below).sum()), int(seen.sum())


def _evenness(counts: Whole, total: int, at: Whole, good: NDArray[np.bool_], n: int) -> Estimate:
    k = len(counts)
    p = counts / total
    ratio = np.log(np.where(p > 0, k * p, 1.0))
    raw = max(float(p @ ratio), 0.0)
    value = raw - divergence_floor(counts)
    notes = (f"the raw divergence is {raw:.4g}; {total:,} samples of even modes read {(k - 1) / (2 * total):.3g}",)
    influence = {"gen": np.where(good, (ratio[at] - raw) * n / total, 0.0)}
    if 10 * (counts == 1).sum() > total:
        return Estimate(
            value, None, None, n, None, notes=(*notes, f"no interval: {total} samples are too few for {k} modes"), influence=influence
        )
    low, high = divergence_interval(
        value, raw, variance_of(p, ratio) / total, 2 * total, absence_variance(raw, float((counts == 0).mean()), total)
    )
    return Estimate(value, low, max(min(high, log(k)), value), n, "noncentral χ²", notes=notes, influence=influence)
