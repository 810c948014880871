"""Real test images, blurred: right content, lost detail.

Family: control (diagnostic). Source: the blur of Heusel et al. 2017, "GANs trained by a two time-scale update rule", arXiv 1706.08500,
appendix A1. Precision and density are known not to see it.
Can: sample blurred test images (training images where there is no test split), without replacement. No likelihood. Images only.

    genbench bench quick --only blurred

Time: that of reading the split and one Gaussian filter.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench import models
from genbench.errors import DataError, UsageError
from genbench.models import TrainingData, read_all

FAMILY = "control"
ROLE = "diagnostic"
SUMMARY = "real test images under a Gaussian blur"
SOURCE = "arXiv:1706.08500"


@dataclass(frozen=True)
class Config(models.Config):
    """Settings.

    Args:
        sigma: standard deviation of the blur in pixels, above 0.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise UsageError(f"sigma is above 0, found {self.sigma}")


# One pixel on 8 × 8 digits smears a stroke over its neighbours, and leaves the digit readable at 28 and 32 pixels.
RECIPES = {"digits": Config(0.7), "images": Config(1.0)}


class Model(models.Replay):
    """Blurred images in a seeded order."""


def blur(images: NDArray[Any], sigma: float) -> NDArray[np.uint8]:
    """A Gaussian filter over height and width, mirrored at the border, rounded to grey levels."""
    from scipy.ndimage import gaussian_filter

    soft = gaussian_filter(images.astype(np.float64), (0, 0, sigma, sigma), mode="reflect")
    return np.clip(np.rint(soft), 0, 255).astype(np.uint8)


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Blur the test split; the seed has no effect.

    Raises:
        DataError: the data are vectors.
    """
    if not data.images:
        raise DataError(f"blurred needs images, {data.name} has vectors of length {data.shape[0]}; leave blurred out")
    return Model(config, blur(read_all(data.test if data.test is not None else data.train), config.sigma), data.shape)
