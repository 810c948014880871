"""α-Precision and β-Recall, integrated."""

from dataclasses import replace
from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Detail, Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import SAME, neighbours
from genbench.statistics import Features

Vector = NDArray[np.float64]
EXCESS = 1.5  # on the design effect's excess over 1: it has 30 degrees of freedom and comes from parts smaller than the whole (simulated)
CURVE = 101  # levels in the table
DRAWS = 100
PRECISION_HALF, RECALL_HALF = 2.25, 2.0  # half widths in standard errors (simulated)
BRIDGE = 4 * (7 / 60 - pi / 32)  # variance of 2 ∫|B| of a Brownian bridge B


@metric(
    Quantity("alpha_precision", "higher", ideal=1.0, range=(0, 1)),
    Quantity("beta_recall", "higher", range=(0, 1)),
    cost="n² d",
    source="Alaa et al. 2022, section 3",
)
def alpha_precision_beta_recall(ref: Features, gen: Features, *, k: int = 1, seed: int = 0) -> tuple[Outcome, ...]:
    """Integrated α-precision and β-recall of Euclidean balls around the mean ("one-class embedding off").

        P_α = share of gen in the ball around the mean of ref that holds the share α of ref
        R_β = share of ref that is covered and whose nearest gen row is among the share β of those that are nearest to the mean of gen
              (covered: that gen row is no further than the k-th nearest other ref row)

        alpha_precision = 1 − 2 ∫|P_α − α| dα       beta_recall = 1 − 2 ∫|R_β − β| dβ = 2 mean_j covered_j (1 − rank_j)

    The paper embeds samples by a one-class network first; here the features are taken as they are, so the supports are balls.

    Departures from the authors' code (`compute_alpha_precision`, also in synthcity): the integrals are exact, theirs are sums over 30
    levels that count both ends in full; sides may differ in size (recall cuts the larger one, precision takes all rows); ties are spread
    evenly over their levels, so that equal discrete data read 1 and a gen row that is nearest to several ref rows has the mean of their
    ranks. Kept from the code, against the text of the paper: the nearest gen row is that of all gen, not of those in the β-support, and
    ranks are among these nearest rows, so that R_β <= β. Their authenticity is a metric of its own, here as there.

    Args:
        ref: reference features (m, d), m > k.
        gen: generated features (n, d); n > k for recall.
        k: neighbours that make a ref row's ball, itself not counted; 1 in the authors' code.
        seed: of the cut for recall, and of the parts that its interval is made of.

    Returns:
        Two numbers in [0, 1] without unit, higher is better; table "curve" of P and R at 101 levels. alpha_precision is 1 for equal laws
        up to noise, which lowers it by 0.63 sqrt(1/n + 1/m) on average. beta_recall of equal laws is about the chance to be covered,
        1 − 2^−k: 0.5 for k = 1; it is 1 only where every ref row is covered.

        Interval, for the expectation at this n. alpha_precision: 2.25 standard errors from 100 bootstrap draws of the rows of both sides,
        and so of the mean of ref (no neighbours are involved: copies do no harm), at least those of equal laws; the estimate is skewed to
        the left, so the interval is taken on the scale of sqrt(1 − value), as for KID. beta_recall: influences of ref rows with the design
        effect D of shared neighbours, found by parting both sides into 4 to 20 parts, several times, and taken as 1 + 1.5 (D − 1); value
        ± 2 sqrt(D Var/n). No interval below 8 samples a side for precision, 4 (k + 5) for recall.

    Note:
        alpha_precision sees the law of the distance to the mean only: samples at the right distances in wrong directions read 1. It
        punishes samples nearer to the mean than real ones, which precision rewards. beta_recall weights ref rows by how central their
        nearest gen row is: a dropped mode far from the mean costs little, and may even raise it for small k, since the modes that are kept
        hold more gen rows each. In high dimensions alpha_precision reads low for small samples, as a ref row is nearer to a mean that it
        is part of: equal Gaussians of 500 rows in 2,048 dimensions read 0.944, not 0.960. Both are blind to copies of training data, and
        not invariant to the scale of single features.

    References:
        How Faithful is your Synthetic Data? Sample-level Metrics for Evaluating and Auditing Generative Models (Alaa et al., 2022),
        section 3, and the code of its authors.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, y = Features(rng.normal(size=(800, 4))), Features(rng.normal(size=(800, 4)))
        >>> [round(e.value, 1) for e in alpha_precision_beta_recall.function(x, y)]
        [1.0, 0.5]
    """
    if k < 1:
        raise UsageError(f"alpha_precision_beta_recall needs k >= 1, found {k}")
    n, m = len(gen), len(ref)
    if min(n, m) < 1:
        return (Undefined(f"needs samples on both sides, found {n} generated and {m} of the reference"),) * 2
    levels = np.linspace(0, 1, CURVE)
    precision, precise = _precision(gen, ref, seed, levels)
    size = min(n, m)
    if size <= k:
        few = Undefined(f"beta_recall needs more than k = {k} samples on each side, found {n} and {m}")
        table = Detail("curve", ("level", "precision"), tuple(zip(levels.tolist(), precise.tolist(), strict=True)))
        return replace(precision, details=(table,)), few
    x, y = gen.cut(size, seed), ref.cut(size, seed)
    recall, recalled = _recall(x, y, k, seed, levels)
    notes = recall.notes + ((f"{n:,} samples against {m:,} of the reference: the larger side is cut to {size:,}",) if n != m else ())
    rows = tuple(zip(levels.tolist(), precise.tolist(), recalled.tolist(), strict=True))
    table = Detail("curve", ("level", "precision", "recall"), rows)
    return replace(precision, details=(table,)), replace(recall, n=n, notes=notes, details=(table,))


