"""Gaussian mixture, fitted by expectation-maximisation.

Family: classical (mixture). Source: Dempster, Laird & Rubin 1977, "Maximum likelihood from incomplete data via the EM algorithm",
doi 10.1111/j.2517-6161.1977.tb01600.x; EM by scikit-learn.
p(x) = Σ_k π_k N(x; μ_k, Σ_k), every Σ_k shrunk by a share s towards the diagonal of the data's covariance. The number of components, the
form of the covariances and s are chosen on held-out data, with restarts. Vectors: full covariances. Images: diagonal ones on the ranks of
the dataset's grey values, each Gaussian's mass on a grey value being Φ((v + ½ − μ)/σ) − Φ((v − ½ − μ)/σ), the two edge values open to
infinity, so that p sums to exactly one over all images; sampling rounds and clips the Gaussian draw, which is the same law. (A mixture on
uniformly dequantised digits reached −125 nats on the test split, this form −99.7: grey values pile up at 0, which no Gaussian follows.)
Can: sample; log p exact (mass for images, density for vectors). gmm:conditional has a mixture for every class.

    genbench bench quick --only gmm

Time: about a second on the toys and digits, half a minute on MNIST.
"""

import itertools
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench import models, training
from genbench.errors import DataError, UsageError
from genbench.models import TrainingData, generator, levels, read_all, to_levels

FAMILY = "classical"
SUMMARY = "Gaussian mixture by EM, size chosen on held-out data"
SOURCE = "doi:10.1111/j.2517-6161.1977.tb01600.x"


@dataclass(frozen=True)
class Config(models.Config):
    """Settings. Those that hold several values are candidates.

    Args:
        components: numbers of components.
        covariances: "full" (vectors only) or "diag".
        shrink: shares s in [0, 1] by which covariances move to the data's own.
        floor: EM adds it to the variances, as a share of the coordinates' mean variance.
        restarts: EM runs per candidate.
        steps: most EM steps per run.
        samples: most training samples that are used; a seeded choice where there are more.
        held_out: most held-out samples that choose.
        conditional: on the class: a mixture of its own for every class, chosen among the same candidates.
    """

    components: tuple[int, ...] = (1, 4, 8, 16, 25, 32)
    covariances: tuple[str, ...] = ("full",)
    shrink: tuple[float, ...] = (0.0,)
    floor: float = 1e-6
    restarts: int = 2
    steps: int = 300
    samples: int = 10_000
    held_out: int = 1000
    conditional: bool = False

    def __post_init__(self) -> None:
        if not self.components or min(self.components) < 1:
            raise UsageError(f"components holds numbers from 1 on, found {self.components}")
        if not self.covariances or not set(self.covariances) <= {"full", "diag"}:
            raise UsageError(f"covariances holds 'full' or 'diag', found {self.covariances}")
        if not self.shrink or not all(0 <= s <= 1 for s in self.shrink) or not self.floor >= 0:
            raise UsageError(f"shrink holds shares in [0, 1] and floor is at least 0, found {self.shrink} and {self.floor}")
        if min(self.restarts, self.steps, self.samples, self.held_out) < 1:
            raise UsageError("restarts, steps, samples and held_out are at least 1")


RECIPES = {
    "vectors": Config(),
    "digits": Config(components=(20, 40, 80), covariances=("diag",), shrink=(0.0, 0.1, 0.3, 0.5, 0.7), floor=0.005),
    "images": Config(components=(50, 200), covariances=("diag",), shrink=(0.1, 0.3, 0.5), floor=0.005, restarts=1, steps=60, held_out=256),
}


VARIANTS = {
    "conditional": {
        "digits": replace(RECIPES["digits"], components=(1, 2, 4, 8), conditional=True),
        "images": replace(RECIPES["images"], components=(5, 20), conditional=True),
    }
}


SMOKE = {"images:conditional": Config(components=(1, 4), covariances=("diag",), shrink=(0.3,), floor=0.005, restarts=1, conditional=True)}


