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
from genbench.errors import DataError
from genbench.models import TrainingData, generator, read_all

FAMILY = "control"
ROLE = "planted"
SUMMARY = "training samples again: a planted memoriser"
SOURCE = "arXiv:2004.05675"


@dataclass(frozen=True)
class Config(models.Config):
    """Settings.

    Args:
        shuffled: each sample with the label of another: what a conditional model makes that does not heed its condition.
    """

    shuffled: bool = False


RECIPES = {"*": Config()}
VARIANTS = {"shuffled": {"images": Config(shuffled=True)}}
SMOKE = {"images:shuffled": Config(shuffled=True)}


class Model(models.Replay):
    """The training split in a seeded order, with its labels where it has some."""


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Store the training split; nothing is learnt. The seed is that of the shuffling.

    Raises:
        DataError: labels to be shuffled are not there.
    """
    labels = data.train.labels
    if config.shuffled:
        if labels is None:
            raise DataError(f"{data.name} has no labels to shuffle; leave train_replay:shuffled out")
        labels = generator(seed).permutation(labels)
    return Model(config, read_all(data.train), data.shape, labels)
