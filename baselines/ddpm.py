"""Diffusion: a net learns to tell the noise in a noisy sample; chains and ODEs of it make samples and bound log p.

Family: diffusion. Source: Ho, Jain & Abbeel 2020, "Denoising diffusion probabilistic models", arXiv 2006.11239; cosine schedule of Nichol &
Dhariwal 2021, arXiv 2102.09672; DDIM of Song, Meng & Ermon 2020, arXiv 2010.02502; DPM-Solver of Lu et al. 2022, arXiv 2206.00927; the
probability-flow ODE of Song et al. 2020, arXiv 2011.13456; the bound's terms in the form of Kingma et al. 2021, arXiv 2107.00630.
x_u = α e_0 + σ e, all in terms of u = log σ/α: α² = 1/(1 + exp 2u), σ² = 1 − α². Loss E ‖ε(x_u, u) − e‖² at uniform times t (eq. 14); the
schedule says which u a time has. Samplers: "ddpm" draws the chain's steps, "ddim" and "dpm" solve dx/du = σ (ε − σ x), of order 1 and 2.
NFE, the network evaluations per sample, is the setting `nfe`. Likelihoods: "vlb" is the variational bound of a chain of `chain` steps,
summed over all of them, on grey values with a discretised Gaussian at its end (eq. 13); "ode" is the density of the ODE.
Can: sample; log p as a lower bound (vlb; ode of images, in expectation) or exact up to the solver's tolerance (ode of vectors).

    genbench bench toy2d --only ddpm

Time: on grid25 84 CPU-seconds (one thread); reached 25 of 25 modes, 96.2 % of samples within 3 SD (98.9 % of the law's own are) at NFE 30
with dpm; 94.8 % at NFE 20, 96.8 % at NFE 100; ddim 90.4 % at NFE 20; NLL − entropy 0.07 nats. After 3,000 steps the target "noise" was 0.91
nats above the entropy, "velocity" 0.16; after 8,000 with a batch of 1,024 0.03, with one of 256 0.07 (4,000 test rows). In the budget of
twenty minutes 98.1 % at NFE 100 (97.3 % at NFE 30) and 0.03. On digits 500 steps, 29 CPU-seconds: a bound of 116.3 nats on 200 images of
the validation split. On mnist, FD in the features of the mnist extractor at NFE 20: 23.1 in five minutes, 14.6 in twenty.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import atan, exp, expm1, log, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genbench import denoising, densities, training
from genbench.errors import UsageError, near_miss
from genbench.models import TrainingData, read_all

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FAMILY = "diffusion"
SUMMARY = "denoising diffusion (DDPM) with DDIM and DPM-Solver; variational bound or probability-flow ODE"
SOURCE = "arXiv:2006.11239"
SCHEDULES, SAMPLERS, LIKELIHOODS = ("cosine", "linear", "geometric"), ("ddpm", "ddim", "dpm"), ("vlb", "ode")
TARGETS = ("noise", "velocity")


@dataclass(frozen=True)
class Config(denoising.Config):
    """Settings, beside those of every denoising model.

    Args:
        schedule: which noise a time has: "cosine", "linear", or "geometric", which spends as many steps on each factor of σ/α and suits
            data with detail much finer than their spread.
        target: what the net puts out: the noise e, or the velocity α e − σ e_0 of Salimans & Ho 2022, arXiv 2202.00512, whose errors do
            not grow where there is little signal.
        least: smallest σ/α, after which a sample counts as data.
        most: largest σ/α.
        sampler: "ddpm", "ddim", or "dpm" with two evaluations per step.
        likelihood: "vlb" or "ode".
        chain: steps of the chain whose bound "vlb" is; a "ddpm" sampler with nfe = chain draws from that chain.
    """

    schedule: str = "cosine"
    target: str = "noise"
    least: float = 0.002
    most: float = 80.0
    sampler: str = "dpm"
    likelihood: str = "ode"
    chain: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        for value, known, what in (
            (self.schedule, SCHEDULES, "schedule"),
            (self.target, TARGETS, "target"),
            (self.sampler, SAMPLERS, "sampler"),
            (self.likelihood, LIKELIHOODS, "likelihood"),
        ):
            if value not in known:
                raise near_miss(value, known, what)
        if not 0 < self.least < self.most or self.chain < 1:
            raise UsageError(f"0 < least < most and chain is at least 1, found {self.least}, {self.most} and {self.chain}")
        if self.sampler == "dpm" and self.nfe % 2:
            raise UsageError(f"nfe is a multiple of 2 with the dpm sampler, found {self.nfe}")


RECIPES = {
    "vectors": Config(
        steps=12_000, batch=256, lr=2e-3, width=128, blocks=3, fourier=1.0, ema=0.999, target="velocity", least=0.004, most=10.0, nfe=30
    ),
    "digits": Config(
        steps=3000, batch=100, lr=1e-3, width=32, blocks=1, ema=0.999, least=0.02, sampler="ddpm", nfe=200, likelihood="vlb", chain=200
    ),
    "mnist": Config(steps=10_000, batch=16, lr=2e-3, width=32, blocks=1, patch=2, ema=0.999, bf16=True, nfe=20, tolerance=1e-3, least=0.01),
    # Sized by its arithmetic for 20 minutes of one GPU; not run yet.
    "cifar10": Config(
        steps=20_000, batch=128, lr=4e-4, width=128, blocks=3, ema=0.9995, clip=1.0, bf16=True, nfe=50, tolerance=1e-3, least=0.01
    ),
}
VARIANTS = {
    "ddim": {key: replace(config, sampler="ddim") for key, config in RECIPES.items()},
    "ancestral": {"vectors": replace(RECIPES["vectors"], sampler="ddpm", nfe=100, likelihood="vlb", chain=100)},
    "conditional": {key: replace(RECIPES[key], conditional=True) for key in ("digits", "mnist", "cifar10")},
    "linear": {"vectors": replace(RECIPES["vectors"], schedule="linear"), "mnist": replace(RECIPES["mnist"], schedule="linear")},
}
BUDGETS = {
    "vectors": {"1min": {"steps": 6000}, "5min": {"batch": 1024, "steps": 14_000}, "20min": {"batch": 1024, "steps": 50_000, "nfe": 100}},
    "mnist": {"1min": {"steps": 2400}, "5min": {}, "20min": {"steps": 40_000}},
    "cifar10": {"20min": {}},
}
SMOKE = {
    "vectors": Config(steps=150, batch=128, lr=1e-2, width=16, blocks=1, nfe=40, tolerance=1e-2, least=0.1, most=10.0),
    "images": Config(
        steps=40, batch=64, lr=1e-2, width=8, blocks=1, nfe=20, sampler="ddpm", likelihood="vlb", chain=20, least=0.05, most=50.0
    ),
}
SMOKE["vectors:ddim"] = replace(SMOKE["vectors"], sampler="ddim", nfe=200)  # of order 1
SMOKE["images:conditional"] = replace(SMOKE["images"], conditional=True)


def signal(ratio: Any) -> tuple[Any, Any]:
    """α and σ at a ratio σ/α, a number or a tensor."""
    alpha = (1 + ratio * ratio) ** -0.5
    return alpha, ratio * alpha


class Model(denoising.Model):
    """DDPM. The ODE's time is u, from log least at the data to log most at the noise. Vectors have the constants low and high (d,) too."""

    @property
    def bound(self) -> str | None:
        if self.config.likelihood == "ode" and not self.grey:
            return "exact"
        return None if self.config.conditional else "lower"  # a sum over classes of bounds that are noisy lies too high

    def times(self, t: "Tensor") -> "Tensor":
        """u of the times t in [0, 1]."""
        import torch

        least, most = self.config.least, self.config.most
        if self.config.schedule == "cosine":  # α = cos of an angle that is even in time; least is the offset of Nichol & Dhariwal, .0126
            return torch.log(torch.tan(atan(least) + t * (atan(most) - atan(least))))
        if self.config.schedule == "geometric":
            return log(least) + t * (log(most) - log(least))
        # β(t) = 0.1 + 19.9 t, the limit of 1,000 steps from 1e-4 to 0.02: σ²/α² = exp ∫ β − 1
        return (0.5 * torch.log(torch.expm1(0.1 * t + 9.95 * t**2))).clamp(log(least), log(most))

    def guess(self, x: "Tensor", u: "Tensor") -> "Tensor":
        """What the net puts out; its own time is u on a scale from 0 to 1."""
        low, high = log(self.config.least), log(self.config.most)
        return self.output(x.float(), ((u - low) / (high - low)).float().expand(len(x)))

    def noise_in(self, x: "Tensor", u: "Tensor | float") -> "Tensor":
        """ε(x, u): the guessed noise."""
        import torch

        u = torch.as_tensor(u, device=x.device, dtype=torch.float32)
        found = self.guess(x, u)
        if self.config.target == "noise":
            return found
        alpha, sigma = signal(u.exp().reshape(-1, *[1] * (x.ndim - 1)))
        return sigma * x + alpha * found

    def held(self, x: "Tensor", u: float) -> "Tensor":
        """The guessed noise for sampling: of vectors such that the guessed data lie within those of the training split ("clip denoised" in
        Ho et al.'s code). One draw in ten thousand diverged without."""
        import torch

        guess = self.noise_in(x, u)
        if "low" not in self.constants:
            return guess
        alpha, sigma = signal(exp(u))
        low, high = (self.into(torch.from_numpy(self.constants[k]).to(x.device)) for k in ("low", "high"))
        clean = (x - sigma * guess) / alpha
        return guess + alpha / sigma * (clean - clean.clamp(low, high))

    def clean(self, x: "Tensor") -> "Tensor":
        """Data as what noise is added to: for the variational bound the middles of the grey values' bins, else dequantised."""
        if self.grey and self.config.likelihood == "vlb":
            return self.into(self.ranks(x).float() + 0.5)
        return self.noisy(x)

    # -- log p ---------------------------------------------------------------------------------------------------------------------

    def velocity(self, z: "Tensor", t: "Tensor") -> "Tensor":
        _, sigma = signal(t.exp().reshape(-1, *[1] * (z.ndim - 1)))
        return sigma * (self.noise_in(z, t) - sigma * z)

    def log_prob_rows(self, x: "Tensor") -> "Tensor":
        if self.config.likelihood == "ode":
            return self.ode_log_prob(x, log(self.config.least), log(self.config.most))
        return self.variational_bound(x)

    def variational_bound(self, x: "Tensor") -> "Tensor":
        """log p(x_0 | x_1) − Σ_k KL(q(x_{k−1} | x_k, x_0) ‖ p(x_{k−1} | x_k)) − KL(q(x_T | x_0) ‖ p(x_T)) (eq. 5), all T terms, (n,)."""
        import torch

        def total(values: "Tensor") -> "Tensor":
            return values.flatten(1).double().sum(dim=1)

        z = self.clean(x)
        u = self.times(torch.arange(1, self.config.chain + 1, dtype=torch.float64) / self.config.chain).tolist()
        noise = torch.from_numpy(densities.row_noise(x.cpu().numpy(), len(u), self.shape)).to(x.device)  # (n, T, *shape)
        alpha, sigma = signal(exp(u[-1]))
        found = -0.5 * total(sigma**2 + (alpha * z) ** 2 - 1 - 2 * log(sigma))
        for k, (before, now) in enumerate(zip([u[0], *u], u, strict=False)):
            alpha, sigma = signal(exp(now))
            guess = self.noise_in(alpha * z + sigma * noise[:, k], now)
            if k:  # both are normal with one variance: their means differ by this much (Kingma et al., eq. 13)
                found -= 0.5 * expm1(2 * (now - before)) * total((guess - noise[:, k]) ** 2)
            else:
                mean = z + exp(now) * (noise[:, k] - guess)
                found += total(self.log_end(z, mean, exp(now)))
        return found if self.grey else found + self.log_slope

    def log_end(self, z: "Tensor", mean: "Tensor", sd: float) -> "Tensor":
        """log p(x_0 | x_1): normal; of grey values the mass of its bin, open at both ends (eq. 13)."""
        import torch
        from torch.special import log_ndtr

        z, mean = z.double(), mean.double()
        if not self.grey:
            return -0.5 * (((z - mean) / sd) ** 2 + log(2 * pi)) - log(sd)
        half = 1 / self.levels
        z = half * (2 * ((z + 1) / (2 * half) - 0.5).round() + 1) - 1  # in float64, so that neighbouring bins share an edge
        lower, upper = (z - half - mean) / sd, (z + half - mean) / sd
        # On the right of the mean both tails are close to one: there the mirrored bin is measured.
        flip = lower + upper > 0
        a, b = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
        inner = log_ndtr(b) + densities.log1mexp((log_ndtr(b) - log_ndtr(a)).clamp_min(1e-300))
        first, last = z < 2 * half - 1, z > 1 - 2 * half
        return torch.where(first, log_ndtr(upper), torch.where(last, log_ndtr(-lower), inner))

    # -- samples -------------------------------------------------------------------------------------------------------------------

    def denoise(self, e: "Tensor", rng: "torch.Generator | None") -> "Tensor":
        """By the config's sampler; without `rng` by DDIM, since a path through the latents must not jump."""
        import torch

        x, nfe = e, self.config.nfe
        if self.config.sampler == "dpm":  # even steps of log α/σ (section 3.3)
            u = torch.linspace(log(self.config.most), log(self.config.least), nfe // 2 + 1, dtype=torch.float64).tolist()
            for now, after in pairwise(u):
                middle = (now + after) / 2
                x = moved(x, self.held(moved(x, self.held(x, now), now, middle), middle), now, after)
            return x
        u = self.times(torch.arange(nfe, -1, -1, dtype=torch.float64) / nfe).tolist()
        if self.config.sampler == "ddim" or rng is None:
            for now, after in pairwise(u):
                x = moved(x, self.held(x, now), now, after)
            return x
        for now, after in pairwise(u[:-1]):
            clean = moved(x, self.held(x, now), now, None)
            # q(x_s | x_t, x_0) at the guessed x_0 (eqs. 6 and 7), where r = (σ_s²/α_s²)/(σ_t²/α_t²).
            (a, _), (b, s), r = signal(exp(now)), signal(exp(after)), exp(2 * (after - now))
            x = b * (1 - r) * clean + r * b / a * x + s * (1 - r) ** 0.5 * torch.randn(x.shape, generator=rng).to(x.device)
        noise = torch.randn(x.shape, generator=rng).to(x.device)
        return moved(x, self.held(x, u[-2]), u[-2], None) + exp(u[-2]) * noise  # p(x_0 | x_1)


def moved(x: "Tensor", guess: "Tensor", now: float, after: float | None) -> "Tensor":
    """x at `after`, None for the data, if the noise in it is the guess: DDIM's step (eq. 12 with σ = 0), DPM-Solver's of order 1."""
    (a, s), (b, r) = signal(exp(now)), signal(exp(after)) if after is not None else (1.0, 0.0)
    return b / a * x + (r - b * s / a) * guess


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Least squares on the net's target at uniform times, with Adam."""
    import torch

    laws = {"vlb": f"variational bound of a chain of {config.chain} steps", "ode": f"probability-flow ODE, tolerance {config.tolerance:g}"}
    constants = denoising.constants_of(config, data)
    if not data.images:
        rows = read_all(data.train)
        constants |= {"low": rows.min(axis=0).astype(np.float32), "high": rows.max(axis=0).astype(np.float32)}
    model = Model.new(config, data.shape, constants, seed=seed)
    model.say(config.sampler, f"log p: {laws[config.likelihood]}")
    optimiser = torch.optim.Adam(model.net.parameters(), lr=config.lr, fused=True)

    def step(now: training.Step) -> dict[str, Any]:
        z = model.clean(now.x)
        e = torch.randn_like(z)
        u = model.times(torch.rand(len(z), device=z.device))
        alpha, sigma = signal(u.exp().reshape(-1, *[1] * (z.ndim - 1)))
        wanted = e if config.target == "noise" else alpha * e - sigma * z
        loss = (model.learning(now.labels).guess(alpha * z + sigma * e, u) - wanted).square().mean()
        now.update(loss)
        return {"square": loss}

    fitted = training.fit(step, config, data, modules={"net": model.net}, optimisers={"net": optimiser}, seed=seed, out=out)
    return model.trained(fitted)
