"""Maximum mean discrepancy of CLIP embeddings (CMMD)."""

from math import inf

import numpy as np

from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Float, KernelSums, degenerate_across, degenerate_within, mmd_interval
from genbench.statistics import Features

SIGMA = 10.0
SCALE = 1000.0
TILE = 1024  # 8 MiB tiles stay in the cache


@metric(
    Quantity("cmmd", "lower", ideal=0.0, range=(0, inf)),
    Quantity("cmmd_debiased", "lower", ideal=0.0),
    cost="n² d",
    source="Jayasumana et al. 2024, section 4",
    extractor="clip",
)
def cmmd(ref: Features, gen: Features) -> tuple[Outcome, Outcome]:
    """Squared maximum mean discrepancy of embeddings on the unit sphere, times 1000, with a wide Gaussian kernel.

        CMMD = 1000 ( Σ_{ij} k(x_i, x_j)/n² + Σ_{ij} k(y_i, y_j)/m² − 2 Σ_{ij} k(x_i, y_j)/(n m) ),   k(x, y) = exp(−‖x − y‖²/(2·10²))

    with rows divided by their norms. Published values are of CLIP ViT-L/14 at 336 pixels, and include the diagonals as here.

    Args:
        ref: reference embeddings (m, d).
        gen: generated embeddings (n, d).

    Returns:
        Two quantities without unit, lower is better.

        `cmmd`, in [0, ∞): the published definition. The diagonals lift it: equal laws read 1000 (1 − E k(x, x')) (1/n + 1/m), which a
        note gives. Compare only equal n and m. Its interval is for the expectation at this n and m.

        `cmmd_debiased`, in (−∞, ∞), 0 for equal laws: without the diagonals, over n(n−1) and m(m−1). The number to compare across
        sample sizes.

        Intervals: from the variance of a two-sample U-statistic, first-order projections v1 and degenerate part v2; along the effect on
        the scale of the square root, as in `mmd`; Student's t for the projections' kurtosis. No interval below 4 samples, and
        no value below 2. A row of zeros has no direction: it stays zero, at distance 1 from all others, and a note counts such rows.

    Note:
        On the sphere ‖x − y‖ <= 2, far below σ = 10, so k is nearly linear in the inner product and the value nearly 10 times the
        squared distance of the mean embeddings: it sees their mean, and hardly their variance or a mode's shape. The prints of the
        embedding (CLIP's training data, its 336-pixel resize) are its own: on other features no published value compares.

    References:
        Rethinking FID: Towards a Better Evaluation Metric for Image Generation (Jayasumana et al., 2024), section 4 and eq. 5.
        A Kernel Two-Sample Test (Gretton et al., 2012), eqs. 3 and 5: the unbiased and the biased estimate.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, y = (Features(rng.normal(size=(400, 8)) + [1, 0, 0, 0, 0, 0, 0, 0], "clip") for _ in range(2))
        >>> raw, debiased = cmmd.function(x, y)
        >>> raw.value > 0, debiased.low < 0 < debiased.high
        (True, True)
    """
    n, m = len(gen), len(ref)
    if min(n, m) < 2:
        why = Undefined(f"a U-statistic needs at least 2 samples on each side, found {n} and {m}")
        return why, why
    notes: tuple[str, ...] = () if gen.extractor == "clip" else (f"on {gen.extractor} features: published values are of clip",)
    (x, lost_x), (y, lost_y) = _directions(gen.x), _directions(ref.x)
    if lost_x or lost_y:
        notes += (f"{lost_x} generated and {lost_y} reference rows are zero and have no direction: they stay zero",)
    xx, yy, xy = _sums(x, None), _sums(y, None), _sums(x, y)
    rx, ry, cx, cy = SCALE * xx.rows / (n - 1), SCALE * yy.rows / (m - 1), SCALE * xy.rows / m, SCALE * xy.columns / n
    value = float(rx.mean() + ry.mean() - 2 * cx.mean())
    lift = -float(rx.mean()) / n - float(ry.mean()) / m  # of the diagonals, where k − 1 is 0
    notes_raw = (*notes, f"the diagonals lift it by {lift:.3g}, which two samples of one law read at these sizes")
    if min(n, m) < 4:
        notes, notes_raw = ((*some, f"no interval: {min(n, m)} samples") for some in (notes, notes_raw))
        return Estimate(max(value + lift, 0.0), None, None, n, None, notes=notes_raw), Estimate(value, None, None, n, None, notes=notes)
    ix, iy = 2 * (rx - cx - (rx - cx).mean()), 2 * (ry - cy - (ry - cy).mean())
    v2 = (
        2 * degenerate_within(xx, n) / (n * (n - 1))
        + 2 * degenerate_within(yy, m) / (m * (m - 1))
        + 4 * degenerate_across(xy, n, m) / (n * m)
    )
    v2 *= SCALE**2
    low, high = mmd_interval(value, lift, ix, iy, n, m, v2)
    found = []
    for move, least, told in ((lift, 0.0, notes_raw), (0.0, -inf, notes)):
        v, bottom, top = (max(w + move, least) for w in (value, low, high))
        found.append(Estimate(v, bottom, top, n, "U-statistic variance", notes=told, influence={"gen": ix, "ref": iy}, degenerate=v2))
    return found[0], found[1]


def _directions(rows: Float) -> tuple[Float, int]:
    """Rows divided by their norms, and how many are zero, which stay so."""
    x = rows.astype(np.float64)
    x /= np.maximum(np.abs(x).max(axis=1, keepdims=True), 1e-300)  # squares of huge and tiny values stay in range
    norms = np.sqrt((x**2).sum(axis=1, keepdims=True))
    return x / np.where(norms > 0, norms, 1.0), int((norms == 0).sum())


def _sums(x: Float, y: Float | None) -> KernelSums:
    """Sums of the kernel less 1, which keeps the digits that a wide kernel would lose; half the tiles where y is None, for x itself."""
    other = x if y is None else y
    rows, columns, squares = np.zeros(len(x)), np.zeros(len(other)), 0.0
    norms, other_norms = (x**2).sum(axis=1), (other**2).sum(axis=1)
    for a in range(0, len(x), TILE):
        for c in range(a if y is None else 0, len(other), TILE):
            k = norms[a : a + TILE, None] + other_norms[c : c + TILE] - 2 * (x[a : a + TILE] @ other[c : c + TILE].T)
            k = np.expm1(np.maximum(k, 0.0, out=k) / (-2 * SIGMA**2))
            if y is None and a == c:
                np.fill_diagonal(k, 0.0)
            twice = 1 if y is not None or a == c else 2
            squares += twice * float(np.vdot(k, k))
            rows[a : a + len(k)] += k.sum(axis=1)
            if y is not None or a != c:
                (rows if y is None else columns)[c : c + k.shape[1]] += k.sum(axis=0)
    return KernelSums(rows, rows if y is None else columns, squares)
