"""Chow–Liu tree: the best model in which every pixel depends on one other.

Family: classical (tree-structured graphical model). Source: Chow & Liu 1968, "Approximating discrete probability distributions with
dependence trees", doi 10.1109/TIT.1968.1054142; smoothing as in Meilă & Jordan 2000.
p(x) = p(x_root) Π_d p(x_d | x_parent(d)) over the maximum spanning tree of the pixels' mutual information, every table mixed with the
product of its marginals' by a count that is chosen on held-out data. A deep model that loses to it is broken.
Can: sample; log p exact.

    genbench bench mnist-dynbin --only chow_liu

Time: 5 CPU-seconds on mnist-dynbin; reached 135.0 nats on its test split.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench import models
from genbench.errors import DataError, UsageError
from genbench.models import TrainingData, generator, levels, to_levels

FAMILY = "classical"
SUMMARY = "Chow–Liu tree: every pixel depends on one other"
SOURCE = "doi:10.1109/TIT.1968.1054142"

MOST = 20_000  # pixels × grey values: the pair counts of more than that do not fit into 3.2 GB


@dataclass(frozen=True)
class Config(models.Config):
    """Settings.

    Args:
        smoothing: candidates for the count that every table gets, spread as the product of its pixels' marginals.
    """

    smoothing: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

    def __post_init__(self) -> None:
        if not self.smoothing or min(self.smoothing) <= 0:
            raise UsageError(f"smoothing holds counts above 0, found {self.smoothing}")


RECIPES = {name: Config() for name in ("mnist-dynbin", "mnist-threshold", "digits")}
SMOKE = {"images": Config()}


class Model(models.ArrayModel):
    """A tree.

    Args:
        config: the settings.
        arrays: values (L,) uint8 grey values; parent (D,) int64, −1 for the root; order (D,) parents before children; tables (D, L, L)
            float64, [d, v, w] = p(x_d = w | x_parent = v), the same for all v at the root.
        shape: of one sample.
    """

    @property
    def bound(self) -> str:
        return "exact"

    def shard(self, index: int, seed: int) -> NDArray[Any]:
        a, u = self._arrays, generator(seed, index).random((self.dims, self.SHARD))
        ranks = np.zeros((self.dims, self.SHARD), np.int64)
        cumulative = np.cumsum(a["tables"], axis=2)
        for d in a["order"]:
            above = ranks[a["parent"][d]] if a["parent"][d] >= 0 else np.zeros(self.SHARD, np.int64)
            below = cumulative[d, above, :-1] / cumulative[d, above, -1:]
            ranks[d] = (u[d][:, None] >= below).sum(axis=1)
        return np.asarray(a["values"][ranks.T].reshape(self.SHARD, *self.shape))

    def log_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        a = self._arrays
        found = to_levels(self.check_rows(x), a["values"]).reshape(len(x), -1)
        above = np.where(a["parent"] >= 0, found[:, a["parent"]], 0)
        return np.log(a["tables"])[np.arange(self.dims), above, found].sum(axis=1)

    @property
    def parameters(self) -> int:
        """Free parameters: L − 1 at the root, L (L − 1) at every other pixel."""
        return (len(self._arrays["values"]) - 1) * (1 + (self.dims - 1) * len(self._arrays["values"]))


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Count all pairs, take the tree, choose the smoothing.

    Args:
        config: the settings.
        data: images of few grey values.
        seed: of the held-out share where the data have no validation split.
        out: not used.

    Raises:
        DataError: vectors, or too many pixels and grey values for all pairs.
    """
    if not data.images:
        raise DataError(f"chow_liu is a model of grey values, {data.name} has vectors; leave chow_liu out")
    fit, valid = data.fit_and_valid(seed=seed)
    values = levels(np.concatenate([fit, valid]))
    dims, size = int(np.prod(data.shape)), len(values)
    if dims * size > MOST:
        raise DataError(f"{data.name}: {dims} pixels of {size} grey values have too many pairs to count (at most {MOST:,} in all)")
    counts = pair_counts(to_levels(fit, values).reshape(len(fit), -1), size)  # (D, L, D, L)
    parent, order = tree(mutual_information(counts, len(fit)))
    base = np.einsum("dada->da", counts) / len(fit)  # marginals
    marginal = (base * len(fit) + 0.5) / (len(fit) + 0.5 * size)
    pairs = np.stack([counts[p, :, d, :] if p >= 0 else np.repeat(base[d][None] * len(fit), size, 0) for d, p in enumerate(parent)])
    candidates = []
    for a in config.smoothing:
        share = np.where(parent[:, None] >= 0, marginal[parent], 1.0)  # of the parent's values
        joint = pairs + a * share[:, :, None] * marginal[:, None, :]
        tables = joint / joint.sum(axis=2, keepdims=True)
        arrays = {"values": values, "parent": parent, "order": order, "tables": tables}
        candidates.append(Model(config, arrays, data.shape, chosen={"smoothing": a}))
    return max(candidates, key=lambda m: float(m.log_prob(valid).mean()))


def pair_counts(ranks: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """How often pixel d has value v while pixel e has w, (D, L, D, L)."""
    dims = ranks.shape[1]
    total = np.zeros((dims * size, dims * size))
    for a in range(0, len(ranks), 10_000):  # whole numbers below 2^24 are exact in float32
        hot = (ranks[a : a + 10_000, :, None] == np.arange(size)).reshape(-1, dims * size).astype(np.float32)
        total += hot.T @ hot
    return total.reshape(dims, size, dims, size)


def mutual_information(counts: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """In nats, of every pair of pixels, (D, D)."""
    from scipy.special import xlogy

    p = counts / n
    marginal = np.einsum("dada->da", p)
    found = xlogy(p, p).sum(axis=(1, 3))
    entropy = -xlogy(marginal, marginal).sum(axis=1)
    return np.maximum(found + entropy[:, None] + entropy[None, :], 0.0)


def tree(weights: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The maximum spanning tree by Prim's algorithm: every node's parent (−1 for the root, node 0), and an order with parents first."""
    n = len(weights)
    parent, order = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    best, via = weights[0].copy(), np.zeros(n, np.int64)
    best[0] = -np.inf
    for i in range(1, n):
        d = int(best.argmax())
        parent[d], order[i] = via[d], d
        nearer = weights[d] > best
        nearer[order[: i + 1]] = False
        best[nearer], via[nearer] = weights[d][nearer], d
        best[d] = -np.inf
    return parent, order
