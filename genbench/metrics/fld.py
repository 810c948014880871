"""Feature Likelihood Divergence: how likely held-out data are under a mixture around the samples, and how much likelier training data."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Z95, Float, neighbours
from genbench.statistics import Features

STEPS = 20  # of EM; above two dimensions ten settle it
FLOOR = 1e-4  # smallest variance, that of a training feature being 1: copies would take it to 0


@metric(
    Quantity("fld", "lower", unit="0.01 nats/dimension", ideal=0.0, placed=True),
    Quantity("fld_gap", "higher", unit="0.01 nats/dimension", placed=True),
    cost="size² d",
    source="Jiralerspong et al. 2023, section 3",
)
def fld(gen: Features, train: Features, test: Features, *, size: int = 2000, seed: int = 0) -> tuple[Outcome, Outcome]:
    """Likelihood of held-out features under Gaussians around generated ones, and its generalisation gap.

        p(x) = 1/c Σ_j N(x; g_j, s_j I),     s = argmax Σ_{r in train} log [ p(r) + N(r; mean of train, s_0 I) ]
        NLL(X) = −100/d · mean over x in X of log p(x)
        fld = NLL(test) − C,     fld_gap = NLL(train) − NLL(test)

    on features of unit variance and mean 0 over train. A copy of a training sample takes a variance near 0, of use to nothing but that
    one training sample: the gap falls. The broad Gaussian around the mean keeps samples that nothing explains from widening others and
    is left out of p, as in the authors' code. C is the NLL of test under c training samples in place of the generated ones, fitted to the
    remaining ones, so that new real data read 0.

    Deviations from the authors: features are scaled by train rather than test; s is found by EM (20 steps) from the distance to the
    nearest training sample, not by Adam, and is at least 1e-4, not e^-40, so that a copy shifts the numbers by a bounded amount; and
    the sizes are limited. Training samples are not thinned blindly, which would drop most of the copied ones: those nearest to a
    generated sample all stay, of the others at most `size` stay, with the weight of all.

    Args:
        gen: generated features (n, d).
        train: training features (m, d).
        test: held-out features.
        size: the c = min(n, m/2, size) generated samples that are used (seeded), of training samples at most 2 size, of held-out ones
            too. Time is 2 · 20 passes over size · 2 size pairs, memory three such matrices.
        seed: of these choices.

    Returns:
        Two numbers in (−∞, ∞), in hundredths of a nat per dimension.

        `fld`, lower is better, about 0 for real data; it grows as samples leave the data, lose modes, blur or copy. Below 0 the
        samples explain test better than real data do, as those of slightly too small a variance may: no proof of quality.
        `fld_gap`, strongly negative for copies of train. Not 0 for real data but below it, more so in few dimensions, since s is fitted
        to train: a note says what real data read. A held-out sample that is among the generated ones is explained by the others alone,
        or copies of test would look like the best of models, and test itself would.

        Intervals: 1.96 times the standard error from the spread of log p over test (for the gap, over as many rows as train has too)
        and from a jackknife over the c generated (for fld also training) centres, their s held fixed: for new samples of these sizes,
        but for what a new train would change in s. Simulated coverage, with new train: benchmarks/coverage.md.

    Note:
        Values of different c, and of different features, do not compare. One copy shifts the gap by about (1/m) log(1/1e-4)/2 · 100: 1 %
        of train copied shifts it by about 4.

    References:
        Feature Likelihood Divergence: Evaluating the Generalization of Generative Models Using Samples (Jiralerspong et al., 2023),
        section 3: the density, FLD and the generalisation gap.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> train, test, new = (Features(rng.normal(size=(300, 8))) for _ in range(3))
        >>> clean, copied = (fld.function(Features(x), train, test)[1].value for x in (new.x, train.x))
        >>> copied < clean - 50
        True
    """
    if size < 2:
        raise UsageError(f"fld needs size >= 2, found {size}")
    n, m = len(gen), len(train)
    count = min(n, m // 2, size)
    if count < 2 or len(test) < 2:
        why = Undefined(f"needs at least 2 generated, 4 training and 2 held-out samples, found {n}, {m} and {len(test)}")
        return why, why
    mean, sd = train.x.mean(axis=0, dtype=np.float64), train.x.std(axis=0, dtype=np.float64)
    sd[sd <= 1e-12 * np.abs(mean)] = 1.0

    def scaled(x: Float) -> NDArray[np.float64]:
        return (x - mean) / sd

    if max(float(np.abs(x.x).max()) for x in (gen, train, test)) / float(np.min(sd)) > 1e100:
        why = Undefined("the features are too large for float64: squared distances overflow; rescale them or remove the constant ones")
        return why, why
    draw = np.random.default_rng(seed)
    own = np.sort(draw.permutation(n)[:count])
    order = draw.permutation(m)
    real, rest = np.sort(order[:count]), np.sort(order[count:])
    held = scaled(test.cut(2 * size, seed).x)

    near = neighbours(gen, train, 1, rows=own)[1][:, 0]
    samples = _fitted(scaled(gen.x[own]), scaled, train, np.arange(m), near, size, held, draw)
    near = neighbours(train, None, 1, rows=real)[1][:, 0]
    data = _fitted(scaled(train.x[real]), scaled, train, rest, near, size, held, draw)

    unit = 100 / gen.d
    value, gap = unit * float((data.held - samples.held).mean()), unit * samples.gap
    spread = float((data.held - samples.held).var(ddof=1)) / len(held)
    half = Z95 * unit * float(np.sqrt(spread + samples.centres + data.centres))
    half_gap = Z95 * unit * float(np.sqrt(float(samples.held.var(ddof=1)) / len(held) + samples.train + samples.centres_gap))
    notes: tuple[str, ...] = ()
    if count < n:
        notes += (f"{count:,} of {n:,} generated samples used: values compare at the same number only",)
    real_gap = f"real data read {unit * data.gap:.3g}: {count:,} training samples in place of the generated ones"
    return (
        Estimate(value, value - half, value + half, n, "jackknife of centres", notes=notes),
        Estimate(gap, gap - half_gap, gap + half_gap, n, "jackknife of centres", notes=(*notes, real_gap)),
    )


@dataclass(frozen=True)
class _Fit:
    """Log densities, in nats, under a fitted mixture.

    Args:
        held: (k,) of the held-out rows.
        gap: mean over held-out rows less that over training rows.
        centres: variance of the mean over held-out rows that the choice of centres makes.
        centres_gap: that of the gap.
        train: variance of the mean over training rows that their choice makes.
    """

    held: NDArray[np.float64]
    gap: float
    centres: float
    centres_gap: float
    train: float


def _fitted(
    centres: Float, scaled: Any, train: Features, pool: NDArray[np.int64], near: NDArray[np.int64], size: int, held: Float, draw: Any
) -> _Fit:
    """The mixture around these centres, fitted to the training rows of `pool`: all those of `near`, and of the others at most `size`."""
    near = np.intersect1d(near, pool)
    others = np.setdiff1d(pool, near)
    kept = others if len(others) <= size else np.sort(draw.permutation(others)[:size])
    x = scaled(train.x[np.concatenate([near, kept])])
    weight = np.concatenate([np.ones(len(near)), np.full(len(kept), len(others) / max(len(kept), 1))]) / len(pool)

    squares = _mean_squares(x, centres)
    variance = _variances(squares, _mean_squares(x, x.mean(axis=0, keepdims=True))[:, 0], weight, x.shape[1])
    on_train, out_train = _densities(squares, variance, x.shape[1], weight)
    del squares  # memory: one such matrix and its two copies at a time
    apart = _mean_squares(held, centres)
    if len(centres) > 2:
        apart[_equal(held, centres)] = np.inf
    on_held, out_held = _densities(apart, variance, x.shape[1], np.full(len(held), 1 / len(held)))
    # Training rows are drawn from the law of the held-out ones; that some of them are copied is the generator's doing.
    drawn = float(on_held.var(ddof=1)) / len(pool)
    if len(kept) < len(others):  # and the thinning's
        drawn += (len(others) / len(pool)) ** 2 * float(on_train[len(near) :].var()) * (1 / len(kept) - 1 / len(others))
    share = (len(centres) - 1) / len(centres)
    return _Fit(
        on_held,
        float(on_held.mean() - weight @ on_train),
        share * float(((out_held - out_held.mean()) ** 2).sum()),
        share * float((((out_held - out_train) - (out_held - out_train).mean()) ** 2).sum()),
        drawn,
    )


def _equal(x: Float, y: Float) -> NDArray[np.bool_]:
    """(len(x), len(y)): which rows are the same, but for a row that nearly all others are."""
    _, number = np.unique(np.concatenate([x, y]), axis=0, return_inverse=True)
    same: NDArray[np.bool_] = number.ravel()[: len(x), None] == number.ravel()[None, len(x) :]
    same[same.sum(axis=1) > len(y) - 2] = False
    return same


def _mean_squares(x: Float, y: Float) -> NDArray[np.float64]:
    """‖x_i − y_j‖²/d; its rounding is far below the smallest variance."""
    out = x @ y.T
    out *= -2.0
    out += np.einsum("ij,ij->i", x, x)[:, None]
    out += np.einsum("ij,ij->i", y, y)
    out /= x.shape[1]
    return np.maximum(out, 0.0, out=out)


def _log_terms(squares: Float, variance: Float, d: int) -> NDArray[np.float64]:
    """log N up to the constant −d/2 log 2π, which no result depends on."""
    out = squares / variance
    out += np.log(variance)
    out *= -d / 2
    return out


def _variances(squares: Float, around: Float, weight: Float, d: int) -> NDArray[np.float64]:
    """EM for the variances s of equally weighted Gaussians, beside one around the mean that weighs as much as all of them."""
    variance = np.maximum(squares.min(axis=0) + 1e-3 / d, FLOOR)
    broad = max(float(weight @ around), FLOOR)
    for _ in range(STEPS):
        a = _log_terms(squares, variance, d)
        b = np.log(len(variance)) - d / 2 * (around / broad + np.log(broad))
        top = np.maximum(a.max(axis=1), b)
        a -= top[:, None]
        np.exp(a, out=a)
        b = np.exp(b - top)
        each = weight / (a.sum(axis=1) + b)
        b *= each
        mass = each @ a
        a *= squares
        variance = np.where(mass > 1e-200, np.maximum((each @ a) / np.maximum(mass, 1e-200), FLOOR), variance)
        if b.sum() > 1e-200:
            broad = max(float(b @ around / b.sum()), FLOOR)
    return variance


def _densities(squares: Float, variance: Float, d: int, weight: Float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(rows,) log p, and for each centre the weighted mean of what log p loses without it."""
    a = _log_terms(squares, variance, d)
    row, best = np.arange(len(a)), a.argmax(axis=1)
    top = a[row, best]
    a[row, best] = -np.inf
    second = a.max(axis=1)
    rest = second + np.log(np.exp(a - second[:, None]).sum(axis=1))  # of all but the largest term, however small beside it
    total = np.logaddexp(top, rest)
    a -= total[:, None]
    np.exp(a, out=a)
    np.negative(a, out=a)
    np.log1p(a, out=a)
    a[row, best] = rest - total
    return total - np.log(a.shape[1]), weight @ a
