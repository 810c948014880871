"""Restricted Boltzmann machine: binary hidden units, an energy, and an estimate of what it is normalised by.

Family: energy based. Source: Smolensky 1986; contrastive divergence of Hinton 2002, doi 10.1162/089976602760128018; persistent chains of
Tieleman 2008, doi 10.1145/1390156.1390290; AIS of Salakhutdinov & Murray 2008, "On the quantitative analysis of deep belief networks",
doi 10.1145/1390156.1390266; centring of Montavon & Müller 2012, arXiv 1203.3783.
p(v, h) = exp(b·v + c·h + v W h)/Z, so that log p(v) = b·v + Σ_j log(1 + exp(c_j + v W_j)) − log Z. Grey values beyond two are one-hot,
softmax units of Salakhutdinov, Mnih & Hinton 2007. log Z is summed exactly where there are at most 20 hidden or 20 binary visible units.
Else it is estimated by annealed importance sampling from the base rates: 1/n Σ w is unbiased for Z, so its logarithm is too low on average
and log p too high; the number of chains and temperatures, the standard error of log Z and the effective sample size stand in the notes.
Can: sample (annealed from the base rates, independent samples; exact where log Z is); log p exact or an estimate.

    genbench bench mnist-dynbin --only rbm

Time: on mnist-dynbin about 260 CPU-seconds (one thread) for the budget of 5 minutes, a quarter of them AIS; reached 86.2 nats on the test
split, 86.9 on the validation split, with a standard error of log Z of 0.11; the budget of 20 minutes 84.3 on the test split
(0.10). 2,000 steps, 25 CPU-seconds, reached 97 nats on the validation split. AIS with a quarter of the temperatures read 0.6 nats better
on the same weights: estimates compare only with their settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench import densities, training
from genbench.errors import UsageError
from genbench.models import TrainingData, read_all, to_levels

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FAMILY = "energy based"
SUMMARY = "restricted Boltzmann machine (RBM) by persistent contrastive divergence, log Z by AIS"
SOURCE = "doi:10.1145/1390156.1390290"
ENUMERABLE = 20  # units whose 2^20 states are summed


@dataclass(frozen=True)
class Config(training.Config):
    """Settings, beside those of every trained net.

    Args:
        hidden: H.
        persistent: chains go on from step to step (PCD); False: they start at the data (CD).
        gibbs: transitions per step, the k of CD-k.
        anneal: transitions of a sample's chain from the base rates: temperatures in the first half, of the model itself in the second.
        ais_chains: of the estimate of log Z.
        ais_steps: its temperatures, evenly spaced.
    """

    hidden: int = 500
    persistent: bool = True
    gibbs: int = 1
    anneal: int = 500
    ais_chains: int = 256
    ais_steps: int = 8000

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.hidden, self.gibbs, self.anneal, self.ais_steps) < 1 or self.ais_chains < 2:
            raise UsageError(
                "hidden, gibbs, anneal and ais_steps are at least 1 and ais_chains 2, found "
                f"{self.hidden}, {self.gibbs}, {self.anneal}, {self.ais_steps} and {self.ais_chains}"
            )


RECIPES = {
    "mnist-dynbin": Config(steps=18_000, lr=0.2, ema=0.999),
    "mnist-threshold": Config(steps=18_000, lr=0.2, ema=0.999),
    "digits": Config(hidden=100, steps=3000, lr=0.05, ema=0.999),
}
BUDGETS = {"mnist-dynbin": {"1min": {"steps": 2000, "ais_steps": 2000}, "5min": {}, "20min": {"steps": 72_000}}}
VARIANTS = {"cd": {"mnist-dynbin": Config(steps=18_000, lr=0.2, ema=0.999, persistent=False)}}
SMOKE = {"images": Config(hidden=8, steps=300, lr=0.1, ema=0.99)}


def network(mean: NDArray[np.float64], hidden: int) -> "nn.Module":
    """The weights, with visible units centred at their mean over the data and hidden ones at ½.

    E = −(v − μ) W (h − ½) − b·(v − μ) − c·(h − ½) has the same laws as the plain form, and gradients that do not depend on which state
    of a unit is called 1: without it the first minute is spent on the background.
    """
    import torch
    from torch import nn

    class Rbm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            mu = torch.from_numpy(mean)
            self.register_buffer("mean", mu.float(), persistent=False)
            self.weight = nn.Parameter(0.01 * torch.randn(len(mean), hidden))  # (V, H)
            self.visible = nn.Parameter(torch.zeros(len(mean)))
            self.hidden = nn.Parameter(torch.zeros(hidden))

        def plain(self) -> "tuple[Tensor, Tensor, Tensor]":
            """W (V, H), b (V,), c (H,) of the plain form."""
            return self.weight, self.visible - self.weight.sum(dim=1) / 2, self.hidden - self.mean @ self.weight

    return Rbm()


def free_energy(v: "Tensor", w: "Tensor", b: "Tensor", c: "Tensor") -> "Tensor":
    """−log Σ_h exp(−E(v, h)), (n,): the energy with the hidden units summed out."""
    from torch.nn.functional import softplus

    return -(v @ b) - softplus(c + v @ w).sum(dim=1)


class Model(training.GreyModel):
    """RBM. constants: values (L,) grey values; base (V,) logits of the base rates; log_z (3,): log Z, its SE, ESS (0 for the exact sum)."""

    @property
    def bound(self) -> str:
        return "exact" if self.enumerable else "estimate"

    @property
    def nfe(self) -> int:
        return 1 if self.enumerable else self.config.anneal

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        logits = constants["base"].reshape(int(np.prod(shape)), -1)
        odds = np.exp(logits)
        return network((odds / (1 + odds.sum(axis=1, keepdims=True))).reshape(-1), config.hidden)

    @property
    def enumerable(self) -> bool:
        """Whether all states of one side can be summed over."""
        return self.config.hidden <= ENUMERABLE or (self.levels == 2 and self.dims <= ENUMERABLE)

    def hot(self, x: "Tensor") -> "Tensor":
        """Grey values (n, c, h, w) to visible units (n, V): the indicators of the ranks 1 ... L − 1."""
        import torch

        values = torch.from_numpy(self.constants["values"]).to(x.device)
        return (x.reshape(len(x), -1, 1) == values[1:]).reshape(len(x), -1).float()

    def draw_visible(self, logits: "Tensor", rng: "torch.Generator | None" = None) -> "Tensor":
        """Visible units (n, V) from their logits; softmax units where there are more than two grey values."""
        import torch
        from torch.nn.functional import one_hot

        size = self.levels - 1
        if size == 1:
            return (torch.rand(logits.shape, generator=rng).to(logits.device) < torch.sigmoid(logits)).float()
        u = torch.rand(len(logits), self.dims, generator=rng).to(logits.device)
        ranks = densities.draw_categorical(logits.reshape(len(logits), self.dims, size), u)
        return one_hot(ranks, size + 1)[..., 1:].reshape(len(logits), -1).float()

    def gibbs(self, v: "Tensor", w: "Tensor", b: "Tensor", c: "Tensor", rng: "torch.Generator | None" = None) -> "Tensor":
        """One transition of the chains: all hidden units, then all visible ones."""
        import torch

        h = (torch.rand(len(v), w.shape[1], generator=rng).to(v.device) < torch.sigmoid(c + v @ w)).float()
        return self.draw_visible(b + h @ w.T, rng)

    def annealed(self, n: int, steps: int, rng: "torch.Generator") -> "tuple[Tensor, Tensor]":
        """n runs of AIS from the base rates to the model: visible units (n, V) and log weights (n,) for Z (eqs. 15 to 18)."""
        import torch
        from torch.nn.functional import softplus

        w, b, c = (p.detach() for p in self.net.plain())
        base = torch.from_numpy(self.constants["base"]).to(self.device).float()
        v = self.draw_visible(base.expand(n, -1), rng)
        # Z of the base rates: p*_0(v) = exp(base·v), and 2^H for hidden units that see nothing.
        start = torch.log1p(base.double().reshape(self.dims, -1).exp().sum(dim=1)).sum() + self.config.hidden * log(2)
        log_w, below = start.repeat(n), 0.0
        for beta in torch.linspace(0, 1, steps + 1)[1:].tolist():
            seen = c + v @ w
            change = (beta - below) * (v @ (b - base)) + (softplus(beta * seen) - softplus(below * seen)).sum(dim=1)
            log_w, below = log_w + change, beta
            h = (torch.rand(seen.shape, generator=rng).to(v.device) < torch.sigmoid(beta * seen)).float()
            v = self.draw_visible((1 - beta) * base + beta * (b + h @ w.T), rng)
        return v, log_w

    def states(self) -> "tuple[Tensor, Tensor, bool]":
        """All states of the side with fewer units, their log p* (unnormalised), and whether they are hidden ones."""
        import torch

        w, b, c = (p.detach().double() for p in self.net.plain())
        hidden = self.config.hidden <= ENUMERABLE
        size = self.config.hidden if hidden else self.dims
        all_states = (torch.arange(2**size)[:, None] >> torch.arange(size)) & 1
        found = []
        for s in all_states.to(self.device).double().split(2**14):
            if hidden:  # the softmax units' sum is a product over pixels
                logits = (b + s @ w.T).reshape(len(s), self.dims, -1)
                found.append(s @ c + torch.nn.functional.pad(logits, (1, 0)).logsumexp(dim=2).sum(dim=1))
            else:
                found.append(-free_energy(s, w, b, c))
        return all_states, torch.cat(found), hidden

    def normalise(self, seed: int) -> None:
        """Find log Z: by summation, or by AIS."""
        import torch

        with torch.no_grad():
            if self.enumerable:
                found = [float(self.states()[1].logsumexp(dim=0)), 0.0, 0.0]
            else:
                _, log_w = self.annealed(self.config.ais_chains, self.config.ais_steps, training.torch_generator(seed, 5))
                n, share = len(log_w), torch.softmax(log_w, dim=0)
                ess = 1 / float((share**2).sum())
                # SE of the mean of the weights over that mean, the delta method's SE of its logarithm.
                found = [float(log_w.logsumexp(dim=0)) - log(n), float((n * share).std()) / n**0.5, ess]
                self.notes += (
                    f"log Z by AIS: {n} chains, {self.config.ais_steps} temperatures, SE {found[1]:.2g} nats, effective sample size "
                    f"{ess:.0f}; too low on average, so that log p is over-stated",
                )
        self.constants["log_z"] = np.array(found)

    def log_prob_rows(self, x: "Tensor") -> "Tensor":
        self.ranks(x)  # refuses grey values that the model does not know
        w, b, c = (p.double() for p in self.net.plain())
        return -free_energy(self.hot(x).double(), w, b, c) - self.constants["log_z"][0]

    def draw(self, n: int, rng: "torch.Generator") -> NDArray[Any]:
        import torch

        if self.enumerable:
            states, log_p, hidden = self.states()
            s = states[torch.multinomial(torch.softmax(log_p, dim=0).cpu(), n, replacement=True, generator=rng)].to(self.device).float()
            w, b, _ = self.net.plain()
            v = self.draw_visible(b + s @ w.T, rng) if hidden else s
        else:
            v, _ = self.annealed(n, max(1, self.config.anneal // 2), rng)
            for _ in range(self.config.anneal // 2):
                v = self.gibbs(v, *self.net.plain(), rng)
        return self.greys((v.reshape(n, self.dims, -1) * torch.arange(1, self.levels, device=v.device)).sum(dim=2).long())


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Stochastic maximum likelihood by plain gradient descent: the free energy of the data down, that of the chains up.

    Raises:
        DataError: the data are vectors.
    """
    import torch
    from torch import nn

    values = training.grey_constants(data)["values"]
    rows = read_all(data.train)
    ranks = to_levels(rows, values).reshape(len(rows), -1)
    counts = np.stack([(ranks == k).sum(axis=0) for k in range(len(values))], axis=1) + 1.0  # (D, L), one more each: finite logits
    base = np.log(counts[:, 1:] / counts[:, :1]).reshape(-1)
    model = Model.new(config, data.shape, {"values": values, "base": base}, seed=seed)
    net = model.net
    optimiser = torch.optim.SGD(net.parameters(), lr=config.lr)
    with torch.no_grad(), training.seeded(seed, 6):
        net.visible.copy_(torch.from_numpy(base))
        chains = nn.Module()
        chains.register_buffer("v", model.draw_visible(torch.from_numpy(base).to(model.device).float().expand(config.batch, -1)))

    def step(now: training.Step) -> dict[str, Any]:
        x = model.hot(now.x)
        with torch.no_grad():
            v = chains.v if config.persistent else x
            for _ in range(config.gibbs):
                v = model.gibbs(v, *net.plain())
            chains.v = v
        energy = free_energy(torch.cat([x, v]), *net.plain())
        data_energy, chain_energy = energy[: len(x)].mean(), energy[len(x) :].mean()
        now.update(data_energy - chain_energy)
        return {"free energy gap": data_energy - chain_energy}

    parts = {"net": net, "chains": chains}
    fitted = training.fit(step, config, data, modules=parts, optimisers={"net": optimiser}, seed=seed, out=out, average=["net"])
    model.normalise(seed)
    return model.trained(fitted)
