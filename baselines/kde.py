"""Kernel density estimate: a Gaussian on every training sample.

Family: classical (non-parametric). Source: Parzen 1962, "On estimation of a probability density function and mode",
doi 10.1214/aoms/1177704472.
p(x) = 1/N Σ_j N(x; x_j, h² I), the bandwidth h chosen by held-out likelihood. Images: the kernel's mass on each grey value,
Φ((v + ½ − μ)/h) − Φ((v − ½ − μ)/h) with v the value's rank among the dataset's grey values and the two edge values open to infinity, so
that p sums to exactly one over all images; sampling rounds and clips the Gaussian draw, which is the same law.
Can: sample; log p exact (mass for images, density for vectors).

    genbench bench quick --only kde

Time: a second or two on digits and the toys, three seconds on MNIST (10,000 kernels).
A density estimate by design, not a memoriser; but at the bandwidths that likelihood chooses its samples are near copies of training
samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from genbench import models
from genbench.errors import DataError, UsageError
from genbench.models import TrainingData, generator, levels, to_levels

FAMILY = "classical"
SUMMARY = "Gaussian kernel density, bandwidth by held-out likelihood"
SOURCE = "doi:10.1214/aoms/1177704472"


@dataclass(frozen=True)
class Config(models.Config):
    """Settings.

    Args:
        low: smallest bandwidth tried, as a share of the root mean square standard deviation of the data's coordinates.
        high: largest one.
        steps: bandwidths tried, spaced geometrically.
        kernels: most training samples that are kept; a seeded choice where there are more.
        held_out: most held-out samples that choose the bandwidth.
    """

    low: float = 0.003
    high: float = 1.0
    steps: int = 18
    kernels: int = 10_000
    held_out: int = 500

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < float("inf"):
            raise UsageError(f"bandwidths are 0 < low <= high, found low = {self.low}, high = {self.high}")
        if min(self.steps, self.kernels, self.held_out) < 1:
            raise UsageError(f"steps, kernels and held_out are at least 1, found {self.steps}, {self.kernels}, {self.held_out}")


# 256 grey values need a gather per pixel instead of one matrix product: fewer, coarser trials.
RECIPES = {
    "vectors": Config(),
    "digits": Config(low=0.1, steps=12),
    "images": Config(low=0.1, steps=6, held_out=64),
}


class Model(models.Model):
    """Gaussians of one width on stored samples.

    Args:
        config: the settings.
        centres: (N, ...) the kernels' centres, as samples.
        h: bandwidth, in the data's units; for images in ranks of grey values.
        values: (L,) grey values of images, empty for vectors.
        shape: of one sample.
    """

    def __init__(
        self, config: Config, centres: NDArray[Any], h: float, values: NDArray[np.uint8], shape: tuple[int, ...], **about: Any
    ) -> None:
        super().__init__(config, shape, **about)
        self.centres, self.h, self.values = centres, h, values
        flat = centres.reshape(len(centres), -1)
        self._flat = to_levels(flat, values) if len(values) else flat  # (N, D)

    @property
    def bound(self) -> str:
        return "exact"

    def shard(self, index: int, seed: int) -> NDArray[Any]:
        rng = generator(seed, index)
        chosen = self._flat[rng.integers(len(self._flat), size=self.SHARD)]
        moved = chosen + self.h * rng.standard_normal(chosen.shape)
        if not len(self.values):
            return moved
        rank = np.clip(np.rint(moved), 0, len(self.values) - 1).astype(np.int64)
        return self.values[rank].reshape(self.SHARD, *self.shape)

    def log_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        from scipy.special import logsumexp

        x = self.check_rows(x)
        flat = to_levels(x, self.values).reshape(len(x), -1) if len(self.values) else x
        parts = [logsumexp(self._kernel(flat[a : a + 256]), axis=1) for a in range(0, len(flat), 256)]
        return np.concatenate(parts) - np.log(len(self._flat)) if parts else np.empty(0)

    def _kernel(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """log of every kernel at every row, (n, N)."""
        if not len(self.values):
            out = np.zeros((len(x), len(self._flat)))
            for d in range(self.dims):  # differences, not ‖a‖² + ‖b‖² − 2ab: small bandwidths need the exact zero
                out -= 0.5 * ((x[:, d, None] - self._flat[None, :, d]) / self.h) ** 2
            return out - self.dims * np.log(self.h * np.sqrt(2 * np.pi))
        table = log_mass(len(self.values), self.h)  # (L value, L centre)
        if len(table) <= 32:
            hot = np.eye(len(table))[x].reshape(len(x), -1)  # (n, D·L)
            return hot @ table.T[self._flat].reshape(len(self._flat), -1).T
        out = np.zeros((len(x), len(self._flat)))
        for d in range(self.dims):
            out += table[x[:, d]][:, self._flat[:, d]]
        return out

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"centres": self.centres, "h": np.array([self.h]), "values": self.values}

    @classmethod
    def from_arrays(cls, config: Config, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> Self:
        return cls(config, arrays["centres"], float(arrays["h"][0]), arrays["values"], shape)


def log_mass(n: int, h: float) -> NDArray[np.float64]:
    """log mass that a Gaussian of width h centred on rank μ gives to rank v, edges open; (v, μ). Columns sum to one."""
    from scipy.special import log_ndtr

    centre = np.arange(n)[None, :]
    upper = np.append(np.arange(n - 1) + 0.5, np.inf)[:, None]
    lower = np.append(-np.inf, np.arange(n - 1) + 0.5)[:, None]
    a, b = (lower - centre) / h, (upper - centre) / h
    # On the right of the centre Φ is near one and a difference would cancel: mirror the bin to the left.
    flip = a > 0
    a, b = np.where(flip, -b, a), np.where(flip, -a, b)
    la, lb = log_ndtr(a), log_ndtr(b)
    return lb + np.log1p(-np.exp(np.minimum(la - lb, -1e-300)))


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Keep the training samples and choose the bandwidth by held-out likelihood.

    Args:
        config: the settings.
        data: images or vectors.
        seed: of the choices of kernels and held-out samples.
        out: not used.
    """
    fit, valid = data.fit_and_valid(seed=seed)
    rng = generator(seed, 2)
    centres = fit[np.sort(rng.permutation(len(fit))[: config.kernels])]
    held = valid[np.sort(rng.permutation(len(valid))[: config.held_out])]
    values = levels(np.concatenate([fit, valid])) if data.images else np.empty(0, np.uint8)
    flat = centres.reshape(len(centres), -1)
    scale = float(np.sqrt((to_levels(flat, values) if len(values) else flat).astype(np.float64).var(axis=0).mean()))
    if scale == 0:
        raise DataError(f"{data.name}: all training samples are equal, they have no density; leave kde out")
    best: Model | None = None
    score = -np.inf
    for h in scale * np.geomspace(config.low, config.high, config.steps):
        # Trials with 256 grey values use 2,000 kernels: the best width falls only as N^(-1/(d+4)).
        few = centres if len(values) <= 32 else centres[:2000]
        found = float(Model(config, few, float(h), values, data.shape).log_prob(held).mean())
        if best is None or found > score:
            best, score = Model(config, centres, float(h), values, data.shape, chosen={"bandwidth": float(h)}), found
    assert best is not None
    return best
