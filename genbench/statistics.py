"""What the rows of an extractor condense into: a closed family of statistics that merge in shard order.

Each is checked once, when it is made; code below trusts it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from genbench.errors import DataError
from genbench.estimate import Undefined

Float = NDArray[np.floating[Any]]
BLOCK = 4096  # rows that are centred at once: 64 MiB of 2,048 float64 features


def _finite_rows(x: Float, what: str, names: Sequence[str] | None) -> None:
    ok = np.isfinite(x).all(axis=tuple(range(1, x.ndim)))
    if ok.all():
        return
    bad = np.flatnonzero(~ok)
    first = ", ".join(names[i] if names else f"row {i}" for i in bad[:5])
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    raise DataError(f"{what} must be finite, found NaN or infinity in {first}{more}; repair or remove these samples")


@dataclass(frozen=True, slots=True)
class Features:
    """Feature rows of n samples.

    Args:
        x: (n, d) float32 or float64, finite.
        extractor: name of what made them.
        names: sample names, only used to name a row.
        labels: (n,) class numbers of the samples, None where they have none.
        shape: of the samples behind the rows, (c, h, w) or (d,); None where it is not known.
        digests: (n, 16) content digests of the samples; None where they are not known.
    """

    x: Float
    extractor: str = "identity"
    names: Sequence[str] | None = field(default=None, repr=False, compare=False)
    labels: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    shape: tuple[int, ...] | None = None
    digests: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # what metrics share: neighbours, cuts

    def __post_init__(self) -> None:
        x = np.asarray(self.x)
        if x.ndim != 2 or x.shape[1] < 1:
            raise DataError(f"features are rows (n, d) with d >= 1, found shape {x.shape}")
        if x.dtype not in (np.float32, np.float64):
            x = x.astype(np.float64)
        _finite_rows(x, f"{self.extractor} features", self.names)
        object.__setattr__(self, "x", x)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def d(self) -> int:
        """Dimension of a row."""
        return int(self.x.shape[1])

    def take(self, index: NDArray[np.int64]) -> "Features":
        """Rows by number; names are not carried along."""
        labels = None if self.labels is None else self.labels[index]
        digests = None if self.digests is None else self.digests[index]
        return Features(self.x[index], self.extractor, None, labels, self.shape, digests)

    def among(self, other: "Features") -> NDArray[np.bool_]:
        """Which rows are of samples that the other set has too, byte for byte, (n,); none where digests are not known."""
        if self.digests is None or other.digests is None:
            return np.zeros(len(self), np.bool_)
        own, known = (np.ascontiguousarray(v.digests).view("V16").ravel() for v in (self, other))
        return np.isin(own, known)

    def cut(self, n: int, seed: int = 0) -> "Features":
        """A seeded subset of n rows, in their order; one object for all who ask, so that they share its neighbours."""
        if n >= len(self):
            return self
        if ("cut", n, seed) not in self.memo:
            self.memo["cut", n, seed] = self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:n]))
        found: Features = self.memo["cut", n, seed]
        return found

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """Concatenate in the order given."""
        if len({p.extractor for p in parts}) != 1 or len({p.d for p in parts}) != 1:
            raise DataError("only features of one extractor and one dimension merge")
        return parts[0] if len(parts) == 1 else cls(np.concatenate([p.x for p in parts]), parts[0].extractor)


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and scatter of n rows, in float64.

    Args:
        n: number of rows; None for a published statistics file, whose sampling error is unknown.
        mean: (d,) float64.
        m2: (d, d) float64, Σ (x−μ)(x−μ)ᵀ for n rows; for n = None the covariance itself.
        extractor: name of what made the rows.
    """

    n: int | None
    mean: Float
    m2: Float
    extractor: str = "identity"

    def __post_init__(self) -> None:
        mean, m2 = np.asarray(self.mean, np.float64), np.asarray(self.m2, np.float64)
        if mean.ndim != 1 or not len(mean) or m2.shape != (len(mean), len(mean)):
            raise DataError(f"moments are a mean (d,) and a scatter (d, d) with d >= 1, found {mean.shape} and {m2.shape}")
        if not (np.isfinite(mean).all() and np.isfinite(m2).all()):
            raise DataError("moments must be finite, found NaN or infinity; recompute the statistics")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "m2", m2)

    def __len__(self) -> int:
        return 0 if self.n is None else self.n

    @property
    def d(self) -> int:
        """Dimension of a row."""
        return len(self.mean)

    @property
    def cov(self) -> Float:
        """(d, d) covariance with n − 1 in the denominator."""
        if self.n is None:
            return self.m2
        if self.n < 2:
            raise DataError(f"a covariance needs at least 2 samples, found {self.n}")
        return self.m2 / (self.n - 1)

    @classmethod
    def of(cls, rows: Features | Float) -> Self:
        """Moments of feature rows, two passes in float64; block by block, so that no second copy of the features is made."""
        f = rows if isinstance(rows, Features) else Features(rows)
        mean = f.x.mean(axis=0, dtype=np.float64) if len(f) else np.zeros(f.d)
        m2 = np.zeros((f.d, f.d))
        for a in range(0, len(f), BLOCK):
            part = f.x[a : a + BLOCK] - mean  # (rows, d) float64
            m2 += part.T @ part
        return cls(len(f), mean, m2, f.extractor)

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """Combine moments of disjoint rows (Chan, Golub & LeVeque 1983, eq. 2.1), in the order given."""
        n, mean, m2 = 0, np.zeros(parts[0].d), np.zeros((parts[0].d, parts[0].d))
        for p in parts:
            if p.n is None:
                raise DataError("a statistics file has no row count and cannot be merged")
            if p.n == 0:
                continue
            delta, total = p.mean - mean, n + p.n
            mean = mean + delta * (p.n / total)
            m2 = m2 + p.m2 + np.outer(delta, delta) * (n * p.n / total)
            n = total
        return cls(n, mean, m2, parts[0].extractor)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a statistics file: `.npz` with `mu` and `sigma`, as pytorch-fid, ADM and EDM write.

        Raises:
            DataError: a key is missing, a shape is wrong, a value is not finite, or sigma is not a covariance.
        """
        import zipfile
        import zlib
        from tokenize import TokenError

        # What NumPy raises on damaged files.
        damage = (OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError, MemoryError, TokenError, zipfile.BadZipFile, zlib.error)
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as z:  # numpy leaves a damaged zip file open
                if "mu" not in z or "sigma" not in z:
                    raise DataError(f"{path}: a statistics file has the keys mu and sigma, found {sorted(z.files)}")
                mu, sigma = z["mu"], z["sigma"]
        except damage as e:
            raise DataError(f"{path}: not a readable statistics file ({e}); write it again with numpy.savez(mu=..., sigma=...)") from e
        for name, x in (("mu", mu), ("sigma", sigma)):
            if not isinstance(x, np.ndarray) or x.dtype.kind not in "fiu":  # of a member that is no array NumPy gives the bytes
                found_type = x.dtype if isinstance(x, np.ndarray) else "no array"
                raise DataError(f"{path}: {name} is an array of real numbers, found {found_type}; save it as float64")
        try:
            found = cls(None, mu, sigma, "statistics")
        except DataError as e:
            raise DataError(f"{path}: {e}") from e
        scale = float(np.abs(sigma).max())
        if scale == 0:
            raise DataError(f"{path}: sigma is zero, as if all samples were equal; recompute the statistics")
        if np.abs(sigma - sigma.T).max() > 1e-6 * scale:
            raise DataError(f"{path}: sigma must be symmetric; recompute the statistics")
        low = float(np.linalg.eigvalsh((sigma + sigma.T) / 2)[0])
        if low < -1e-6 * scale * found.d:
            raise DataError(f"{path}: sigma must have no negative eigenvalue, found {low:.3g}; recompute the statistics in float64")
        return found

    def save(self, path: str | Path) -> None:
        """Write `mu` and `sigma` for exchange with other tools."""
        np.savez(path, mu=self.mean, sigma=self.cov)


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Class probabilities of n samples.

    Args:
        p: (n, k) float64, rows that sum to 1.
        classes: what the columns are, None where the classifier does not name them.
        extractor: name of the classifier.
        names: sample names, only used to name a bad row.
    """

    p: Float
    classes: tuple[str, ...] | None = None
    extractor: str = "identity"
    names: Sequence[str] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        p = np.asarray(self.p, np.float64)
        if p.ndim != 2 or p.shape[1] < 1:
            raise DataError(f"probabilities are rows (n, classes), found shape {p.shape}")
        _finite_rows(p, "probabilities", self.names)
        if len(p) and (np.min(p) < 0 or np.abs(p.sum(axis=1) - 1).max() > 1e-6):
            raise DataError("each row of probabilities must be >= 0 and sum to 1; pass a softmax, not logits")
        object.__setattr__(self, "p", p)

    def __len__(self) -> int:
        return len(self.p)

    @classmethod
    def of_logits(
        cls, logits: Float, classes: tuple[str, ...] | None = None, extractor: str = "identity", names: Sequence[str] | None = None
    ) -> Self:
        """Softmax in float64."""
        z = np.asarray(logits, np.float64)
        _finite_rows(z, f"{extractor} logits", names)
        z = np.exp(z - z.max(axis=1, keepdims=True))
        return cls(z / z.sum(axis=1, keepdims=True), classes, extractor, names)

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """Concatenate in the order given."""
        return parts[0] if len(parts) == 1 else cls(np.concatenate([p.p for p in parts]), parts[0].classes, parts[0].extractor)


