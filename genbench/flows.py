"""What normalising flows share: maps of one coordinate, coupling and autoregressive layers, and a model with its training.

    log p(x) = log p(z) + Σ over layers of log |det ∂f/∂x|,     z = f(x)

A layer is an nn.Module: `layer(x)` gives z and its log-determinant, `layer.inverse(z)` gives x back. What a layer does to one coordinate
is a `Map`; which coordinates the map's parameters may depend on is what makes it a coupling or an autoregressive layer. A flow on grey
values is a density of rank + uniform noise, whose bins have the width one: log_prob is then the bound of k draws of that noise.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from genbench import densities, training
from genbench.errors import DataError, UsageError, near_miss
from genbench.models import TrainingData, latent_neighbours, read_all

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PIXELS = ("unit", "marginal")
_COUNT = 0.5  # added to every grey value's count, shared over the values, before a pixel's marginal law is read off


# -- maps of one coordinate ----------------------------------------------------------------------------------------------------------


class Map(NamedTuple):
    """A monotone map of one coordinate. All parameters zero is the identity.

    Args:
        size: number of its parameters.
        apply: (x (...), parameters (..., size), inverse) -> (z, log |dz/dx|), or (x, log |dx/dz|) for the inverse.
    """

    size: int
    apply: "Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor]]"


def additive() -> Map:
    """z = x + t."""
    import torch

    return Map(1, lambda x, p, inverse: (x - p[..., 0] if inverse else x + p[..., 0], torch.zeros_like(x)))


def affine(most: float = 3.0) -> Map:
    """z = x exp(s) + t, |s| < most.

    Args:
        most: largest log-scale; keeps a net's first errors from overflowing.
    """
    import torch

    def apply(x: "Tensor", p: "Tensor", inverse: bool) -> "tuple[Tensor, Tensor]":
        s, t = most * torch.tanh(p[..., 0] / most), p[..., 1]
        return ((x - t) * torch.exp(-s), -s) if inverse else (x * torch.exp(s) + t, s)

    return Map(2, apply)


def spline(bins: int, low: float, high: float, *, tails: bool, least: float = 1e-3) -> Map:
    """A monotone piecewise rational-quadratic map of [low, high] onto itself.

    Args:
        bins: K.
        low: end of the first bin.
        high: end of the last bin.
        tails: the identity beyond [low, high], slopes of 1 at its ends; else everything lies within and the end slopes are free.
        least: smallest width and height of a bin, as a share of the interval, and smallest slope.

    References:
        Neural Spline Flows (Durkan, Bekasov, Murray & Papamakarios, 2019), eqs. 4 to 8 and section 3.1.
    """
    if bins < 2 or bins * least >= 1 or not low < high:
        raise UsageError(f"a spline needs from 2 to {int(1 / least) - 1} bins and low < high, found {bins}, {low} and {high}")
    import torch
    from torch.nn.functional import pad, softplus

    one = float(np.log(np.expm1(1 - least)))  # softplus(one) + least = 1

    def knots(p: "Tensor") -> "Tensor":
        share = least + (1 - least * bins) * torch.softmax(p, dim=-1)
        inner = low + (high - low) * torch.cumsum(share, dim=-1)[..., :-1]
        return torch.cat([torch.full_like(inner[..., :1], low), inner, torch.full_like(inner[..., :1], high)], dim=-1)

    def apply(x: "Tensor", p: "Tensor", inverse: bool) -> "tuple[Tensor, Tensor]":
        p = p.to(x.dtype)
        xs, ys = knots(p[..., :bins]), knots(p[..., bins : 2 * bins])  # (..., K + 1)
        slopes = least + softplus(p[..., 2 * bins :] + one)
        if tails:
            slopes = pad(slopes, (1, 1), value=1.0)
        inside = x.clamp(low, high)
        k = (inside[..., None] >= (ys if inverse else xs)[..., 1:-1]).sum(dim=-1, keepdim=True)

        def at(table: "Tensor", place: "Tensor") -> "Tensor":
            return table.gather(-1, place)[..., 0]

        x0, y0, d0, d1 = at(xs, k), at(ys, k), at(slopes, k), at(slopes, k + 1)
        width, height = at(xs, k + 1) - x0, at(ys, k + 1) - y0
        s = height / width
        both = d0 + d1 - 2 * s
        if inverse:
            up = inside - y0
            a, b, c = height * (s - d0) + up * both, height * d0 - up * both, -s * up
            t = 2 * c / (-b - torch.sqrt((b * b - 4 * a * c).clamp_min(0)))  # eq. 29 of the appendix: no cancellation
        else:
            t = (inside - x0) / width
        t = t.clamp(0, 1)
        below = s + both * t * (1 - t)
        out = x0 + width * t if inverse else y0 + height * (s * t * t + d0 * t * (1 - t)) / below
        slope = 2 * torch.log(s) + torch.log(d1 * t * t + 2 * s * t * (1 - t) + d0 * (1 - t) ** 2) - 2 * torch.log(below)
        slope = -slope if inverse else slope
        if tails:
            beyond = x != inside
            out, slope = torch.where(beyond, x, out), torch.where(beyond, torch.zeros_like(slope), slope)
        return out, slope

    return Map(3 * bins - 1 if tails else 3 * bins + 1, apply)


# -- nets ----------------------------------------------------------------------------------------------------------------------------


def perceptron(inputs: int, hidden: Sequence[int], outputs: int, dropout: float = 0.0) -> "nn.Module":
    """Linear layers with ReLU between them, the last one zero: a layer of a flow starts as the identity."""
    from torch import nn

    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        inputs = width
    layers.append(_zero(nn.Linear(inputs, outputs)))
    return nn.Sequential(*layers)


def _zero(layer: Any) -> Any:
    from torch import nn

    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def masked_perceptron(dims: int, hidden: Sequence[int], outputs: int, dropout: float = 0.0) -> "nn.Module":
    """(n, D) to (n, D, outputs), in which part d sees x_<d alone (MADE). `net.at(x, d)` is part d, (n, outputs).

    References:
        MADE (Germain et al., 2015), eqs. 8 and 9.
    """
    import torch
    from torch import nn
    from torch.nn.functional import linear

    def masked(below: "Tensor", above: "Tensor") -> nn.Linear:
        layer = nn.Linear(len(below), len(above))
        seen = (below[None, :] <= above[:, None]).to(layer.weight.dtype)
        with torch.no_grad():
            layer.weight.mul_(seen)
        layer.register_buffer("seen", seen, persistent=False)

        def hide(weight: "Tensor") -> None:  # a hidden weight starts at zero and gets no gradient: cheaper than a product per forward
            assert weight.grad is not None
            weight.grad.mul_(layer.get_buffer("seen"))

        layer.weight.register_post_accumulate_grad_hook(hide)
        return layer

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            degrees = [torch.arange(1, dims + 1), *(1 + torch.arange(w) * max(1, dims - 1) // w for w in hidden)]
            self.layers = nn.ModuleList(masked(a, b) for a, b in pairwise(degrees))
            self.out = masked(degrees[-1], torch.arange(dims).repeat_interleave(outputs))
            with torch.no_grad():
                _zero(self.out)
            self.drop = nn.Dropout(dropout)

        def features(self, x: "Tensor") -> "Tensor":
            for layer in self.layers:
                x = self.drop(torch.relu(layer(x)))
            return x

        def forward(self, x: "Tensor") -> "Tensor":
            return self.out(self.features(x)).reshape(len(x), dims, outputs)

        def at(self, x: "Tensor", d: int) -> "Tensor":
            rows = slice(d * outputs, (d + 1) * outputs)
            return linear(self.features(x), self.out.weight[rows], self.out.bias[rows])

    return Masked()


# -- layers --------------------------------------------------------------------------------------------------------------------------


def coupling(kept: NDArray[np.bool_], law: Map, net: "Callable[[int, int], nn.Module]") -> "nn.Module":
    """The kept coordinates stay and say how each of the others is mapped.

    Args:
        kept: (D,) True for those that stay; at least one of each kind.
        law: what becomes of the others.
        net: (inputs, outputs) -> the net from the kept ones to the others' parameters.

    References:
        NICE (Dinh, Krueger & Bengio, 2014), eqs. 8 to 12.
    """
    import torch
    from torch import nn

    class Coupling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, mask in (("kept", kept), ("moved", ~kept)):
                self.register_buffer(name, torch.from_numpy(np.flatnonzero(mask)), persistent=False)
            self.net = net(int(kept.sum()), int((~kept).sum()) * law.size)

        def forward(self, x: "Tensor", inverse: bool = False) -> "tuple[Tensor, Tensor]":
            place = self.get_buffer("moved")
            moved = x[:, place]
            p = self.net(x[:, self.get_buffer("kept")]).float().reshape(*moved.shape, law.size)
            moved, slope = law.apply(moved, p, inverse)
            return x.index_copy(1, place, moved), slope.sum(dim=1)

        def inverse(self, z: "Tensor") -> "Tensor":
            return self(z, True)[0]

    if not 0 < kept.sum() < len(kept):
        raise DataError(f"a coupling layer needs coordinates that stay and others, found {int(kept.sum())} of {len(kept)} that stay")
    return Coupling()


def autoregressive(dims: int, law: Map, net: "nn.Module", *, backwards: bool) -> "nn.Module":
    """Every coordinate is mapped as those before it say: one pass for the density, D for a sample.

    Args:
        dims: D.
        law: what becomes of a coordinate.
        net: from `masked_perceptron`, with law.size outputs.
        backwards: the last coordinate comes first.

    References:
        Masked Autoregressive Flow (Papamakarios, Pavlakou & Murray, 2017), eqs. 3 to 5.
    """
    import torch
    from torch import nn

    class Autoregressive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net: Any = net

        def forward(self, x: "Tensor") -> "tuple[Tensor, Tensor]":
            x = x.flip(1) if backwards else x
            z, slope = law.apply(x, self.net(x).float(), False)
            return (z.flip(1) if backwards else z), slope.sum(dim=1)

        def inverse(self, z: "Tensor") -> "Tensor":
            z = z.flip(1) if backwards else z
            x = torch.zeros_like(z)
            for d in range(dims):
                x[:, d] = law.apply(z[:, d], self.net.at(x, d).float(), True)[0]
            return x.flip(1) if backwards else x

    return Autoregressive()


def chain(layers: "Iterable[nn.Module]") -> "nn.Module":
    """Layers one after the other."""
    import torch
    from torch import nn

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers: Any = nn.ModuleList(layers)

        def forward(self, x: "Tensor") -> "tuple[Tensor, Tensor]":
            total = torch.zeros(len(x), device=x.device, dtype=x.dtype)
            for layer in self.layers:
                x, slope = layer(x)
                total = total + slope
            return x, total

        def inverse(self, z: "Tensor") -> "Tensor":
            for layer in reversed(self.layers):
                z = layer.inverse(z)
            return z

    return Chain()


def halves(shape: Sequence[int], turn: int) -> NDArray[np.bool_]:
    """Which coordinates stay in the turn-th coupling layer, (D,): two turns in a row are complements.

    Vectors alternate; images alternate in a checkerboard, then by columns, then by rows.
    """
    if len(shape) == 1:
        pattern = np.arange(shape[0])
    else:
        y, x = np.indices(shape[1:])
        patterns = [p for p in (y + x, x, y) if np.ptp(p)] or [y]  # an image of one row has no rows that alternate
        pattern = np.broadcast_to(patterns[turn // 2 % len(patterns)], tuple(shape))
    return np.asarray((pattern % 2 == turn % 2).reshape(-1))


# -- laws of the latents -------------------------------------------------------------------------------------------------------------


def log_base(law: str, z: "Tensor") -> "Tensor":
    """log density of every row of latents, (n,): "normal", "logistic", or "uniform" on (0, 1)."""
    import torch
    from torch.nn.functional import softplus

    z = z.flatten(1)
    if law == "normal":
        return (-0.5 * (z * z + np.log(2 * np.pi))).sum(dim=1)
    if law == "logistic":
        return (-z - 2 * softplus(-z)).sum(dim=1)
    if law == "uniform":
        return torch.zeros(len(z), device=z.device, dtype=z.dtype)
    raise near_miss(law, ("normal", "logistic", "uniform"), "law of the latents")


def from_normal(law: str, e: "Tensor") -> "Tensor":
    """Standard normal draws as draws of the law: by its quantiles."""
    import torch

    if law == "normal":
        return e
    e = e.double()
    if law == "logistic":
        return (torch.special.log_ndtr(e) - torch.special.log_ndtr(-e)).float()
    return torch.special.ndtr(e).float().clamp(2.0**-24, 1 - 2.0**-24)


# -- the model -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config(training.Config):
    """Settings of every flow, beside those of every trained net.

    Args:
        draws: k: draws of the noise in an image's bound; vectors need none.
        pixels: what the flow sees of a grey value's rank r + noise: "unit", (r + u)/L; "marginal", the normal quantile of the pixel's
            own smoothed law over the training split, so that the identity is the model of independent pixels.
        dropout: in the nets.
        weight_decay: of AdamW.
        conditional: on the class: the latents of class y have means and scales of their own, which are learnt.
    """

    draws: int = 64
    pixels: str = "marginal"
    dropout: float = 0.0
    weight_decay: float = 0.0
    conditional: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1 or not 0 <= self.dropout < 1 or self.weight_decay < 0:
            raise UsageError(
                f"draws >= 1, dropout in [0, 1) and weight_decay >= 0, found {self.draws}, {self.dropout} and {self.weight_decay}"
            )
        if self.pixels not in PIXELS:
            raise near_miss(self.pixels, PIXELS, "setting of pixels")


class Model(training.GreyModel):
    """Base of a flow: a subclass builds the net, a chain of layers over rows of `space`.

    Conditional, z = m_y + exp(s_y) e with e of the law of the latents; m and s are `net.prior`, (C, 2, D).
    constants: for vectors shift (d,) and scale (d,); for images values (L,) and, where pixels is "marginal", masses (D, L); for conditional
    ones classes and shares.

    References:
        Semi-Supervised Learning with Normalizing Flows (Izmailov, Kirichenko, Finzi & Wilson, 2020), section 3; Glow (Kingma & Dhariwal,
        2018) draws its top latents by class in the same way.
    """

    net: Any  # a chain: it has `inverse`

    @property
    def base(self) -> str:
        """Law of the latents; see `log_base`."""
        return "normal"

    @property
    def bound(self) -> str:
        return "lower" if "values" in self.constants else "exact"

    @classmethod
    @abstractmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        """The chain of layers on rows (n, D), near the identity."""

    @classmethod
    def new(
        cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]] | None = None, *, seed: int, **about: Any
    ) -> Self:
        import torch

        model = super().new(config, shape, constants, seed=seed, **about)
        if count := training.class_count(model.constants):
            if model.base == "uniform":
                raise UsageError("latents on the unit cube cannot be moved by class; conditional goes with pixels=marginal")
            model.net.prior = torch.nn.Parameter(torch.zeros(count, 2, model.size, device=model.device))
        return model

    @property
    def inner(self) -> tuple[int, ...]:
        """Shape of what the flow sees: the samples' own, or that of images padded on the right and below with the first grey value."""
        return self.shape

    @property
    def size(self) -> int:
        """D, the coordinates of `inner`."""
        return int(np.prod(self.inner))

    # -- from data to what the flow sees, and back ---------------------------------------------------------------------------------

    def _constant(self, name: str, like: "Tensor") -> "Tensor":
        import torch

        return torch.from_numpy(self.constants[name]).to(like.device)

    def ranks(self, x: "Tensor") -> "Tensor":
        """Grey values (n, c, h, w) to their ranks, padded, (n, D)."""
        from torch.nn.functional import pad

        (_, h, w), (_, high, wide) = self.shape, self.inner
        return pad(super().ranks(x), (0, wide - w, 0, high - h)).flatten(1)

    def into(self, y: "Tensor") -> "tuple[Tensor, Tensor]":
        """Coordinates (n, d) or ranks with noise (n, D) to what the flow sees, and the log-determinant, (n,)."""
        import torch

        if "values" not in self.constants:
            scale = self._constant("scale", y)
            return (y - self._constant("shift", y)) / scale, -torch.log(scale.double()).sum().float().expand(len(y))
        count = self.levels
        if "masses" not in self.constants:
            return (y / count).float(), torch.full((len(y),), -self.size * float(np.log(count)), device=y.device)
        masses = self._masses(y)
        rank = y.floor().long().clamp(0, count - 1)
        below = torch.cumsum(masses, dim=1) - masses
        column = torch.arange(self.size, device=y.device)
        mass = masses[column, rank]
        share = below[column, rank] + mass * (y.double() - rank)
        z = torch.special.ndtri(share.clamp(max=1 - 2.0**-53))  # the cumulative sum may round up to 1
        slope = torch.log(mass) + 0.5 * (z * z + np.log(2 * np.pi))
        return z.float(), slope.sum(dim=1).float()

    def out_of(self, v: "Tensor", *, whole: bool = True) -> NDArray[Any]:
        """What the flow sees to coordinates or grey values, (n, *shape): the inverse of `into`, its noise cut off where `whole`."""
        import torch

        if "values" not in self.constants:
            return (v.double() * self._constant("scale", v) + self._constant("shift", v)).cpu().numpy()
        values = self.constants["values"]
        if "masses" in self.constants:
            masses, p = self._masses(v), torch.special.ndtr(v.double()).T.contiguous()  # (D, L) and (D, n)
            above = torch.cumsum(masses, dim=1)
            rank = torch.searchsorted(above[:, :-1].contiguous(), p, right=True)
            if not whole:  # the place in the bin
                rank = rank + ((p - (above - masses).gather(1, rank)) / masses.gather(1, rank)).clamp(0, 1) - 0.5
            rank = rank.T
        elif whole:
            rank = (v * len(values)).floor().clamp(0, len(values) - 1).long()
        else:
            rank = v * len(values) - 0.5
        _, h, w = self.shape
        rank = rank.reshape(len(v), *self.inner)[:, :, :h, :w]
        return np.asarray(values[rank.cpu().numpy()]) if whole else self.between(rank)

    def _masses(self, like: "Tensor") -> "Tensor":
        """Marginal masses of every pixel's grey values, (D, L) float64; a padded pixel has the first one."""
        import torch

        masses = self._constant("masses", like).reshape(*self.shape, self.levels)
        if self.inner == self.shape:
            return masses.flatten(0, 2)
        whole = torch.zeros(*self.inner, self.levels, dtype=masses.dtype, device=masses.device)
        whole[..., 0] = 1
        whole[:, : self.shape[1], : self.shape[2]] = masses
        return whole.flatten(0, 2)

    # -- density -------------------------------------------------------------------------------------------------------------------

    def log_density(self, y: "Tensor") -> "Tensor":
        """log density of vectors, or of ranks with noise, (n,)."""
        import torch

        v, first = self.into(y)
        z, slope = self.net(v)
        if self.condition is not None:
            mean, log_scale = self.prior(self.condition)
            z, slope = (z.flatten(1) - mean) * torch.exp(-log_scale), slope - log_scale.sum(dim=1)
        return first + slope + log_base(self.base, z)

    def prior(self, condition: "Tensor") -> "tuple[Tensor, Tensor]":
        """Mean and log-scale of the latents of the rows' classes, (n, D) each."""
        mean, log_scale = (condition @ self.net.prior.flatten(1)).unflatten(1, (2, -1)).unbind(dim=1)
        return mean, 3 * (log_scale / 3).tanh()

    def log_prob_rows(self, x: "Tensor") -> "Tensor":
        """Exact for vectors; for grey values the bound of `config.draws` draws of the noise."""
        import torch

        if "values" not in self.constants:
            return self.log_density(x)
        noise = densities.row_noise(x.cpu().numpy(), self.config.draws, (self.size,), law="uniform")  # (n, k, D)
        ranks = self.ranks(x).float()
        terms = [self.log_density(ranks + torch.from_numpy(noise[:, k]).to(x.device)) for k in range(self.config.draws)]
        return densities.importance_bound(torch.stack(terms, dim=1))

    # -- samples and latents -------------------------------------------------------------------------------------------------------

    def decode(self, e: "Tensor", *, whole: bool = True) -> NDArray[Any]:
        """Standard normal numbers (n, D) to samples; whole: cut the noise off."""
        z = from_normal(self.base, e.float().to(self.device))
        if self.condition is not None:
            mean, log_scale = self.prior(self.condition)
            z = mean + log_scale.exp() * z
        return self.out_of(self.net.inverse(z), whole=whole)

    def draw(self, n: int, rng: "torch.Generator") -> NDArray[Any]:
        import torch

        return self.decode(torch.randn(n, self.size, generator=rng))

    def reconstruct(self, x: NDArray[Any]) -> NDArray[Any]:
        """Encoded and decoded: what rounding leaves of the samples, since a flow loses nothing."""
        import torch

        x = self.check_rows(x)
        if not len(x):
            return x
        with torch.no_grad():
            rows = training.as_tensor(x, self.device)
            y = self.ranks(rows).float() + 0.5 if "values" in self.constants else rows
            return self.out_of(self.net.inverse(self.net(self.into(y)[0])[0]))

    def latent_pairs(self, n: int, step: float, *, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """n pairs of neighbours on random paths through the latent space; see `models.latent_neighbours`."""
        import torch

        told = self.given(self.sample_labels(n, seed=seed))
        with torch.no_grad():
            a, b = (told.decode(torch.from_numpy(e), whole=False) for e in latent_neighbours(n, self.size, step, seed=seed))
        return a, b


M = TypeVar("M", bound=Model)


def constants_of(config: Config, data: TrainingData) -> dict[str, NDArray[Any]]:
    """What a flow knows of its data before it learns: see Model.

    Raises:
        DataError: the training samples have no spread.
    """
    if not data.images:
        return training.standard_constants(data)
    found = training.grey_constants(data)
    if config.pixels == "marginal":
        values, rows = found["values"], read_all(data.train)
        place = np.searchsorted(values, rows.reshape(len(rows), -1))  # (n, D)
        counts = np.stack([np.bincount(column, minlength=len(values)) for column in place.T]) + _COUNT / len(values)
        found["masses"] = counts / counts.sum(axis=1, keepdims=True)
    return found


def train(kind: type[M], config: Config, data: TrainingData, *, seed: int, out: Path | None = None, constants: Any = None) -> M:
    """Maximise the density of the training split with AdamW, of grey values with fresh noise in every step.

    Args:
        kind: the baseline's Model; what it has as `net.initialise` is called with the first rows that the flow sees.
        config: its settings.
        data: to learn from.
        seed: of everything random.
        out: as for training.fit.
        constants: None for `constants_of`.
    """
    import torch

    constants = constants_of(config, data) if constants is None else constants
    if config.conditional:
        constants = {**constants, **training.class_constants(data)}
    notes = (f"log_prob is the lower bound of {config.draws} draws of dequantisation noise (IW-{config.draws})",) if data.images else ()
    model = kind.new(config, data.shape, constants, seed=seed, notes=notes)

    def noisy(x: "Tensor") -> "Tensor":
        if not data.images:
            return x
        ranks = model.ranks(x).float()  # the noise never rounds up to the next rank, as in likelihood.dequantisation_noise
        return ranks + (2 * torch.randint(2**15, ranks.shape, device=ranks.device).float() + 1) * 2.0**-16

    if hasattr(model.net, "initialise"):
        with torch.no_grad(), training.seeded(seed):
            model.net.initialise(model.into(noisy(training.as_tensor(data.train.read(0, min(256, len(data.train))))))[0])
    optimiser = torch.optim.AdamW(model.net.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)

    def step(now: training.Step) -> dict[str, Any]:
        loss = -model.given(now.labels).log_density(noisy(now.x)).mean()
        now.update(loss)
        return {"nats": loss}

    return model.trained(training.fit(step, config, data, modules={"net": model.net}, optimisers={"net": optimiser}, seed=seed, out=out))
