"""Uniform noise: what a model that knows only the range scores.

Family: control (floor). Source: genbench.
Images: every pixel uniform over the grey values of the training set, p(x) = L^−D, so exactly log2 L bits per dimension (8 for 256 levels).
Vectors: uniform over the training set's bounding box, widened by a share of its sides so that held-out points lie in it.
Can: sample; log p exact (a point outside the box is an error: p(x) = 0 there, and a mean over minus infinity would say nothing).

    genbench bench quick --only uniform_noise

Time: that of reading the training split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from genbench import models
from genbench.errors import DataError, UsageError
from genbench.models import TrainingData, generator, levels, read_all, to_levels

FAMILY = "control"
ROLE = "floor"
SUMMARY = "uniform noise over the data's range"
SOURCE = "genbench"


@dataclass(frozen=True)
class Config(models.Config):
    """Settings.

    Args:
        margin: by which share of its side the box of vectors is widened at each end; no effect on images.
    """

    margin: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.margin < float("inf"):
            raise UsageError(f"margin is at least 0, found {self.margin}")


RECIPES = {"*": Config()}


class Model(models.Model):
    """Uniform law.

    Args:
        config: the settings.
        range: (L,) uint8 grey values of images, or (2, d) float64 lower and upper corner.
        shape: of one sample.
    """

    def __init__(self, config: Config, range: NDArray[Any], shape: tuple[int, ...]) -> None:
        super().__init__(config, shape)
        self.range = range

    @property
    def bound(self) -> str:
        return "exact"

    def shard(self, index: int, seed: int) -> NDArray[Any]:
        rng = generator(seed, index)
        if len(self.shape) == 3:
            return self.range[rng.integers(len(self.range), size=(self.SHARD, *self.shape))]
        return self.range[0] + (self.range[1] - self.range[0]) * rng.random((self.SHARD, *self.shape))

    def log_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        x = self.check_rows(x)
        if len(self.shape) == 3:
            to_levels(x, self.range)
            return np.full(len(x), -self.dims * np.log(len(self.range)))
        out = ((x < self.range[0]) | (x > self.range[1])).any(axis=1)
        if out.any():
            first = int(np.flatnonzero(out)[0])
            raise DataError(f"row {first} lies outside the model's box, where p(x) = 0; no mean log-likelihood exists: widen margin")
        return np.full(len(x), -float(np.log(self.range[1] - self.range[0]).sum()))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"range": self.range}

    @classmethod
    def from_arrays(cls, config: Config, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> Self:
        return cls(config, arrays["range"], shape)


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Find the range of the training split; the seed has no effect."""
    rows = read_all(data.train)
    if data.images:
        return Model(config, levels(rows), data.shape)
    box = np.stack([rows.min(axis=0), rows.max(axis=0)])
    if (box[0] == box[1]).any():
        raise DataError(f"{data.name}: a coordinate is constant, a uniform density over it does not exist; leave uniform_noise out")
    side = box[1] - box[0]
    return Model(config, np.stack([box[0] - config.margin * side, box[1] + config.margin * side]), data.shape)
