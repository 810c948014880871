"""What diffusion models and flow matching share: nets that see a noisy sample and its time, and log p along an ODE.

    dx/dt = v(x, t),     log p(x at the data's end) = log p(x at the noise's end) + ∫ tr ∂v/∂x dt

integrated from the data to the noise. Every row takes its own steps, so that no result depends on what else is in the batch.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd, log, pi
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from genbench import densities, training
from genbench.errors import FailedError, UsageError
from genbench.models import TrainingData, latent_neighbours

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MOST = 1000  # steps of an ODE before it is given up


# -- nets ----------------------------------------------------------------------------------------------------------------------------


def _time_features(t: "Tensor") -> "Tensor":
    """Times of about [0, 1] as 33 smooth functions, (n, 33)."""
    import torch

    angles = t[:, None] * torch.logspace(0, 2, 16, device=t.device)
    return torch.cat([t[:, None], torch.sin(angles), torch.cos(angles)], dim=1)


def _moment(t: "Tensor", condition: "Tensor | None") -> "Tensor":
    """The time's features, with the class beside them where there is one."""
    import torch

    return _time_features(t) if condition is None else torch.cat([_time_features(t), condition], dim=1)


def vector_net(dims: int, width: int, blocks: int, fourier: float, classes: int = 0) -> "nn.Module":
    """A perceptron with residual blocks: (n, D), times (n,) and classes (n, C) to (n, D), zero at first.

    Args:
        dims: D.
        width: units of a layer.
        blocks: residual blocks of two layers.
        fourier: standard deviation of the frequencies of the input's `width` random Fourier features, in cycles per unit; 0 for none.
        classes: C.

    References:
        Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains (Tancik et al., 2020), eq. 5.
    """
    import torch
    from torch import nn
    from torch.nn.functional import silu

    class Perceptron(nn.Module):
        frequencies: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("frequencies", 2 * pi * fourier * torch.randn(dims, width // 2 if fourier else 0))
            self.first = nn.Linear(dims + 2 * self.frequencies.shape[1], width)
            self.time = nn.Sequential(nn.Linear(33 + classes, width), nn.SiLU())
            self.shifts = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
            self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2 * blocks))
            self.last = nn.Linear(width, dims)
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

        def forward(self, x: "Tensor", t: "Tensor", condition: "Tensor | None" = None) -> "Tensor":
            angles = x @ self.frequencies
            h = self.first(torch.cat([x, torch.sin(angles), torch.cos(angles)], dim=1))
            time = self.time(_moment(t, condition))
            for i, shift in enumerate(self.shifts):
                h = h + self.layers[2 * i + 1](silu(self.layers[2 * i](silu(h)) + shift(time)))
            return self.last(silu(h))

    return Perceptron()


def image_net(channels: int, width: int, blocks: int, patch: int, classes: int = 0) -> "nn.Module":
    """A U-Net of two resolutions with group norm: (n, c, h, w), times (n,) and classes (n, C) to (n, c, h, w), zero at first.

    Args:
        channels: c.
        width: channels at the finer resolution, twice as many at the coarser.
        blocks: residual blocks per resolution on the way down, and as many on the way up.
        patch: side of the square patches that are one place of the finer resolution; divides h and w.
        classes: C.
    """
    import torch
    from torch import nn
    from torch.nn.functional import avg_pool2d, interpolate, pixel_shuffle, pixel_unshuffle, silu

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.GroupNorm(gcd(8, c), c) for c in (inputs, outputs))
            self.convs = nn.ModuleList(nn.Conv2d(c, outputs, 3, padding=1) for c in (inputs, outputs))
            self.time = nn.Linear(4 * width, outputs)
            self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
            nn.init.zeros_(self.convs[-1].get_parameter("weight"))

        def forward(self, x: "Tensor", time: "Tensor") -> "Tensor":
            h = self.convs[0](silu(self.norms[0](x))) + self.time(time)[:, :, None, None]
            return self.skip(x) + self.convs[1](silu(self.norms[1](h)))

    class Unet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            fine, coarse = width, 2 * width
            self.time = nn.Sequential(nn.Linear(33 + classes, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width), nn.SiLU())
            self.first = nn.Conv2d(channels * patch**2, fine, 3, padding=1)
            self.down = nn.ModuleList(Block(fine, fine) for _ in range(blocks))
            self.middle = nn.ModuleList(Block(coarse if i else fine, coarse) for i in range(2 * blocks))
            self.up = nn.ModuleList(Block(fine if i else coarse + fine, fine) for i in range(blocks))
            self.norm = nn.GroupNorm(gcd(8, fine), fine)
            self.last = nn.Conv2d(fine, channels * patch**2, 3, padding=1)
            nn.init.zeros_(self.last.weight)

        def forward(self, x: "Tensor", t: "Tensor", condition: "Tensor | None" = None) -> "Tensor":
            time = self.time(_moment(t, condition))
            h = self.first(pixel_unshuffle(x, patch) if patch > 1 else x)
            for block in self.down:
                h = block(h, time)
            seen = h
            h = avg_pool2d(h, 2, ceil_mode=True)
            for block in self.middle:
                h = block(h, time)
            h = torch.cat([interpolate(h, size=seen.shape[2:], mode="nearest"), seen], dim=1)
            for block in self.up:
                h = block(h, time)
            h = self.last(silu(self.norm(h)))
            return pixel_shuffle(h, patch) if patch > 1 else h

    return Unet()


