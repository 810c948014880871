"""One class only: perfect quality, no diversity.

Family: control (diagnostic). Source: mode collapse made exact; Sajjadi et al. 2018, "Assessing generative models via precision and recall",
arXiv 1806.00035, section 4 (dropped classes).
Can: sample training samples of one class (of one mode, for the toys); they repeat in a new order once all have been given, because a
class is often smaller than the sample that a protocol asks for. No likelihood.

    genbench bench quick --only one_class

Time: that of reading the training split.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genbench import models
from genbench.errors import DataError
from genbench.models import TrainingData, class_labels, read_all

FAMILY = "control"
ROLE = "diagnostic"
SUMMARY = "training samples of a single class: total mode collapse"
SOURCE = "arXiv:1806.00035"


@dataclass(frozen=True)
class Config(models.Config):
    """Settings.

    Args:
        label: the class that is kept.
    """

    label: int = 0


# Vectors by name: those toys whose law has separate modes.
RECIPES = {name: Config() for name in ("images", "ring8", "ring8-r2", "two-gaussians", "grid25")}


class Model(models.Replay):
    """The class's samples in a seeded order, again and again."""

    cycle = True


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Store the class's training samples; the seed has no effect.

    Raises:
        DataError: the data have no labels, or not this one.
    """
    labels = class_labels(data)
    items = read_all(data.train)[labels == config.label]
    if len(items) == 0:
        raise DataError(f"{data.name} has the labels {np.unique(labels).tolist()[:20]}, found no {config.label}; choose one of them")
    return Model(config, items, data.shape, None if data.train.labels is None else labels[labels == config.label])
