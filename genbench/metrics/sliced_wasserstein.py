"""Sliced Wasserstein distance."""

from math import inf

import numpy as np

from genbench.errors import UsageError
from genbench.estimate import Quantity
from genbench.metric import Outcome, metric
from genbench.numerics import Float
from genbench.statistics import Features
from genbench.transport import estimates, refused, sliced


@metric(
    Quantity("sliced_wasserstein", "lower", unit="feature²", range=(0, inf)),
    Quantity("sliced_wasserstein_debiased", "lower", unit="feature²", ideal=0.0, placed=True),
    cost="directions (n d + n log n)",
    source="Bonneel et al. 2015, section 3; Deshpande et al. 2018",
)
def sliced_wasserstein(ref: Features, gen: Features, *, directions: int = 128, seed: int = 0) -> tuple[Outcome, ...]:
    """Mean over directions of the squared 2-Wasserstein distance of the projections, between samples of any two sizes.

        SW² = 1/L Σ_l ∫₀¹ (F_l⁻¹(t) − G_l⁻¹(t))² dt        F_l, G_l: empirical laws of u_l·x over gen and of u_l·y over ref

    The L unit vectors u_l form orthonormal frames, so that a shift by v reads |v|²/d exactly where d <= L. They are fixed by the seed
    and a part of the quantity. The integral is exact for unequal sizes: both quantile functions are steps, merged at all their ends.

    The plug-in value is biased upwards by about 1/n. The debiased one has four disjoint parts of each side, each with the quantile
    function D̃ = 2 D − (mean over its two halves) of gen less ref, and is Σ_{a≠b} ⟨D̃_a, D̃_b⟩/12: the parts are independent, so that equal
    laws read 0 on average, and the halves remove the bias of order 1/n elsewhere.

    Interval: value + c (t² + 1)/4 ± t sqrt(v + c²/4) with v = max(v1 − v2, v2) for the plug-in value (for its expectation at these
    sizes) and max(v1 − ⅔ v2, 4/3 v2) for the debiased one. v1 = Var(φ)/n + Var(ψ)/m with the Kantorovich potentials, φ' = 2 (x − T(x)),
    averaged over directions: the first-order variance and, where the laws are close, 2 v2 of noise. v2 = 2 tr K² is the second-order
    variance, K the covariance of the quantile functions' difference, from up to 32 disjoint parts. c = v1/SW² is how fast the variance
    grows with the distance, which skews it to the right; t has the degrees of freedom that the potentials' kurtosis leaves. The lower
    end is not below 0 (the plug-in value's: not below 0.6 of its bias), or else it is the value.

    Args:
        ref: reference features (m, d).
        gen: generated features (n, d).
        directions: L; rounded up to whole frames where d < L, and 1 for d = 1.
        seed: of the directions.

    Returns:
        The squared distance in [0, ∞), whose expectation grows as the samples shrink, so that only equal sizes compare; and the debiased
        one in (−∞, ∞), 0 on average for equal laws, slightly negative values are usual for close ones. Both in squared units of the
        features, lower is better. A note tells how much other directions would move them. No interval below 40 samples on either side,
        no debiased value below 16; it leaves out up to 7 rows of a side.

    Note:
        Sees marginals along lines only: in many dimensions a defect in a few features is divided by d. Not divided by the spread of the
        features, so values compare within one extractor only. The distance itself, as some tools print, is the root. Heavy tails (no
        finite fourth moment) make the interval too narrow. MIND is the same distance on another scale: metrics/mind.py.

    References:
        Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015), section 3.
        Generative Modeling Using the Sliced Wasserstein Distance (Deshpande et al., 2018).
        Orthogonal Estimation of Wasserstein Distances (Rowland et al., 2019): orthonormal directions.
        Central Limit Theorems for General Transportation Costs (del Barrio, González-Sanz & Loubes, 2024): variance of the potentials.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> found, debiased = sliced_wasserstein.function(Features(x), Features(x + [3.0, 0.0, 0.0]))
        >>> round(found.value, 9)
        3.0
    """
    if directions < 1:
        raise UsageError(f"sliced_wasserstein needs directions >= 1, found {directions}")
    why = refused(gen, ref)
    if why is not None:
        return why, why
    u, frame = _directions(gen.d, directions, seed)
    found = sliced(gen.x, ref.x, u)
    notes: tuple[str, ...] = ()
    if len(u) > 1:
        v = found.values
        units = v[: len(u) // frame * frame].reshape(-1, frame).mean(axis=1) if len(u) >= 2 * frame else v
        notes += (f"the choice of the {len(u)} directions has a standard error of {units.std(ddof=1) / np.sqrt(len(units)):.2g}",)
    return estimates(found, gen, ref, notes)


def _directions(d: int, count: int, seed: int) -> tuple[Float, int]:
    """Unit vectors (L, d) in orthonormal frames, and the size of a frame."""
    if d == 1:
        return np.ones((1, 1)), 1
    rng = np.random.default_rng(seed)
    frame = min(d, count)
    return np.concatenate([np.linalg.qr(rng.standard_normal((d, frame)))[0].T for _ in range(-(-count // frame))]), frame
