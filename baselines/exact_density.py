"""The exact law of a toy: fresh samples from the density that made the data.

Family: control (ceiling). Source: genbench.datasets.toy2d. Unlike `test_set` it is not limited to a finite split, and it knows log p(x):
the mean of log p over data is the negative entropy that no model can beat.
Can: sample; log p exact (a point where p(x) = 0, off the checkerboard, is an error).

    genbench bench toy2d --only exact_density

Time: none; nothing is learnt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from genbench import models
from genbench.datasets import toy2d
from genbench.errors import DataError
from genbench.models import TrainingData, generator

FAMILY = "control"
ROLE = "ceiling"
SUMMARY = "the toy's own law: fresh exact samples, exact density"
SOURCE = "genbench"


@dataclass(frozen=True)
class Config(models.Config):
    """Settings.

    Args:
        toy: name of the law.
    """

    toy: str = "ring8"

    def __post_init__(self) -> None:
        toy2d.toy(self.toy)


RECIPES = {name: Config(name) for name in toy2d.NAMES}


class Model(models.Model):
    """A toy's law."""

    @property
    def bound(self) -> str:
        return "exact"

    def shard(self, index: int, seed: int) -> NDArray[Any]:
        return toy2d.toy(self.config.toy).sample(self.SHARD, generator(seed, index))

    def log_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        found = toy2d.toy(self.config.toy).log_density(self.check_rows(x))
        if np.isneginf(found).any():
            first = int(np.flatnonzero(np.isneginf(found))[0])
            raise DataError(f"row {first} lies where the law of {self.config.toy} has p(x) = 0; no mean log-likelihood exists")
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {}

    @classmethod
    def from_arrays(cls, config: Config, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> Self:
        return cls(config, shape)


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Take the law; nothing is learnt, the seed has no effect."""
    return Model(config, data.shape)