@dataclass(frozen=True, slots=True)
class LogLikelihood:
    """Log-likelihoods of n samples.

    Args:
        nats: (n,) float64, log p(x) or a bound on it.
        dims: number of dimensions (pixels × channels, tokens, ...).
        bound: what `nats` is to log p: "exact", "lower", "upper" or "estimate".
        measure: what the probability is of: "mass" (of grey values), "density", "tokens", or the id of a binarisation.
        names: sample names, only used to name a bad row.
        estimator: which bound or estimate, where it is not exact: "IWAE-1000"; None where that is not known.
    """

    nats: Float
    dims: int
    bound: str = "exact"
    measure: str = "density"
    names: Sequence[str] | None = field(default=None, repr=False, compare=False)
    estimator: str | None = None

    def __post_init__(self) -> None:
        nats = np.asarray(self.nats, np.float64)
        if nats.ndim != 1:
            raise DataError(f"log-likelihoods are one number per sample (n,), found shape {nats.shape}")
        # −∞ is a fact about the model (it gives the sample no probability); NaN and +∞ are faults
        _finite_rows(np.where(nats == -np.inf, 0.0, nats), "log-likelihoods", self.names)
        if self.bound not in ("exact", "lower", "upper", "estimate"):
            raise DataError(f"bound is exact, lower, upper or estimate, found {self.bound!r}")
        object.__setattr__(self, "nats", nats)

    def __len__(self) -> int:
        return len(self.nats)

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """Concatenate in the order given."""
        first = parts[0]
        if len(parts) == 1:
            return first
        return cls(np.concatenate([p.nats for p in parts]), first.dims, first.bound, first.measure, estimator=first.estimator)


