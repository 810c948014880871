"""Deep energy-based model: a net gives every point an energy, Langevin chains sample from it.

Family: energy based. Source: Du & Mordatch 2019, "Implicit generation and modeling with energy based models", arXiv 1903.10689; short-run
chains of Nijkamp, Hill, Zhu & Wu 2019, arXiv 1904.09770; Metropolis-adjusted Langevin of Roberts & Tweedie 1996.
p(x) = exp(f(x)) N(x; 0, s² I)/Z; the likelihood's gradient is E_data ∇f − E_chains ∇f. Chains go on from step to step, their Langevin moves
are accepted or refused, and some moves are draws of the normal base, accepted with probability exp(f(y) − f(x)), so that in two dimensions
they reach every mode. Where no move is refused (images), samples are what a short chain makes of the base, not draws of p.
Can: sample; log p of two-dimensional vectors, log Z by quadrature on a grid, exact up to its error, which stands in the notes. No
likelihood of images.

    genbench bench toy2d --only ebm

Time: on grid25 28 CPU-seconds (one thread); reached 25 of 25 modes, 98.0 % of samples within 3 SD (98.9 % of the law's own are), NLL −
entropy 0.06 nats; on ring8 8 of 8, 97.8 %, 0.73. (A rate of 2e-3 with steps that stay at 0.03 gave 0.04 on grid25, and on ring8, whose
modes are narrower, a law that ran away from its chains: a million nats.) Drawing 10,000 samples takes longer than the training.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench import training
from genbench.errors import UsageError
from genbench.models import TrainingData, generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FAMILY = "energy based"
SUMMARY = "deep energy-based model (EBM) by Langevin chains; log Z by quadrature in 2-D"
SOURCE = "arXiv:1903.10689"
STEER = 0.05  # how fast log ε follows what is taken, per training step


@dataclass(frozen=True)
class Config(training.Config):
    """Settings, beside those of every trained net.

    Args:
        width: units of a layer.
        depth: hidden layers.
        fourier: standard deviation of the frequencies of the input's random Fourier features, in cycles per SD of the data; 0 for none.
        base: s, in SDs of the data.
        moves: of every chain per training step.
        length: ε of a Langevin move x + ε²/2 ∇ log p + ε e; of moves that may be refused where training starts from.
        accepted: share of these that training steers ε to; 0 leaves it. (.574 is best for a law that stays, Roberts & Rosenthal 1998, doi
            10.1111/1467-9868.00123, theorem 2; one that is being learnt then runs away from its chains.)
        noise: share of the noise e in it; below 1 the chains follow no law that is known.
        exact: refuse moves as Metropolis does, and draw every second one from the base.
        persistent: chains go on from step to step; False: they start at the base.
        anneal: moves of a sample's chain, along p^β for the first half of which β rises from 0.
        ridge: weight of the mean square of f, which keeps it in range where moves are not refused.
        grid: points per axis of the quadrature, over ±8 s.
        conditional: on the class: f has an output for every class.
    """

    width: int = 128
    depth: int = 3
    fourier: float = 0.0
    base: float = 1.5
    moves: int = 10
    length: float = 0.03
    accepted: float = 0.8
    noise: float = 1.0
    exact: bool = True
    persistent: bool = True
    anneal: int = 600
    ridge: float = 0.0
    grid: int = 3001
    conditional: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.width, self.depth, self.moves, self.anneal) < 1 or self.grid < 5 or not self.grid % 2:
            raise UsageError(
                "width, depth, moves and anneal are at least 1 and grid an odd number from 5 on, found "
                f"{self.width}, {self.depth}, {self.moves}, {self.anneal} and {self.grid}"
            )
        if not 0 <= self.accepted < 1:
            raise UsageError(f"accepted is in [0, 1), found {self.accepted}")
        if min(self.base, self.length) <= 0 or min(self.fourier, self.noise, self.ridge) < 0:
            raise UsageError(
                f"base and length are above 0, fourier, noise and ridge at least 0, found {self.base}, {self.length}, {self.fourier}, "
                f"{self.noise} and {self.ridge}"
            )


RECIPES = {
    "vectors": Config(steps=1000, batch=512, lr=1e-3, length=0.02, fourier=1.0, ema=0.99),
    "digits": Config(
        steps=1500,
        batch=64,
        lr=5e-4,
        width=256,
        depth=2,
        base=1.0,
        moves=40,
        length=0.2,
        noise=0.1,
        exact=False,
        persistent=False,
        anneal=40,
        ridge=1e-3,
    ),
}
VARIANTS = {"conditional": {"digits": replace(RECIPES["digits"], conditional=True)}}
BUDGETS = {"vectors": {"1min": {}, "5min": {"steps": 4000}}}
SMOKE = {
    "vectors": Config(steps=100, batch=128, lr=1e-2, width=16, depth=1, moves=4, length=0.5, anneal=60, grid=401, base=1.5),
    "images": Config(
        steps=40,
        batch=32,
        lr=1e-3,
        width=16,
        depth=1,
        base=1.0,
        moves=5,
        length=0.2,
        noise=0.1,
        exact=False,
        persistent=False,
        anneal=5,
        ridge=1e-3,
    ),
}
SMOKE["images:conditional"] = replace(SMOKE["images"], conditional=True)


def network(dims: int, config: Config, classes: int) -> "nn.Module":
    """f: rows (n, D), standardised, and classes (n, C) to (n,)."""
    import torch
    from torch import nn
    from torch.nn.functional import silu

    class Energy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            count = config.width // 2 if config.fourier else 0
            self.register_buffer("frequencies", 2 * pi * config.fourier * torch.randn(dims, count))
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([dims + 2 * count, *[config.width] * config.depth]))
            self.last = nn.Linear(config.width, max(1, classes))

        def forward(self, x: "Tensor", condition: "Tensor | None" = None) -> "Tensor":
            angles = x @ self.frequencies
            h = torch.cat([x, torch.sin(angles), torch.cos(angles)], dim=1)
            for layer in self.layers:
                h = silu(layer(h))
            f = self.last(h).float()
            return f[:, 0] if condition is None else (f * condition).sum(dim=1)

    return Energy()


class Model(training.GreyModel):
    """EBM. constants: for vectors shift (d,), scale (d,) and, in 2-D, log_z (1,); for images values (L,); length (1,) where steered."""

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        return network(int(np.prod(shape)), config, training.class_count(constants))

    @property
    def bound(self) -> str | None:
        return "exact" if self.shape == (2,) else None

    @property
    def nfe(self) -> int:
        return self.config.anneal

    def into(self, x: "Tensor") -> "Tensor":
        """Samples as rows (n, D): vectors standardised, grey values' ranks from −1 to 1."""
        import torch

        if "values" in self.constants:
            return (2 * self.scaled(self.ranks(x)) - 1).flatten(1)
        shift, scale = (torch.from_numpy(self.constants[k]).to(x.device) for k in ("shift", "scale"))
        return (x - shift) / scale

    # -- log p ---------------------------------------------------------------------------------------------------------------------

    def log_base(self, x: "Tensor") -> "Tensor":
        """log N(x; 0, s² I), (n,)."""
        s = self.config.base
        return -0.5 * (x / s).square().sum(dim=1) - self.dims * (log(s) + 0.5 * log(2 * pi))

    def log_prob_rows(self, x: "Tensor") -> "Tensor":
        z = self.into(x)
        scale = float(np.log(self.constants["scale"].astype(float)).sum())
        return self.net(z).double() + self.log_base(z.double()) - float(self.constants["log_z"][0]) - scale

    def normalise(self) -> None:
        """log Z = log ∫ exp(f(x)) N(x; 0, s² I) dx on a square grid: sums of smooth functions that vanish at the ends converge fast."""
        import torch

        side = torch.linspace(-8 * self.config.base, 8 * self.config.base, self.config.grid, device=self.device)
        rows, half = [], []
        with torch.no_grad():
            for i, a in enumerate(side):
                line = torch.stack([a.expand_as(side), side], dim=1)
                log_p = self.net(line).double() + self.log_base(line.double())
                rows.append(log_p.logsumexp(dim=0))
                if i % 2 == 0:
                    half.append(log_p[::2].logsumexp(dim=0))
        cell = 2 * log(float(side[1] - side[0]))
        fine, coarse = (float(torch.stack(v).logsumexp(dim=0)) for v in (rows, half))
        edge = float(torch.exp(torch.stack([rows[0], rows[-1]]).logsumexp(dim=0) - fine))
        self.constants["log_z"] = np.array([fine + cell])
        change = abs(coarse + log(4) - fine)
        self.notes += (
            f"log Z by quadrature, {self.config.grid}² points: {change:.1g} nats from every second one's, {edge:.1g} at the edge",
        )

    # -- chains --------------------------------------------------------------------------------------------------------------------

    def slope(self, x: "Tensor", beta: float) -> "tuple[Tensor, Tensor, Tensor]":
        """f, log p^β up to a constant (of f alone: the base stays), and its gradient."""
        import torch

        with torch.enable_grad():
            x = x.detach().requires_grad_()
            f = self.net(x, self.condition)
            total = beta * f + self.log_base(x)
            (gradient,) = torch.autograd.grad(total.sum(), x)
        return f.detach(), total.detach(), gradient

    @property
    def length(self) -> float:
        """ε."""
        return float(self.constants["length"][0]) if "length" in self.constants else float(self.config.length)

    def chain(
        self, x: "Tensor", moves: int, rng: "torch.Generator | None" = None, *, length: float, anneal: bool = False
    ) -> "tuple[Tensor, Tensor]":
        """Rows (n, D) after so many moves, and the share of the local ones that was taken."""
        import torch

        def normal() -> "Tensor":
            return torch.randn(x.shape, generator=rng).to(x.device)

        c, beta, shares = self.config, 1.0, []
        f, total, gradient = self.slope(x, beta)
        for k in range(moves):
            if anneal and k <= moves // 2:
                beta = k / max(1, moves // 2)
                f, total, gradient = self.slope(x, beta)
            if not c.exact:
                x = x + length**2 / 2 * gradient + length * c.noise * normal()
                f, total, gradient = self.slope(x, beta)
                continue
            e, jump = normal(), k % 2 == 1
            y = c.base * e if jump else x + length**2 / 2 * gradient + length * e
            ahead = self.slope(y, beta)
            if jump:
                odds = beta * (ahead[0] - f)
            else:  # the density of the way back over that of the way there
                back = (x - y - length**2 / 2 * ahead[2]) / length
                odds = ahead[1] - total + 0.5 * (e.square() - back.square()).sum(dim=1)
            taken = torch.rand(len(x), generator=rng).to(x.device).log() < odds
            if not jump:
                shares.append(taken.float().mean())
            x = torch.where(taken[:, None], y, x)
            f, total = (torch.where(taken, new, old) for new, old in zip(ahead[:2], (f, total), strict=True))
            gradient = torch.where(taken[:, None], ahead[2], gradient)
        return x.detach(), torch.stack(shares).mean() if shares else torch.ones(())

    def draw(self, n: int, rng: "torch.Generator") -> NDArray[Any]:
        import torch

        start = self.config.base * torch.randn(n, self.dims, generator=rng).to(self.device)
        x, _ = self.chain(start, self.config.anneal, rng, length=self.length, anneal=self.config.exact)
        if "values" in self.constants:
            return self.greys(((x + 1) / 2 * (self.levels - 1)).round().clamp(0, self.levels - 1).long())
        return x.double().cpu().numpy() * self.constants["scale"].astype(float) + self.constants["shift"]


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Maximum likelihood with Adam: f up at the data, down at the chains."""
    import torch
    from torch import nn

    if config.conditional and not data.images:
        raise UsageError("conditional energies are those of images: of vectors there would be one log Z per class; leave it off")
    constants = training.grey_constants(data) if data.images else training.standard_constants(data)
    constants |= training.class_constants(data) if config.conditional else {}
    notes = () if config.exact else (f"samples of a chain of {config.anneal} moves with {config.noise:g} of the noise, not of exp(f)",)
    model = Model.new(config, data.shape, constants, seed=seed, notes=notes)
    optimiser = torch.optim.Adam(model.net.parameters(), lr=config.lr, betas=(0.5, 0.99), fused=True)
    chains = nn.Module()
    start = config.base * torch.randn(config.batch, model.dims, generator=training.torch_generator(seed, 9))
    chains.register_buffer("x", start.to(model.device))
    chains.register_buffer("length", torch.tensor(config.length, dtype=torch.float64))
    steered = config.exact and config.accepted > 0
    drawn = generator(seed, 10).choice(constants["classes"], config.batch, p=constants["shares"]) if config.conditional else None
    started = model.given(drawn)  # a chain is of one class

    def step(now: training.Step) -> dict[str, Any]:
        real = model.into(now.x)
        if not config.persistent:
            chains.x = config.base * torch.randn_like(chains.x)
        chains.x, taken = started.chain(chains.x, config.moves, length=float(chains.length))
        if steered:
            chains.length = chains.length * torch.exp(STEER * (taken.cpu() - config.accepted))
        if "values" in constants:  # as in Du & Mordatch: data with a little noise, of the width of the chains' own
            real = real + 0.03 * torch.randn_like(real)
        told = [c for m in (model.given(now.labels), started) if (c := m.condition) is not None]
        up, down = model.net(torch.cat([real, chains.x]), torch.cat(told) if told else None).split([len(real), len(chains.x)])
        gap = up.mean() - down.mean()
        now.update(-gap + config.ridge * (up.square().mean() + down.square().mean()))
        return {"gap": gap}

    parts = {"net": model.net, "chains": chains}
    fitted = training.fit(step, config, data, modules=parts, optimisers={"net": optimiser}, seed=seed, out=out, average=["net"])
    if steered:
        model.constants["length"] = np.array([float(chains.length)])
    if model.bound:
        model.normalise()
    return model.trained(fitted)
