"""Autoencoder with a density on its code: encode, decode, then fit a Gaussian mixture to the codes of the training split.

Family: latent variable. Sources: Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks",
doi 10.1126/science.1127647; a mixture on the codes: Ghosh et al. 2020, "From variational to deterministic autoencoders", arXiv 1903.12436,
section 4. Minimises ‖x − g(f(x))‖² (vectors, in standard units) or the cross-entropy of pixels in [0, 1], plus `penalty` E‖f(x)‖² (RAE, eq.
5, which keeps the codes together). A sample is g(z) with z of Σ_k π_k N(μ_k, Σ_k), the size of the mixture chosen on held-out codes.
Can: sample; encode and decode. No likelihood: g is deterministic, its image has no volume.

    genbench bench mnist --only autoencoder

Time: on mnist-dynbin 47 CPU-seconds (one thread); test images come back with a PSNR of 14.6 dB and an SSIM of 0.73. On digits 5
CPU-seconds, 19.4 dB and 0.94.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench import training
from genbench.errors import DataError, UsageError, near_miss
from genbench.models import TrainingData, generator, read_all

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FAMILY = "latent variable"
SUMMARY = "autoencoder with a Gaussian mixture on its code"
SOURCE = "doi:10.1126/science.1127647"
ROUNDINGS = ("nearest", "random")
FLOOR = 1e-4  # EM adds it to the variances, as a share of the codes' mean variance
EM_STEPS = 200


@dataclass(frozen=True)
class Config(training.Config):
    """Settings, beside those of every trained net.

    Args:
        code: dimensions of the code.
        hidden: units of the encoder's layers; the decoder's are the same, backwards.
        penalty: weight of the mean square of the codes.
        components: of the mixture: candidates.
        codes: most training samples that the mixture is fitted to.
        rounding: of decoded pixels to grey values: "nearest", or "random": up or down, such that the mean stays.
    """

    code: int = 16
    hidden: tuple[int, ...] = (512, 256)
    penalty: float = 1e-3
    components: tuple[int, ...] = (1, 10, 50)
    codes: int = 10_000
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.code, self.codes, *self.hidden, *self.components) < 1 or not self.components or self.penalty < 0:
            raise UsageError(f"code, hidden, components and codes are at least 1 and penalty at least 0, found {self}")
        if self.rounding not in ROUNDINGS:
            raise near_miss(self.rounding, ROUNDINGS, "rounding")


RECIPES = {
    "mnist-dynbin": Config(steps=3000, batch=200, lr=1e-3, bf16=True, rounding="random"),
    "images": Config(steps=3000, batch=200, lr=1e-3, bf16=True),
    "digits": Config(hidden=(256,), code=10, steps=1500),
    "vectors": Config(code=2, hidden=(64, 64), steps=2000, batch=256),
}
SMOKE = {
    "images": Config(code=3, hidden=(32,), steps=100, batch=50, lr=1e-2, components=(1, 4)),
    "vectors": Config(code=2, hidden=(32,), steps=100, batch=100, lr=1e-2, components=(1, 4)),
}


def perceptron(inputs: int, hidden: tuple[int, ...], outputs: int) -> "nn.Module":
    from torch import nn

    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class Model(training.GreyModel):
    """Autoencoder.

    constants: values (L,) for images, shift (d,) and scale (d,) for vectors; once trained weights (K,), means (K, code) and factors
    (K, code, code) of the mixture, Σ = F Fᵀ.
    """

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        from torch import nn

        net, dims = nn.Module(), math.prod(shape)
        net.encoder = perceptron(dims, config.hidden, config.code)
        net.decoder = perceptron(config.code, config.hidden[::-1], dims)
        return net

    def inputs(self, x: "Tensor") -> "Tensor":
        """Pixels in [0, 1], vectors in standard units, (n, D)."""
        import torch

        if "values" in self.constants:
            return self.scaled(self.ranks(x)).flatten(1)
        shift, scale = (torch.from_numpy(self.constants[k]).to(x.device) for k in ("shift", "scale"))
        return (x - shift) / scale

    def outputs(self, y: "Tensor", u: "Tensor | None" = None, *, whole: bool = True) -> NDArray[Any]:
        """The decoder's outputs as samples, (n, *shape); u: uniform draws for random rounding; whole: round."""
        import torch

        if "values" not in self.constants:
            return np.asarray(y.double().cpu().numpy() * self.constants["scale"].astype(float) + self.constants["shift"])
        rank = torch.sigmoid(y.float()) * (self.levels - 1)
        if not whole:
            return self.between(rank).reshape(len(y), *self.shape)
        up = 0.5 if u is None else u.to(rank)
        return self.greys((rank + up).floor().long().clamp(0, self.levels - 1)).reshape(len(y), *self.shape)

    def encode(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Codes, (n, code)."""
        return self.by_batch(lambda rows: self.net.encoder(self.inputs(rows)), x)

    def draw(self, n: int, rng: "torch.Generator") -> NDArray[Any]:
        import torch

        weights, means, factors = (torch.from_numpy(self.constants[k]) for k in ("weights", "means", "factors"))
        u, noise = torch.rand(n, generator=rng, dtype=torch.float64), torch.randn(n, self.config.code, generator=rng, dtype=torch.float64)
        below = torch.cumsum(weights, dim=0)
        k = torch.searchsorted(below / below[-1], u, right=True).clamp(max=len(weights) - 1)
        z = means[k] + torch.einsum("nij,nj->ni", factors[k], noise)
        rounding = torch.rand(n, self.dims, generator=rng) if self.config.rounding == "random" else None
        return self.outputs(self.net.decoder(z.float().to(self.device)), rounding)

    def reconstruct(self, x: NDArray[Any]) -> NDArray[Any]:
        """Encoded and decoded, to the nearest grey value."""
        import torch

        if not len(x):
            return x
        with torch.no_grad():
            return self.outputs(self.net.decoder(torch.from_numpy(self.encode(x)).float().to(self.device)))

    def latent_pairs(self, n: int, step: float, *, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Decoded pairs of neighbours on random straight lines between two codes of the mixture, t uniform."""
        import torch

        weights, means, factors = (self.constants[k] for k in ("weights", "means", "factors"))
        rng = generator(seed)
        k = rng.choice(len(weights), size=(n, 2), p=weights / weights.sum())
        ends = means[k] + np.einsum("neij,nej->nei", factors[k], rng.standard_normal((n, 2, self.config.code)))
        t = rng.random((n, 1)) * (1 - step)
        with torch.no_grad():
            a, b = (
                self.outputs(
                    self.net.decoder(torch.from_numpy((1 - at) * ends[:, 0] + at * ends[:, 1]).float().to(self.device)), whole=False
                )
                for at in (t, t + step)
            )
        return a, b


def mixture(codes: NDArray[np.float64], config: Config, seed: int) -> tuple[dict[str, NDArray[Any]], int]:
    """The Gaussian mixture that gives held-out codes, a tenth of them, the most likelihood; and its number of components."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    held, fit = np.split(codes[generator(seed, 1).permutation(len(codes))], [max(1, len(codes) // 10)])
    floor = FLOOR * float(fit.var(axis=0).mean())
    best, score = None, -np.inf
    with warnings.catch_warnings(), threadpool_limits(1):  # one thread: the same bits whatever the number of cores
        warnings.simplefilter("ignore", ConvergenceWarning)
        for k in config.components:
            if k > len(fit):
                continue
            start = int(generator(seed, 2, k).integers(2**31))
            found = GaussianMixture(k, reg_covar=floor, max_iter=EM_STEPS, random_state=start).fit(fit)
            if found.score(held) > score:
                best, score = found, found.score(held)
    if best is None:
        raise DataError(f"{len(fit)} codes are fewer than the fewest components {min(config.components)}; lower components")
    return {"weights": best.weights_, "means": best.means_, "factors": np.linalg.cholesky(best.covariances_)}, best.n_components


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Fit encoder and decoder with Adam, then the mixture with EM."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    constants = training.grey_constants(data) if data.images else training.standard_constants(data)
    model = Model.new(config, data.shape, constants, seed=seed)
    optimiser = torch.optim.Adam(model.net.parameters(), lr=config.lr, fused=True)

    def step(now: training.Step) -> dict[str, Any]:
        x = model.inputs(now.x)
        code = model.net.encoder(x)
        y = model.net.decoder(code).float()
        error = binary_cross_entropy_with_logits(y, x, reduction="none") if data.images else (y - x) ** 2
        loss = error.sum(dim=1).mean()
        now.update(loss + config.penalty * (code.float() ** 2).sum(dim=1).mean())
        return {"error": loss}

    fitted = training.fit(step, config, data, modules={"net": model.net}, optimisers={"net": optimiser}, seed=seed, out=out)
    started = time.perf_counter()
    rows = read_all(data.train)
    chosen = np.sort(generator(seed, 0).permutation(len(rows))[: config.codes])
    found, size = mixture(model.encode(rows[chosen]), config, seed)
    model.constants |= found
    model.chosen = {"components": size}
    return model.trained(fitted, training.Fitted(0, time.perf_counter() - started, ()))
