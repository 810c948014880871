"""NICE: additive coupling layers, whose Jacobian has determinant one, and a diagonal scaling.

Family: normalizing flow. Source: Dinh, Krueger & Bengio 2014, "NICE: non-linear independent components estimation", arXiv 1410.8516.
y_1 = x_1, y_2 = x_2 + m(x_1) (eqs. 9, 10), the halves swapped from layer to layer, then z = exp(s) y (section 3.3) with independent
normal or logistic z (section 3.4): log p(x) = Σ s + Σ log p(z).
Can: sample; log p exact of vectors, of images the IW-k bound of dequantisation (k in the notes); encode and decode.

    genbench bench digits --only nice

Time: on digits 12 CPU-seconds (one thread); reached 87.4 ± 0.9 nats per image on the test split (IW-64). Pixels enter as normal quantiles
of their marginal laws, where the paper has (rank + u)/L: with those 600 steps did not get below 251 nats.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from genbench import flows
from genbench.errors import UsageError, near_miss
from genbench.models import TrainingData

if TYPE_CHECKING:
    from torch import Tensor, nn

FAMILY = "normalizing flow"
SUMMARY = "NICE: additive coupling layers and a diagonal scaling"
SOURCE = "arXiv:1410.8516"


@dataclass(frozen=True)
class Config(flows.Config):
    """Settings, beside those of every flow.

    Args:
        layers: coupling layers; 4 in the paper, at least 3 so that every coordinate can move every other.
        hidden: units of each layer's net.
        prior: law of z, "normal" or "logistic".
    """

    layers: int = 4
    hidden: tuple[int, ...] = (256, 256)
    prior: str = "normal"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers < 1 or not self.hidden or min(self.hidden) < 1:
            raise UsageError(f"layers and hidden are at least 1, found {self.layers} and {self.hidden}")
        if self.prior not in ("normal", "logistic"):
            raise near_miss(self.prior, ("normal", "logistic"), "prior")


RECIPES = {
    "vectors": Config(steps=3000, batch=256, lr=1e-3),
    "digits": Config(dropout=0.2, steps=1000),
}
SMOKE = {"images": Config(steps=100, hidden=(32,), lr=1e-2, draws=4), "vectors": Config(steps=100, hidden=(32,), lr=1e-2)}


class Model(flows.Model):
    """NICE: see flows.Model."""

    @property
    def base(self) -> str:
        return str(self.config.prior)

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        def net(inputs: int, outputs: int) -> "nn.Module":
            return flows.perceptron(inputs, config.hidden, outputs, config.dropout)

        layers = [flows.coupling(flows.halves(shape, turn), flows.additive(), net) for turn in range(config.layers)]
        return flows.chain([*layers, scaling(math.prod(shape))])


def scaling(dims: int) -> "nn.Module":
    """z = exp(s) y, with one s per coordinate."""
    import torch
    from torch import nn

    class Scaling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.s = nn.Parameter(torch.zeros(dims))

        def forward(self, y: "Tensor") -> "tuple[Tensor, Tensor]":
            return y * torch.exp(self.s), self.s.sum().expand(len(y))

        def inverse(self, z: "Tensor") -> "Tensor":
            return z * torch.exp(-self.s)

    return Scaling()


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Maximise the likelihood."""
    return flows.train(Model, config, data, seed=seed, out=out)
