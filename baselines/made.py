"""Masked autoencoder: all conditionals of an autoregressive model in one forward pass.

Family: autoregressive. Source: Germain, Gregor, Murray & Larochelle 2015, "MADE: masked autoencoder for distribution estimation", arXiv
1502.03509. Without hidden layers it is the fully visible sigmoid belief network (FVSBN) of Neal 1992.
p(x) = Π_d p(x_d | x_<d) in raster order, each a categorical over the dataset's grey values. Hidden unit k of a layer has a degree m(k) in
1 ... D − 1 and sees what has at most that degree; output d sees degrees below d, input d has degree d + 1. Sampling computes every hidden
unit once, when all that it sees is known: a sample costs as much as one forward pass, not D of them.
With several orders one net learns them in turn, under each order's masks, and is the mixture p(x) = 1/O Σ_o p_o(x), which is exact too.
Can: sample; log p exact.

    genbench bench mnist-dynbin --only made made:fvsbn made:orders

Time: on mnist-dynbin 57 CPU-seconds (one thread) for the budget of one minute; reached 88.8 nats on the test split, 85.5 in that of five;
in that of twenty 85.4 (82.5 on training rows), with dropout of 0.2 85.9, with a second layer and dropout 86.3, of four orders 86.0. In
that of five a second layer reached 85.7 (82.3 on training rows), AdamW's weight decay of 0.2 86.5. In one minute 90.9 without the direct
connections; with inputs −1 and 1 in place of 0 and 1 three times the steps reached 89.3.
FVSBN (made:fvsbn), budget of one minute: 97.2 in 69 CPU-seconds with its scoring, and no less in twenty: on training rows, where its
likelihood has one maximum, it then has 96.9. Four orders (made:orders), the same: 93.3 in 105
CPU-seconds with its scoring; for so short a time one order is better.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench import densities, training
from genbench.errors import UsageError
from genbench.models import TrainingData, generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FAMILY = "autoregressive"
SUMMARY = "masked autoencoder (MADE); without hidden layers FVSBN"
SOURCE = "arXiv:1502.03509"


@dataclass(frozen=True)
class Config(training.Config):
    """Settings, beside those of every trained net.

    Args:
        hidden: units of the hidden layers; none for FVSBN.
        direct: masked connections from the inputs to the outputs.
        dropout: of the hidden units.
        orders: in which the pixels are drawn: raster for 1, else so many random ones, mixed.
        temperature: of sampling: divides the logits; 1 for the model's own law.
    """

    hidden: tuple[int, ...] = (2048,)
    direct: bool = True
    dropout: float = 0.0
    orders: int = 1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden and min(self.hidden) < 1:
            raise UsageError(f"hidden holds numbers from 1 on, found {self.hidden}")
        if not self.hidden and not self.direct:
            raise UsageError("without hidden layers the outputs see nothing; leave direct on")
        if self.orders < 1:
            raise UsageError(f"orders is at least 1, found {self.orders}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout is in [0, 1), found {self.dropout}")
        if not self.temperature > 0:
            raise UsageError(f"temperature is above 0, found {self.temperature}")


RECIPES = {
    "mnist-dynbin": Config(steps=12_000, lr=3e-3, bf16=True),
    "digits": Config(hidden=(512,), steps=1500, lr=2e-3),
}
VARIANTS = {
    "fvsbn": {"mnist-dynbin": Config(hidden=(), steps=30_000, lr=3e-2), "digits": Config(hidden=(), steps=3000, lr=3e-3)},
    "orders": {
        "mnist-dynbin": Config(orders=4, steps=10_000, lr=3e-3, bf16=True),
        "digits": Config(hidden=(512,), orders=4, steps=3000, lr=2e-3),
    },
}
BUDGETS = {
    "mnist-dynbin": {"1min": {"steps": 2500}, "5min": {}, "20min": {"steps": 48_000}},
    "mnist-dynbin:fvsbn": {"1min": {"steps": 6000}, "5min": {}, "20min": {"steps": 120_000}},
    "mnist-dynbin:orders": {"1min": {"steps": 2000}, "5min": {}, "20min": {"steps": 40_000}},
}
SMOKE = {
    "images": Config(hidden=(32,), steps=60, batch=50, lr=1e-2),
    "images:fvsbn": Config(hidden=(), steps=60, batch=50, lr=1e-2),
    "images:orders": Config(hidden=(32,), orders=3, steps=90, batch=50, lr=1e-2),
}


def network(dims: int, hidden: tuple[int, ...], direct: bool, dropout: float, classes: int, orders: "Tensor") -> "nn.Module":
    """Grey values scaled to [0, 1], (n, D), to logits (n, D, L − 1).

    Args:
        dims: D.
        hidden: units per layer.
        direct: connections from the inputs to the outputs.
        dropout: of the hidden units.
        classes: L.
        orders: (O, D): the place of every pixel in each order.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    one = len(orders) == 1
    # Units of one degree lie together: ascending and even over 1 ... D − 1.
    degrees = [1 + torch.arange(width) * (dims - 1) // width for width in hidden]
    # The input of place t has degree t + 1, its outputs degree t: they see the inputs of places 0 ... t − 1.
    ends = [(place + 1, place.repeat_interleave(classes - 1)) for place in orders]

    def masked(below: "Tensor", above: "Tensor") -> nn.Linear:
        """A linear layer in which a unit sees what has at most its degree: its other weights start at zero and get no gradient."""
        layer = nn.Linear(len(below), len(above))
        seen = sees(below, above)
        layer.register_buffer("seen", seen, persistent=False)
        with torch.no_grad():
            layer.weight.mul_(seen)

        def hide(weight: "Tensor") -> None:  # in place: a product with the mask in every forward took longer than the matrix products
            weight.grad.mul_(layer.seen)

        layer.weight.register_post_accumulate_grad_hook(hide)
        return layer

    def sees(below: "Tensor", above: "Tensor") -> "Tensor":
        return (below[None, :] <= above[:, None]).float()

    def ordered(below: "list[Tensor]", above: "list[Tensor]") -> nn.Linear:
        """A layer at an end of the net: one mask per order, so that the mask is a factor of the weights."""
        if one:
            return masked(below[0], above[0])
        layer = nn.Linear(len(below[0]), len(above[0]))
        layer.register_buffer(
            "seen", torch.stack([sees(a, b) for a, b in zip(below, above, strict=True)]).to(torch.uint8), persistent=False
        )
        return layer

    class Made(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inputs, outputs = [e[0] for e in ends], [e[1] for e in ends]
            inner = [[d] * len(ends) for d in degrees]
            self.degrees = degrees
            self.layers = nn.ModuleList(masked(a, b) for a, b in pairwise(degrees))
            self.first = ordered(inputs, inner[0]) if hidden else None
            self.out = ordered(inner[-1] if hidden else inputs, outputs)
            self.direct = ordered(inputs, outputs) if direct and hidden else None
            self.register_buffer("place", orders, persistent=False)

        def weight(self, layer: nn.Linear, order: int) -> "Tensor":
            """A layer's weights under an order."""
            return layer.weight if one or layer in set(self.layers) else layer.weight * layer.seen[order]

        def forward(self, x: "Tensor", order: int = 0) -> "Tensor":
            h = x
            for layer in [self.first, *self.layers] if self.first is not None else []:
                h = functional.dropout(torch.relu(functional.linear(h, self.weight(layer, order), layer.bias)), dropout, self.training)
            logits = functional.linear(h, self.weight(self.out, order), self.out.bias)
            if self.direct is not None:
                logits = logits + functional.linear(x, self.weight(self.direct, order), self.direct.bias)
            return logits.reshape(len(x), dims, classes - 1)

    return Made()


class Model(training.GreyModel):
    """MADE. constants: values (L,) the dataset's grey values; place (O, D) int64, of every pixel in each order."""

    @property
    def bound(self) -> str:
        return "exact"

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        import torch

        place = torch.from_numpy(np.asarray(constants["place"]))
        return network(int(np.prod(shape)), config.hidden, config.direct, config.dropout, len(constants["values"]), place)

    def pixels(self, x: "Tensor", order: int) -> "Tensor":
        """log p of every pixel given those before it in an order, (n, D)."""
        ranks = self.ranks(x.flatten(1))
        return densities.categorical(self.net(self.scaled(ranks), order), ranks)

    @property
    def autoregressive(self) -> bool:
        """A mixture of orders has no conditionals of its own."""
        return bool(self.config.orders == 1)

    def conditionals_rows(self, x: "Tensor") -> "Tensor":
        return self.pixels(x, 0)

    def log_prob_rows(self, x: "Tensor") -> "Tensor":
        import torch

        each = [self.pixels(x, o).double().sum(dim=1) for o in range(self.config.orders)]
        return torch.logsumexp(torch.stack(each), dim=0) - log(len(each))

    def draw(self, n: int, rng: "torch.Generator") -> NDArray[Any]:
        import torch

        u = torch.rand(n, self.dims, generator=rng).to(self.device)
        # Without a draw for one order: its samples do not depend on whether there could be more.
        chosen = torch.randint(self.config.orders, (n,), generator=rng) if self.config.orders > 1 else torch.zeros(n, dtype=torch.long)
        ranks = torch.zeros(n, self.dims, dtype=torch.long, device=self.device)
        for order in chosen.unique().tolist():
            rows = (chosen == order).to(self.device)
            ranks[rows] = self.drawn(u[rows], order)
        return self.greys(ranks)

    def drawn(self, u: "Tensor", order: int) -> "Tensor":
        """Ranks (n, D) by inversion of uniform draws, pixel by pixel in an order."""
        import torch
        from torch.nn.functional import linear

        net, n, classes = self.net, len(u), self.levels
        layers = [net.first, *net.layers] if net.first is not None else []
        weights = [net.weight(layer, order) for layer in layers]
        out, direct = net.weight(net.out, order), None if net.direct is None else net.weight(net.direct, order)
        x = torch.zeros(n, self.dims, device=self.device)
        ranks = torch.zeros(n, self.dims, dtype=torch.long, device=self.device)
        known = [x, *(torch.zeros(n, len(d), device=self.device) for d in net.degrees)]
        for t, d in enumerate(net.place[order].argsort().tolist()):
            # Hidden units of degree t see the inputs of places before t and units of degree t or less below them.
            for layer, weight, degrees, below, above in zip(layers, weights, net.degrees, known, known[1:], strict=False):
                a, b = torch.searchsorted(degrees, torch.tensor([t, t + 1])).tolist()
                if a < b:
                    above[:, a:b] = torch.relu(linear(below, weight[a:b], layer.bias[a:b]))
            row = slice(d * (classes - 1), (d + 1) * (classes - 1))
            logits = linear(known[-1], out[row], net.out.bias[row])
            if direct is not None:
                logits = logits + linear(x, direct[row], net.direct.bias[row])
            ranks[:, d] = densities.draw_categorical(logits, u[:, d], self.config.temperature)
            x[:, d] = self.scaled(ranks[:, d])
        return ranks


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Maximise the likelihood with Adam; of several orders each step takes the next one.

    Raises:
        DataError: the data are vectors, or all pixels are equal.
    """
    import torch

    constants = training.grey_constants(data)
    dims = int(np.prod(data.shape))
    place = np.stack([generator(seed, o).permutation(dims) if config.orders > 1 else np.arange(dims) for o in range(config.orders)])
    model = Model.new(config, data.shape, {**constants, "place": place}, seed=seed)
    optimiser = torch.optim.Adam(model.net.parameters(), lr=config.lr, fused=True)

    def step(now: training.Step) -> dict[str, Any]:
        loss = -model.pixels(now.x, now.i % config.orders).sum(dim=1).mean()
        now.update(loss)
        return {"nats": loss}

    fitted = training.fit(step, config, data, modules={"net": model.net}, optimisers={"net": optimiser}, seed=seed, out=out)
    return model.trained(fitted)
