"""Memorisation-informed FID: the Fréchet distance, made larger where samples lie too close to training data."""

from math import inf, isfinite

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Z95, Float, frechet, frechet_spread, neighbours, student95
from genbench.statistics import Features, Moments


@metric(
    Quantity("mifid", "lower", unit="feature²", ideal=0.0, range=(0, inf)),
    Quantity("memorisation_distance", "higher", range=(0, 2)),
    cost="n m d + d³",
    source="Bai et al. 2021, section 3 (MiFID)",
)
def mifid(ref: Features | Moments, gen: Features, train: Features, *, tau: float = 0.1, eps: float = 1e-6) -> tuple[Outcome, Outcome]:
    """Fréchet distance with a penalty for memorisation.

        s     = mean over generated g of min over train r of (1 − cos(g, r))
        MiFID = FID / (s + eps) where s < tau, else FID

    The mean runs over the generated samples: an average over the training samples, as some tools take, misses a generator whose few
    distinct samples are all copies. The cosine keeps its sign (Kaggle's code takes its absolute value, the same for features that are
    not negative). A row of zeros is at distance 0 from a row of zeros and at 1 from all others.

    Args:
        ref: reference features (m, d), or their moments.
        gen: generated features (n, d).
        train: training features, which the samples may have been copied from.
        tau: the distance below which samples count as memorised. 0.1 was chosen for Inception features of photographs; features of other
            networks need their own: somewhat below what held-out data read as `memorisation_distance`.
        eps: keeps the penalty finite for a pure copy, positive.

    Returns:
        `mifid`, in [0, ∞), squared feature units, lower is better: the raw FID of `fid`, biased upward by about constant/n, times the
        penalty. It jumps where s crosses tau.
        `memorisation_distance`, in [0, 2], higher is better, without unit: s. Exact copies of all samples read 0. Real samples do not
        read a fixed number: it depends on the features and shrinks slowly as train grows.

        Intervals, for new samples of all sides at these sizes: s ± Student's t times the standard error of a mean in which samples count
        as dependent where they share one of their two nearest training samples, moved by Johnson's term for skewness. MiFID's from the
        influence functions of FID (`numerics.frechet_spread`) and of the penalty where it is active; the side of tau is taken as known.
        None for `mifid` where n <= d on either side. Simulated coverage: benchmarks/coverage.md.

    Note:
        FID is blind to copies; the penalty sees them only below tau. A generator that copies half of its samples halves s, no more.

    References:
        On Training Sample Memorization: Lessons from Benchmarking Generative Modeling with a Large-scale Competition (Bai et al., 2021),
        section 3: memorisation distance and MiFID.
        Modified t Tests and Confidence Intervals for Asymmetrical Populations (Johnson, 1978): the term for skewness.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, y = Features(rng.normal(size=(300, 8))), Features(rng.normal(size=(300, 8)))
        >>> mifid(ref=y, gen=x, train=x)["memorisation_distance"].value
        0.0
    """
    if not (eps > 0 and tau >= 0):
        raise UsageError(f"mifid needs eps > 0 and tau >= 0, found {eps} and {tau}")
    n, m = len(gen), len(train)
    if not (n and m):
        why = Undefined(f"needs generated and training samples, found {n} and {m}")
        return why, why
    distance, first, second = _cosine(gen, train)
    s = float(distance.mean())
    residual = distance - s
    groups = len(np.unique(first))
    if n < 3 or groups < 3:
        memorised = Estimate(s, None, None, n, None, notes=(f"no interval: {n} samples next to {groups} training samples",))
    else:
        own = float(residual @ residual)
        t = student95(groups - 1)
        half = t * float(np.sqrt(max(_shared(residual, first, second, m + 2), own) * groups / (groups - 1))) / n
        skew = float((residual**3).sum()) / own * (1 + 2 * t * t) / (6 * n) if own > 0 else 0.0
        shift = float(np.clip(skew, -half, half))
        low, high = max(s - half + shift, 0.0), min(s + half + shift, 2.0)
        memorised = Estimate(s, low, high, n, "clustered mean", influence={"gen": residual})
    return _penalised(ref, gen, s, residual, s < tau, tau, eps), memorised


