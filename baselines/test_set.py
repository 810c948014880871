"""The real test set: what a perfect model would score.

Family: control (ceiling). Source: every evaluation needs it; the distance of the real test set to the reference is what finite samples and
the split itself leave. It reads the test split, which no contestant may do.
Can: sample, without replacement, at most as many as the test split has. No likelihood.

    genbench bench quick --only test_set

Time: that of reading the test split.
"""

from dataclasses import dataclass
from pathlib import Path

from genbench import models
from genbench.errors import DataError
from genbench.models import TrainingData, read_all

FAMILY = "control"
ROLE = "ceiling"
SUMMARY = "real test samples: the best score that is possible"
SOURCE = "genbench"


@dataclass(frozen=True)
class Config(models.Config):
    """No settings."""


RECIPES = {"*": Config()}


class Model(models.Replay):
    """The test split in a seeded order."""


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Read the test split; nothing is learnt, the seed has no effect.

    Raises:
        DataError: the data have no test split.
    """
    if data.test is None:
        raise DataError(f"test_set needs a test split, {data.name} has none; give one, or leave test_set out")
    return Model(config, read_all(data.test), data.shape, data.test.labels)
