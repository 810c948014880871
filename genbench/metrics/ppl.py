"""Perceptual path length."""

from math import inf

import numpy as np

from genbench.estimate import Estimate, Quantity, Undefined
from genbench.likelihood import mean_interval
from genbench.metric import Outcome, metric
from genbench.statistics import LatentPath


@metric(Quantity("ppl", "lower", unit="feature²", range=(0, inf)), cost="n forward passes", source="Karras et al. 2019, eq. 2")
def ppl(gen: LatentPath) -> Outcome:
    """How fast features change along random paths through a model's latent space.

        PPL = E ‖f(G(z_t)) − f(G(z_{t+ε}))‖²/ε²,     ε = 1e-4, t uniform, z_t between two draws of the prior

    f is the extractor, and values compare only within one: `ppl@lpips` has the squared distance of the original, LPIPS on VGG16. How two
    latents are joined (spherically for a normal prior, in a straight line else) is the model's own.

    Args:
        gen: features of n pairs of neighbours on such paths.

    Returns:
        A number in [0, ∞) in squared feature units, lower is better: smoother. Interval: mean over independent paths, t widened for
        skewness; no interval for a single one.

    Note:
        A generator that ignores its latents reads 0: compare only at similar quality and diversity. Images are not rounded to whole grey
        levels here, which would hide such small steps. Published values are of images averaged down to 256 pixels and leave out the lowest
        and highest 1 % of the paths; neither is done here.

    References:
        A Style-Based Generator Architecture for Generative Adversarial Networks (Karras et al., 2019), section 4.1, eq. 2.
        The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al., 2018): LPIPS.

    Example:
        >>> import numpy as np
        >>> ppl.function(LatentPath(np.zeros((5, 2)), np.full((5, 2), 1e-4), 1e-4)).value
        2.0
    """
    if not len(gen):
        return Undefined("needs at least one path, found none")
    change = (gen.a.astype(float) - gen.b) / gen.step
    if float(np.max(np.abs(change))) > 1e70:
        return Undefined("the features are too large for float64: their squares overflow; rescale them")
    squares = (change**2).sum(axis=1)
    if len(squares) < 2:
        return Estimate(float(squares[0]), None, None, 1, None, notes=("no interval: 1 path",))
    value, low, high = mean_interval(squares)
    return Estimate(value, max(low, 0.0), high, len(squares), "t, widened for skewness", influence={"gen": squares - squares.mean()})
