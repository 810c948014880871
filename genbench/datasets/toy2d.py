"""Two-dimensional toys whose density, modes and entropy are known exactly.

All but the checkerboard are equal-weight mixtures of isotropic Gaussians, p(x) = 1/K Σ_k N(x; c_k, σ² I). The curves (moons, swissroll,
pinwheel) are mixtures of hundreds of Gaussians along them, closer together than σ, so that their density is a closed formula too.
"""

import functools
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genbench.arrays import Drawn
from genbench.errors import UsageError, near_miss
from genbench.protocol import Protocol
from genbench.samples import ArraySamples, Samples, check_split, subset
from genbench.statistics import Law

SPLITS = ("train", "test")
DEFAULT = "train"
SUMMARY = "two-dimensional toy with exact density, modes and entropy, 10,000 / 10,000 or any n"
SOURCE = (
    "ring8, grid25: Lin, Khetan, Fanti, Oh 2018, PacGAN, arXiv:1712.04086; moons: scikit-learn; the others: Grathwohl et al. 2019, FFJORD, "
    "arXiv:1810.01367, curves here as Gaussian mixtures"
)
EXTRACTOR = "identity"
SIZE = 10_000
_BLOCK = 2048


@dataclass(frozen=True)
class Toy:
    """One law on the plane.

    Args:
        name: of the dataset.
        centres: (K, 2) of the equal-weight Gaussians; of the squares for the checkerboard.
        sigma: standard deviation of each; half the side of the squares for the checkerboard.
        separate: the centres are the law's modes, rather than points of a curve.
    """

    name: str
    centres: NDArray[np.float64]
    sigma: float
    separate: bool

    @property
    def modes(self) -> tuple[NDArray[np.float64], float] | None:
        """Mode centres (K, 2) and their standard deviation; None where the law has no separate modes."""
        return (self.centres, self.sigma) if self.separate else None

    @property
    def _uniform(self) -> bool:
        return self.name == "checkerboard"

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """n independent draws, (n, 2)."""
        chosen = self.centres[rng.integers(len(self.centres), size=n)]
        noise = rng.uniform(-1, 1, (n, 2)) if self._uniform else rng.standard_normal((n, 2))
        return chosen + self.sigma * noise

    def log_density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """log p(x) in nats, exact.

        Args:
            x: (n, 2).

        Returns:
            (n,); −inf off the checkerboard.
        """
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != 2:
            raise UsageError(f"{self.name}: expected points of shape (n, 2), found {x.shape}")
        step = max(1, 2**21 // len(self.centres))
        parts = [self._log_density(x[a : a + step]) for a in range(0, len(x), step)]
        return np.concatenate(parts) if parts else np.empty(0)

    def _log_density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = x[:, None] - self.centres  # (n, K, 2)
        k = len(self.centres)
        if self._uniform:
            inside = np.any(np.all((apart >= -self.sigma) & (apart < self.sigma), axis=2), axis=1)
            return np.where(inside, -math.log(k * (2 * self.sigma) ** 2), -np.inf)
        exponent = -(apart**2).sum(axis=2) / (2 * self.sigma**2)
        top = exponent.max(axis=1)
        return top + np.log(np.exp(exponent - top[:, None]).sum(axis=1)) - math.log(k * 2 * math.pi * self.sigma**2)

    def entropy(self) -> tuple[float, float]:
        """Differential entropy −E log p in nats, and a bound on its numerical error.

        Separate modes: log K + 1 + log(2πσ²), exact but for the overlap; else by the trapezoid rule, which converges exponentially for
        sums of Gaussians; the error is the change from a grid of 2/3 the spacing.
        """
        return _entropy(self.name)


@functools.cache
def _entropy(name: str) -> tuple[float, float]:
    t = toy(name)
    k = len(t.centres)
    if t._uniform:
        return math.log(k * (2 * t.sigma) ** 2), 0.0
    if k > 1:
        apart = np.sqrt(((t.centres[:, None] - t.centres) ** 2).sum(axis=2) + np.diag(np.full(k, np.inf)))
        ratio = apart.min() / t.sigma
        if ratio > 16:
            # Any other mode adds at most (K − 1) exp(−r²/8) to log p within half the way to it, and the mass beyond is as small.
            return math.log(k) + 1 + math.log(2 * math.pi * t.sigma**2), float(2 * k * ratio**2 * math.exp(-(ratio**2) / 8))
    coarse, fine = _quadrature(t, t.sigma / 2), _quadrature(t, t.sigma / 3)
    return fine, abs(fine - coarse) + 1e-12


def _quadrature(t: Toy, step: float) -> float:
    reach = 9 * t.sigma
    low, high = t.centres.min(axis=0) - reach, t.centres.max(axis=0) + reach
    axes = [np.arange(a, b + step, step) for a, b in zip(low, high, strict=True)]
    total = 0.0
    for x in axes[0]:
        log_p = t.log_density(np.stack([np.full(len(axes[1]), x), axes[1]], axis=1))
        total -= float((np.exp(log_p) * log_p).sum())
    return total * step**2


def _ring(radius: float) -> NDArray[np.float64]:
    angle = 2 * np.pi * np.arange(8) / 8
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _grid() -> NDArray[np.float64]:
    side = np.arange(-4.0, 5.0, 2.0)
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)


