"""Data-copying test: are generated samples nearer to training data than held-out samples are?"""

import warnings

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Detail, Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Z95, Float, neighbours
from genbench.statistics import Features

FITTED = 10_000  # training rows behind the cells: ten means need no more
FILL = 2  # cells hold at least this multiple of `smallest` samples of either side, on average


@metric(Quantity("ct_score", "closer", ideal=0.0, placed=True), cost="n m d", source="Meehan et al. 2020, section 4")
def ct_score(gen: Features, train: Features, test: Features, *, cells: int = 10, smallest: int = 20, seed: int = 0) -> Outcome:
    """C_T: Mann-Whitney z of the distances to the nearest training sample, generated against held-out, averaged over cells.

        U_c = share of pairs (g, t) in cell c with d(t) < d(g), ties half,     d(x) = min over train of ‖x − r‖
        Z_c = (U_c − 1/2) / sqrt((n_c + m_c + 1) / (12 n_c m_c)),     C_T = Σ_c m_c Z_c / Σ_c m_c

    over the cells of a k-means partition of train with enough generated samples, n_c and m_c the numbers of generated and held-out ones
    in it. Within a cell a generator is not blamed for the modes that it prefers: dense regions have short distances.

    Deviations from the authors' code: d runs over all of train, not that of the cell (cells' borders then do no harm, and the neighbours
    are shared with other metrics); there is no continuity correction; there are fewer cells than asked for where samples are few.

    Args:
        gen: generated features (n, d).
        train: training features.
        test: held-out features (m, d) of the same law as train, and disjoint from it.
        cells: k-means cells of train; at most one per 2 `smallest` samples of the smaller of gen and test.
        smallest: generated samples that a cell needs to count, at least 2.
        seed: of the k-means start, and of the 10,000 training rows that it is fitted on.

    Returns:
        A z statistic in (−∞, ∞), 0 for equal laws: negative where generated samples lie nearer to train than real ones do (copying),
        positive where they lie further (underfitting). Below −3 is copying beyond doubt. It grows as sqrt(n): compare equal n and m only.

        Interval: value ± 1.96 times its standard error from the placements (DeLong et al. 1988) and the cells' counts. At equal laws
        the error is sqrt(Σ w_c²) with w_c = m_c/Σ m, at most 1. It is conditional on train, the set that may have been copied, and on
        its cells: where the laws differ, another train or another start of k-means moves the value by more (simulated coverage with new
        train: 0.90 for a shift, 0.67 for half copies). The table `cells` has one row per cell. Simulated coverage with train fixed:
        benchmarks/coverage.md.

    Note:
        Dropped modes are not seen: cells without enough generated samples are left out, a note says how much of test they hold. Copies
        can hide: as many samples that are too far off as there are copies leave U_c near 1/2 (count exact copies apart). Shrinkage
        towards the centres of modes looks like copying.

    References:
        A Non-Parametric Test to Detect Data-Copying in Generative Models (Meehan et al., 2020), section 4: Z_U and C_T.
        Comparing the Areas under Two or More Correlated ROC Curves (DeLong et al., 1988): the variance of U from placements.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> train, test, new = (Features(rng.normal(size=(400, 2))) for _ in range(3))
        >>> ct_score.function(Features(train.x + 0.01), train, test).value < -3
        True
        >>> ct_score.function(test, train, test).value
        0.0
    """
    if cells < 1 or smallest < 2:
        raise UsageError(f"ct_score needs cells >= 1 and smallest >= 2, found {cells} and {smallest}")
    n, m = len(gen), len(test)
    if min(n, m) < smallest or not len(train):
        return Undefined(
            f"needs at least {smallest} generated and {smallest} held-out samples and training data, found {n}, {m} and {len(train)}"
        )
    to_gen, to_test = neighbours(gen, train, 1)[0][:, 0], neighbours(test, train, 1)[0][:, 0]
    count = max(1, min(cells, min(n, m) // (FILL * smallest)))
    cell_gen, cell_test = _cells(train.cut(FITTED, seed).x, (gen.x, test.x), count, seed)
    n_c, m_c = np.bincount(cell_gen, minlength=count), np.bincount(cell_test, minlength=count)
    used = np.flatnonzero((n_c >= smallest) & (m_c >= 2))
    if not len(used):
        return Undefined(f"none of {count} cells holds {smallest} generated and 2 held-out samples; set fewer cells")

    weight = m_c / m_c[used].sum()
    u, z = np.full(count, np.nan), np.zeros(count)
    inf_gen, inf_test = np.zeros(n), np.zeros(m)
    for c in used:
        g, t = cell_gen == c, cell_test == c
        a, b = int(n_c[c]), int(m_c[c])
        above, below = _placements(to_gen[g], to_test[t]), _placements(to_test[t], to_gen[g])
        place_gen, place_test = above / (2 * b), 1 - below / (2 * a)
        scale = float(np.sqrt(12 * a * b / (a + b + 1)))
        u[c] = above.sum() / (2 * a * b)  # of whole numbers: exactly 1/2 for equal rows
        z[c] = (u[c] - 0.5) * scale
        # One more sample in a cell moves U by its placement, and Z by the count under the root.
        inf_gen[g] = weight[c] * n * (scale * (place_gen - u[c]) / a + z[c] / 2 * (1 / a - 1 / (a + b + 1)))
        inf_test[t] = weight[c] * m * (scale * (place_test - u[c]) / b + z[c] / 2 * (1 / b - 1 / (a + b + 1)) + z[c] / b)
    value = float(weight[used] @ z[used])
    inf_test[np.isin(cell_test, used)] -= value * m / float(m_c[used].sum())
    inf_gen, inf_test = inf_gen - inf_gen.mean(), inf_test - inf_test.mean()
    half = Z95 * float(np.sqrt(inf_gen.var(ddof=1) / n + inf_test.var(ddof=1) / m))
    notes: tuple[str, ...] = ()
    if count < cells:
        notes += (f"{count} cells instead of {cells}: {min(n, m):,} samples",)
    if len(used) < count:
        left = 1 - m_c[used].sum() / m
        notes += (f"{count - len(used)} of {count} cells, with {left:.2g} of test, hold too few generated samples and are left out",)
    rows = tuple((int(c), int(n_c[c]), int(m_c[c]), float(u[c]), float(z[c])) for c in used)
    detail = Detail("cells", ("cell", "generated", "held out", "U", "z"), rows)
    influence = {"gen": inf_gen, "test": inf_test}
    return Estimate(value, value - half, value + half, n, "placements", notes=notes, details=(detail,), influence=influence)


def _cells(fitted: Float, sides: tuple[Float, Float], count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cell numbers of both sides' rows: nearest mean of a k-means on the fitted rows."""
    if count == 1:
        return np.zeros(len(sides[0]), np.int64), np.zeros(len(sides[1]), np.int64)
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    mean = fitted.mean(axis=0, dtype=np.float64)
    scale = max(float(np.abs(fitted - mean).max()), 1e-300)
    model = KMeans(min(count, len(fitted)), n_init=1, max_iter=50, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than cells: the others stay empty
        model.fit((fitted - mean) / scale)
    gen, test = (model.predict((x - mean) / scale).astype(np.int64) for x in sides)
    return gen, test


def _placements(x: Float, y: Float) -> NDArray[np.int64]:
    """For each of x twice the number of y that are smaller, ties once."""
    y = np.sort(y)
    return np.searchsorted(y, x, "left") + np.searchsorted(y, x, "right")
