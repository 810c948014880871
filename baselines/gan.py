"""Generative adversarial nets: one engine, whose losses and tricks are settings and whose named systems are variants.

Family: GAN. Sources: Goodfellow et al. 2014, arXiv 1406.2661 (minimax, non-saturating); Radford et al. 2015, arXiv 1511.06434 (DCGAN);
Salimans et al. 2016, arXiv 1606.03498 (feature matching, minibatch discrimination, one-sided label smoothing, historical averaging, virtual
batch norm); Arjovsky et al. 2017, arXiv 1701.07875 (WGAN); Gulrajani et al. 2017, arXiv 1704.00028 (WGAN-GP); Miyato et al. 2018, arXiv
1802.05957 (hinge loss and spectral norm); Lin et al. 2018, arXiv 1712.04086 (packing); Huang et al. 2025, arXiv 2501.05441 (R3GAN:
relativistic, R1 and R2).
A generator G maps normal latents to samples, a discriminator D gives logits of real against fake; they take turns. With r = D(x) and
f = D(G(z)), what D and G minimise stands in `losses`.
Can: sample. No likelihood.

    genbench bench toy2d --only gan

Time: on grid25 152 CPU-seconds (one thread); reached 25 of 25 modes, 93.5 % of samples within 3 SD (98.9 % of the law's own are), reverse
KL of the modes .009; on ring8 5,000 steps, 53 CPU-seconds: 8 of 8, 96.5 %, .002. One seed. A moving average of G's weights cost much of
that: 2,000 steps on ring8 reached 79 % without it, 63 % with it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench import training
from genbench.errors import UsageError, near_miss
from genbench.models import TrainingData, latent_neighbours

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FAMILY = "GAN"
SUMMARY = "generative adversarial nets (GAN): losses, penalties and tricks as settings"
SOURCE = "arXiv:1406.2661"
LOSSES = ("minimax", "nonsaturating", "wasserstein", "hinge", "relativistic")
NORMS = ("none", "batch", "virtual")
REFERENCE = 64  # latents of virtual batch norm's fixed batch


@dataclass(frozen=True)
class Config(training.Config):
    """Settings, beside those of every trained net.

    Args:
        loss: one of LOSSES.
        latent: dimensions of G's input.
        width: units per layer of vectors' nets; channels of the finest layer of images' G, half of those of D's.
        depth: hidden layers of vectors' nets.
        fourier: standard deviation of the frequencies of D's `width` random Fourier features of vectors, in cycles per SD; 0 for none.
        norm: in G: "none", "batch", or "virtual": by the statistics of a fixed batch.
        spectral: spectral norm on every layer of D.
        clip_weights: D's weights are cut to ± this after each step; 0 for not at all.
        gradient_penalty: weight of (‖∇D‖ − 1)² between real and fake samples.
        r1: weight of ½ ‖∇D‖² at real samples.
        r2: weight of ½ ‖∇D‖² at fake samples.
        critic_steps: k: D moves in every step, G in every k-th.
        critic_rate: D's learning rate as a multiple of `lr`.
        betas: of Adam.
        smoothing: the target of real samples is 1 less this; for minimax and nonsaturating.
        feature_matching: weight of the distance of D's mean features, which then is G's loss; 0 for the loss itself.
        minibatch: kernels of minibatch discrimination in D.
        history: weight of the squared distance of both nets' weights from their mean over the steps so far.
        packing: samples that D sees at once; divides `batch`.
    """

    loss: str = "nonsaturating"
    latent: int = 16
    width: int = 128
    depth: int = 3
    fourier: float = 0.0
    norm: str = "none"
    spectral: bool = False
    clip_weights: float = 0.0
    gradient_penalty: float = 0.0
    r1: float = 0.0
    r2: float = 0.0
    critic_steps: int = 1
    critic_rate: float = 1.0
    betas: tuple[float, float] = (0.5, 0.99)
    smoothing: float = 0.0
    feature_matching: float = 0.0
    minibatch: int = 0
    history: float = 0.0
    packing: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for value, known, what in ((self.loss, LOSSES, "loss"), (self.norm, NORMS, "norm")):
            if value not in known:
                raise near_miss(value, known, what)
        if min(self.latent, self.width, self.depth, self.critic_steps, self.packing) < 1 or self.batch % self.packing:
            raise UsageError(
                "latent, width, depth, critic_steps and packing are at least 1 and packing divides batch, found "
                f"{self.latent}, {self.width}, {self.depth}, {self.critic_steps}, {self.packing} and batch {self.batch}"
            )
        weights = (self.clip_weights, self.gradient_penalty, self.r1, self.r2, self.feature_matching, self.minibatch, self.history)
        if min(weights) < 0 or not self.critic_rate > 0 or not 0 <= self.smoothing < 1:
            raise UsageError(f"weights are at least 0, critic_rate above 0 and smoothing in [0, 1), found {self}")
        if self.smoothing and self.loss not in ("minimax", "nonsaturating"):
            raise UsageError(f"smoothing is of the losses minimax and nonsaturating, found {self.loss}")


_PLAIN = Config(steps=14_000, batch=256, lr=1e-3, latent=2)
_STABLE = replace(_PLAIN, loss="relativistic", r1=0.003)
_IMAGES = Config(steps=1200, batch=64, lr=5e-4, latent=64, width=16, norm="batch", betas=(0.5, 0.9))
RECIPES = {
    "vectors": _STABLE,
    "mnist": replace(_IMAGES, loss="hinge", spectral=True, ema=0.995, bf16=True, lr=1e-3),
    "digits": replace(_IMAGES, loss="hinge", spectral=True, ema=0.995, lr=1e-3),
}
VARIANTS = {
    "minimax": {"vectors": replace(_PLAIN, loss="minimax"), "mnist": replace(_IMAGES, loss="minimax")},
    "dcgan": {"vectors": _PLAIN, "mnist": _IMAGES, "digits": _IMAGES},
    "improved": {
        "vectors": replace(_PLAIN, minibatch=16, smoothing=0.1, history=0.01),
        "mnist": replace(_IMAGES, norm="virtual", feature_matching=1.0, minibatch=16, smoothing=0.1, history=0.001),
    },
    "wgan": {
        "vectors": replace(_PLAIN, loss="wasserstein", clip_weights=0.1, critic_steps=5, betas=(0.0, 0.9), steps=6000),
        "mnist": replace(_IMAGES, loss="wasserstein", clip_weights=0.05, critic_steps=5, betas=(0.0, 0.9), steps=1500),
    },
    "wgan-gp": {
        "vectors": replace(_PLAIN, loss="wasserstein", gradient_penalty=0.1, critic_steps=5, betas=(0.0, 0.9), steps=4000, ema=0.999),
        "mnist": replace(_IMAGES, loss="wasserstein", gradient_penalty=10.0, critic_steps=5, betas=(0.0, 0.9), steps=1000),
    },
    "pacgan": {"vectors": replace(_PLAIN, packing=4), "mnist": replace(_IMAGES, packing=2)},
    "r3gan": {
        "vectors": replace(_STABLE, r2=0.003),
        "mnist": replace(_IMAGES, loss="relativistic", r1=1.0, r2=1.0, norm="none", betas=(0.0, 0.9), ema=0.999),
    },
}
BUDGETS = {"vectors": {"1min": {"steps": 5000}, "5min": {}}, "mnist": {"1min": {"steps": 300}, "5min": {}}}
SMOKE = {
    "vectors": Config(steps=60, batch=64, lr=1e-3, width=16, depth=1, loss="relativistic", r1=0.1, r2=0.1),
    "images": Config(steps=30, batch=32, lr=1e-3, width=8, latent=8, norm="batch", spectral=True, loss="hinge", ema=0.9),
    "images:improved": Config(steps=20, batch=32, width=8, latent=8, norm="virtual", minibatch=4, history=0.01, smoothing=0.1, packing=2),
}


# -- losses --------------------------------------------------------------------------------------------------------------------------


def losses(config: Config) -> "tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]":
    """What D and G minimise, of logits r of real and f of fake samples."""
    from torch.nn.functional import relu, softplus

    s = config.smoothing

    def told(r: "Tensor", f: "Tensor") -> "Tensor":
        return ((1 - s) * softplus(-r) + s * softplus(r) + softplus(f)).mean()

    return {
        "minimax": (told, lambda r, f: -softplus(f).mean()),  # E log(1 − D)
        "nonsaturating": (told, lambda r, f: softplus(-f).mean()),
        "wasserstein": (lambda r, f: (f - r).mean(), lambda r, f: -f.mean()),
        "hinge": (lambda r, f: (relu(1 - r) + relu(1 + f)).mean(), lambda r, f: -f.mean()),
        "relativistic": (lambda r, f: softplus(f - r).mean(), lambda r, f: softplus(r - f).mean()),
    }[config.loss]


def slopes(critic: "nn.Module", x: "Tensor") -> "Tensor":
    """‖∇D‖² at every pack, differentiable, (n,)."""
    import torch

    x = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(critic(x)[0].sum(), x, create_graph=True)
    return found.flatten(1).square().sum(dim=1)


# -- nets ----------------------------------------------------------------------------------------------------------------------------


def generator_net(config: Config, shape: tuple[int, ...]) -> "nn.Module":
    """G: latents (n, k) to (n, *shape), of images in (−1, 1)."""
    import torch
    from torch import nn
    from torch.nn.functional import interpolate

    class Virtual(nn.Module):
        """Batch norm by the first REFERENCE rows' statistics, each other row's own counting as one more row's (section 3.4)."""

        def __init__(self, size: int) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))

        def forward(self, x: "Tensor") -> "Tensor":
            rows = x.flatten(2) if x.ndim > 2 else x[:, :, None]  # (n, c, places)
            first, second = rows.mean(dim=2), rows.square().mean(dim=2)
            share = 1 / (REFERENCE + 1)
            mean, square = (share * own + (1 - share) * own[:REFERENCE].mean(dim=0) for own in (first, second))
            scale = self.weight * torch.rsqrt(square - mean**2 + 1e-5)
            return (rows * scale[..., None] + (self.bias - mean * scale)[..., None]).reshape(x.shape)

    def norm(size: int) -> nn.Module:
        if config.norm == "batch":
            return nn.BatchNorm1d(size) if len(shape) == 1 else nn.BatchNorm2d(size)
        return Virtual(size) if config.norm == "virtual" else nn.Identity()

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("reference", torch.randn(REFERENCE if config.norm == "virtual" else 0, config.latent))
            if len(shape) == 1:
                sizes = [config.latent, *[config.width] * config.depth]
                self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
                self.last: nn.Module = nn.Linear(config.width, shape[0])
            else:
                sizes = [4 * config.width, 2 * config.width, config.width]
                self.seed = nn.Linear(config.latent, sizes[0] * ceil(shape[1] / 4) * ceil(shape[2] / 4))
                self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))
                self.last = nn.Conv2d(sizes[-1], shape[0], 3, padding=1)
            self.norms = nn.ModuleList(norm(size) for size in sizes[1 if len(shape) == 1 else 0 :])

        def forward(self, z: "Tensor") -> "Tensor":
            h = torch.cat([self.reference, z])
            if len(shape) == 1:
                for layer, normed in zip(self.layers, self.norms, strict=True):
                    h = torch.relu(normed(layer(h)))
                return self.last(h)[len(self.reference) :]
            h = torch.relu(self.norms[0](self.seed(h).reshape(len(h), -1, ceil(shape[1] / 4), ceil(shape[2] / 4))))
            for layer, normed in zip(self.layers, self.norms[1:], strict=True):  # nearest neighbours and a convolution: no checkerboard
                h = torch.relu(normed(layer(interpolate(h, scale_factor=2.0))))
            return torch.tanh(self.last(h)[len(self.reference) :, :, : shape[1], : shape[2]])

    return Generator()


