"""What models with a likelihood share: bounds from many draws, dequantisation, units, and likelihoods that were computed elsewhere.

Pure functions of arrays. A bound from k draws takes the logarithm of the mean over draws sample by sample; only then is there a mean over
samples. A density of grey values is a density of something only together with the width of a grey value's bin: `offset_bits`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isfinite, log, log2, prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.errors import DataError, UsageError, near_miss
from genbench.estimate import Bound, Estimate, Undefined
from genbench.numerics import Float, student95
from genbench.statistics import LogLikelihood

INTERVAL = "t, widened for skewness"
BOUNDS = ("exact", "lower", "upper", "estimate")
OPPOSITE: Mapping[str, Bound] = {"exact": "exact", "lower": "upper", "upper": "lower", "estimate": "estimate"}
"""What −log p is where log p is so bounded."""
ROUNDING = 1e-4  # nats by which a log mass may exceed 0: the rounding of a model in float32
ENTRIES = ("nats", "log_weights", "dims", "bound", "measure")
# How a model's notes say which bound or estimate its log p is, and how a table does.
_SAID = (
    (r"\(IWAE-1\)", "ELBO"),
    (r"\((IWAE-\d+)\)", r"\1"),
    (r"bound of (\d+) draws? of dequantisation noise", r"\1 draws of dequantisation noise"),
    (r"AIS: (\d+) chains, (\d+) temperatures", r"AIS, \1 chains × \2"),
    (r"variational bound of a chain of (\d+) steps", r"variational bound of \1 steps"),
    (r"log p of the ODE itself|log p: probability-flow ODE", "ODE, 1 draw of dequantisation noise"),
)


# -- means -------------------------------------------------------------------------------------------------------------------------


def unsound(x: LogLikelihood, role: str) -> str | None:
    """Why a mean of these log-likelihoods would say nothing; None where it is sound.

    Args:
        x: log-likelihoods.
        role: whose they are, for the text.
    """
    if not len(x):
        return f"needs at least one {role} sample, found none"
    none = np.flatnonzero(np.isneginf(x.nats))
    if len(none):
        what = "the model gives no probability to" if x.bound == "exact" else "the bound on log p is −∞ for"
        return f"{what} {len(none):,} of {len(x):,} {role} samples{_named(x, none)}; their nll is infinite"
    if float(np.abs(x.nats).max()) > 1e70:
        return "the log-likelihoods are too large for float64: the square of their variance overflows; check the model"
    over = np.flatnonzero(x.nats > ROUNDING)
    if x.measure != "density" and x.bound in ("exact", "lower") and len(over):
        found = f"{len(over):,} of {len(x):,} {role} samples{_named(x, over)} have more"
        return f"the log of a probability ({x.measure}) is at most 0, {found}; give measure 'density' if it is one"
    return None


def _named(x: LogLikelihood, rows: NDArray[Any]) -> str:
    first = ", ".join(str(x.names[int(i)]) if x.names is not None else f"row {i}" for i in rows[:3])
    return f" ({first}{', ...' if len(rows) > 3 else ''})"


def mean_interval(x: Float, y: Float | None = None) -> tuple[float, float, float]:
    """Mean of x, or mean of x less mean of y, with the ends of its 95 % interval.

    The hull of two intervals: Student's t (Welch's for two samples), and the same t with Hall's monotone cubic correction for the skewness
    of the studentised mean, T = 3/g [(1 + g (t − g/6))^⅓ − 1] with g the estimated third cumulant of the mean over its se³. Simulated at
    n = 50 to 200, the first alone covers 89 to 92 % of log-normal means, the second alone 92 to 94 % of those of Student's t(3), and the
    hull 94 to 96 % of both; they agree where there is no skewness.

    Args:
        x: at least 2 finite values.
        y: at least 2 finite values; None for the mean of x alone.

    References:
        On the removal of skewness by transformation (Hall, 1992).
    """
    value = float(x.mean()) - (0.0 if y is None else float(y.mean()))
    square = cubic = noise = 0.0
    for sign, z in ((1, x), (-1, y)):
        if z is not None:
            n, centred = len(z), z - z.mean()
            variance = float(centred @ centred) / (n - 1) / n
            square += variance
            noise += variance**2 / (n - 1)
            spread = float(np.abs(centred).max()) or 1.0  # its cube may underflow where that of a ratio does not
            cubic += sign * float(((centred / spread) ** 3).mean()) / n**2 * spread**3
    if square == 0 or noise == 0:
        return value, value, value
    se, t = sqrt(square), student95(square**2 / noise)
    g = cubic / square / se

    def corrected(at: float) -> float:
        return at if abs(g) < 1e-6 else 3 / g * (float(np.cbrt(1 + g * (at - g / 6))) - 1)

    return value, value - se * max(t, corrected(t)), value + se * max(t, -corrected(-t))


def mean_nll(test: LogLikelihood, unit: float = 1.0) -> Estimate | Undefined:
    """Mean of −log p, over `unit` nats, with its interval, bound and measure.

    Args:
        test: log-likelihoods of the test samples.
        unit: nats in one unit of the result, e.g. dims · ln 2.
    """
    reason = unsound(test, "test")
    if reason:
        return Undefined(reason)
    nll = -test.nats / unit
    value, low, high = mean_interval(nll) if len(nll) > 1 else (float(nll[0]),) * 3
    if test.measure != "density":
        if value * unit < -ROUNDING:
            return Undefined(
                f"the mean log of a probability ({test.measure}) is at most 0, found {-value * unit:.6g}: the bound says nothing"
            )
        value, low, high = max(value, 0.0), max(low, 0.0), max(high, 0.0)
    bound, influence = OPPOSITE[test.bound], {"test": nll - float(nll.mean())}
    made = Estimate(value, low, high, len(nll), INTERVAL, bound, measure=test.measure, estimator=test.estimator, influence=influence)
    return made if len(nll) > 1 else replace(made, low=None, high=None, interval=None, notes=("no interval: 1 sample",), influence=None)


# -- bounds ------------------------------------------------------------------------------------------------------------------------


def estimator_of(notes: Sequence[str]) -> str | None:
    """Which bound or estimate of log p a model's notes speak of; None where they do not.

    Two bounds of one side may lie at very different distances from log p, so a number without this says little.

    Example:
        >>> estimator_of(["log_prob is the importance-weighted lower bound of 1000 draws (IWAE-1000)"])
        'IWAE-1000'
    """
    for note in notes:
        for pattern, shown in _SAID:
            if found := re.search(pattern, note):
                return found.expand(shown)
    return None


def iwae_bound(log_weights: NDArray[Any]) -> NDArray[np.float64]:
    """Importance-weighted lower bound on log p of every sample: log 1/k Σ_k w.

    For k = 1 the ELBO; in expectation it grows with k up to log p(x).

    Args:
        log_weights: (n, k) log w = log p(x, z_k) − log q(z_k | x) of k independent draws per sample; −∞ for a weight of 0.

    Returns:
        (n,) nats. −∞ where all weights of a sample are 0.

    Raises:
        DataError: another shape, or a weight that is NaN or +∞; names the sample.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), eq. 8 and theorem 1.

    Example:
        >>> iwae_bound(np.log([[0.1, 0.3], [0.2, 0.2]])).round(6)
        array([-1.609438, -1.609438])
    """
    from scipy.special import logsumexp

    w = _real(log_weights, "log_weights")
    if w.ndim != 2 or w.shape[1] < 1:
        raise DataError(f"log_weights are (samples, draws) with at least one draw, found shape {w.shape}")
    _check(w, "log_weights")
    return np.asarray(logsumexp(w, axis=1) - log(w.shape[1]), np.float64)


def _real(x: Any, what: str) -> NDArray[np.float64]:
    x = np.asarray(x)
    if x.dtype.kind not in "fiu":
        raise DataError(f"{what} are real numbers, found {x.dtype}")
    return np.asarray(x, np.float64)


def _check(x: NDArray[np.float64], what: str) -> None:
    bad = np.argwhere(np.isnan(x) | np.isposinf(x))
    if len(bad):
        first = f"sample {bad[0][0]}" + (f", draw {bad[0][1]}" if x.ndim == 2 else "")
        count = len({int(b[0]) for b in bad})
        more = f" and {count - 1:,} more samples" if count > 1 else ""
        raise DataError(f"{what} must be finite or −∞, found {x[tuple(bad[0])]} in {first}{more}; compute these again")


def dequantisation_noise(
    shape: tuple[int, ...], index: int, *, seed: int, draws: int = 1, dtype: type[np.floating[Any]] = np.float64
) -> NDArray[Any]:
    """Uniform noise of one image that covers exactly one bin: in (0, 1), so that level + noise never reaches the next level.

    Levels up to 255 plus the noise are exact in `dtype`: the noise is an odd multiple of 2⁻⁴⁵ (float32: 2⁻¹⁶). A uniform draw as it comes
    from a generator would round up to the next level.

    Args:
        shape: of the image.
        index: of the image in its data set; with the seed it alone decides the noise, so batches, order and workers do not matter.
        seed: not negative.
        draws: how many; the first ones are the same whatever their number.
        dtype: float64 or float32, what the model computes in.

    Returns:
        (draws, *shape) of `dtype`.
    """
    if seed < 0 or index < 0 or draws < 1:
        raise UsageError(f"dequantisation needs seed >= 0, index >= 0 and draws >= 1, found {seed}, {index} and {draws}")
    bits = np.finfo(dtype).nmant + 1 - 8
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    return ((2 * rng.integers(2 ** (bits - 1), size=(draws, *shape)) + 1) * 2.0**-bits).astype(dtype)


def dequantised_bound(
    log_density: Callable[[NDArray[Any]], NDArray[Any]],
    images: NDArray[Any],
    *,
    levels: int = 256,
    low: float = 0.0,
    high: float = 1.0,
    seed: int = 0,
    draws: int = 1,
    start: int = 0,
    batch: int = 256,
    dtype: type[np.floating[Any]] = np.float64,
) -> LogLikelihood:
    """Lower bound on the log mass of discrete images from a density on [low, high], by uniform dequantisation.

        log P(x) = log ∫ p(x + u) du >= E log 1/k Σ_k p(x + u_k),   u uniform over the bin of x

    Args:
        log_density: (rows, ...) of `dtype` in (low, high) -> (rows,) log density in nats, of the scaled values.
        images: (n, ...) whole numbers from 0 to levels − 1: ranks of the grey values, not the values themselves where there are gaps.
        levels: number of grey values, at most 256.
        low: lower end of the first bin as the model scales it.
        high: upper end of the last bin.
        seed: of the noise.
        draws: k; the bound tightens with it.
        start: index of the first image in its data set.
        batch: images at once; no effect on the noise.
        dtype: what the model computes in.

    Returns:
        Bound "lower" and measure "mass": the bins' width (high − low)/levels is accounted for.

    Raises:
        DataError: images that are not ranks; a log density that is NaN or +∞, or of another shape; names the image.

    References:
        A note on the evaluation of generative models (Theis et al., 2016), section 3.1.

    Example:
        >>> uniform = dequantised_bound(lambda x: np.zeros(len(x)), np.zeros((3, 1, 2, 2), np.uint8))
        >>> to_bits_per_dim(uniform.nats, uniform.dims)
        array([8., 8., 8.])
    """
    if not 2 <= levels <= 256 or batch < 1 or start < 0:
        raise UsageError(f"dequantisation needs 2 to 256 levels, batch >= 1 and start >= 0, found {levels}, {batch} and {start}")
    x = np.asarray(images)
    if x.ndim < 2 or x.dtype.kind not in "iu":
        raise DataError(
            f"images to be dequantised are whole numbers (n, ...), found {x.dtype} of shape {x.shape}; pass the grey values' ranks"
        )
    flat = x.reshape(len(x), prod(x.shape[1:]))
    bad = np.flatnonzero(((flat < 0) | (flat >= levels)).any(axis=1))
    if len(bad):
        raise DataError(
            f"grey values' ranks lie in 0 to {levels - 1}, image {start + bad[0]} has others; pass levels, or ranks of the values"
        )
    dims, scale = flat.shape[1], (high - low) / levels
    offset = dims * offset_bits(levels, low, high) * log(2)
    parts = [np.empty(0)]
    for a in range(0, len(x), batch):
        part = x[a : a + batch].astype(dtype)[:, None]
        noise = [dequantisation_noise(x.shape[1:], start + a + i, seed=seed, draws=draws, dtype=dtype) for i in range(len(part))]
        rows = (low + scale * (part + np.stack(noise))).astype(dtype, copy=False)
        found = _real(log_density(rows.reshape(-1, *x.shape[1:])), "log densities")
        if found.shape != (len(part) * draws,):
            raise DataError(f"a log density is one number per row, ({len(part) * draws},), found shape {found.shape}")
        parts.append(iwae_bound(found.reshape(len(part), draws)) - offset)
    return LogLikelihood(np.concatenate(parts), dims, "lower", "mass", estimator=f"{draws} draws of dequantisation noise")


def check_binary(images: NDArray[Any]) -> NDArray[np.float64]:
    """Binary images as 0 and 1: what a Bernoulli likelihood is of.

    With grey values the formula x log p + (1 − x) log(1 − p) still gives a number, which is the log of no probability.

    Args:
        images: (n, ...) with values 0 and 1, or uint8 with 0 and 255.

    Raises:
        DataError: other values; names the first image.

    Example:
        >>> check_binary(np.array([[0, 255, 255]], np.uint8))
        array([[0., 1., 1.]])
    """
    x = np.asarray(images)
    one = 255 if x.dtype == np.uint8 and (x == 255).any() else 1
    flat = x.reshape(len(x), prod(x.shape[1:]))
    grey = np.flatnonzero(((flat != 0) & (flat != one)).any(axis=1))
    if len(grey):
        row = flat[grey[0]]
        value = row[(row != 0) & (row != one)][0]
        raise DataError(f"a Bernoulli likelihood is of binary images, image {grey[0]} holds {value}; binarise the data and name how")
    return (x == one).astype(np.float64)


# -- units -------------------------------------------------------------------------------------------------------------------------


def to_bits_per_dim(nats: Any, dims: int) -> Any:
    """−log p in bits per dimension.

    Args:
        nats: log p of discrete data, a number or an array.
        dims: pixels × channels.

    Example:
        >>> float(to_bits_per_dim(-784 * log(256), 784))
        8.0
    """
    if dims < 1:
        raise UsageError(f"bits per dimension need at least 1 dimension, found {dims}")
    return -np.asarray(nats, np.float64) / dims / log(2)


def offset_bits(levels: int = 256, low: float = 0.0, high: float = 1.0) -> float:
    """Bits per dimension to add to those of a density on [low, high] for data of `levels` grey values with bins of equal width.

    A bin holds the density times its width (high − low)/levels, so the offset is −log2 of the width.

    Example:
        >>> offset_bits(256), offset_bits(256, -1, 1), round(offset_bits(17), 4)
        (8.0, 7.0, 4.0875)
    """
    if levels < 1 or not (isfinite(low) and isfinite(high) and low < high):
        raise UsageError(f"bins need levels >= 1 and low < high, found {levels}, {low} and {high}")
    return log2(levels / (high - low))


# -- likelihoods of other programs -------------------------------------------------------------------------------------------------


def load(path: str | Path, *, dims: int | None = None, bound: str | None = None, measure: str | None = None) -> LogLikelihood:
    """Read log-likelihoods that another program computed.

    `.npz` holds `nats` (n,), or `log_weights` (n, draws) of which `iwae_bound` is taken; and, where they are known, `dims`, `bound` and
    `measure`. `.npy` holds (n,) nats. Written with e.g. numpy.savez(path, nats=log_p, dims=784, bound="lower", measure="mass").

    Args:
        path: of the file.
        dims: dimensions that a log-likelihood is spread over, where the file does not say.
        bound: what the values are to log p, where the file does not say; else "exact" for nats, "lower" for log_weights.
        measure: what they are of, where the file does not say; else "density".

    Raises:
        UsageError: an entry that does not exist (with the near miss), one that is missing, or an argument against the file's own entry.
        DataError: the file is not readable, or an array has the wrong shape or type, or NaN or +∞ (with its index).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder) / "ll.npz", nats=np.array([-1.0, -2.0]), dims=4, measure="mass")
        ...     found = load(Path(folder) / "ll.npz")
        >>> (len(found), found.dims, found.bound, found.measure)
        (2, 4, 'exact', 'mass')
    """
    held = _read(Path(path))
    for key in held:
        if key not in ENTRIES:
            raise UsageError(f"{path}: {near_miss(key, ENTRIES, 'entry')}")
    if ("nats" in held) == ("log_weights" in held):
        raise UsageError(
            f"{path}: expected nats (n,) or log_weights (n, draws), found {'both' if 'nats' in held else 'neither'}; write one"
        )
    count, given = _number(held.get("dims"), path), _agree("dims", _number(held.get("dims"), path), dims, path)
    if given is None:
        raise UsageError(f"{path}: does not say over how many dimensions a log-likelihood is spread; pass dims")
    if given < 1:
        raise DataError(f"{path}: dims is a whole number from 1 on, found {given if count is None else count}")
    weighted = "log_weights" in held
    kind = _agree("bound", _text("bound", held.get("bound"), path), bound, path) or ("lower" if weighted else "exact")
    if kind not in BOUNDS:
        raise UsageError(f"{path}: {near_miss(kind, BOUNDS, 'bound')}")
    if weighted and kind in ("exact", "upper"):
        raise UsageError(f"{path}: a mean over log_weights is a lower bound, found bound {kind!r}; leave it out")
    of = _agree("measure", _text("measure", held.get("measure"), path), measure, path) or "density"
    try:
        if weighted:
            draws = np.shape(held["log_weights"])[-1]
            return LogLikelihood(iwae_bound(held["log_weights"]), given, kind, of, estimator=f"IWAE-{draws}" if draws > 1 else "ELBO")
        nats = _real(held["nats"], "nats")
        if nats.ndim != 1:
            raise DataError(f"nats are one number per sample (n,), found shape {nats.shape}; log_weights are (n, draws)")
        _check(nats, "nats")
        return LogLikelihood(nats, given, kind, of)
    except DataError as e:
        raise DataError(f"{path}: {e}") from e


def _read(path: Path) -> dict[str, NDArray[Any]]:
    import zipfile
    import zlib
    from tokenize import TokenError

    suffix = path.suffix.lower()
    if suffix not in (".npz", ".npy"):
        raise UsageError(
            f"{path}: log-likelihoods are read from .npz or .npy, found {suffix or 'no ending'!r}; write them with numpy.savez"
        )
    try:
        with path.open("rb") as file:  # numpy leaves a damaged zip file open
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray) != (suffix == ".npy"):
                raise DataError(f"{path}: its content is not what its ending says; write it again with numpy.save or numpy.savez")
            held = {"nats": found} if isinstance(found, np.ndarray) else {key: found[key] for key in found.files}
            if any(not isinstance(x, np.ndarray) for x in held.values()):  # of a member that is no array NumPy gives the bytes
                raise ValueError("a member is no array")
            return held
    except FileNotFoundError as e:
        raise DataError(f"{path}: there is no such file; check the path") from e
    except (OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError, MemoryError, TokenError, zipfile.BadZipFile, zlib.error) as e:
        raise DataError(f"{path}: not readable ({e}); write it again as plain numbers with numpy.save or numpy.savez") from e


def _agree(name: str, held: Any, given: Any, path: Any) -> Any:
    if held is not None and given is not None and held != given:
        raise UsageError(f"{path}: the file says {name} {held!r}, {given!r} was passed; leave out the one that is wrong")
    return held if held is not None else given


def _number(held: NDArray[Any] | None, path: Any) -> int | None:
    if held is None:
        return None
    if held.size != 1 or held.dtype.kind not in "iu":
        raise DataError(f"{path}: dims is one whole number, found {held.dtype} of shape {held.shape}")
    return int(held.reshape(()))


def _text(name: str, held: NDArray[Any] | None, path: Any) -> str | None:
    if held is None:
        return None
    if held.size != 1 or held.dtype.kind != "U":
        raise DataError(f"{path}: {name} is one word, found {held.dtype} of shape {held.shape}")
    return str(held.reshape(()))
