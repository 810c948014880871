"""Replay of the training set: a model that has memorised everything and learnt nothing.

Family: control (planted cheat). Source: the degenerate optimum of every distance to the training set; Meehan, Chaudhuri & Dasgupta 2020,
"A non-parametric test to detect data-copying in generative models", arXiv 2004.05675.
Can: sample, without replacement, at most as many as the training split has. No likelihood.

    genbench bench quick --only train_replay

Time: that of reading the training split. A table in which this row wins measures fidelity to the training set, not generalisation.
"""

from dataclasses import dataclass
from pathlib import Path

from genbench import models
from genbench.models import TrainingData, read_all

FAMILY = "control"
ROLE = "planted"
SUMMARY = "training samples again: a planted memoriser"
SOURCE = "arXiv:2004.05675"


@dataclass(frozen=True)
class Config(models.Config):
    """No settings."""


RECIPES = {"*": Config()}


class Model(models.Replay):
    """The training split in a seeded order."""


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Store the training split; nothing is learnt, the seed has no effect."""
    return Model(config, read_all(data.train), data.shape)