def _precision(gen: Features, ref: Features, seed: int, levels: Vector) -> tuple[Estimate, Vector]:
    """The estimate and P at the levels."""
    n, m = len(gen), len(ref)
    centre = ref.x.mean(axis=0, dtype=np.float64)
    from_g, from_r = gen.x - centre, ref.x - centre
    g, r = (np.einsum("ij,ij->i", v, v) for v in (from_g, from_r))  # squares have the same ranks
    p, a, value = _polygon(g, r, np.full(n, 1 / n), np.full(m, 1 / m))
    curve = np.interp(levels, a, p)
    if min(n, m) < 8:
        return Estimate(value, None, None, n, None, notes=(f"no interval: {min(n, m)} samples",)), curve
    draw, found = np.random.default_rng(seed), np.empty(DRAWS)
    for b in range(DRAWS):
        of_g, of_r = (np.bincount(draw.integers(0, count, count), minlength=count) / count for count in (n, m))
        move = of_r @ from_r  # of the mean of ref; the squared distances change by −2 move·(x − mean), and by a constant
        found[b] = _polygon(g - 2 * (from_g @ move), r - 2 * (from_r @ move), of_g, of_r)[2]
    equal = BRIDGE * (1 / n + 1 / m)
    half = PRECISION_HALF * sqrt(max(float(found.var(ddof=1)), equal))
    shift = half**2 / (4 * max(1 - value, half))
    return Estimate(value, max(value - half - shift, 0.0), min(value + half - shift, 1.0), n, "bootstrap"), curve


def _polygon(g: Vector, r: Vector, weight_g: Vector, weight_r: Vector) -> tuple[Vector, Vector, float]:
    """P and α at the corners of the curve, whose ties are straight lines, and 1 − 2 times the area between it and the diagonal."""
    t, at = np.unique(np.concatenate([g, r]), return_inverse=True)
    step_p, step_a = np.bincount(at[: len(g)], weight_g, len(t)), np.bincount(at[len(g) :], weight_r, len(t))
    p, a = np.append(0.0, np.cumsum(step_p)), np.append(0.0, np.cumsum(step_a))
    over = p - a
    left, right = np.abs(over[:-1]), np.abs(over[1:])
    crossing = over[:-1] * over[1:] < 0
    heights = np.where(crossing, (left**2 + right**2) / np.where(crossing, left + right, 1.0), left + right) / 2
    return p, a, min(max(1 - 2 * float(heights @ step_a), 0.0), 1.0)


def _recall(gen: Features, ref: Features, k: int, seed: int, levels: Vector) -> tuple[Estimate, Vector]:
    """The estimate and R at the levels, of sides of equal size."""
    size = len(ref)
    covered, rank, units = _covered(gen, ref, k)
    value = min(2 * float((covered * (1 - rank)).mean()), 1.0)
    order = np.argsort(rank, kind="stable")
    curve = np.searchsorted(rank[order], levels, side="right")
    recalled = np.append(0.0, np.cumsum(covered[order]))[curve] / size
    effect = _design(gen, ref, k, seed)
    if effect is None:
        return Estimate(value, None, None, size, None, notes=(f"no interval: {size} samples are too few for k = {k}",)), recalled
    half = RECALL_HALF * sqrt(max((1 + EXCESS * (effect - 1)) * float(units.var()) / size, 2 / size**2))  # at least the rule of three
    return Estimate(value, max(value - half, 0.0), min(value + half, 1.0), size, "design effect"), recalled


def _covered(gen: Features, ref: Features, k: int) -> tuple[NDArray[np.bool_], Vector, Vector]:
    """Of each ref row: whether it is covered, the rank of its nearest gen row in (0, 1), its influence on the recall."""
    from scipy.stats import rankdata

    distance, index = neighbours(ref, gen, 1)
    covered = distance[:, 0] * (1 - SAME) <= neighbours(ref, None, k)[0][:, -1]
    from_centre = gen.x - gen.x.mean(axis=0, dtype=np.float64)
    rank = (rankdata(np.einsum("ij,ij->i", from_centre, from_centre)[index[:, 0]]) - 0.5) / len(ref)
    # A row further out than others lowers their ranks.
    _, at = np.unique(rank, return_inverse=True)
    here = np.bincount(at, covered)
    beyond = (here.sum() - np.cumsum(here) + here / 2) / len(ref)
    units = 2 * (covered * (1 - rank) - beyond[at])
    return covered, rank, units


def _design(gen: Features, ref: Features, k: int, seed: int) -> float | None:
    """Sampling variance of the recall over that of independent rows, at least 1, from parts as in `numerics.manifold_design`."""
    size = len(gen)
    parts = int(np.clip(size // 1000, 4 if size >= 16 * (k + 1) else 2, 20))
    if size // parts < 2 * (k + 5):
        return None
    draw = np.random.default_rng(seed)
    between, within = [], []
    for _ in range(-(-30 // (parts - 1))):  # 30 degrees of freedom
        order_g, order_r = draw.permutation(size), draw.permutation(size)
        found = [_covered(gen.take(np.sort(order_g[p::parts])), ref.take(np.sort(order_r[p::parts])), k) for p in range(parts)]
        between.append(np.var([2 * (covered * (1 - rank)).mean() for covered, rank, _ in found], ddof=1))
        within.append(np.mean([units.var() for _, _, units in found]))
    return max((size / parts) * float(np.mean(between)) / max(float(np.mean(within)), 1 / size), 1.0)
