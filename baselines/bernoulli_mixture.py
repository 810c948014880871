"""Mixture of Bernoullis: K prototypes, every pixel independent given which.

Family: classical (mixture). Source: the mixture of Bernoullis of Salakhutdinov & Murray 2008, "On the quantitative analysis of deep belief
networks", doi 10.1145/1390156.1390266 (137.6 nats for their K); EM of Dempster, Laird & Rubin 1977.
p(x) = Σ_k π_k Π_d p_kd(x_d), categoricals over the dataset's grey values: Bernoullis where there are two. Fitted by EM; images that are a
law rather than a set are drawn anew for every pass. Means start at random images, smoothed towards the average.
Can: sample; log p exact.

    genbench bench mnist-dynbin --only bernoulli_mixture

Time: 59 CPU-seconds on mnist-dynbin; 500 components reached 125.1 nats on its test split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench import models
from genbench.errors import DataError, UsageError
from genbench.models import TrainingData, generator, levels, read_all, to_levels

FAMILY = "classical"
SUMMARY = "mixture of Bernoullis (of categoricals for grey values) by EM"
SOURCE = "doi:10.1145/1390156.1390266"
_BLOCK = 5000  # images at once


@dataclass(frozen=True)
class Config(models.Config):
    """Settings.

    Args:
        components: K.
        passes: of EM over the training split.
        smoothing: count that every component's tables get, spread as the marginals.
    """

    components: int = 500
    passes: int = 25
    smoothing: float = 1.0

    def __post_init__(self) -> None:
        if min(self.components, self.passes) < 1 or not self.smoothing > 0:
            raise UsageError(
                f"components and passes are at least 1 and smoothing above 0, found {self.components}, {self.passes}, {self.smoothing}"
            )


RECIPES = {"mnist-dynbin": Config(), "mnist-threshold": Config(), "digits": Config(components=60)}
SMOKE = {"images": Config(components=4, passes=10)}


class Model(models.ArrayModel):
    """A mixture.

    Args:
        config: the settings.
        arrays: values (L,) uint8 grey values; weights (K,); tables (K, D, L), float64, rows sum to one.
        shape: of one sample.
    """

    @property
    def bound(self) -> str:
        return "exact"

    def shard(self, index: int, seed: int) -> NDArray[Any]:
        a, rng = self._arrays, generator(seed, index)
        k = rng.choice(len(a["weights"]), self.SHARD, p=a["weights"] / a["weights"].sum())
        below = np.cumsum(a["tables"], axis=2)[k, :, :-1]
        ranks = (rng.random((self.SHARD, self.dims))[:, :, None] >= below).sum(axis=2)
        return np.asarray(a["values"][ranks].reshape(self.SHARD, *self.shape))

    def log_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        from scipy.special import logsumexp

        a = self._arrays
        ranks = to_levels(self.check_rows(x), a["values"]).reshape(len(x), -1)
        parts = [_joint(a, _hot(ranks[i : i + _BLOCK], len(a["values"]))) for i in range(0, len(ranks), _BLOCK)]
        return np.asarray(logsumexp(np.concatenate(parts), axis=1)) if parts else np.empty(0)

    @property
    def parameters(self) -> int:
        """Free parameters: weights but one, L − 1 per pixel and component."""
        k, d, size = self._arrays["tables"].shape
        return int(k - 1 + k * d * (size - 1))


def _hot(ranks: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Ranks (n, D) as (n, D (L − 1)): one where the pixel has rank 1 ... L − 1."""
    return (ranks[:, :, None] == np.arange(1, size)).reshape(len(ranks), -1).astype(np.float64)


def _joint(a: Mapping[str, NDArray[Any]], hot: NDArray[np.float64]) -> NDArray[np.float64]:
    """log π_k + log p_k(x), (n, K): the mass of all pixels at rank 0, and what the others change."""
    logs = np.log(a["tables"])
    change = (logs[:, :, 1:] - logs[:, :, :1]).reshape(len(logs), -1)
    return np.asarray(hot @ change.T + logs[:, :, 0].sum(axis=1) + np.log(a["weights"]))


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """EM.

    Args:
        config: the settings.
        data: images.
        seed: of the first means and of fresh draws.
        out: not used.

    Raises:
        DataError: vectors, or fewer images than components.
    """
    from scipy.special import softmax

    rows = read_all(data.train)
    if not data.images:
        raise DataError(f"bernoulli_mixture is a model of grey values, {data.name} has vectors; leave bernoulli_mixture out")
    if len(rows) < config.components:
        raise DataError(f"{data.name}: {config.components} components need as many training images, found {len(rows)}; lower components")
    values = levels(rows)
    size, dims = len(values), int(np.prod(data.shape))

    def hot(index: NDArray[np.int64], turn: int) -> NDArray[np.float64]:
        found = rows[index] if data.redraw is None else data.redraw(index, generator(seed, 2, turn, int(index[0])))
        return _hot(to_levels(found, values).reshape(len(found), -1), size)

    blocks = [np.arange(a, min(a + _BLOCK, len(rows))) for a in range(0, len(rows), _BLOCK)]

    def tables(counts: NDArray[np.float64], total: NDArray[np.float64], prior: NDArray[np.float64], a: float) -> NDArray[np.float64]:
        bright = counts.reshape(-1, dims, size - 1)
        dark = total[:, None, None] - bright.sum(axis=2, keepdims=True)
        return (np.concatenate([np.maximum(dark, 0), bright], axis=2) + a * prior) / (total[:, None, None] + a)

    seen = sum((hot(b, 0).sum(axis=0) for b in blocks), np.zeros(dims * (size - 1)))
    everything = np.array([float(len(rows))])
    marginal = tables(seen[None] + 0.5, everything + 0.5 * size, np.full((dims, size), 1 / size), 0.0)[0]
    first = np.sort(generator(seed, 2).choice(len(rows), config.components, replace=False))
    arrays = {
        "values": values,
        "weights": np.full(config.components, 1 / config.components),
        "tables": tables(hot(first, 0), np.ones(config.components), marginal, 3.0),  # an image counts once, the average thrice
    }
    for turn in range(1, config.passes + 1):
        mass, counts = np.zeros(config.components), np.zeros((config.components, dims * (size - 1)))
        for block in blocks:
            x = hot(block, turn)
            share = softmax(_joint(arrays, x), axis=1)
            mass += share.sum(axis=0)
            counts += share.T @ x
        arrays["weights"] = (mass + 1e-3) / (mass + 1e-3).sum()
        arrays["tables"] = tables(counts, mass, marginal, config.smoothing)
    return Model(config, arrays, data.shape)
