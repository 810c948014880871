"""Generative adversarial nets: one engine, whose losses and tricks are settings and whose named systems are variants.

Family: GAN. Sources: Goodfellow et al. 2014, arXiv 1406.2661 (minimax, non-saturating); Radford et al. 2015, arXiv 1511.06434 (DCGAN);
Salimans et al. 2016, arXiv 1606.03498 (feature matching, minibatch discrimination, one-sided label smoothing, historical averaging, virtual
batch norm); Arjovsky et al. 2017, arXiv 1701.07875 (WGAN); Gulrajani et al. 2017, arXiv 1704.00028 (WGAN-GP); Miyato et al. 2018, arXiv
1802.05957 (hinge loss and spectral norm); Lin et al. 2018, arXiv 1712.04086 (packing); Huang et al. 2025, arXiv 2501.05441 (R3GAN:
relativistic, R1 and R2).
A generator G maps normal latents to samples, a discriminator D gives logits of real against fake; they take turns. With r = D(x) and
f = D(G(z)), what D and G minimise stands in `genbench.adversarial`, with the penalties and the turns.
Can: sample. No likelihood.

    genbench bench toy2d --only gan

Time: on grid25 152 CPU-seconds (one thread); reached 25 of 25 modes, 93.5 % of samples within 3 SD (98.9 % of the law's own are), reverse
KL of the modes .009; in the budget of twenty minutes 97.4 %, .002; on ring8 14,000 steps: 8 of 8, 98.3 %, .000. One seed. A moving average
of G's weights cost much of that: 2,000 steps on ring8 reached 79 % without it, 63 % with it.
On mnist, CPU-seconds and FD in the features of the mnist extractor (5,000 samples): 54 and 47.6 with nets of whole pixels, batches of 64
and a rate of 1e-3; 47 and 26.4 with patches of 2 x 2; 65 and 17.2 with batches of 32 and no momentum as well; 61 and 11.8 with a rate of
2e-3, 78 and 9.9 with 4e-3; 227 and 4.0 in the budget of five minutes; in that of twenty 1.4 (of 10,000 samples), class KL .001.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench import adversarial, training
from genbench.errors import UsageError, near_miss
from genbench.models import TrainingData, latent_neighbours

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FAMILY = "GAN"
SUMMARY = "generative adversarial nets (GAN): losses, penalties and tricks as settings"
SOURCE = "arXiv:1406.2661"
NORMS = ("none", "batch", "virtual")
REFERENCE = 64  # latents of virtual batch norm's fixed batch


@dataclass(frozen=True)
class Config(adversarial.Config):
    """Settings of the nets, beside those of every adversarial training.

    Args:
        latent: dimensions of G's input.
        width: units per layer of vectors' nets; channels of the finest layer of images' G, half of those of D's.
        depth: hidden layers of vectors' nets.
        fourier: standard deviation of the frequencies of D's `width` random Fourier features of vectors, in cycles per SD; 0 for none.
        norm: in G: "none", "batch", or "virtual": by the statistics of a fixed batch.
        spectral: spectral norm on every layer of D.
        minibatch: kernels of minibatch discrimination in D.
        patch: side of the square patches of images that are one place of G's and D's finest layer; divides height and width.
        conditional: on the class: G and D are told it, as further coordinates or as channels that are constant over the image.
    """

    latent: int = 16
    width: int = 128
    depth: int = 3
    fourier: float = 0.0
    norm: str = "none"
    spectral: bool = False
    minibatch: int = 0
    patch: int = 1
    conditional: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm not in NORMS:
            raise near_miss(self.norm, NORMS, "norm")
        if min(self.latent, self.width, self.depth, self.patch) < 1 or min(self.fourier, self.minibatch) < 0:
            raise UsageError(f"latent, width, depth and patch are at least 1, fourier and minibatch at least 0, found {self}")


_PLAIN = Config(steps=14_000, batch=256, lr=1e-3, latent=2)
_STABLE = replace(_PLAIN, loss="relativistic", r1=0.003)
_IMAGES = Config(steps=1200, batch=64, lr=5e-4, latent=64, width=16, norm="batch", betas=(0.5, 0.9))
_MNIST = replace(_IMAGES, steps=6000, batch=32, patch=2, bf16=True)
RECIPES = {
    "vectors": _STABLE,
    "mnist": replace(_MNIST, loss="hinge", spectral=True, lr=4e-3, betas=(0.0, 0.9), ema=0.998),
    "digits": replace(_IMAGES, loss="hinge", spectral=True, ema=0.995, lr=1e-3),
    # Sized by its arithmetic for 20 minutes of one GPU; not run yet. The rates are SNGAN's, setting C of its table 1.
    "cifar10": replace(
        _IMAGES, loss="hinge", spectral=True, steps=60_000, lr=2e-4, betas=(0.5, 0.999), latent=128, width=128, ema=0.9995, bf16=True
    ),
}
VARIANTS = {
    "minimax": {"vectors": replace(_PLAIN, loss="minimax"), "mnist": replace(_MNIST, loss="minimax")},
    "dcgan": {"vectors": _PLAIN, "mnist": _MNIST, "digits": _IMAGES},
    "improved": {
        "vectors": replace(_PLAIN, minibatch=16, smoothing=0.1, history=0.01),
        "mnist": replace(_MNIST, norm="virtual", feature_matching=1.0, minibatch=16, smoothing=0.1, history=0.001),
    },
    "wgan": {
        "vectors": replace(_PLAIN, loss="wasserstein", clip_weights=0.1, critic_steps=5, betas=(0.0, 0.9), steps=6000),
        "mnist": replace(_MNIST, loss="wasserstein", clip_weights=0.05, critic_steps=5, betas=(0.0, 0.9)),
    },
    "wgan-gp": {
        "vectors": replace(_PLAIN, loss="wasserstein", gradient_penalty=0.1, critic_steps=5, betas=(0.0, 0.9), steps=4000, ema=0.999),
        "mnist": replace(_MNIST, loss="wasserstein", gradient_penalty=10.0, critic_steps=5, betas=(0.0, 0.9)),
    },
    "pacgan": {"vectors": replace(_PLAIN, packing=4), "mnist": replace(_MNIST, packing=2)},
    "r3gan": {
        "vectors": replace(_STABLE, r2=0.003),
        "mnist": replace(_MNIST, loss="relativistic", r1=1.0, r2=1.0, norm="none", betas=(0.0, 0.9), ema=0.999),
    },
    "conditional": {key: replace(RECIPES[key], conditional=True) for key in ("digits", "mnist", "cifar10")},
}
BUDGETS = {
    "vectors": {"1min": {"steps": 5000}, "5min": {}, "20min": {"steps": 56_000}},
    "mnist": {"1min": {"steps": 1400}, "5min": {}, "20min": {"steps": 26_000, "ema": 0.999}},
    "cifar10": {"20min": {}},
}
SMOKE = {
    "vectors": Config(steps=60, batch=64, lr=1e-3, width=16, depth=1, loss="relativistic", r1=0.1, r2=0.1),
    "images": Config(steps=30, batch=32, lr=1e-3, width=8, latent=8, norm="batch", spectral=True, loss="hinge", ema=0.9),
    "images:r3gan": Config(steps=60, batch=32, lr=1e-2, width=8, latent=8, loss="relativistic", r1=0.1, r2=0.1),
    "images:conditional": Config(
        steps=30, batch=32, lr=1e-3, width=8, latent=8, norm="batch", spectral=True, loss="hinge", conditional=True
    ),
    "images:improved": Config(steps=20, batch=32, width=8, latent=8, norm="virtual", minibatch=4, history=0.01, smoothing=0.1, packing=2),
}


# -- nets ----------------------------------------------------------------------------------------------------------------------------


def generator_net(config: Config, shape: tuple[int, ...], classes: int) -> "nn.Module":
    """G: latents (n, k), with the class beside them (n, k + C), to (n, *shape), of images in (−1, 1)."""
    import torch
    from torch import nn
    from torch.nn.functional import interpolate, pixel_shuffle

    fine = shape if len(shape) == 1 else training.patched(shape, config.patch)

    def norm(size: int) -> nn.Module:
        if config.norm == "batch":
            return nn.BatchNorm1d(size) if len(shape) == 1 else nn.BatchNorm2d(size)
        return adversarial.virtual_norm(size, REFERENCE) if config.norm == "virtual" else nn.Identity()

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            count, inputs = REFERENCE if config.norm == "virtual" else 0, config.latent + classes
            one_hot = torch.eye(classes)[torch.arange(count) % max(1, classes)] if classes else torch.empty(count, 0)
            self.register_buffer("reference", torch.cat([torch.randn(count, config.latent), one_hot], dim=1))
            if len(shape) == 1:
                sizes = [inputs, *[config.width] * config.depth]
                self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
                self.last: nn.Module = nn.Linear(config.width, shape[0])
            else:
                sizes = [4 * config.width, 2 * config.width, config.width]
                self.seed = nn.Linear(inputs, sizes[0] * ceil(fine[1] / 4) * ceil(fine[2] / 4))
                self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))
                self.last = nn.Conv2d(sizes[-1], fine[0], 3, padding=1)
            self.norms = nn.ModuleList(norm(size) for size in sizes[1 if len(shape) == 1 else 0 :])

        def forward(self, z: "Tensor") -> "Tensor":
            h = torch.cat([self.reference, z])
            if len(shape) == 1:
                for layer, normed in zip(self.layers, self.norms, strict=True):
                    h = torch.relu(normed(layer(h)))
                return self.last(h)[len(self.reference) :]
            h = torch.relu(self.norms[0](self.seed(h).reshape(len(h), -1, ceil(fine[1] / 4), ceil(fine[2] / 4))))
            for layer, normed in zip(self.layers, self.norms[1:], strict=True):  # nearest neighbours and a convolution: no checkerboard
                h = torch.relu(normed(layer(interpolate(h, scale_factor=2.0))))
            return torch.tanh(pixel_shuffle(self.last(h)[len(self.reference) :, :, : fine[1], : fine[2]], config.patch))

    return Generator()


def critic_net(config: Config, shape: tuple[int, ...]) -> "nn.Module":
    """D: packs (n, m, *shape) to logits (n,) and the last layer's features (n, k)."""
    import torch
    from torch import nn
    from torch.nn.functional import leaky_relu, pixel_unshuffle
    from torch.nn.utils.parametrizations import spectral_norm

    fine = shape if len(shape) == 1 else training.patched(shape, config.patch)

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
                sizes = [config.packing * fine[0], 2 * config.width, 4 * config.width, 8 * config.width]
                pairs = zip(sizes, sizes[1:], (1, 2, 2), strict=False)
                self.layers = nn.ModuleList(kept(nn.Conv2d(a, b, 3, stride=s, padding=1)) for a, b, s in pairs)
                count = 8 * config.width * ceil(fine[1] / 4) * ceil(fine[2] / 4)
            if config.minibatch:
                self.kernels = nn.Parameter(torch.randn(count, config.minibatch, 8) * count**-0.5)
            self.last = kept(nn.Linear(count + config.minibatch, 1))

        def forward(self, x: "Tensor") -> "tuple[Tensor, Tensor]":
            if len(shape) == 1:
                angles = x.flatten(1) @ self.frequencies
                h = torch.cat([x.flatten(1), torch.sin(angles), torch.cos(angles)], dim=1)
            else:
                h = pixel_unshuffle(x.flatten(1, 2), config.patch)
            for layer in self.layers:
                h = leaky_relu(layer(h), 0.2)
            features = h.flatten(1)
            h = torch.cat([features, adversarial.likeness(features, self.kernels)], dim=1) if config.minibatch else features
            return self.last(h)[:, 0].float(), features.float()

    return Critic()