def _between(k: int) -> NDArray[np.float64]:
    """Midpoints of k equal parts of [0, 1]."""
    return (np.arange(k) + 0.5) / k


def _moons() -> NDArray[np.float64]:
    # scikit-learn's make_moons, its uniform angle as 256 equal steps.
    t = np.pi * _between(256)
    return np.concatenate([np.stack([np.cos(t), np.sin(t)], axis=1), np.stack([1 - np.cos(t), 0.5 - np.sin(t)], axis=1)])


def _swissroll() -> NDArray[np.float64]:
    # FFJORD takes axes 0 and 2 of scikit-learn's make_swiss_roll(noise=1), divided by 5.
    t = 1.5 * np.pi * (1 + 2 * _between(512))
    return np.stack([t * np.cos(t), t * np.sin(t)], axis=1) / 5


def _pinwheel() -> NDArray[np.float64]:
    # FFJORD's pinwheel: 5 arms, radius N(1, 0.3²), twist 0.25 exp(radius), scale 2; its tangential noise 0.1 is the Gaussians' σ = 0.2.
    from statistics import NormalDist

    radius = 1 + 0.3 * np.array([NormalDist().inv_cdf(u) for u in _between(100)])
    angle = 2 * np.pi * np.arange(5)[:, None] / 5 + 0.25 * np.exp(radius)
    return (2 * np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)).reshape(-1, 2)


def _checkerboard() -> NDArray[np.float64]:
    # FFJORD's checkerboard: squares of side 2 in [−4, 4]², those with an even sum of column and row.
    side = np.arange(-3.0, 4.0, 2.0)
    return np.array([(x, y) for i, x in enumerate(side) for j, y in enumerate(side) if (i + j) % 2 == 0])


_TOYS: dict[str, tuple[Callable[[], NDArray[np.float64]], float, bool]] = {
    "ring8": (lambda: _ring(1.0), 0.01, True),
    "ring8-r2": (lambda: _ring(2.0), 0.02, True),
    "two-gaussians": (lambda: np.array([[2.0, 2.0], [-2.0, -2.0]]), 1.0, True),
    "grid25": (_grid, 0.05, True),
    "moons": (_moons, 0.1, False),
    "checkerboard": (_checkerboard, 1.0, False),
    "pinwheel": (_pinwheel, 0.2, False),
    "swissroll": (_swissroll, 0.2, False),
}
NAMES = tuple(_TOYS)
PROTOCOLS = {f"{name}-1": Protocol(f"{name}-1", f"{name}/train", ("fid", "kid", "prdc"), "identity", n=SIZE) for name in NAMES}
# The second ones know the law, and see copies; Fréchet distance and KID of raw coordinates cannot tell ring8 from uniform noise.
_LAW = ("nll", "kl_forward", "kl_reverse", "modes", "prdc", "nn_copies")
PROTOCOLS |= {f"{name}-2": Protocol(f"{name}-2", f"{name}/train", _LAW, "identity", n=SIZE) for name in NAMES}
# The distances between all pairs of 10,000 points would take the quick suite half an hour; 2,000 tell the same story.
PROTOCOLS["ring8-quick-1"] = Protocol("ring8-quick-1", "ring8/train", ("fid", "kid", "prdc"), "identity", n=2000, n_ref=2000)
_QUICK = ("nll", "modes", "fid", "kid", "prdc", "nn_copies")
PROTOCOLS["ring8-quick-2"] = Protocol("ring8-quick-2", "ring8/train", _QUICK, "identity", n=2000, n_ref=2000)


@functools.cache
def toy(name: str) -> Toy:
    """The law of a dataset name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in _TOYS:
        raise near_miss(name, NAMES, "toy")
    make, sigma, separate = _TOYS[name]
    return Toy(name, make(), sigma, separate)


def law(name: str) -> Law:
    """The exact density, entropy and modes, for the metrics that need them."""
    t = toy(name)
    centres, sigma = t.modes or (None, None)
    return Law(name, 2, t.log_density, t.entropy()[0], centres, sigma)


def load(name: str, split: str, *, seed: int = 0, n: int | None = None, root: Path | None = None, download: bool = False) -> Samples:
    """A split: independent draws whose seed is (name, split), the same everywhere.

    Args:
        name: one of NAMES.
        split: train or test.
        seed: of the subset, where n is below 10,000.
        n: how many; more than 10,000 continue the same stream.
        root: not used, the data are drawn.
        download: not used.
    """
    check_split(name, split, SPLITS)
    if n is not None and n < 1:
        raise UsageError(f"n must be at least 1, found {n}")
    law = toy(name)
    key = int.from_bytes(hashlib.sha256(f"{name}/{split}".encode()).digest()[:8], "big")

    def draw(start: int, count: int) -> NDArray[np.float64]:
        rng = np.random.default_rng(np.random.SeedSequence(key, spawn_key=(start // _BLOCK,)))
        return law.sample(_BLOCK, rng)[:count]  # whole blocks: a longer set begins with the shorter one

    size = max(n or SIZE, SIZE)
    made = ArraySamples(Drawn(draw, size, f"{name}/{split}", _BLOCK), name=f"{name}/{split}", kind="dataset")
    return made if n is None else subset(made, n, seed)