def critic_net(config: Config, shape: tuple[int, ...]) -> "nn.Module":
    """D: packs (n, m, *shape) to logits (n,) and the last layer's features (n, k)."""
    import torch
    from torch import nn
    from torch.nn.functional import leaky_relu
    from torch.nn.utils.parametrizations import spectral_norm

    def kept(layer: nn.Module) -> nn.Module:
        return spectral_norm(layer) if config.spectral else layer

    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if len(shape) == 1:
                inputs = config.packing * shape[0]
                self.register_buffer(
                    "frequencies", 2 * pi * config.fourier * torch.randn(inputs, config.width // 2 if config.fourier else 0)
                )
                sizes = [inputs + 2 * self.frequencies.shape[1], *[config.width] * config.depth]
                self.layers = nn.ModuleList(kept(nn.Linear(a, b)) for a, b in pairwise(sizes))
                count = config.width
            else:
                sizes = [config.packing * shape[0], 2 * config.width, 4 * config.width, 8 * config.width]
                pairs = zip(sizes, sizes[1:], (1, 2, 2), strict=False)
                self.layers = nn.ModuleList(kept(nn.Conv2d(a, b, 3, stride=s, padding=1)) for a, b, s in pairs)
                count = 8 * config.width * ceil(shape[1] / 4) * ceil(shape[2] / 4)
            if config.minibatch:
                self.kernels = nn.Parameter(torch.randn(count, config.minibatch, 8) * count**-0.5)
            self.last = kept(nn.Linear(count + config.minibatch, 1))

        def forward(self, x: "Tensor") -> "tuple[Tensor, Tensor]":
            if len(shape) == 1:
                angles = x.flatten(1) @ self.frequencies
                h = torch.cat([x.flatten(1), torch.sin(angles), torch.cos(angles)], dim=1)
            else:
                h = x.flatten(1, 2)
            for layer in self.layers:
                h = leaky_relu(layer(h), 0.2)
            features = h.flatten(1)
            h = features
            if config.minibatch:  # how near the others of the minibatch are, in every kernel (section 3.2)
                m = torch.einsum("nf,fkc->nkc", h, self.kernels)
                h = torch.cat([h, torch.exp(-(m[:, None] - m).abs().sum(dim=3)).sum(dim=1) - 1], dim=1)
            return self.last(h)[:, 0].float(), features.float()

    return Critic()


# -- the model -----------------------------------------------------------------------------------------------------------------------


class Model(training.GreyModel):
    """G. constants: for vectors shift (d,) and scale (d,); for images values (L,)."""

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        return generator_net(config, shape)

    def real(self, x: "Tensor") -> "Tensor":
        """Samples as G makes them: standardised vectors, grey values' ranks from −1 to 1."""
        import torch

        if "values" in self.constants:
            return 2 * self.scaled(self.ranks(x)) - 1
        shift, scale = (torch.from_numpy(self.constants[k]).to(x.device) for k in ("shift", "scale"))
        return (x - shift) / scale

    def decode(self, z: "Tensor", *, whole: bool = True) -> NDArray[Any]:
        """Latents (n, k) to samples; whole: round."""
        y = self.net(z.to(self.device))
        if "values" in self.constants:
            ranks = (y + 1) / 2 * (self.levels - 1)
            return self.greys(ranks.round().long()) if whole else self.between(ranks)
        return y.double().cpu().numpy() * self.constants["scale"].astype(float) + self.constants["shift"]

    def draw(self, n: int, rng: "torch.Generator") -> NDArray[Any]:
        import torch

        return self.decode(torch.randn(n, self.config.latent, generator=rng))

    def latent_pairs(self, n: int, step: float, *, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """n pairs of neighbours on random paths through the latent space; see `models.latent_neighbours`."""
        import torch

        with torch.no_grad():
            a, b = (
                np.concatenate([self.decode(part, whole=False) for part in torch.from_numpy(z).float().split(self.SHARD)])
                for z in latent_neighbours(n, self.config.latent, step, seed=seed)
            )
        return a, b

    def settle(self, seed: int) -> None:
        """Batch norm's statistics of the final (averaged) weights, over 4,096 latents: samples are drawn with these, never with those of
        their own batch."""
        import torch
        from torch.nn.modules.batchnorm import _BatchNorm

        layers = [m for m in self.net.modules() if isinstance(m, _BatchNorm)]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over the batches
        self.net.train()
        with torch.no_grad():
            for k in range(16 if layers else 0):
                self.net(torch.randn(256, self.config.latent, generator=training.torch_generator(seed, 8, k)).to(self.device))
        self.net.eval()


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Alternate D and G, each with Adam."""
    import torch
    from torch import nn
    from torch.nn.utils import parameters_to_vector

    constants = training.grey_constants(data) if data.images else training.standard_constants(data)
    notes = {"none": (), "batch": ("batch norm by statistics of 4,096 latents",), "virtual": (f"virtual batch norm, {REFERENCE} latents",)}
    model = Model.new(config, data.shape, constants, seed=seed, notes=notes[config.norm])
    with training.seeded(seed, 7):
        critic = critic_net(config, data.shape).to(model.device)
    nets, past = {"generator": model.net, "critic": critic}, nn.Module()
    for key, net in nets.items():
        past.register_buffer(key, parameters_to_vector(net.parameters()).detach().clone())
    rates = {"generator": config.lr, "critic": config.lr * config.critic_rate}
    optimisers = {k: torch.optim.Adam(net.parameters(), lr=rates[k], betas=config.betas, fused=True) for k, net in nets.items()}
    told, made = losses(config)

    def packed(x: "Tensor") -> "Tensor":
        return x.reshape(len(x) // config.packing, config.packing, *x.shape[1:])

    def fakes(now: training.Step) -> "Tensor":
        return packed(model.net(torch.randn(len(now.x), config.latent, device=now.x.device)).float())

    def update(now: training.Step, key: str, loss: "Tensor") -> None:
        weights = parameters_to_vector(nets[key].parameters())
        now.update(loss + config.history * (weights - getattr(past, key)).square().sum() if config.history else loss, key)
        getattr(past, key).lerp_(weights.detach(), 1 / (now.i + 2))

    def step(now: training.Step) -> dict[str, Any]:
        x, fake = packed(model.real(now.x)), fakes(now).detach()
        critic_loss = told(critic(x)[0], critic(fake)[0])
        if config.gradient_penalty:
            between = fake + torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) * (x - fake)
            critic_loss = critic_loss + config.gradient_penalty * ((slopes(critic, between) + 1e-12).sqrt() - 1).square().mean()
        for weight, at in ((config.r1, x), (config.r2, fake)):
            if weight:
                critic_loss = critic_loss + 0.5 * weight * slopes(critic, at).mean()
        update(now, "critic", critic_loss)
        if config.clip_weights:
            with torch.no_grad():
                for p in critic.parameters():
                    p.clamp_(-config.clip_weights, config.clip_weights)
        if (now.i + 1) % config.critic_steps:
            return {"critic": critic_loss}
        with torch.no_grad():
            r, wanted = critic(x)
        f, features = critic(fakes(now))
        loss = (
            config.feature_matching * (features.mean(dim=0) - wanted.mean(dim=0)).square().sum() if config.feature_matching else made(r, f)
        )
        update(now, "generator", loss)
        return {"critic": critic_loss, "generator": loss}

    parts = {**nets, "past": past}
    fitted = training.fit(step, config, data, modules=parts, optimisers=optimisers, seed=seed, out=out, average=["generator"])
    model.settle(seed)
    return model.trained(fitted)
