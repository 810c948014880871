"""Monge Inception Distance."""

from math import inf

import numpy as np

from genbench.errors import UsageError
from genbench.estimate import Quantity
from genbench.metric import Outcome, metric
from genbench.statistics import Features
from genbench.transport import estimates, refused, sliced


@metric(
    Quantity("mind", "lower", unit="feature²", range=(0, inf)),
    Quantity("mind_debiased", "lower", unit="feature²", ideal=0.0, placed=True),
    cost="directions (n d + n log n)",
    source="Berthet et al. 2026, arXiv:2605.06797",
)
def mind(ref: Features, gen: Features, *, directions: int = 1000, equal: bool = True, seed: int = 0) -> tuple[Outcome, ...]:
    """Sliced squared 2-Wasserstein distance of the features, times 3 d: on the scale of the Fréchet distance.

        MIND = 3 d / L Σ_l 1/n Σ_i (u_l·x_(i) − u_l·y_(i))²        u_l·x_(i): the i-th smallest projection

    The L unit vectors are independent and uniform on the sphere, fixed by the seed. A shift of the mean by v reads about 3 |v|².

    Args:
        ref: reference features (m, d).
        gen: generated features (n, d).
        directions: L; 1,000 in the paper's code.
        equal: cut the larger side to the smaller one's size (seeded), as the bias falls with both sizes. False: the distance of the two
            step functions, exact for any sizes.
        seed: of the directions and of that cut.

    Returns:
        The distance in [0, ∞), whose expectation grows as the samples shrink: the paper writes MIND_5k for n = 5,000, and only equal n
        compare; and the debiased one in (−∞, ∞), 0 on average for equal laws. Both in squared units of the features, lower is better.
        Intervals as `sliced_wasserstein` makes them, for fixed directions; a note tells how much others would move the value. No interval
        below 40 samples on either side, no debiased value below 16.

    Note:
        Sees marginals along lines only: a defect in a few of many features is divided by d (the factor 3 d scales all alike). MIND proper
        has Inception features; on another extractor numbers do not compare. The cut can leave reference rows unused: use n as large as the
        reference allows.

    References:
        MIND: Monge Inception Distance for Generative Models Evaluation (Berthet, Wu, Crepy, Elie, Greff & Sander, 2026), section 3.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 1))
        >>> found, debiased = mind.function(Features(x), Features(x + 2.0))
        >>> round(found.value, 9)
        12.0
    """
    if directions < 1:
        raise UsageError(f"mind needs directions >= 1, found {directions}")
    n, m = len(gen), len(ref)
    why = refused(gen, ref)
    if why is not None:
        return why, why
    smallest = min(n, m)
    notes: tuple[str, ...] = ()
    x, y = gen, ref
    if n != m and equal:
        notes += (f"{n:,} samples against {m:,} of the reference: the larger side is cut to {smallest:,}",)
        x, y = gen.cut(smallest, seed), ref.cut(smallest, seed)
    u = np.random.default_rng(seed).standard_normal((directions, gen.d))
    found = sliced(x.x, y.x, u / np.linalg.norm(u, axis=1, keepdims=True))
    scale = 3 * gen.d
    if gen.d > 1 and directions > 1:
        error = scale * float(found.values.std(ddof=1)) / np.sqrt(directions)
        notes += (f"the choice of the {directions:,} directions has a standard error of {error:.2g}",)
    return estimates(found, gen, ref, notes, scale=scale, whole=x is gen and y is ref)