# -- log p along an ODE --------------------------------------------------------------------------------------------------------------

# Dormand & Prince 1980, the pair of orders 5 and 4: places, weights of the slopes so far, weights of the error.
_PLACES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_WEIGHTS: tuple[tuple[float, ...], ...] = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def integrate(field: "Callable[[Tensor, Tensor, Tensor], Tensor]", y: "Tensor", start: float, end: float, tolerance: float) -> "Tensor":
    """y at `end` of dy/dt = field(y, t), every row with steps of its own; a row that is there costs nothing any more.

    Args:
        field: (rows (m, k), times (m,), which rows of the n they are (m,)) -> slopes (m, k), all float64.
        y: (n, k) at `start`.
        start: time, may lie after `end`.
        end: time.
        tolerance: of a step's error, each entry's relative to 1 + its size: of a row's last entry, the log density, and of the root mean
            square over its others, among which it would not count.

    Raises:
        FailedError: a row needs too many steps.
    """
    import torch

    y = y.double()
    found, rows = y.clone(), torch.arange(len(y), device=y.device)
    t = torch.full((len(y),), start, dtype=y.dtype, device=y.device)
    h = torch.full_like(t, (end - start) / 1000)  # a fifth stepped over the end of a flow of images, unseen by its error: 30 nats of log p
    slope = field(y, t, rows)
    for _ in range(MOST):
        last = h.abs() >= (end - t).abs() * (1 - 1e-9)
        h = torch.where(last, end - t, h)
        slopes = [slope]
        for place, weights in zip(_PLACES, _WEIGHTS, strict=True):
            ahead = y + h[:, None] * sum(w * k for w, k in zip(weights, slopes, strict=True) if w)
            slopes.append(field(ahead, t + place * h, rows))
        error = h[:, None] * sum(w * k for w, k in zip(_ERROR, slopes, strict=True) if w)
        relative = error / (1 + torch.maximum(y.abs(), ahead.abs()))
        relative = torch.maximum((relative[:, :-1].square().sum(dim=1) / max(1, y.shape[1] - 1)).sqrt(), relative[:, -1].abs()) / tolerance
        good = relative <= 1  # of the row alone
        y = torch.where(good[:, None], ahead, y)  # the last place of the pair is its result of order 5
        slope = torch.where(good[:, None], slopes[-1], slope)
        t = torch.where(good, torch.where(last, torch.full_like(t, end), t + h), t)
        h = h * (0.9 * relative.clamp_min(1e-10) ** -0.2).clamp(0.2, 5.0)
        there, left = t == end, t != end
        found[rows[there]] = y[there]
        y, t, h, slope, rows = (v[left] for v in (y, t, h, slope, rows))
        if not len(rows):
            return found
    raise FailedError(f"an ODE needs more than {MOST} steps for a tolerance of {tolerance:g}; raise tolerance, or train longer")


