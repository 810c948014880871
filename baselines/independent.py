"""Independent coordinates: every pixel right on its own, no structure between them.

Family: classical (product of marginals). Source: the weakest density model of any textbook; the base line of Larochelle & Murray 2011,
"The neural autoregressive distribution estimator", and of the mode-coverage tables here.
Images: p(x) = Π_d p_d(x_d), a categorical over the training set's grey values per pixel, p_d(v) = (count + a)/(n + a L), the smoothing a
chosen on held-out data. Vectors: per coordinate a histogram with m bins (chosen on held-out data) over the training range, mixed with 1 %
of a Gaussian so that the density is positive everywhere.
Can: sample; log p exact (grey-value mass for images, density for vectors; both sum to one).

    genbench bench quick --only independent

Time: under a second on digits and the toys, seconds on MNIST.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench import models
from genbench.errors import DataError, UsageError
from genbench.models import TrainingData, generator, levels, to_levels

FAMILY = "classical"
SUMMARY = "product of per-pixel categoricals, or of per-coordinate histograms"
SOURCE = "Larochelle & Murray 2011"

TAIL = 0.01  # mass of the Gaussian that keeps the density positive outside the histogram's range


@dataclass(frozen=True)
class Config(models.Config):
    """Settings.

    Args:
        smoothing: candidates for the count added to every grey value (images).
        bins: candidates for the number of histogram bins (vectors).
    """

    smoothing: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    bins: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256)

    def __post_init__(self) -> None:
        if not self.smoothing or min(self.smoothing) <= 0:
            raise UsageError(f"smoothing holds counts above 0, found {self.smoothing}")
        if not self.bins or min(self.bins) < 1:
            raise UsageError(f"bins holds numbers from 1 on, found {self.bins}")


RECIPES = {"*": Config()}


class Model(models.ArrayModel):
    """Independent coordinates.

    Args:
        config: the settings.
        arrays: images: values (L,) uint8 and p (D, L); vectors: edges (d, m+1), p (d, m), mean (d,), sd (d,).
        shape: of one sample.
    """

    @property
    def bound(self) -> str:
        return "exact"

    def shard(self, index: int, seed: int) -> NDArray[Any]:
        rng = generator(seed, index)
        a, size = self._arrays, (self.SHARD, self.dims)
        bin_ = _inverse(a["p"], rng.random(size))  # (SHARD, D)
        if len(self.shape) == 3:
            return a["values"][bin_].reshape(self.SHARD, *self.shape)
        d = np.arange(self.dims)
        low, high = a["edges"][d, bin_], a["edges"][d, bin_ + 1]
        inside = low + (high - low) * rng.random(size)
        return np.where(rng.random(size) < TAIL, a["mean"] + a["sd"] * rng.standard_normal(size), inside)

    def log_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        x, a = self.check_rows(x), self._arrays
        if len(self.shape) == 3:
            found = to_levels(x, a["values"]).reshape(len(x), -1)
            return np.log(a["p"])[np.arange(self.dims), found].sum(axis=1)
        return _vector_log_prob(a, x)


def _inverse(p: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.int64]:
    """Per column d of u (n, D) the bin of p[d] (D, L) that holds it."""
    cumulative = np.cumsum(p, axis=1)
    cumulative /= cumulative[:, -1:]
    d = np.arange(len(p))
    # One search for all columns: column d's table is lifted by d, so the tables follow each other.
    found = np.searchsorted((cumulative + d[:, None]).ravel(), (u + d).ravel(), side="right").reshape(u.shape) - d * p.shape[1]
    return np.clip(found, 0, p.shape[1] - 1)


def _vector_log_prob(a: Mapping[str, NDArray[Any]], x: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.zeros(len(x))
    bins = a["p"].shape[1]
    for d in range(x.shape[1]):
        edges = a["edges"][d]
        where = np.clip(np.searchsorted(edges, x[:, d], side="right") - 1, 0, bins - 1)
        inside = (x[:, d] >= edges[0]) & (x[:, d] <= edges[-1])
        box = np.where(inside, a["p"][d, where] / (edges[where + 1] - edges[where]), 0.0)
        z = (x[:, d] - a["mean"][d]) / a["sd"][d]
        with np.errstate(under="ignore"):
            bell = np.exp(-0.5 * z * z) / (a["sd"][d] * np.sqrt(2 * np.pi))
        density = (1 - TAIL) * box + TAIL * bell
        far = density == 0.0  # the Gaussian underflows beyond 38 sd: its logarithm does not
        total += np.where(far, np.log(TAIL) - 0.5 * z * z - np.log(a["sd"][d] * np.sqrt(2 * np.pi)), np.log(np.where(far, 1.0, density)))
    return total


def _histogram(rows: NDArray[np.float64], bins: int) -> dict[str, NDArray[Any]]:
    low, high = rows.min(axis=0), rows.max(axis=0)
    edges = np.linspace(low, high, bins + 1).T  # (d, bins + 1)
    counts = np.stack([np.histogram(rows[:, d], edges[d])[0] for d in range(rows.shape[1])])
    p = (counts + 0.5) / (len(rows) + 0.5 * bins)  # Jeffreys' half count: no empty bin
    return {"edges": edges, "p": p, "mean": rows.mean(axis=0), "sd": rows.std(axis=0)}


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Count; the smoothing or the number of bins is the one with the best held-out likelihood.

    Args:
        config: the settings.
        data: images or vectors.
        seed: chooses the held-out share where the data have no validation split.
        out: not used.
    """
    fit, valid = data.fit_and_valid(seed=seed)
    candidates: list[Model] = []
    if data.images:
        values = levels(np.concatenate([fit, valid]))
        found = to_levels(fit, values).reshape(len(fit), -1)
        counts = np.stack([np.bincount(found[:, d], minlength=len(values)) for d in range(found.shape[1])]).astype(np.float64)
        for a in config.smoothing:
            p = (counts + a) / (len(fit) + a * len(values))
            candidates.append(Model(config, {"values": values, "p": p}, data.shape, chosen={"smoothing": a}))
    else:
        if (np.ptp(fit, axis=0) == 0).any():
            raise DataError(f"{data.name}: a coordinate is constant, it has no density; leave independent out")
        candidates = [Model(config, _histogram(fit, m), data.shape, chosen={"bins": m}) for m in config.bins]
    return max(candidates, key=lambda m: float(m.log_prob(valid).mean()))