def _penalised(ref: Features | Moments, gen: Features, s: float, residual: Float, active: bool, tau: float, eps: float) -> Outcome:
    """FID over s + eps where the penalty is active, and its interval."""
    n, m, d = len(gen), ref.n if isinstance(ref, Moments) else len(ref), gen.d
    if n < 2 or (m is not None and m < 2):
        return Undefined(f"a covariance needs at least 2 samples on each side, found {n} and {m}")
    factor = 1 / (s + eps) if active else 1.0
    fid = max(frechet(gen, ref), 0.0)
    value = fid * factor
    if not isfinite(value):
        return Undefined(f"the features are too large for float64: the distance overflows to {value}; rescale them")
    how = f"below tau = {tau:g}: FID {fid:.4g} is multiplied by {factor:.4g}" if active else f"not below tau = {tau:g}: no penalty"
    notes: tuple[str, ...] = (f"memorisation distance {s:.4g}, {how}",)
    if n <= d or (isinstance(ref, Features) and len(ref) <= d):
        return Estimate(value, None, None, n, None, notes=(*notes, f"no interval: too few samples for {d:,} features"))
    spread = frechet_spread(gen, ref, Moments.of(gen), ref if isinstance(ref, Moments) else Moments.of(ref))
    influence = {"gen": spread.inf_gen * factor - (value * factor * residual if active else 0.0)}
    variance = float(influence["gen"].var(ddof=1)) / n
    if spread.inf_ref is not None:
        influence["ref"] = spread.inf_ref * factor
        variance += float(influence["ref"].var(ddof=1)) / len(spread.inf_ref)
    second = spread.v2 * factor**2  # of it the first-order variance holds two where the laws are equal
    half = Z95 * float(np.sqrt(max(variance - second, second)))
    shift = half**2 / (4 * max(value, half)) if value > 0 else 0.0  # an interval on the scale of the root: the value is skewed
    return Estimate(value, max(value - half + shift, 0.0), value + half + shift, n, "influence functions", notes=notes, influence=influence)


def _cosine(gen: Features, train: Features) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Smallest 1 − cos of every generated row to a training row, and the two nearest rows: of unit vectors, ‖u − v‖² = 2 − 2 cos."""
    unit_gen, has_gen = _directions(gen)
    unit_train, has_train = _directions(train)
    empty = not has_train.all()
    distance = np.where(has_gen, np.inf, 0.0 if empty else 1.0)
    first, second = np.full(len(gen), len(train), np.int64), np.full(len(gen), len(train) + 1, np.int64)  # rows without a direction
    if len(unit_gen) and len(unit_train):
        squares, index = neighbours(unit_gen, unit_train, min(2, len(unit_train)))
        rows = np.flatnonzero(has_train)[index]
        distance[has_gen], first[has_gen], second[has_gen] = squares[:, 0] / 2, rows[:, 0], rows[:, -1]
    return np.minimum(distance, 1.0 if empty else 2.0), first, second


def _shared(residual: Float, a: NDArray[np.int64], b: NDArray[np.int64], m: int) -> float:
    """Σ e_i e_j over the pairs with {a_i, b_i} ∩ {a_j, b_j} not empty, a pair of a sample with itself included."""
    touched = np.bincount(a, residual, minlength=m) + np.bincount(b, residual, minlength=m)
    both = np.bincount(np.unique(np.minimum(a, b) * m + np.maximum(a, b), return_inverse=True)[1], residual)  # share two: counted twice
    return float(touched @ touched - both @ both)


def _directions(x: Features) -> tuple[Features, NDArray[np.bool_]]:
    """Unit vectors of the rows that are not zero, and which these are; kept with x."""
    if "directions" not in x.memo:
        largest = np.abs(x.x).max(axis=1)
        has = largest > 0
        rows = x.x[has] / largest[has, None]  # so that no square under- or overflows
        rows /= np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)).astype(rows.dtype)[:, None]
        x.memo["directions"] = Features(rows, x.extractor), has
    found: tuple[Features, NDArray[np.bool_]] = x.memo["directions"]
    return found
