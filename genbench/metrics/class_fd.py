"""Intra-class Fréchet distance: within each class, then averaged."""

from math import inf, sqrt

import numpy as np

from genbench.estimate import Detail, Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Z95, frechet, frechet_spread, jackknife_se
from genbench.statistics import Features, Moments

BLOCKS = 5  # of the jackknife that removes the bias
SECOND = (12.5, -16.0, 4.5)  # the value at 1/n = 0 of the parabola in 1/n through those of all, 4/5 and 3/5 of the rows
LISTED = 10  # classes that a reason names
LABELS = "give labels as class sub-folders, or as `labels` in an .npz file"


@metric(
    Quantity("class_fd", "lower", unit="feature²", ideal=0.0, range=(0, inf)),
    Quantity("class_fd_debiased", "lower", unit="feature²", ideal=0.0, placed=True),
    cost="n d² + classes d³",
    source="Miyato & Koyama 2018; Heusel et al. 2017, eq. 6",
)
def class_fd(ref: Features, gen: Features) -> tuple[Outcome, Outcome]:
    """Mean over the classes of the Fréchet distance between the generated and the reference samples of a class.

        class_fd = (1/K) Σ_c FD(gen of class c, ref of class c)

    Args:
        ref: reference features (m, d) with class numbers; they say which classes there are, and all weigh alike.
        gen: generated features (n, d) with the class numbers that they were generated for.

    Returns:
        Two quantities in squared feature units, lower is better.

        `class_fd`, in [0, ∞): the published definition (intra-FID). Its bias is that of a class's sample, K times that of `fid`:
        compare only equal sizes. Its interval is the spread of the raw value over new samples of the same sizes.

        `class_fd_debiased`, in (−∞, ∞), 0 for equal laws: the mean over the classes of the 5-block jackknife
        FD − 4 (mean_b FD_(b) − FD); it may be negative where the laws are close. The number to compare across sample sizes.

        Intervals: classes are independent, so their variances add, here divided by K². The variance is the mean of the influence
        functions' (`numerics.frechet_spread`), max(v1 − v2, v2) for the raw value and max(v1, v2) for the debiased one, and of the
        jackknife's J, for the debiased value max(J − v2, v2), as J counts the degenerate part v2 twice. Half width h = 1.96 of its
        roots; averaging takes errors off but not the bias that a jackknife leaves, so that h of the debiased value is widened by its
        difference from the extrapolation of the next order, 12.5 FD − 16 FD(4/5 of the rows) + 4.5 FD(3/5 of the rows). Both intervals
        are taken on the scale of the square root, which shifts them up by h²/(4 max(value, h)). None where a class has n <= d samples
        on either side. Simulated coverage: benchmarks/coverage.md.

        Undefined without labels on both sides, and where a class is on one side only: to leave it out would reward dropping it.
        Notes: the worst class; "low n" where a class has n < 4 d. The table "classes" has every class with its own interval.

    Note:
        Class numbers must mean the same on both sides; those of sub-folders go by the sorted folder names. Sees a generator that confuses
        classes, to which `fid` is blind, but not the shares of the classes. Means and covariances only.

    References:
        cGANs with Projection Discriminator (Miyato & Koyama, 2018): intra FID, in the experiments.
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017), eq. 6.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> one, other = (Features(rng.normal(size=(600, 2)), labels=np.arange(600) % 3) for _ in range(2))
        >>> raw, debiased = class_fd.function(one, other)
        >>> debiased.low < 0 < debiased.high
        True
    """
    for side, what in ((gen, "generated"), (ref, "reference")):
        if side.labels is None:
            return (Undefined(f"needs the classes of the {what} samples, found no labels; {LABELS}"),) * 2
    assert gen.labels is not None
    assert ref.labels is not None
    n, d = len(gen), gen.d
    classes = np.union1d(gen.labels, ref.labels)
    rows = [(np.flatnonzero(gen.labels == c), np.flatnonzero(ref.labels == c)) for c in classes]
    sizes = np.array([min(len(g), len(r)) for g, r in rows])
    if not len(classes) or sizes.min() < 2:
        few = [f"{c} ({len(g)} generated, {len(r)} reference)" for c, (g, r) in zip(classes, rows, strict=True) if min(len(g), len(r)) < 2]
        more = f" and {len(few) - LISTED} more" if len(few) > LISTED else ""
        found = f"class {', '.join(few[:LISTED])}{more}" if few else "no samples"
        return (
            Undefined(f"needs at least 2 samples of every class on each side, found {found}; generate all classes of the reference"),
        ) * 2

    count, exact = len(classes), bool(sizes.min() > max(d, BLOCKS - 1))
    raw, point, parabola, v1, v2, jackknife = np.zeros((6, count))
    influence = {"gen": np.zeros(n), "ref": np.zeros(len(ref))}
    for i, (of_gen, of_ref) in enumerate(rows):
        g, r = gen.take(of_gen), ref.take(of_ref)
        raw[i] = frechet(g, r)
        if sizes[i] < BLOCKS:
            continue
        rest = np.array([frechet(_without(g, b), _without(r, b)) for b in range(BLOCKS)])
        point[i] = raw[i] - (BLOCKS - 1) * (float(rest.mean()) - raw[i])
        if exact:
            spread = frechet_spread(g, r, Moments.of(g), Moments.of(r))
            assert spread.inf_ref is not None
            fewer = [frechet(_without(g, b, (b + 2) % BLOCKS), _without(r, b, (b + 2) % BLOCKS)) for b in range(BLOCKS)]
            parabola[i] = np.dot(SECOND, (raw[i], rest.mean(), np.mean(fewer)))
            v1[i], v2[i] = spread.v1, spread.v2
            jackknife[i] = float(jackknife_se(rest[:, None])[0]) ** 2
            influence["gen"][of_gen] = spread.inf_gen * n / (count * len(g))
            influence["ref"][of_ref] = spread.inf_ref * len(ref) / (count * len(r))
    if not (np.isfinite(raw).all() and np.isfinite(jackknife + v1 + v2).all()):
        return (Undefined("the features are too large for float64: a distance overflows; rescale them"),) * 2

    debiased = bool(sizes.min() >= BLOCKS)
    worst = int(np.argmax(point if debiased else raw))
    notes: tuple[str, ...] = (f"the worst of {count} classes is {classes[worst]}: {(point if debiased else raw)[worst]:.4g}",)
    half = Z95 * np.sqrt((np.maximum(v1, v2) + np.maximum(jackknife - v2, v2)) / 2) + np.abs(point - parabola)
    cells = []
    for i, (c, (of_gen, of_ref)) in enumerate(zip(classes, rows, strict=True)):
        low, high = _ends(float(point[i]), float(half[i])) if exact else (None, None)
        cells.append(
            (int(c), len(of_gen), len(of_ref), max(float(raw[i]), 0.0), float(point[i]) if sizes[i] >= BLOCKS else None, low, high)
        )
    table = Detail("classes", ("class", "generated", "reference", "fd", "fd_debiased", "low", "high"), tuple(cells))
    value, middle = max(float(raw.mean()), 0.0), float(point.mean())
    if not exact:
        notes += (f"no interval: the smallest class has {sizes.min():,} samples for {d:,} features",)
        first = Estimate(value, None, None, n, None, notes=notes, details=(table,))
        if not debiased:
            return first, Undefined(f"the jackknife needs at least {BLOCKS} samples of every class on each side, found {sizes.min()}")
        return first, Estimate(middle, None, None, n, None, notes=notes, details=(table,))
    if sizes.min() < 4 * d:
        notes += (f"low n: {sizes.min():,} samples for {d:,} features in the smallest class; 4 per feature make the interval reliable",)

    first_order, degenerate, blocks = (float(v.sum()) / count**2 for v in (v1, v2, jackknife))
    half_raw = Z95 * sqrt((max(first_order - degenerate, degenerate) + blocks) / 2)
    whole = Z95 * sqrt((max(first_order, degenerate) + max(blocks - degenerate, degenerate)) / 2) + abs(middle - float(parabola.mean()))

    def estimate(x: float, low: float, high: float) -> Estimate:
        return Estimate(
            x,
            low,
            high,
            n,
            "influence functions and jackknife-5",
            notes=notes,
            details=(table,),
            influence=influence,
            degenerate=degenerate,
        )

    low, high = _ends(value, half_raw)
    return estimate(value, max(low, 0.0), high), estimate(middle, *_ends(middle, whole))


def _without(x: Features, *blocks: int) -> Features:
    """The rows of all blocks but these."""
    return Features(x.x[~np.isin(np.arange(len(x)) % BLOCKS, blocks)], x.extractor)


def _ends(value: float, half: float) -> tuple[float, float]:
    """An interval on the scale of the distance, the square root: the estimate is skewed to the right."""
    shift = half**2 / (4 * max(value, half)) if value > 0 else 0.0
    return value - half + shift, value + half + shift
