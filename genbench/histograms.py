"""Divergences of histograms: the bias of the raw value and an interval that holds at equality too.

The raw divergence Σ p log(p/q) of a histogram of n samples sits above the true one, by (K − 1)/(2n) where every class is met. Near equality
it follows a noncentral χ² law, far from it a normal one.
"""

from math import log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.numerics import Z95, Float

Whole = NDArray[np.integer[Any]]


def variance_of(p: Float, value: Float) -> float:
    """Variance of a value that classes have, under the histogram p."""
    return max(float(p @ value**2 - (p @ value) ** 2), 0.0)


def divergence_floor(counts: Whole) -> float:
    """Bias of the raw divergence from a known histogram: that of the entropy, by the estimator of Chao, Wang & Jost, whose last term
    stands for the classes that were not met, from those met once and twice."""
    from scipy.special import exp1, psi

    a = counts[counts > 0].astype(np.float64)
    n, once, twice = float(a.sum()), int((a == 1).sum()), int((a == 2).sum())
    floor = float(a @ (np.log(a) - psi(a)) / n - np.log(n) + psi(n))
    if once:
        new = 2 * twice / ((n - 1) * once + 2 * twice) if twice else 2 / ((n - 1) * (once - 1) + 2)
        u = min(n * new, 500.0)
        floor += once / n * float(np.exp(u) * exp1(u))  # Σ_{r >= n} (1 − new)^(r − n + 1)/r, up to 1/n of it
    return floor


def absence_variance(raw: float, absent: float, n: int) -> float:
    """Variance from classes without a sample, whose due share is `absent` in all: about 0.7 of n samples may be theirs all the same."""
    return 0.7 / n**2 * (log(0.7 / (n * absent)) - raw) ** 2 if absent > 0 else 0.0


def divergence_interval(value: float, raw: float, variance: float, scale: float, doubt: float = 0.0) -> tuple[float, float]:
    """Interval of a divergence, raw less its bias: near equality scale × raw is noncentral χ² with scale × bias degrees of freedom; far
    from it, raw is normal with `variance`, to which `doubt` comes on the lower side."""
    bias = max(raw - value, 0.0)
    shift = (scale * bias - 1) / 2
    root = sqrt(max(scale * raw - shift, 0.0))
    low = (max(root - Z95, 0.0) ** 2 - shift) / scale
    high = ((max(root, sqrt(max(shift, 0.0))) + Z95) ** 2 - shift) / scale  # a lucky sample does not shorten it
    least = bias / 2  # the delta method's variance holds twice that of the second order
    down, up = (sqrt(max(v * scale / 4 - least, least) / max(raw - least, least)) if raw > 0 else 1.0 for v in (variance + doubt, variance))
    lower = value + down * (low - value)
    return min(lower, value, 0.0 if low <= 0 else lower), max(value + up * (high - value), value, 0.0)