def ode_log_density(
    velocity: "Callable[[Tensor, Tensor, Tensor], Tensor]", x: "Tensor", probes: "Tensor", start: float, end: float, tolerance: float
) -> "Tensor":
    """log density at `start` of what is standard normal at `end` and moves by dx/dt = velocity(x, t), (n,).

    Args:
        velocity: (rows (m, ...), times (m,), which of the n they are (m,)) -> (m, ...), float32.
        x: (n, ...) rows at `start`.
        probes: (k, n, ...): Σ_k e_k · ∂v/∂x · e_k stands for the trace: exact for the unit vectors, unbiased (Hutchinson) for one draw of
            random signs, the same all along the path.
        start: the data's time.
        end: the noise's time.
        tolerance: see `integrate`.

    References:
        Neural Ordinary Differential Equations (Chen et al., 2018), theorem 1; FFJORD (Grathwohl et al., 2019), eq. 8.
    """
    import torch

    shape = x.shape

    def field(y: "Tensor", t: "Tensor", which: "Tensor") -> "Tensor":
        with torch.enable_grad():
            rows = y[:, :-1].float().reshape(-1, *shape[1:]).requires_grad_()
            v = velocity(rows, t.float(), which)
            trace = torch.zeros(len(rows), dtype=torch.float64, device=y.device)
            for k, probe in enumerate(probes):
                (pulled,) = torch.autograd.grad(v, rows, probe[which], retain_graph=k + 1 < len(probes))
                trace += (pulled * probe[which]).flatten(1).double().sum(dim=1)
        return torch.cat([v.detach().flatten(1).double(), trace[:, None]], dim=1)

    first = torch.cat([x.flatten(1).double(), torch.zeros(len(x), 1, device=x.device, dtype=torch.float64)], dim=1)
    last = integrate(field, first, start, end, tolerance)
    return -0.5 * (last[:, :-1] ** 2 + log(2 * pi)).sum(dim=1) + last[:, -1]


# -- the model -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config(training.Config):
    """Settings that all of these models have, beside those of every trained net.

    Args:
        width: of the net; see `vector_net` and `image_net`.
        blocks: of the net.
        fourier: of a net of vectors.
        patch: of a net of images.
        nfe: network evaluations per sample.
        tolerance: of an ODE's step, per sample.
        conditional: on the class, which the net is told beside the time.
        withheld: share of the training rows whose class is kept from a conditional net, so that it learns the law of all as well.
        guidance: w in u + w (c − u), where the net is told the class for c and not for u; 1 for c alone, another takes two evaluations.
    """

    width: int = 128
    blocks: int = 3
    fourier: float = 0.0
    patch: int = 1
    nfe: int = 20
    tolerance: float = 1e-4
    conditional: bool = False
    withheld: float = 0.1
    guidance: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 2 or min(self.blocks, self.patch, self.nfe) < 1:
            raise UsageError(
                f"width is at least 2, blocks, patch and nfe 1, found {self.width}, {self.blocks}, {self.patch} and {self.nfe}"
            )
        if self.fourier < 0 or not self.tolerance > 0:
            raise UsageError(f"fourier is at least 0 and tolerance above 0, found {self.fourier} and {self.tolerance}")
        if not 0 <= self.withheld <= 1 or not 0 <= self.guidance < float("inf"):
            raise UsageError(f"withheld is in [0, 1] and guidance at least 0, found {self.withheld} and {self.guidance}")


def constants_of(config: Config, data: TrainingData) -> dict[str, NDArray[Any]]:
    """What a model knows of its data before it learns: shift and scale of vectors, the grey values of images; classes and shares."""
    found = training.grey_constants(data) if data.images else training.standard_constants(data)
    return found | training.class_constants(data) if config.conditional else found


