"""Training samples with Gaussian noise: a memoriser that hides its copies.

Family: control (planted cheat). Source: the noise copies of memorisation tests, Alaa et al. 2022, "How faithful is your synthetic data?",
arXiv 2102.08921, section 5.
Can: sample, at most as many as the training split has. No likelihood (it would be that of `kde`).

    genbench bench quick --only train_noise

Time: that of reading the training split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from genbench import models
from genbench.errors import UsageError
from genbench.models import TrainingData, generator, read_all

FAMILY = "control"
ROLE = "planted"
SUMMARY = "training samples plus Gaussian noise: a planted, disguised memoriser"
SOURCE = "arXiv:2102.08921"


@dataclass(frozen=True)
class Config(models.Config):
    """Settings.

    Args:
        noise: standard deviation of the noise, as a share of the root mean square standard deviation of the data's coordinates.
    """

    noise: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.noise < float("inf"):
            raise UsageError(f"noise is at least 0, found {self.noise}")


RECIPES = {"images": Config(0.25), "vectors": Config(0.05)}


class Model(models.Replay):
    """The training split in a seeded order, with noise that depends on (seed, shard).

    Args:
        config: the settings.
        items: the training samples.
        shape: of one.
        sigma: standard deviation of the noise in the data's units (grey levels for images).
    """

    def __init__(self, config: Config, items: NDArray[Any], shape: tuple[int, ...], sigma: float) -> None:
        super().__init__(config, items, shape)
        self.sigma = sigma

    def shard(self, index: int, seed: int) -> NDArray[Any]:
        rows = super().shard(index, seed)
        moved = rows + self.sigma * generator(seed, 1, index).standard_normal((self.SHARD, *self.shape))[: len(rows)]
        return np.clip(np.rint(moved), 0, 255).astype(np.uint8) if len(self.shape) == 3 else moved

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"items": self.items, "sigma": np.array([self.sigma])}

    @classmethod
    def from_arrays(cls, config: Config, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> Self:
        return cls(config, arrays["items"], shape, float(arrays["sigma"][0]))


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Store the training split and the noise's scale; the seed has no effect."""
    items = read_all(data.train)
    flat = items.reshape(len(items), -1).astype(np.float64)
    return Model(config, items, data.shape, config.noise * float(np.sqrt(flat.var(axis=0).mean())))
