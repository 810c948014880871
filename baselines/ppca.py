"""Probabilistic PCA: a Gaussian of low rank plus equal noise in all directions.

Family: classical (linear latent variable). Source: Tipping & Bishop 1999, "Probabilistic principal component analysis", doi
10.1111/1467-9868.00196.
x = W z + μ + ε with z ~ N(0, I_q) and ε ~ N(0, σ² I), so that p(x) = N(μ, W Wᵀ + σ² I), eq. 4. The likelihood's maximum is in closed form:
W = U_q (Λ_q − σ² I)^½ and σ² the mean of the other eigenvalues of the covariance, eqs. 7 and 8. q is chosen on held-out data.
Vectors: log p exact. Images: x, the rank of a grey value, is the Gaussian rounded and clipped, so that given z a pixel has the mass
Φ((x + ½ − t)/σ) − Φ((x − ½ − t)/σ), t = W z + μ, edges open to infinity, which has no closed integral over z. log p is bounded from below:

    log P(x) >= Σ_d E_q[log P(x_d | z)] − KL(q ‖ N(0, I)),   q = N(m, H⁻¹) at the mode m of P(x, z) with its curvature H

(Laplace's q; the bound holds for any). A pixel sees z through one number, so that each expectation is an integral over a line, by
Gauss–Hermite quadrature: nothing is drawn. (On digits 9 nodes were .06 nats off for one image in a hundred, hence 25.)
Can: sample; log p exact (vectors) or a lower bound (images); reconstruct.

    genbench bench mnist-dynbin --only ppca

Time: 6 CPU-seconds on mnist-dynbin, which reached 111.8 nats (bound, test split) with q = 40, far below the Chow–Liu tree; digits under a
second, 107.7; 8-bit MNIST 6, 1,225 nats or 2.25 bits per pixel on 1,000 test images.
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
SUMMARY = "probabilistic PCA in closed form"
SOURCE = "doi:10.1111/1467-9868.00196"

BATCH = 64  # images whose bound is computed at once


@dataclass(frozen=True)
class Config(models.Config):
    """Settings.

    Args:
        components: candidates for q; those that leave no direction for the noise are passed over.
        newton: steps to the mode.
        nodes: of the quadrature.
        held_out: most held-out samples that choose q.
    """

    components: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 40, 80)
    newton: int = 8
    nodes: int = 25
    held_out: int = 1000

    def __post_init__(self) -> None:
        if not self.components or min(self.components) < 0:
            raise UsageError(f"components holds numbers from 0 on, found {self.components}")
        if min(self.newton, self.nodes, self.held_out) < 1:
            raise UsageError("newton, nodes and held_out are at least 1")


RECIPES = {"vectors": Config(), "images": Config(held_out=200)}


class Model(models.ArrayModel):
    """A Gaussian of rank q and noise.

    Args:
        config: the settings.
        arrays: mean (D,), weights (D, q), noise (1,) σ, values (L,) uint8 grey values (empty for vectors).
        shape: of one sample.
    """

    def __init__(self, config: Config, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...], **about: Any) -> None:
        super().__init__(config, arrays, shape, **about)
        self._mean, self._w, self._sd = arrays["mean"], arrays["weights"], float(arrays["noise"][0])
        self._moment = self._w.T @ self._w + self._sd**2 * np.eye(self._w.shape[1])  # M, after eq. 6

    @property
    def bound(self) -> str:
        return "lower" if len(self._arrays["values"]) else "exact"

    @property
    def estimator(self) -> str | None:
        return "variational, Laplace's q" if self.bound == "lower" else None

    def shard(self, index: int, seed: int) -> NDArray[Any]:
        rng = generator(seed, index)
        z = rng.standard_normal((self.SHARD, self._w.shape[1]))
        return self._shown(z @ self._w.T + self._mean + self._sd * rng.standard_normal((self.SHARD, self.dims)))

    def _shown(self, x: NDArray[np.float64]) -> NDArray[Any]:
        values = self._arrays["values"]
        if not len(values):
            return x
        return np.asarray(values[np.clip(np.rint(x), 0, len(values) - 1).astype(np.int64)].reshape(len(x), *self.shape))

    def _ranks(self, x: NDArray[Any]) -> NDArray[np.float64]:
        x, values = self.check_rows(x), self._arrays["values"]
        return to_levels(x, values).reshape(len(x), -1).astype(np.float64) if len(values) else x

    def encode(self, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean of z given x, eq. 9 without its noise: M⁻¹ Wᵀ (x − μ)."""
        return np.asarray(np.linalg.solve(self._moment, self._w.T @ (ranks - self._mean).T).T)

    def reconstruct(self, x: NDArray[Any]) -> NDArray[Any]:
        """What the nearest point of the principal subspace shows, after eq. 9: W (WᵀW)⁻¹ Wᵀ (x − μ) + μ."""
        ranks = self._ranks(x)
        u = self._w / np.linalg.norm(self._w, axis=0)
        return self._shown((ranks - self._mean) @ u @ u.T + self._mean)

    def log_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        ranks = self._ranks(x)
        if not len(self._arrays["values"]):
            return self._density(ranks)
        found = [self._bound(ranks[a : a + BATCH]) for a in range(0, len(ranks), BATCH)]
        return np.concatenate(found) if found else np.empty(0)

    def _density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """eq. 5 for each sample, by Woodbury: C⁻¹ = (I − W M⁻¹ Wᵀ)/σ² and |C| = |M| σ^(2(D − q))."""
        centred, (d, q) = x - self._mean, self._w.shape
        square = ((centred**2).sum(axis=1) - ((centred @ self._w) * self.encode(x)).sum(axis=1)) / self._sd**2
        log_det = np.linalg.slogdet(self._moment)[1] + 2 * (d - q) * np.log(self._sd)
        return np.asarray(-0.5 * (square + log_det + d * np.log(2 * np.pi)))

    def _bound(self, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
        w, sd, top = self._w, self._sd, len(self._arrays["values"]) - 1
        n, q = len(ranks), w.shape[1]
        pairs = (w[:, :, None] * w[:, None, :]).reshape(len(w), q * q)
        z = self.encode(ranks)
        for step in range(self.config.newton + 1):
            _, first, second = log_mass(ranks, z @ w.T + self._mean, sd, top)
            curvature = np.eye(q) - (second @ pairs).reshape(n, q, q)  # H
            if step < self.config.newton:
                z = z + np.linalg.solve(curvature, (first @ w - z)[..., None])[..., 0]
        factor = np.linalg.cholesky(curvature)
        inverse = np.linalg.inv(factor)  # (n, q, q), H⁻¹ = F⁻ᵀ F⁻¹
        spread = np.sqrt(((inverse @ w.T) ** 2).sum(axis=1))  # (n, D) sd of t under q
        nodes, shares = np.polynomial.hermite_e.hermegauss(self.config.nodes)
        at, expected = z @ w.T + self._mean, np.zeros(n)
        for node, share in zip(nodes, shares / shares.sum(), strict=True):
            expected += share * log_mass(ranks, at + node * spread, sd, top)[0].sum(axis=1)
        log_det = 2 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        return np.asarray(expected - 0.5 * ((inverse**2).sum(axis=(1, 2)) + (z**2).sum(axis=1) - q + log_det))

    @property
    def parameters(self) -> int:
        """Free parameters: mean, W up to a rotation of z, noise."""
        d, q = self._w.shape
        return int(d + d * q - q * (q - 1) // 2 + 1)


def log_mass(
    ranks: NDArray[np.float64], t: NDArray[np.float64], sd: float, top: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """log mass that N(t, sd²) gives to ranks 0 ... top, edges open to infinity, with its first two derivatives in t, elementwise."""
    from scipy.special import log_ndtr

    a = np.where(ranks == 0, -np.inf, (ranks - 0.5 - t) / sd)
    b = np.where(ranks == top, np.inf, (ranks + 0.5 - t) / sd)
    # On the right of the mean Φ is near one and a difference would cancel: mirror the bin to the left.
    flip = a > 0
    la, lb = log_ndtr(np.where(flip, -b, a)), log_ndtr(np.where(flip, -a, b))
    nats = lb + np.log(-np.expm1(la - lb))

    def weight(edge: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """φ(edge)/mass, and that times the edge; 0 at infinity."""
        ratio = np.exp(-0.5 * edge**2 - 0.5 * np.log(2 * np.pi) - nats)
        return ratio, ratio * np.where(np.isfinite(edge), edge, 0.0)

    (ra, wa), (rb, wb) = weight(a), weight(b)
    slope = ra - rb
    return nats, slope / sd, (wa - wb - slope**2) / sd**2


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """The closed form for every q; keep the one with the best held-out likelihood.

    Args:
        config: the settings.
        data: images or vectors.
        seed: of the choice of held-out samples.
        out: not used.

    Raises:
        DataError: no candidate leaves a direction with variance for the noise.
    """
    fit, valid = data.fit_and_valid(seed=seed)
    values = levels(np.concatenate([fit, valid])) if data.images else np.empty(0, np.uint8)
    x = fit.reshape(len(fit), -1)
    x = to_levels(x, values).astype(np.float64) if data.images else x
    held = valid[np.sort(generator(seed, 2).permutation(len(valid))[: config.held_out])]
    mean = x.mean(axis=0)
    centred = x - mean
    ascending, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    eigenvalues, vectors = np.maximum(ascending[::-1], 0.0), vectors[:, ::-1]
    best: Model | None = None
    score = -np.inf
    for q in sorted(set(config.components)):
        rest = eigenvalues[q:]
        if not len(rest) or rest.mean() <= 1e-12 * eigenvalues[0]:
            continue
        noise = rest.mean()  # eq. 8
        weights = vectors[:, :q] * np.sqrt(eigenvalues[:q] - noise)  # eq. 7
        arrays = {"mean": mean, "weights": np.ascontiguousarray(weights), "noise": np.sqrt([noise]), "values": values}
        made = Model(config, arrays, data.shape, chosen={"components": q})
        found = float(made.log_prob(held).mean())
        if found > score:
            best, score = made, found
    if best is None:
        raise DataError(f"{data.name}: no direction is left for the noise, or the samples do not vary; lower components or leave ppca out")
    return best
