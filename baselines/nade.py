"""NADE: neural autoregressive distribution estimator, one hidden layer whose weights all conditionals share.

Family: autoregressive. Source: Uria, Côté, Gregor, Murray & Larochelle 2016, "Neural autoregressive distribution estimation", arXiv
1605.02226; Larochelle & Murray 2011.
p(x) = Π_d p(x_d | x_<d) in raster order, with h_d = relu(c + W_<d x_<d), eq. 3 (there a sigmoid), and each conditional a categorical over
the dataset's grey values with logits b_d + V_d h_d, eq. 2. What goes into h_{d+1} is what went into h_d and one column of W, so that all D
conditionals cost O(D H). They are computed in blocks of pixels: within a block by one matrix product with a triangular mask.
Can: sample; log p exact.

    genbench bench mnist-dynbin --only nade

Time: on one thread with bfloat16, mnist-dynbin with 2,400 steps 117 CPU-seconds, which reached 91.6 nats on 500
images of the validation split (standard error 1.0); with batches of 50 and a third of the learning rate 95.8 in 211. In the budget of
twenty minutes 84.9 nats on the test split. digits: 7 CPU-seconds, 94.7 nats on the test split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench import densities, training
from genbench.errors import UsageError
from genbench.models import TrainingData

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FAMILY = "autoregressive"
SUMMARY = "neural autoregressive distribution estimator (NADE)"
SOURCE = "arXiv:1605.02226"


@dataclass(frozen=True)
class Config(training.Config):
    """Settings, beside those of every trained net.

    Args:
        hidden: units.
        block: pixels whose conditionals are computed at once; moves time, not results.
        temperature: of sampling: divides the logits; 1 for the model's own law.
    """

    hidden: int = 500
    block: int = 28
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.hidden, self.block) < 1:
            raise UsageError(f"hidden and block are at least 1, found {self.hidden} and {self.block}")
        if not self.temperature > 0:
            raise UsageError(f"temperature is above 0, found {self.temperature}")


RECIPES = {
    "mnist-dynbin": Config(steps=5500, batch=25, lr=3e-3, bf16=True),
    "digits": Config(hidden=200, block=16, steps=600, lr=2e-3),
}
BUDGETS = {"mnist-dynbin": {"1min": {"steps": 1200}, "5min": {}, "20min": {"steps": 22_000}}}
SMOKE = {"images": Config(hidden=32, block=4, steps=60, batch=50, lr=1e-2)}


def network(dims: int, config: Config, classes: int) -> "nn.Module":
    """Grey values scaled to [0, 1], (n, D), to logits (n, D, L − 1)."""
    import torch
    from torch import nn

    class Nade(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            size = config.hidden
            spread = (6 / (dims + size)) ** 0.5
            self.w = nn.Parameter(torch.empty(dims, size).uniform_(-spread, spread))
            self.c = nn.Parameter(torch.zeros(size))
            self.v = nn.Parameter(torch.empty(dims, size, classes - 1).uniform_(-spread, spread))
            self.b = nn.Parameter(torch.zeros(dims, classes - 1))

        def forward(self, x: "Tensor") -> "Tensor":
            before = self.c.expand(len(x), -1)  # (n, H), of the pixels before the block
            logits = []
            for own, w, v in zip(x.split(config.block, 1), self.w.split(config.block), self.v.split(config.block), strict=True):
                m = len(w)
                inside = own[:, None, :] * torch.ones(m, m, device=x.device).tril(-1)  # (n, m, m): what pixel i of the block sees of it
                seen = inside @ w  # (n, m, H), in bfloat16 where the net runs so; the sum over all pixels stays float32
                h = torch.relu(before[:, None].to(seen.dtype) + seen)
                logits.append(torch.einsum("nmh,mhl->nml", h, v))
                before = before + own @ w
            return torch.cat(logits, dim=1) + self.b

    return Nade()


class Model(training.GreyModel):
    """NADE. constants: values (L,) the dataset's grey values."""

    @property
    def bound(self) -> str:
        return "exact"

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        return network(int(np.prod(shape)), config, len(constants["values"]))

    def conditionals_rows(self, x: "Tensor") -> "Tensor":
        ranks = self.ranks(x.flatten(1))
        return densities.categorical(self.net(self.scaled(ranks)), ranks)

    def draw(self, n: int, rng: "torch.Generator") -> NDArray[Any]:
        import torch

        net = self.net
        u = torch.rand(n, self.dims, generator=rng).to(self.device)
        ranks = torch.zeros(n, self.dims, dtype=torch.long, device=self.device)
        before = net.c.repeat(n, 1)  # (n, H)
        for d in range(self.dims):
            logits = torch.relu(before) @ net.v[d] + net.b[d]
            ranks[:, d] = densities.draw_categorical(logits, u[:, d], self.config.temperature)
            before += self.scaled(ranks[:, d : d + 1]) * net.w[d]
        return self.greys(ranks)


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Maximise the likelihood with Adam.

    Raises:
        DataError: the data are vectors, or all pixels are equal.
    """
    import torch

    model = Model.new(config, data.shape, training.grey_constants(data), seed=seed)
    optimiser = torch.optim.Adam(model.net.parameters(), lr=config.lr, fused=True)

    def step(now: training.Step) -> dict[str, Any]:
        loss = -model.conditionals_rows(now.x).sum(dim=1).mean()
        now.update(loss)
        return {"nats": loss}

    fitted = training.fit(step, config, data, modules={"net": model.net}, optimisers={"net": optimiser}, seed=seed, out=out)
    return model.trained(fitted)
