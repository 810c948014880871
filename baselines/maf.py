"""Masked autoregressive flow: every coordinate is shifted and scaled by a function of those before it, layer upon layer.

Family: normalizing flow. Source: Papamakarios, Pavlakou & Murray 2017, "Masked autoregressive flow for density estimation", arXiv
1705.07057. z_d = (x_d − μ(x_<d)) exp(−α(x_<d)) (eqs. 4, 5), here as x_d exp(s) + t; the order turns round from layer to layer. The
density takes one pass per layer, a sample D of them. One layer is MADE with Gaussian conditionals.
Can: sample; log p exact of vectors, of images the IW-k bound of dequantisation (k in the notes); encode and decode.

    genbench bench digits --only maf

Time: on digits 13 CPU-seconds (one thread); reached 86.3 ± 1.0 nats per image on the test split (IW-64), pixels as normal quantiles of
their marginal laws. On grid25 21 CPU-seconds and 2.8 nats above the entropy: five affine layers cannot part 25 modes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from genbench import flows
from genbench.errors import UsageError
from genbench.models import TrainingData

if TYPE_CHECKING:
    from torch import nn

FAMILY = "normalizing flow"
SUMMARY = "masked autoregressive flow (MAF)"
SOURCE = "arXiv:1705.07057"


@dataclass(frozen=True)
class Config(flows.Config):
    """Settings, beside those of every flow.

    Args:
        layers: autoregressive layers; 5 in the paper.
        hidden: units of each layer's masked net.
    """

    layers: int = 5
    hidden: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers < 1 or not self.hidden or min(self.hidden) < 1:
            raise UsageError(f"layers and hidden are at least 1, found {self.layers} and {self.hidden}")


RECIPES = {
    "vectors": Config(steps=3000, batch=256, lr=1e-3),
    "digits": Config(hidden=(256,), dropout=0.3, steps=1500),
}
SMOKE = {"images": Config(steps=60, hidden=(32,), lr=1e-2, draws=4), "vectors": Config(steps=60, hidden=(32,), lr=1e-2)}


class Model(flows.Model):
    """MAF: see flows.Model."""

    @property
    def nfe(self) -> int:
        return self.dims

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        dims, law = math.prod(shape), flows.affine()
        return flows.chain(
            flows.autoregressive(dims, law, flows.masked_perceptron(dims, config.hidden, law.size, config.dropout), backwards=turn % 2 == 1)
            for turn in range(config.layers)
        )


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Maximise the likelihood."""
    return flows.train(Model, config, data, seed=seed, out=out)