class Model(models.ArrayModel):
    """A mixture of Gaussians.

    Args:
        config: the settings.
        arrays: weights (K,), means (K, D), sds (K, D) or factors (K, D, D) with Σ = F Fᵀ lower triangular, values (L,) grey values (empty
            for vectors); of a conditional one labels (K,), the class of every component.
        shape: of one sample.
    """

    @property
    def bound(self) -> str:
        return "exact"

    def _components(self, rng: np.random.Generator) -> NDArray[np.int64]:
        cumulative = np.cumsum(self._arrays["weights"])
        return np.minimum(np.searchsorted(cumulative / cumulative[-1], rng.random(self.SHARD), side="right"), len(cumulative) - 1)

    def shard_labels(self, index: int, seed: int) -> NDArray[np.int64] | None:
        labels = self._arrays.get("labels")
        return None if labels is None else labels[self._components(generator(seed, index))]

    def shard(self, index: int, seed: int) -> NDArray[Any]:
        a, rng = self._arrays, generator(seed, index)
        k = self._components(rng)
        noise = rng.standard_normal((self.SHARD, self.dims))
        x = a["means"][k] + (a["sds"][k] * noise if "sds" in a else np.einsum("nij,nj->ni", a["factors"][k], noise))
        if not len(a["values"]):
            return np.asarray(x)
        rank = np.clip(np.rint(x), 0, len(a["values"]) - 1).astype(np.int64)
        return np.asarray(a["values"][rank].reshape(self.SHARD, *self.shape))

    def log_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        from scipy.linalg import solve_triangular
        from scipy.special import logsumexp

        x, a = self.check_rows(x), self._arrays
        images = len(a["values"]) > 0
        rows = to_levels(x, a["values"]).reshape(len(x), -1) if images else x
        terms = np.empty((len(x), len(a["weights"])))
        for k, mean in enumerate(a["means"]):
            if images:
                table = log_mass(len(a["values"]), mean, a["sds"][k])  # (D, L)
                terms[:, k] = table[np.arange(self.dims), rows].sum(axis=1)
                continue
            factor = a["factors"][k] if "factors" in a else np.diag(a["sds"][k])
            w = solve_triangular(factor, (rows - mean).T, lower=True)
            terms[:, k] = -0.5 * (w * w).sum(axis=0) - np.log(np.diag(factor)).sum() - 0.5 * self.dims * np.log(2 * np.pi)
        return np.asarray(logsumexp(terms + np.log(a["weights"]), axis=1))

    @property
    def parameters(self) -> int:
        """Free parameters: weights but one, means, variances or covariances' lower triangles."""
        k, d = self._arrays["means"].shape
        return int(k - 1 + k * d + k * (d if "sds" in self._arrays else d * (d + 1) // 2))


def log_mass(n: int, mean: NDArray[np.float64], sd: NDArray[np.float64]) -> NDArray[np.float64]:
    """log mass that N(mean, sd²) gives to each of n ranks, edges open to infinity; (D, n), rows sum to one."""
    from scipy.special import log_ndtr

    inner = np.arange(n - 1) + 0.5
    a = (np.concatenate([[-np.inf], inner]) - mean[:, None]) / sd[:, None]
    b = (np.concatenate([inner, [np.inf]]) - mean[:, None]) / sd[:, None]
    # On the right of the mean Φ is near one and a difference would cancel: mirror the bin to the left.
    flip = a > 0
    la, lb = log_ndtr(np.where(flip, -b, a)), log_ndtr(np.where(flip, -a, b))
    return np.asarray(lb + np.log(-np.expm1(la - lb)))


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Fit every candidate and keep the one with the best held-out likelihood.

    Args:
        config: the settings.
        data: images or vectors.
        seed: of the choice of samples and of EM's starts.
        out: not used.

    Raises:
        UsageError: full covariances were asked for on images.
        DataError: all samples are equal, or fewer than components.
    """
    if data.images and "full" in config.covariances:
        raise UsageError("images take covariances=('diag',): a full Gaussian has no exact mass on grey values")
    if config.conditional:
        return _by_class(config, data, seed)
    fit, valid = data.fit_and_valid(seed=seed)
    values = levels(np.concatenate([fit, valid])) if data.images else np.empty(0, np.uint8)
    return _fitted(config, data, values, fit, valid, seed)


def _by_class(config: Config, data: TrainingData, seed: int) -> Model:
    """A mixture for every class, weighed by the classes' shares of the training split."""
    classes, shares = training.class_constants(data).values()
    rows, labels = read_all(data.train), np.asarray(data.train.labels)
    values = levels(rows) if data.images else np.empty(0, np.uint8)
    parts = []
    for y in classes:
        own = rows[labels == y]
        if len(own) < 2:
            raise DataError(f"{data.name}: at least 2 training samples of every class are needed, class {y} has one")
        order = generator(seed, 4, int(y)).permutation(len(own))
        held = max(1, round(0.1 * len(own)))
        parts.append(_fitted(config, data, values, own[np.sort(order[held:])], own[np.sort(order[:held])], seed))
    each = [part.arrays() for part in parts]
    merged = {key: np.concatenate([a[key] for a in each]) for key in each[0] if key not in ("weights", "values")}
    merged["weights"] = np.concatenate([share * a["weights"] for share, a in zip(shares, each, strict=True)])
    merged["labels"] = np.repeat(classes, [len(a["weights"]) for a in each])
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    chosen = {str(y): part.chosen for y, part in zip(classes, parts, strict=True)}
    return Model(config, merged | {"values": each[0]["values"]}, data.shape, notes=notes, chosen=chosen)


def _fitted(config: Config, data: TrainingData, values: NDArray[np.uint8], fit: NDArray[Any], valid: NDArray[Any], seed: int) -> Model:
    """The best candidate on `valid` of those fitted to `fit`."""
    rng = generator(seed, 2)
    rows = fit[np.sort(rng.permutation(len(fit))[: config.samples])]
    held = valid[np.sort(rng.permutation(len(valid))[: config.held_out])]
    flat = rows.reshape(len(rows), -1)
    z = to_levels(flat, values).astype(np.float64) if data.images else flat
    variance = z.var(axis=0)
    if not variance.any():
        raise DataError(f"{data.name}: all training samples are equal, they have no density; leave gmm out")
    best: Model | None = None
    score = -np.inf
    for k, form, start in itertools.product(config.components, config.covariances, range(config.restarts)):
        if k > len(z):
            continue
        floor = config.floor * float(variance.mean())
        weights, means, covariances, converged = _em(z, k, form, floor, config.steps, int(generator(seed, 3, k, start).integers(2**31)))
        late = () if converged else (f"EM had not converged after {config.steps} steps",)
        for s in config.shrink:
            spread: dict[str, NDArray[Any]]
            if form == "full":
                spread = {"factors": np.linalg.cholesky((1 - s) * covariances + s * np.diag(variance))}
            else:
                spread = {"sds": np.sqrt((1 - s) * covariances + s * variance + floor)}
            arrays: dict[str, NDArray[Any]] = {"weights": weights, "means": means, "values": values, **spread}
            made = Model(config, arrays, data.shape, notes=late, chosen={"components": k, "covariances": form, "shrink": s})
            found = float(made.log_prob(held).mean())
            if found > score:
                best, score = made, found
    if best is None:
        raise DataError(f"{data.name}: {len(z)} training samples are fewer than the fewest components {min(config.components)}")
    return best


def _em(
    z: NDArray[np.float64], k: int, form: str, floor: float, steps: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], bool]:
    """scikit-learn's EM: weights, means, covariances, and whether it converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    # One thread: the same bits whatever the number of cores, and faster on arrays this small.
    with warnings.catch_warnings(), threadpool_limits(1):
        # Said in the model's notes instead: a candidate that is not chosen need not alarm anybody.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = GaussianMixture(k, covariance_type=form, reg_covar=floor, max_iter=steps, random_state=seed).fit(z)
    return found.weights_, found.means_, found.covariances_, bool(found.converged_)
