"""Glow: a multiscale flow of images, from activation normalisation, invertible 1×1 convolutions and affine coupling.

Family: normalizing flow. Source: Kingma & Dhariwal 2018, "Glow: generative flow with invertible 1×1 convolutions", arXiv 1807.03039; the
multiscale form is RealNVP's (arXiv 1605.08803, section 3.6). A scale squeezes 2×2 pixels into channels, takes `steps_per_scale` steps of
    actnorm  y = s ⊙ (x + b)      1×1 convolution  y = W x, log-determinant h w log |det W| (eq. 9)      affine coupling (section 3.3)
and, but for the last, splits half of the channels off as latents, normalised by what stays. Sides that do not divide are padded with the
first grey value, which keeps the bound a bound. Unlike the paper, pixels enter as normal quantiles of their marginal laws: on MNIST most
of them are nearly always black, and the identity is then the model of independent pixels rather than of uniform ones.
Can: sample; log p as the IW-k bound of dequantisation (k in the notes); encode and decode.

    genbench bench mnist --only glow

Time: on mnist the budget of twenty minutes reached 1.226 ± 0.005 bits per dimension (IW-4) on the test split (one thread); 1,200 steps,
169 CPU-seconds, 1.305 ± 0.013 on 2,000 test images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench import flows
from genbench.errors import DataError, UsageError
from genbench.models import TrainingData

if TYPE_CHECKING:
    from torch import Tensor, nn

FAMILY = "normalizing flow"
SUMMARY = "Glow: multiscale, invertible 1×1 convolutions"
SOURCE = "arXiv:1807.03039"


@dataclass(frozen=True)
class Config(flows.Config):
    """Settings, beside those of every flow.

    Args:
        scales: how often the image is squeezed.
        steps_per_scale: steps of flow at each scale.
        width: channels of the couplings' nets.
    """

    scales: int = 2
    steps_per_scale: int = 6
    width: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.scales, self.steps_per_scale, self.width) < 1:
            raise UsageError(f"scales, steps_per_scale and width are at least 1, found {self}")


RECIPES = {
    "mnist": Config(steps=2000, batch=64, lr=2e-3, draws=4, clip=50.0, bf16=True),
    "digits": Config(steps=1000, batch=100, steps_per_scale=4, lr=2e-3, clip=50.0),
    # Sized by its arithmetic for 20 minutes of one GPU; not run yet.
    "cifar10": Config(scales=3, steps_per_scale=16, width=512, steps=20_000, batch=128, lr=1e-3, ema=0.9995, draws=4, clip=50.0, bf16=True),
}
BUDGETS = {"mnist": {"1min": {"steps": 400}, "5min": {}, "20min": {"steps": 8000}}, "cifar10": {"20min": {}}}
SMOKE = {"images": Config(scales=1, steps_per_scale=2, width=8, steps=40, batch=50, lr=5e-3, draws=4)}


def squeeze(x: "Tensor") -> "Tensor":
    """(n, c, h, w) to (n, 4c, h/2, w/2)."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)


def unsqueeze(x: "Tensor") -> "Tensor":
    n, c, h, w = x.shape
    return x.reshape(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)


