"""Masked autoencoder: all conditionals of an autoregressive model in one forward pass.

Family: autoregressive. Source: Germain, Gregor, Murray & Larochelle 2015, "MADE: masked autoencoder for distribution estimation", arXiv
1502.03509. Without hidden layers it is the fully visible sigmoid belief network (FVSBN) of Neal 1992.
p(x) = Π_d p(x_d | x_<d) in raster order, each a categorical over the dataset's grey values. Hidden unit k of a layer has a degree m(k) in
1 ... D − 1 and sees what has at most that degree; output d sees degrees below d, input d has degree d + 1. Sampling computes every hidden
unit once, when all that it sees is known: a sample costs as much as one forward pass, not D of them.
Can: sample; log p exact.

    genbench bench mnist-dynbin --only made

Time: on mnist-dynbin 57 CPU-seconds (one thread) for the budget of one minute; reached 88.8 nats on the test split. Without the direct
connections 90.9; with inputs −1 and 1 in place of 0 and 1 three times the steps reached 89.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench import densities, training
from genbench.errors import DataError, UsageError
from genbench.models import TrainingData, levels, read_all

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
        temperature: of sampling: divides the logits; 1 for the model's own law.
    """

    hidden: tuple[int, ...] = (2048,)
    direct: bool = True
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden and min(self.hidden) < 1:
            raise UsageError(f"hidden holds numbers from 1 on, found {self.hidden}")
        if not self.hidden and not self.direct:
            raise UsageError("without hidden layers the outputs see nothing; leave direct on")
        if not self.temperature > 0:
            raise UsageError(f"temperature is above 0, found {self.temperature}")


RECIPES = {
    "mnist-dynbin": Config(steps=12_000, lr=3e-3, bf16=True),
    "digits": Config(hidden=(512,), steps=1500, lr=2e-3),
}
BUDGETS = {"mnist-dynbin": {"1min": {"steps": 2500}, "5min": {}}}
SMOKE = {"images": Config(hidden=(32,), steps=60, batch=50, lr=1e-2)}


def network(dims: int, hidden: tuple[int, ...], direct: bool, classes: int) -> "nn.Module":
    """Grey values scaled to [0, 1], (n, D), to logits (n, D, L − 1)."""
    import torch
    from torch import nn

    def masked(below: "Tensor", above: "Tensor") -> nn.Linear:
        """A linear layer in which a unit sees what has at most its degree: its other weights start at zero and get no gradient."""
        layer = nn.Linear(len(below), len(above))
        seen = (below[None, :] <= above[:, None]).to(layer.weight.dtype)
        layer.register_buffer("seen", seen, persistent=False)
        with torch.no_grad():
            layer.weight.mul_(seen)

        def hide(weight: "Tensor") -> None:  # in place: a product with the mask in every forward took longer than the matrix products
            weight.grad.mul_(layer.seen)

        layer.weight.register_post_accumulate_grad_hook(hide)
        return layer

    class Made(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.degrees = [torch.arange(1, dims + 1)]
            for width in hidden:  # ascending and even over 1 ... D − 1, so that units of one degree lie together
                self.degrees.append(1 + torch.arange(width) * (dims - 1) // width)
            outputs = torch.arange(dims).repeat_interleave(classes - 1)
            self.layers = nn.ModuleList(masked(a, b) for a, b in zip(self.degrees, self.degrees[1:], strict=False))
            # Output d has the number d from 0: it sees degrees up to d, that is the inputs 0 ... d − 1.
            self.out = masked(self.degrees[-1], outputs)
            self.direct = masked(self.degrees[0], outputs) if direct and hidden else None

        def forward(self, x: "Tensor") -> "Tensor":
            h = x
            for layer in self.layers:
                h = torch.relu(layer(h))
            logits = self.out(h)
            if self.direct is not None:
                logits = logits + self.direct(x)
            return logits.reshape(len(x), dims, classes - 1)

    return Made()


class Model(training.TorchModel):
    """MADE. constants: values (L,) the dataset's grey values."""

    @property
    def bound(self) -> str:
        return "exact"

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        return network(int(np.prod(shape)), config.hidden, config.direct, len(constants["values"]))

    def ranks(self, x: "Tensor") -> "Tensor":
        """Grey values (n, c, h, w) to their ranks (n, D)."""
        import torch

        values = torch.from_numpy(self.constants["values"]).to(x.device)
        found = torch.searchsorted(values, x.reshape(len(x), -1).contiguous())
        found = found.clamp(max=len(values) - 1)
        if (values[found] != x.reshape(len(x), -1)).any():
            raise DataError(f"the model knows {len(values)} grey values, the images have others; quantise them as the training data are")
        return found

    def scaled(self, ranks: "Tensor") -> "Tensor":
        """Ranks as the net's inputs, in [0, 1]: black pixels, most of them, say nothing."""
        return ranks.float() / (len(self.constants["values"]) - 1)

    def conditionals_rows(self, x: "Tensor") -> "Tensor":
        ranks = self.ranks(x)
        return densities.categorical(self.net(self.scaled(ranks)), ranks)

    def draw(self, n: int, rng: "torch.Generator") -> NDArray[Any]:
        import torch
        from torch.nn.functional import linear

        net, classes = self.net, len(self.constants["values"])
        u = torch.rand(n, self.dims, generator=rng).to(self.device)
        x = torch.zeros(n, self.dims, device=self.device)
        ranks = torch.zeros(n, self.dims, dtype=torch.long, device=self.device)
        known = [x, *(torch.zeros(n, len(d), device=self.device) for d in net.degrees[1:])]
        for d in range(self.dims):
            # Hidden units of degree d see the inputs before d and units of degree d or less below them.
            for layer, degrees, below, above in zip(net.layers, net.degrees[1:], known, known[1:], strict=False):
                a, b = torch.searchsorted(degrees, torch.tensor([d, d + 1])).tolist()
                if a < b:
                    above[:, a:b] = torch.relu(linear(below, layer.weight[a:b], layer.bias[a:b]))
            row = slice(d * (classes - 1), (d + 1) * (classes - 1))
            logits = linear(known[-1], net.out.weight[row], net.out.bias[row])
            if net.direct is not None:
                logits = logits + linear(x, net.direct.weight[row], net.direct.bias[row])
            ranks[:, d] = densities.draw_categorical(logits, u[:, d], self.config.temperature)
            x[:, d] = self.scaled(ranks[:, d])
        return self.constants["values"][ranks.cpu().numpy()]


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Maximise the likelihood with Adam.

    Raises:
        DataError: the data are vectors.
    """
    import torch

    if not data.images:
        raise DataError(f"made is a model of grey values, {data.name} has vectors; leave made out")
    values = levels(read_all(data.train))
    if len(values) < 2:
        raise DataError(f"{data.name}: all pixels have one grey value, there is nothing to learn; leave made out")
    model = Model.new(config, data.shape, {"values": values}, seed=seed)
    optimiser = torch.optim.Adam(model.net.parameters(), lr=config.lr, fused=True)

    def step(now: training.Step) -> dict[str, Any]:
        loss = -model.conditionals_rows(now.x).sum(dim=1).mean()
        now.update(loss)
        return {"nats": loss}

    fitted = training.fit(step, config, data, modules={"net": model.net}, optimisers={"net": optimiser}, seed=seed, out=out)
    return model.trained(fitted)