class Model(training.GreyModel):
    """Base: a subclass says how its net makes a sample of noise (`denoise`) and, for the ODE, its `velocity` between START and END.

    constants: for vectors shift (d,) and scale (d,); for images values (L,); for conditional ones classes and shares.
    """

    def __init__(self, *args: Any, **about: Any) -> None:
        super().__init__(*args, **about)
        self.BATCH = 64 if self.grey else 512  # type: ignore[misc]  # an ODE costs as much as its slowest row: many small rows at once

    @property
    def nfe(self) -> int:
        return int(self.config.nfe) * (2 if self.config.conditional and self.config.guidance != 1 else 1)

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        classes = training.class_count(constants)
        if len(shape) == 1:
            return vector_net(shape[0], config.width, config.blocks, config.fourier, classes)
        training.patched(shape, config.patch)  # they fill the image, or this raises
        return image_net(shape[0], config.width, config.blocks, config.patch, classes)

    def say(self, sampler: str, log_p: str) -> None:
        """Note how samples are made and, where there is one, what log p is."""
        how = f"samples by {self.nfe} network evaluations ({sampler})"
        self.notes += (how if self.bound is None else f"{how}; {log_p}",)

    def learning(self, labels: "Tensor | None") -> Self:
        """This model given the labels of a training batch, a share of which is withheld."""
        import torch

        told = self.given(labels)
        if told.condition is not None:
            told.condition = told.condition * (torch.rand(len(told.condition), 1, device=self.device) >= self.config.withheld)
        return told

    def output(self, x: "Tensor", t: "Tensor") -> "Tensor":
        """What the net puts out, guided where it is conditional and not in training.

        References:
            Classifier-Free Diffusion Guidance (Ho & Salimans, 2022), eq. 6, whose w is one less.
        """
        import torch

        if self.condition is None:
            return self.net(x, t).float()
        told = self.net(x, t, self.condition).float()
        if self.config.guidance == 1 or self.net.training:
            return told
        blank = self.net(x, t, torch.zeros_like(self.condition)).float()
        return blank + self.config.guidance * (told - blank)

    @property
    def grey(self) -> bool:
        """Whether the samples are images."""
        return "values" in self.constants

    # -- between data and what the net sees ----------------------------------------------------------------------------------------

    def into(self, y: "Tensor") -> "Tensor":
        """Vectors standardised; ranks with noise from (0, L) to (−1, 1)."""
        import torch

        if self.grey:
            return 2 * y / self.levels - 1
        shift, scale = (torch.from_numpy(self.constants[k]).to(y.device) for k in ("shift", "scale"))
        return (y - shift) / scale

    @property
    def log_slope(self) -> float:
        """The log-determinant of `into`."""
        return self.dims * log(2 / self.levels) if self.grey else -float(np.log(self.constants["scale"].astype(float)).sum())

    def out_of(self, z: "Tensor", *, whole: bool = True) -> NDArray[Any]:
        """The inverse of `into`; of images the grey value whose bin it is where `whole`."""
        import torch

        if self.grey:
            ranks = (z.float() + 1) / 2 * self.levels
            return self.greys(ranks.floor().clamp(0, self.levels - 1).long()) if whole else self.between(ranks - 0.5)
        shift, scale = (torch.from_numpy(self.constants[k]).to(z.device).double() for k in ("shift", "scale"))
        return (z.double() * scale + shift).cpu().numpy()

    def noisy(self, x: "Tensor") -> "Tensor":
        """Training rows as the net sees them: grey values with fresh dequantisation noise."""
        import torch

        return self.into(self.ranks(x).float() + torch.rand(x.shape, device=x.device) if self.grey else x)

    # -- log p ---------------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def velocity(self, z: "Tensor", t: "Tensor") -> "Tensor":
        """dz/dt of the ODE that joins data and noise."""

    def velocity_of(self, z: "Tensor", t: "Tensor", rows: "Tensor") -> "Tensor":
        """The velocity of those of the rows whose classes this model was told."""
        told = self if self.condition is None else self.conditioned(self.condition[rows])
        return told.velocity(z, t)

    def ode_log_prob(self, x: "Tensor", start: float, end: float) -> "Tensor":
        """log density of vectors, with the exact trace; for images a lower bound in expectation, of one draw of dequantisation noise and
        one of Hutchinson's probe, which depend on the image alone."""
        import torch

        if not self.grey:
            probes = torch.eye(self.dims, device=x.device)[:, None].expand(-1, len(x), -1)
            return self.log_slope + ode_log_density(self.velocity_of, self.into(x), probes, start, end, self.config.tolerance)
        rows = x.cpu().numpy()
        noise = torch.from_numpy(densities.row_noise(rows, 1, self.shape, law="uniform")[:, 0]).to(x.device)
        signs = torch.from_numpy(np.where(densities.row_noise(rows, 1, self.shape)[:, 0] < 0, -1, 1).astype(np.float32)).to(x.device)
        z = self.into(self.ranks(x).float() + noise)
        return self.log_slope + ode_log_density(self.velocity_of, z, signs[None], start, end, self.config.tolerance)

    # -- samples and latents -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def denoise(self, e: "Tensor", rng: "torch.Generator | None") -> "Tensor":
        """Standard normal (n, *shape) to what the net takes for data; `rng` for the noise of samplers that add some."""

    def draw(self, n: int, rng: "torch.Generator") -> NDArray[Any]:
        import torch

        return self.out_of(self.denoise(torch.randn(n, *self.shape, generator=rng).to(self.device), rng))

    def latent_pairs(self, n: int, step: float, *, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """n pairs of neighbours on random paths through the noise that samples are made of; see `models.latent_neighbours`."""
        import torch

        sides = []
        with torch.no_grad():
            for e in latent_neighbours(n, self.dims, step, seed=seed):
                noise = torch.from_numpy(e).float().reshape(n, *self.shape).to(self.device)
                parts = [self.out_of(told.denoise(noise[i], None), whole=False) for i, told in self.pieces(n, seed=seed)]
                sides.append(np.concatenate(parts))
        return sides[0], sides[1]