def network(shape: tuple[int, int, int], scales: int, steps: int, width: int) -> "nn.Module":
    """The flow on rows (n, D) of images of that shape, whose sides 2^scales divides."""
    import torch
    from torch import nn

    def convolutions(inputs: int, outputs: int) -> nn.Module:
        last = nn.Conv2d(width, outputs, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), last)

    class Affine(nn.Module):
        """The second half of the channels, scaled and shifted as the first half says."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.law, self.kept = flows.affine(), channels // 2
            self.net = convolutions(self.kept, 2 * (channels - self.kept))

        def forward(self, x: "Tensor", inverse: bool = False) -> "tuple[Tensor, Tensor]":
            kept, moved = x[:, : self.kept], x[:, self.kept :]
            p = torch.stack(self.net(kept).float().chunk(2, dim=1), dim=-1)
            moved, slope = self.law.apply(moved, p, inverse)
            return torch.cat([kept, moved], dim=1), slope.flatten(1).sum(dim=1)

    class Step(nn.Module):
        """Actnorm and 1×1 convolution, as one matrix and one shift per channel; then coupling."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
            self.log_scale = nn.Parameter(torch.zeros(channels))
            self.mix = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0].contiguous())
            self.coupling = Affine(channels)

        def initialise(self, x: "Tensor") -> None:
            """Every channel to mean 0 and variance 1 (section 3.1)."""
            self.bias.copy_(-x.mean(dim=(0, 2, 3))[:, None, None])
            self.log_scale.copy_(-torch.log(x.std(dim=(0, 2, 3)) + 1e-3))

        def matrix(self) -> "Tensor":
            return self.mix * torch.exp(self.log_scale)  # W diag(s)

        def forward(self, x: "Tensor") -> "tuple[Tensor, Tensor]":
            first = x.shape[2] * x.shape[3] * (self.log_scale.sum() + torch.linalg.slogdet(self.mix)[1])
            with torch.autocast(x.device.type, enabled=False):  # only the couplings' nets may be rounded to bfloat16
                y = torch.einsum("dc,nchw->ndhw", self.matrix(), x + self.bias)
            y, slope = self.coupling(y)
            return y, first + slope

        def inverse(self, z: "Tensor") -> "Tensor":
            y = self.coupling(z, True)[0]
            return torch.einsum("dc,nchw->ndhw", torch.linalg.inv(self.matrix().double()).to(y.dtype), y) - self.bias

    class Glow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scales, self.priors = nn.ModuleList(), nn.ModuleList()
            c, h, w = shape
            self.sizes = []  # of the latents that leave at every scale
            for scale in range(scales):
                c, h, w = 4 * c, h // 2, w // 2
                self.scales.append(nn.ModuleList(Step(c) for _ in range(steps)))
                if scale < scales - 1:
                    self.priors.append(Affine(c))
                    c -= c - c // 2
                    self.sizes.append((c, h, w))
            self.sizes.append((c, h, w))

        def forward(self, v: "Tensor", initialise: bool = False) -> "tuple[Tensor, Tensor]":
            x, parts = v.reshape(len(v), *shape), []
            total = torch.zeros(len(v), device=v.device, dtype=v.dtype)
            for scale, layers in enumerate(self.scales):
                x = squeeze(x)
                for layer in layers:
                    if initialise:
                        layer.initialise(x)
                    x, slope = layer(x)
                    total = total + slope
                if scale < len(self.priors):
                    x, slope = self.priors[scale](x)
                    total = total + slope
                    kept = x.shape[1] // 2
                    parts.append(x[:, kept:].flatten(1))
                    x = x[:, :kept]
            return torch.cat([*parts, x.flatten(1)], dim=1), total

        def initialise(self, v: "Tensor") -> None:
            self(v, initialise=True)

        def inverse(self, z: "Tensor") -> "Tensor":
            parts = [p.reshape(-1, *s) for p, s in zip(z.split([int(np.prod(s)) for s in self.sizes], dim=1), self.sizes, strict=True)]
            x = parts[-1]
            for scale in reversed(range(len(self.scales))):
                if scale < len(self.priors):
                    x = self.priors[scale](torch.cat([x, parts[scale]], dim=1), True)[0]
                for layer in reversed(self.scales[scale]):
                    x = layer.inverse(x)
                x = unsqueeze(x)
            return x.flatten(1)

    return Glow()


def padded(shape: tuple[int, ...], scales: int) -> tuple[int, int, int]:
    """The shape with sides rounded up to what 2^scales divides."""
    c, *sides = shape
    h, w = (-(-s // 2**scales) * 2**scales for s in sides)
    return c, h, w


class Model(flows.Model):
    """Glow: see flows.Model; the flow's rows are padded images."""

    @property
    def inner(self) -> tuple[int, ...]:
        return padded(self.shape, self.config.scales)

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        return network(padded(shape, config.scales), config.scales, config.steps_per_scale, config.width)


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Maximise the likelihood.

    Raises:
        DataError: the data are vectors.
    """
    if not data.images:
        raise DataError(f"glow is a flow of images, {data.name} has vectors; take realnvp")
    return flows.train(Model, config, data, seed=seed, out=out)