# -- the model -----------------------------------------------------------------------------------------------------------------------


class Model(training.GreyModel):
    """G. constants: for vectors shift (d,) and scale (d,); for images values (L,)."""

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        return generator_net(config, shape, training.class_count(constants))

    def told(self, z: "Tensor") -> "Tensor":
        """Latents with the class beside them, where there is one."""
        import torch

        return z if self.condition is None else torch.cat([z, self.condition], dim=1)

    def real(self, x: "Tensor") -> "Tensor":
        """Samples as G makes them: standardised vectors, grey values' ranks from −1 to 1."""
        import torch

        if "values" in self.constants:
            return 2 * self.scaled(self.ranks(x)) - 1
        shift, scale = (torch.from_numpy(self.constants[k]).to(x.device) for k in ("shift", "scale"))
        return (x - shift) / scale

    def decode(self, z: "Tensor", *, whole: bool = True) -> NDArray[Any]:
        """Latents (n, k) to samples; whole: round."""
        y = self.net(self.told(z.to(self.device)))
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
                np.concatenate([told.decode(torch.from_numpy(z[i]).float(), whole=False) for i, told in self.pieces(n, seed=seed)])
                for z in latent_neighbours(n, self.config.latent, step, seed=seed)
            )
        return a, b


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Alternate D and G, each with Adam."""
    import torch

    constants = training.grey_constants(data) if data.images else training.standard_constants(data)
    constants |= training.class_constants(data) if config.conditional else {}
    count = training.class_count(constants)
    notes = {"none": (), "batch": ("batch norm by statistics of 4,096 latents",), "virtual": (f"virtual batch norm, {REFERENCE} latents",)}
    model = Model.new(config, data.shape, constants, seed=seed, notes=notes[config.norm])
    with training.seeded(seed, 7):
        critic = critic_net(config, (data.shape[0] + count, *data.shape[1:])).to(model.device)
    turns = adversarial.Turns(config, model.net, critic)

    def shown(x: "Tensor", told: Model) -> "Tensor":
        """Packs as D sees them: with the class of every sample."""
        if told.condition is not None:
            planes = told.condition.reshape(len(x), count, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
            x = torch.cat([x, planes], dim=1)
        return turns.packed(x)

    def fakes(now: training.Step) -> "Tensor":
        told = model.given(now.labels)
        return shown(model.net(told.told(torch.randn(len(now.x), config.latent, device=now.x.device))).float(), told)

    def step(now: training.Step) -> dict[str, Any]:
        x, fake = shown(model.real(now.x), model.given(now.labels)), fakes(now).detach()
        critic_loss = turns.critic_loss(x, fake)
        turns.update(now, "critic", critic_loss)
        if (now.i + 1) % config.critic_steps:
            return {"critic": critic_loss}
        loss = turns.generator_loss(x, fakes(now))
        turns.update(now, "generator", loss)
        return {"critic": critic_loss, "generator": loss}

    how = {"modules": turns.parts, "optimisers": turns.optimisers, "average": ["generator"]}
    fitted = training.fit(step, config, data, seed=seed, out=out, **how)
    rngs = (training.torch_generator(seed, 8, k) for k in range(16))
    latents = (torch.randn(256, config.latent, generator=rng).to(model.device) for rng in rngs)
    classes = (model.given(model.sample_labels(256, seed=seed, start=256 * k)) for k in range(16))
    adversarial.settle(model.net, (told.told(z) for told, z in zip(classes, latents, strict=True)))
    return model.trained(fitted)
