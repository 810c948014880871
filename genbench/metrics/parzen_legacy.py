"""Parzen-window log-likelihood of the first GAN papers."""

from math import isfinite, log, pi

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.likelihood import INTERVAL, mean_interval
from genbench.metric import Outcome, metric
from genbench.statistics import Features

PAIRS = 2**21  # distances of one tile, 16 MiB; also those that one half chooses its bandwidth by
LOW, HIGH, STEPS = 0.01, 2.0, 12  # bandwidths tried first, over the samples' root mean square spread
FINEST = 1e-4  # of that spread: below it rounding of the squared distances would show in the density
WARNING = (
    "Parzen-window log-likelihoods mislead (Theis et al. 2016): centroids of k-means read better than real data, and in many dimensions "
    "the value is far below the model's true log-likelihood; for comparison with old papers only, at equal numbers of windows"
)


@metric(
    Quantity("parzen_legacy", "higher", unit="nats", placed=True),
    cost="n m d",
    source="Breuleux et al. 2011; Goodfellow et al. 2014, section 5",
)
def parzen_legacy(gen: Features, test: Features, *, bandwidth: float = 0.0, seed: int = 0) -> Outcome:
    """Mean log density of test samples under Gaussian windows on the generated ones. Kept for comparison with old papers.

        1/m Σ_i log 1/n Σ_j N(y_i; x_j, σ² I),   x generated, y test

    The old papers chose σ on a validation set from about ten values. Here the test samples are parted in two seeded halves; each is
    judged with the σ that is best for at most 2²¹/n samples of the other one, over 12 values from 0.01 to 2 times the samples' spread
    and then by a bounded search between the neighbours of the best.

    Interval: over new test samples, conditional on the windows and σ; as that of `nll`.

    Args:
        gen: generated features (n, d): the windows' centres.
        test: held-out features (m, d), at least 4.
        bandwidth: σ in the features' units; 0 to choose it.
        seed: of the halves.

    Returns:
        A number in (−∞, ∞) in nats, higher is better (as the papers had it). A density: it depends on the features' units. The papers'
        values are of pixels in [0, 1], `parzen_legacy@pixels`. σ is told in a note.

    Note:
        Misleading, which a note says every time: a few centroids beat the data themselves, the order of models is not that of their true
        likelihoods, copies of test samples are rewarded. It grows with the number of windows: compare at equal n only.

    References:
        Quickly Generating Representative Samples from an RBM-Derived Process (Breuleux et al., 2011), section 4.
        Generative Adversarial Nets (Goodfellow et al., 2014), section 5.
        A note on the evaluation of generative models (Theis et al., 2016), section 3.5: why not.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(600, 1))
        >>> found = parzen_legacy.function(Features(x[:300]), Features(x[300:]))
        >>> bool(abs(found.value + 0.5 * (1 + np.log(2 * np.pi))) < 0.2)
        True
    """
    if not (isfinite(bandwidth) and bandwidth >= 0):
        raise UsageError(f"parzen_legacy needs a bandwidth >= 0 (0 to choose it), found {bandwidth}")
    n, m, d = len(gen), len(test), gen.d
    if n < 1 or m < 4:
        return Undefined(f"needs at least 1 generated and 4 test samples, found {n} and {m}")
    x, y, unit = _scaled(gen.x, test.x)
    spread = float(np.sqrt((np.einsum("ij,ij->", x, x) + np.einsum("ij,ij->", y, y)) / ((n + m) * d)))
    if spread == 0:
        return Undefined("all samples are equal: their density grows without bound as the windows shrink")
    if bandwidth and bandwidth / unit < FINEST * spread:
        return Undefined(f"bandwidth {bandwidth:g} is below {FINEST:g} of the samples' spread {spread * unit:.3g}, where rounding decides")
    order = np.random.default_rng(seed).permutation(m)
    halves = np.sort(order[: m // 2]), np.sort(order[m // 2 :])
    found, chosen, edge = np.empty(m), [], False
    for rows, other in (halves, halves[::-1]):
        h, at_edge = (bandwidth / unit, False) if bandwidth else _best(_squares(y[other[: max(2, PAIRS // n)]], x), d, spread)
        chosen.append(h * unit)
        edge |= at_edge
        step = max(1, PAIRS // n)
        for a in range(0, len(rows), step):
            part = rows[a : a + step]
            found[part] = _log_density(_squares(y[part], x), d, h)
    found -= d * log(unit)
    value, low, high = mean_interval(found)
    notes: tuple[str, ...] = (WARNING, f"bandwidth {chosen[0]:.4g}" + ("" if bandwidth else f" and {chosen[1]:.4g}") + f", {n:,} windows")
    if edge:
        notes += (
            f"the best bandwidth is at an end of those tried, {LOW:g} to {HIGH:g} of the spread: copies of test samples, or far ones",
        )
    return Estimate(value, low, high, n, INTERVAL, "estimate", notes, "density", influence={"test": found - value})


def _scaled(gen: NDArray[np.floating], test: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Both centred on the windows' mean, in units of the largest entry, so that no square overflows; and that unit."""
    x, y = gen.astype(np.float64), test.astype(np.float64)
    centre = x.mean(axis=0)
    x -= centre
    y -= centre
    unit = max(float(np.abs(x).max()), float(np.abs(y).max())) or 1.0
    x /= unit
    y /= unit
    return x, y, unit


def _squares(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows of y, rows of x) squared distances; their rounding is far below the smallest bandwidth's square."""
    out = y @ x.T
    out *= -2
    out += np.einsum("ij,ij->i", y, y)[:, None]
    out += np.einsum("ij,ij->i", x, x)
    return np.maximum(out, 0, out=out)


def _log_density(squares: NDArray[np.float64], d: int, h: float) -> NDArray[np.float64]:
    nearest = squares.min(axis=1)
    terms = (nearest[:, None] - squares) / (2 * h * h)
    np.exp(terms, out=terms)
    return np.log(terms.mean(axis=1)) - nearest / (2 * h * h) - d * log(h) - d / 2 * log(2 * pi)


def _best(squares: NDArray[np.float64], d: int, spread: float) -> tuple[float, bool]:
    """The bandwidth with the largest mean log density, and whether it lies at an end of the grid."""
    from scipy.optimize import minimize_scalar

    def loss(log_h: float) -> float:
        return -float(_log_density(squares, d, float(np.exp(log_h))).mean())

    grid = np.log(spread * np.geomspace(LOW, HIGH, STEPS))
    i = int(np.argmin([loss(g) for g in grid]))
    inner = minimize_scalar(loss, bounds=(grid[max(i - 1, 0)], grid[min(i + 1, STEPS - 1)]), method="bounded", options={"xatol": 1e-3})
    best = float(inner.x)
    return float(np.exp(best)), min(abs(best - grid[0]), abs(best - grid[-1])) < 0.01
