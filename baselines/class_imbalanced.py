"""Every class is there, in the wrong proportions: partial mode collapse.

Family: control (diagnostic). Source: the imbalanced references of Naeem et al. 2020, "Reliable fidelity and diversity metrics for
generative models", arXiv 2002.09797, section 4.
p(class of rank k) ∝ ratio^k: with the default 0.7 and 10 classes the first holds 31 %, the last 1.2 %.
Can: sample training samples, with replacement within a class. No likelihood.

    genbench bench digits --only class_imbalanced

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
from genbench.models import TrainingData, class_labels, generator, read_all

FAMILY = "control"
ROLE = "diagnostic"
SUMMARY = "training samples with classes in the wrong proportions"
SOURCE = "arXiv:2002.09797"


@dataclass(frozen=True)
class Config(models.Config):
    """Settings.

    Args:
        ratio: each class's share as a multiple of that of the class before, in (0, 1].
    """

    ratio: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise UsageError(f"ratio is in (0, 1], found {self.ratio}")


# Vectors by name: those toys whose law has separate modes.
RECIPES = {name: Config() for name in ("images", "ring8", "ring8-r2", "two-gaussians", "grid25")}


class Model(models.Model):
    """Training samples by class.

    Args:
        config: the settings.
        items: training samples.
        labels: their classes.
        shape: of one.
    """

    def __init__(self, config: Config, items: NDArray[Any], labels: NDArray[np.int64], shape: tuple[int, ...]) -> None:
        super().__init__(config, shape)
        self.items, self.labels = items, labels
        self._classes = [np.flatnonzero(labels == k) for k in np.unique(labels)]

    def shard(self, index: int, seed: int) -> NDArray[Any]:
        rng = generator(seed, index)
        p = self.config.ratio ** np.arange(len(self._classes), dtype=np.float64)
        which = rng.choice(len(p), self.SHARD, p=p / p.sum())
        u = rng.random(self.SHARD)
        return self.items[[self._classes[k][int(v * len(self._classes[k]))] for k, v in zip(which, u, strict=True)]]

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"items": self.items, "labels": self.labels}

    @classmethod
    def from_arrays(cls, config: Config, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> Self:
        return cls(config, arrays["items"], arrays["labels"], shape)


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Store the training split and its labels; the seed has no effect.

    Raises:
        DataError: the data have no labels.
    """
    return Model(config, read_all(data.train), class_labels(data), data.shape)
