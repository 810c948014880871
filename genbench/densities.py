"""log p of the distributions that nets put out, in torch: masses that sum to one, and bounds from several draws.

Grey values are counted by rank, 0 ... L − 1. Everything is computed in float32 or wider whatever the net's own precision, and returns
nats per element; sum over the pixels yourself. NumPy's side of the same bounds is in `genbench.likelihood`.
"""

import hashlib
from collections.abc import Callable
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench.likelihood import dequantisation_noise
from genbench.models import generator

if TYPE_CHECKING:
    from torch import Tensor


def log1mexp(x: "Tensor") -> "Tensor":
    """log(1 − exp(−x)) for x > 0 without cancellation at either end."""
    import torch

    # Maechler 2012, "Accurately computing log(1 − exp(−|a|))": the two forms meet at log 2.
    small = x < log(2)
    safe = torch.where(small, x, torch.ones_like(x))
    return torch.where(small, torch.log(-torch.expm1(-safe)), torch.log1p(-torch.exp(-torch.where(small, torch.ones_like(x), x))))


# -- categories ----------------------------------------------------------------------------------------------------------------------


def categorical(logits: "Tensor", ranks: "Tensor") -> "Tensor":
    """log mass of a categorical whose first class has the logit 0: a Bernoulli for one logit.

    Args:
        logits: (..., L − 1) of the ranks 1 ... L − 1.
        ranks: (...) whole numbers, or 0.0 and 1.0.

    Returns:
        (...) nats.
    """
    import torch
    from torch.nn.functional import logsigmoid, pad

    logits = logits.float()
    if logits.shape[-1] == 1:
        bright = ranks > 0
        return logsigmoid(torch.where(bright, logits[..., 0], -logits[..., 0]))
    return torch.log_softmax(pad(logits, (1, 0)), dim=-1).gather(-1, ranks.long()[..., None])[..., 0]


def draw_categorical(logits: "Tensor", u: "Tensor", temperature: float = 1.0) -> "Tensor":
    """Ranks of the categorical of `categorical`, by inversion.

    Args:
        logits: (..., L − 1).
        u: (...) uniform draws.
        temperature: divides the logits; below 1 the draws are more typical and no longer of the model's law.
    """
    import torch
    from torch.nn.functional import pad

    p = torch.softmax(pad(logits.double() / temperature, (1, 0)), dim=-1)
    below = torch.cumsum(p, dim=-1)[..., :-1]
    return (u.to(below)[..., None] >= below).sum(dim=-1)


# -- discretised logistics -----------------------------------------------------------------------------------------------------------


def logistic_mixture(weights: "Tensor", means: "Tensor", log_scales: "Tensor", ranks: "Tensor", levels: int) -> "Tensor":
    """log mass of a mixture of discretised logistics whose first and last bin are open to infinity: sums to one over the ranks.

    A bin [a, b] of the logistic has the mass σ(b) − σ(a) = σ(b) σ(−a) (1 − exp(a − b)), whose logarithm needs no difference.

    Args:
        weights: (..., K) logits of the components.
        means: (..., K), the ranks scaled to [−1, 1].
        log_scales: (..., K), of the same unit.
        ranks: (...) whole numbers 0 ... levels − 1.
        levels: L, at least 2.

    References:
        PixelCNN++ (Salimans et al., 2017), section 2.1.
    """
    import torch
    from torch.nn.functional import logsigmoid

    weights, means, log_scales = weights.float(), means.float(), log_scales.float()
    half = 1 / (levels - 1)
    centred = (2 * half * ranks.float() - 1)[..., None] - means
    inverse = torch.exp(-log_scales)
    upper, lower = (centred + half) * inverse, (centred - half) * inverse
    first, last = (ranks == 0)[..., None], (ranks == levels - 1)[..., None]
    left, right = logsigmoid(upper), logsigmoid(-lower)
    mass = torch.where(first, left, torch.where(last, right, left + right + log1mexp(2 * half * inverse)))
    return torch.logsumexp(torch.log_softmax(weights, dim=-1) + mass, dim=-1)


def draw_logistic_mixture(weights: "Tensor", means: "Tensor", log_scales: "Tensor", u: "Tensor", v: "Tensor", levels: int) -> "Tensor":
    """Ranks of the law of `logistic_mixture`: a component by u, a logistic draw by v, rounded and clipped.

    Args:
        weights, means, log_scales: (..., K).
        u, v: (...) uniform draws.
        levels: L.
    """
    import torch

    below = torch.cumsum(torch.softmax(weights.double(), dim=-1), dim=-1)[..., :-1]
    k = (u.to(below)[..., None] >= below).sum(dim=-1, keepdim=True)
    mean, scale = means.double().gather(-1, k)[..., 0], torch.exp(log_scales.double()).gather(-1, k)[..., 0]
    x = mean + scale * torch.logit(v.double(), eps=1e-12)
    return torch.round((x + 1) / 2 * (levels - 1)).clamp(0, levels - 1).long()


# -- bounds --------------------------------------------------------------------------------------------------------------------------


def importance_bound(log_weights: "Tensor") -> "Tensor":
    """log 1/k Σ_k w of every sample, in float64: the ELBO for k = 1, IWAE's bound for more.

    Args:
        log_weights: (n, k) log p(x, z_k) − log q(z_k | x).
    """
    import torch

    return torch.logsumexp(log_weights.double(), dim=1) - log(log_weights.shape[1])


def dequantised(log_density: "Callable[[Tensor], Tensor]", ranks: "Tensor", noise: "Tensor") -> "Tensor":
    """Lower bound on the log mass of grey values from a density of ranks + u: bins of width one, so no constant is added.

        log P(x) >= log 1/k Σ_k p(x + u_k),   u uniform over (0, 1)

    Args:
        log_density: (rows, ...) in (0, L) -> (rows,) nats. A density of x/L is that of x less D log L: the model subtracts it.
        ranks: (n, ...).
        noise: (n, k, ...) from `row_noise`.
    """
    n, k = noise.shape[:2]
    x = (ranks.float()[:, None] + noise).reshape(n * k, *noise.shape[2:])
    return importance_bound(log_density(x).reshape(n, k))


def row_noise(rows: NDArray[Any], k: int, shape: tuple[int, ...], *, law: str = "normal", seed: int = 0) -> NDArray[np.float32]:
    """Noise for the bound of every row that depends on (seed, the row's content) alone: not on its batch, its place or a worker.

    Args:
        rows: (n, ...) whose bound is computed.
        k: draws per row; the first ones are the same whatever their number.
        shape: of one draw.
        law: "normal", or "uniform" on (0, 1), such that a rank plus the noise never rounds to the next rank.
        seed: of all.

    Returns:
        (n, k, *shape) float32.
    """
    found = np.empty((len(rows), k, *shape), np.float32)
    for i, row in enumerate(rows):
        key = int.from_bytes(hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=8).digest(), "big")
        if law == "uniform":
            found[i] = dequantisation_noise(shape, key, seed=seed, draws=k, dtype=np.float32)
        else:
            found[i] = generator(seed, key, 1).standard_normal((k, *shape), np.float32)
    return found