@dataclass(frozen=True, slots=True)
class Law:
    """The law of a data set whose density is a formula; it lives in the space of the samples themselves.

    Args:
        name: of the data set.
        d: dimension.
        log_density: (n, d) -> (n,) log p in nats, −∞ off the support.
        entropy: −E log p in nats.
        modes: (K, d) centres of an equal-weight mixture of isotropic Gaussians; None where the law has no separate modes.
        sigma: their standard deviation.
    """

    name: str
    d: int
    log_density: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    entropy: float
    modes: Float | None = None
    sigma: float | None = None


UNKNOWN = Undefined("the LPIPS of these pairs was not computed; pass it, or score a model's run folder")


@dataclass(frozen=True, slots=True)
class Reconstructions:
    """Samples beside what a model makes of them: encoded, then decoded.

    Args:
        x: the originals, (n, c, h, w) uint8 or (n, d) float64.
        y: the reconstructions, same shape and type.
        lpips: (n,) perceptual distances of the pairs, or why there are none.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    lpips: Float | Undefined = UNKNOWN

    def __post_init__(self) -> None:
        if self.x.shape != self.y.shape or self.x.ndim not in (2, 4):
            raise DataError(f"reconstructions have the shape of their originals, found {self.y.shape} and {self.x.shape}")
        _finite_rows(np.asarray(self.y, np.float64), "reconstructions", None)
        if not isinstance(self.lpips, Undefined):
            if self.lpips.shape != self.x.shape[:1]:
                raise DataError(f"one LPIPS per pair is needed, found shape {self.lpips.shape} for {len(self.x)} pairs")
            _finite_rows(self.lpips, "LPIPS of reconstructions", None)

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class LatentPath:
    """Features of pairs of neighbours on random paths through a model's latent space, of which only the distances count.

    Args:
        a: (n, d) features at t, or any numbers that are as far apart.
        b: (n, d) features at t + step, likewise.
        step: their distance as a share of the path.
    """

    a: Float
    b: Float
    step: float

    def __post_init__(self) -> None:
        if self.a.shape != self.b.shape or self.a.ndim != 2 or not 0 < self.step < 1:
            raise DataError(f"paths are two sets of rows (n, d) and a step in (0, 1), found {self.a.shape}, {self.b.shape} and {self.step}")
        for rows in (self.a, self.b):
            _finite_rows(rows, "features on latent paths", None)

    def __len__(self) -> int:
        return len(self.a)
