"""Variational autoencoder, and with a setting each the β-VAE and the importance-weighted autoencoder.

Family: latent variable. Sources: Kingma & Welling 2013, "Auto-encoding variational Bayes", arXiv 1312.6114; Higgins et al. 2017, "β-VAE",
openreview Sy2fzU9gl; Burda, Grosse & Salakhutdinov 2015, "Importance weighted autoencoders", arXiv 1509.00519; the gradient of the ELBO:
Roeder, Wu & Duvenaud 2017, "Sticking the landing", arXiv 1703.09194; a full covariance: Kingma & Welling 2019, "An introduction to
variational autoencoders", arXiv 1906.02691, section 2.5.1.
z ~ N(0, I), x | z of the decoder; the encoder's q(z | x) = N(μ(x), L Lᵀ) with L = diag σ(x), or diag σ(x) (I + M(x)) and M strictly lower
triangular. With w_i = p(x, z_i)/q(z_i | x) and z_i ~ q(z | x):
    VAE     maximises E log w = E_q log p(x | z) − KL(q(z | x) ‖ p(z)), the ELBO (eq. 3 of the first)
    β-VAE   maximises E_q log p(x | z) − β KL: another trade of rate for distortion, and for β ≠ 1 no bound
    IWAE    maximises E log 1/k Σ_i w_i, k `particles` (eq. 8 of the third)
Decoder: pixels are categories over the dataset's grey values (Bernoulli for two), above 32 of them mixtures of discretised logistics;
vectors are Gaussian with one learnt σ per coordinate.
Can: sample; log_prob is the bound log 1/k Σ w of k = `draws` draws, whatever was maximised (k in the notes; k = 1 is the ELBO,
which the variant vae:elbo is scored by and `Model.importance(x, 1)` gives beside any other); encode and decode.

    genbench bench mnist-dynbin --only vae          (or vae:elbo, vae:diagonal, vae:beta, vae:iwae)

Time: on mnist-dynbin the budget of twenty minutes reached 83.5 ± 0.4 nats (IWAE-1000) and an ELBO of 86.5 on the test split (one thread);
with a diagonal covariance 85.9 and 90.2. The bound of 1,000 draws takes 0.03 CPU-seconds per image. After 3,500 steps, 58 CPU-seconds,
IWAE-100 and ELBO on 1,000 validation images:
93.4 and 97.6 with the score of q in the gradient, 93.0 and 97.1 without; of nets twice as wide, 82 CPU-seconds, 92.1 and 96.5; with
rectifiers 94.5 and 98.9, with a third residual layer 93.8 and 99.2. Of nets of 1,024 and 512 units, IWAE-50 and ELBO on 500 test images:
92.3 and 96.2 with a diagonal covariance in 79 CPU-seconds, 90.6 and 94.1 with a full one in 87. Layer
normalisation and the annealed KL term are worth 14 and 8 nats after 800 steps (of 127). On digits 7 CPU-seconds, 93.7 ± 1.0 (IWAE-1000)
on the test split.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from genbench import densities, training
from genbench.errors import UsageError, near_miss
from genbench.models import TrainingData, latent_neighbours, read_all

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FAMILY = "latent variable"
SUMMARY = "variational autoencoder (VAE); β-VAE; importance-weighted (IWAE)"
SOURCE = "arXiv:1312.6114"
CATEGORIES = 32  # grey values up to which a pixel is a category
FLOOR = 1e-3  # smallest σ of a vector's coordinate, in standard deviations
CHUNK = 8  # draws per pass of log_prob
COVARIANCES = ("diagonal", "full")
TILT = 0.1  # of the net's output in M: with 1 the first steps, far from the identity, ended in NaN


@dataclass(frozen=True)
class Config(training.Config):
    """Settings, beside those of every trained net.

    Args:
        latent: dimensions of z.
        covariance: of q(z | x): "diagonal" or "full".
        hidden: units of the encoder's layers; the decoder's are the same, backwards.
        beta: weight of the KL term in training.
        anneal: share of the steps in which that weight rises from 0, so that no latent is given up before the decoder can use it.
        particles: draws of z per image in training; above 1 it maximises IWAE's bound.
        dropout: in the hidden layers.
        draws: k of log_prob's bound.
        mixture: logistics per pixel, above 32 grey values.
        conditional: on the class, which the decoder is told beside z; q(z | x) does without.
    """

    latent: int = 40
    covariance: str = "diagonal"
    hidden: tuple[int, ...] = (512, 512)
    beta: float = 1.0
    anneal: float = 0.3
    particles: int = 1
    dropout: float = 0.0
    draws: int = 1000
    mixture: int = 5
    conditional: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.covariance not in COVARIANCES:
            raise near_miss(self.covariance, COVARIANCES, "covariance")
        if min(self.latent, self.particles, self.draws, self.mixture, *self.hidden, 1) < 1:
            raise UsageError(f"latent, hidden, particles, draws and mixture are at least 1, found {self}")
        if not self.beta >= 0 or not 0 <= self.anneal <= 1 or not 0 <= self.dropout < 1:
            raise UsageError(f"beta >= 0, anneal in [0, 1] and dropout in [0, 1), found {self.beta}, {self.anneal} and {self.dropout}")
        if self.particles > 1 and (self.beta != 1 or self.anneal):
            raise UsageError(f"several particles have no KL term: beta is 1 and anneal 0, found {self.beta} and {self.anneal}")


RECIPES = {
    "mnist-dynbin": Config(hidden=(1024, 512), covariance="full", steps=13_000, lr=5e-3, clip=50.0, bf16=True),
    "digits": Config(latent=10, hidden=(256,), dropout=0.5, steps=800, lr=2e-3),
    "mnist": Config(steps=4000, lr=1e-3, draws=64, bf16=True),
    "vectors": Config(latent=2, hidden=(64, 64), steps=3000, batch=256, lr=2e-3, draws=256),
}
BUDGETS = {"mnist-dynbin": {"1min": {"hidden": (512, 512), "steps": 3500}, "5min": {}, "20min": {"steps": 50_000}}}
BUDGETS["mnist-dynbin:elbo"] = BUDGETS["mnist-dynbin"]
VARIANTS = {
    "elbo": {key: replace(config, draws=1) for key, config in RECIPES.items()},
    "diagonal": {"mnist-dynbin": replace(RECIPES["mnist-dynbin"], covariance="diagonal")},
    "beta": {"mnist-dynbin": replace(RECIPES["mnist-dynbin"], beta=4.0), "digits": replace(RECIPES["digits"], beta=4.0)},
    "iwae": {"mnist-dynbin": replace(RECIPES["mnist-dynbin"], particles=5, anneal=0.0, steps=5000)},
    "conditional": {key: replace(RECIPES[key], conditional=True) for key in ("digits", "mnist")},
}
SMOKE = {
    "images": Config(latent=3, hidden=(32,), steps=100, batch=50, lr=1e-2, draws=16),
    "vectors": Config(latent=2, hidden=(32,), steps=100, batch=100, lr=1e-2, draws=64),
    "images:conditional": Config(latent=3, hidden=(32,), steps=100, batch=50, lr=1e-2, draws=16, conditional=True),
    "images:iwae": Config(latent=3, hidden=(32,), steps=60, batch=50, lr=1e-2, draws=16, particles=3, anneal=0.0, covariance="full"),
}


def perceptron(inputs: int, hidden: tuple[int, ...], outputs: int, dropout: float) -> "nn.Module":
    from torch import nn

    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def tilted(noise: "Tensor", tilt: "Tensor | None") -> "Tensor":
    """(I + M) ε of every draw: (n, k, latent)."""
    return noise if tilt is None else noise + noise @ tilt.transpose(1, 2)


def log_ratio(z: "Tensor", mean: "Tensor", log_sigma: "Tensor", tilt: "Tensor | None") -> "Tensor":
    """log q(z | x) − log p(z), (n,)."""
    import torch

    white = (z - mean) / torch.exp(log_sigma)
    if tilt is not None:  # the solver takes the diagonal for ones
        white = torch.linalg.solve_triangular(tilt, white[:, :, None], upper=False, unitriangular=True)[:, :, 0]
    return (0.5 * z * z - 0.5 * white**2 - log_sigma).sum(dim=1)


class Model(training.GreyModel):
    """VAE. constants: values (L,) for images; shift (d,) and scale (d,) for vectors; classes and shares where it is conditional."""

    @property
    def bound(self) -> str:
        return "lower"

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        import torch
        from torch import nn

        dims = math.prod(shape)
        levels = len(constants["values"]) if "values" in constants else 0
        per = 1 if not levels else levels - 1 if levels <= CATEGORIES else 3 * config.mixture
        net = nn.Module()
        tilts = config.latent * (config.latent - 1) // 2 if config.covariance == "full" else 0
        net.encoder = perceptron(dims, config.hidden, 2 * config.latent + tilts, config.dropout)
        net.decoder = perceptron(config.latent + training.class_count(constants), config.hidden[::-1], dims * per, config.dropout)
        if not levels:
            net.log_sigma = nn.Parameter(torch.zeros(dims))
        return net

    def start(self, rows: NDArray[Any]) -> None:
        """The decoder's last bias such that a decoder without weights is the model of independent pixels: hundreds of nats for nothing."""
        import torch

        place = np.searchsorted(self.constants["values"], rows.reshape(len(rows), -1))
        counts = np.stack([np.bincount(column, minlength=self.levels) for column in place.T]) + 1.0  # (D, L)
        with torch.no_grad():
            self.net.decoder[-1].bias.copy_(torch.from_numpy(np.log(counts[:, 1:] / counts[:, :1])).reshape(-1))

    # -- p and q -------------------------------------------------------------------------------------------------------------------

    def inputs(self, x: "Tensor") -> "Tensor":
        """Samples as the encoder sees them, (n, D)."""
        import torch

        if "values" in self.constants:
            return self.scaled(self.ranks(x)).flatten(1)
        shift, scale = (torch.from_numpy(self.constants[k]).to(x.device) for k in ("shift", "scale"))
        return (x - shift) / scale

    def encode(self, x: "Tensor") -> "tuple[Tensor, Tensor, Tensor | None]":
        """Mean and log σ of q(z | x), (n, latent) each, and M (n, latent, latent), None for a diagonal covariance."""
        k = self.config.latent
        mean, log_sigma, below = self.net.encoder(self.inputs(x)).float().tensor_split((k, 2 * k), dim=1)
        tilt = None
        if self.config.covariance == "full":
            tilt = below.new_zeros(len(x), k, k)
            tilt[:, *np.tril_indices(k, -1)] = TILT * below
        return mean, log_sigma.clamp(-10, 5), tilt

    def decode(self, z: "Tensor") -> "Tensor":
        """Parameters of p(x | z), (n, D, per coordinate); several rows of z for each of `condition`, one behind the other."""
        import torch

        if self.condition is not None:
            z = torch.cat([z, self.condition.repeat_interleave(len(z) // len(self.condition), dim=0)], dim=1)
        return self.net.decoder(z).float().reshape(len(z), self.dims, -1)

    def log_likelihood(self, z: "Tensor", x: "Tensor") -> "Tensor":
        """log p(x | z) of every row, (n,)."""
        import torch

        p = self.decode(z)
        if "values" in self.constants:
            ranks = self.ranks(x).flatten(1)
            if self.levels <= CATEGORIES:
                return densities.categorical(p, ranks).sum(dim=1)
            return densities.logistic_mixture(*p.chunk(3, dim=2), ranks, self.levels).sum(dim=1)
        sigma = self.sigma()
        t = (self.inputs(x) - p[..., 0]) / sigma
        scale = torch.from_numpy(self.constants["scale"]).to(x.device)
        return (-0.5 * (t * t + math.log(2 * math.pi)) - torch.log(sigma * scale)).sum(dim=1)

    def sigma(self) -> "Tensor":
        """σ of a vector's coordinates given z, in standard units."""
        import torch

        return FLOOR + torch.exp(self.net.log_sigma)

    def log_weights(self, x: "Tensor", noise: "Tensor") -> "Tensor":
        """log p(x, z) − log q(z | x) at z = μ + L ε, (n, k), for standard normal noise ε (n, k, latent)."""
        import torch

        n, k, _ = noise.shape
        mean, log_sigma, tilt = self.encode(x)
        z = mean[:, None] + torch.exp(log_sigma)[:, None] * tilted(noise, tilt)
        prior_over_q = (-0.5 * z * z + 0.5 * noise * noise + log_sigma[:, None]).sum(dim=2)  # the constants cancel
        many = x[:, None].expand(n, k, *x.shape[1:]).reshape(n * k, *x.shape[1:])
        return self.log_likelihood(z.reshape(n * k, -1), many).reshape(n, k) + prior_over_q

    # -- bounds --------------------------------------------------------------------------------------------------------------------

    def importance(self, x: NDArray[Any], k: int) -> NDArray[np.float64]:
        """Lower bound on log p(x) from k draws, (n,) nats: the ELBO for k = 1. Grows with k, on average."""
        import torch

        def rows(model: Self, x: "Tensor") -> "Tensor":
            noise = torch.from_numpy(densities.row_noise(x.cpu().numpy(), k, (self.config.latent,))).to(x.device)
            return densities.importance_bound(torch.cat([model.log_weights(x, noise[:, a : a + CHUNK]) for a in range(0, k, CHUNK)], dim=1))

        return self.mixed(rows, x)

    def log_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """The bound of `config.draws` draws."""
        return self.importance(x, self.config.draws)

    # -- samples and latents -------------------------------------------------------------------------------------------------------

    def draw(self, n: int, rng: "torch.Generator") -> NDArray[Any]:
        import torch

        z, u, v = torch.randn(n, self.config.latent, generator=rng), *torch.rand(2, n, self.dims, generator=rng)
        p = self.decode(z.to(self.device)).cpu()
        if "values" not in self.constants:
            return self.outputs(p[..., 0] + self.sigma().cpu() * torch.special.ndtri(u.double().clamp(1e-12, 1)))
        if self.levels <= CATEGORIES:
            return self.greys(densities.draw_categorical(p, u))
        return self.greys(densities.draw_logistic_mixture(*p.chunk(3, dim=2), u, v, self.levels))

    def expected(self, z: "Tensor", *, whole: bool = True) -> NDArray[Any]:
        """E[x | z], (n, *shape), to the nearest grey value where `whole`."""
        import torch
        from torch.nn.functional import pad

        p = self.decode(z.float().to(self.device))
        if "values" not in self.constants:
            return self.outputs(p[..., 0])
        if self.levels <= CATEGORIES:
            mean = torch.softmax(pad(p, (1, 0)), dim=2) @ torch.arange(self.levels).to(p)
        else:
            weights, means, _ = p.chunk(3, dim=2)
            mean = ((torch.softmax(weights, dim=2) * means).sum(dim=2) + 1) / 2 * (self.levels - 1)
        found = self.greys(mean.round().long().clamp(0, self.levels - 1)) if whole else self.between(mean)
        return found.reshape(len(z), *self.shape)

    def outputs(self, y: "Tensor") -> NDArray[np.float64]:
        """Vectors in standard units as those of the data."""
        return np.asarray(y.double().cpu().numpy() * self.constants["scale"].astype(float) + self.constants["shift"])

    def reconstruct(self, x: NDArray[Any]) -> NDArray[Any]:
        """E[x | z] at the mean of q(z | x), by a conditional decoder for the class that gives x the most there."""
        import torch

        if not len(x):
            return x
        with torch.no_grad():
            rows = training.as_tensor(self.check_rows(x), self.device)
            z, known = self.encode(rows)[0], self.constants.get("classes")
            if known is None:
                return self.expected(z)
            each = torch.stack([self.given(np.full(len(x), y)).log_likelihood(z, rows) for y in known], dim=1)
            best = (each.cpu().numpy() + np.log(self.constants["shares"])).argmax(axis=1)
            return self.given(known[best]).expected(z)

    def latent_pairs(self, n: int, step: float, *, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """E[x | z] at n pairs of neighbours on random paths; see `models.latent_neighbours`."""
        import torch

        told = self.given(self.sample_labels(n, seed=seed))
        with torch.no_grad():
            a, b = (told.expected(torch.from_numpy(z), whole=False) for z in latent_neighbours(n, self.config.latent, step, seed=seed))
        return a, b


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Maximise the ELBO, its β-weighted form, or IWAE's bound, with Adam."""
    import torch

    constants = training.grey_constants(data) if data.images else training.standard_constants(data)
    constants |= training.class_constants(data) if config.conditional else {}
    what = f"importance-weighted lower bound of {config.draws} draws" if config.draws > 1 else "ELBO of one draw"
    note = f"log_prob is the {what} (IWAE-{config.draws})"
    model = Model.new(config, data.shape, constants, seed=seed, notes=(note,))
    if data.images and len(constants["values"]) <= CATEGORIES:
        model.start(read_all(data.train))
    optimiser = torch.optim.Adam(model.net.parameters(), lr=config.lr, fused=True)

    def step(now: training.Step) -> dict[str, Any]:
        noise = torch.randn(len(now.x), config.particles, config.latent, device=now.x.device)
        told = model.given(now.labels)
        if config.particles > 1:
            bound = densities.importance_bound(told.log_weights(now.x, noise)).mean()
            now.update(-bound)
            return {"iwae_nats": -bound}
        mean, log_sigma, tilt = model.encode(now.x)
        z = mean + torch.exp(log_sigma) * tilted(noise, tilt)[:, 0]
        # KL(q ‖ p) at z, its gradient by way of z alone: without the score of q, which is noise of mean 0 (eq. 8 of Roeder et al.).
        rate = log_ratio(z, mean.detach(), log_sigma.detach(), None if tilt is None else tilt.detach()).mean()
        distortion = -told.log_likelihood(z, now.x).mean()
        now.update(distortion + config.beta * min(1.0, (now.i + 1) / max(1.0, config.anneal * config.steps)) * rate)
        return {"elbo_nats": distortion + rate, "rate": rate}

    return model.trained(training.fit(step, config, data, modules={"net": model.net}, optimisers={"net": optimiser}, seed=seed, out=out))
