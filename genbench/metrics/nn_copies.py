"""Copies of training samples."""

from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Detail, Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Z95, below_order_statistic, mover, nearest, neighbours, wilson
from genbench.statistics import Features

Vector = NDArray[np.float64]
Index = NDArray[np.int64]
PAIRS = 100  # rows of the table


@metric(
    Quantity("nn_copies", "lower", ideal=0.01, range=(0, 1)),
    Quantity("exact_copies", "lower", range=(0, 1)),
    cost="n m d, times (2 shift + 1)², twice with flip",
    source="Meehan et al. 2020, section 2",
)
def nn_copies(
    gen: Features, train: Features, test: Features, *, alpha: float = 0.01, shift: int = 0, flip: bool = False
) -> tuple[Outcome, ...]:
    """Share of samples that lie nearer to a training sample than all but a share alpha of held-out samples do, and of exact copies.

        t(z)         = distance of z to its nearest training sample
        nn_copies    = share of gen with t below the α-quantile of t over test
        exact_copies = share of gen with t = 0, or with the content digest of a training sample

    nn_copies is the true positive rate of "t is small" at a false positive rate of α. The quantile is the order statistic of number
    α (m + 1) of the m test samples, interpolated, and ties are shared out as if broken at random: the expectation is then α for equal
    laws, at every n and m and for discrete data too. The smaller α, the smaller the share of copies that shows (about 2 sqrt(α/n + α/m)),
    but the rougher the quantile: 0.01 needs 99 test samples, and some hundreds for an interval of use.

    Args:
        gen: generated features (n, d).
        train: features of what the model was fitted on.
        test: held-out features (m, d), of the law of train and not among them.
        alpha: share of held-out samples that are called copies by mistake, between 0 and 1.
        shift: look for copies up to a shift by so many pixels in each direction (the edge is repeated), of generated and held-out images
            alike. Only where the features are the pixels themselves; one pass over the distances for each version.
        flip: look for left-right mirrored copies too; as above.

    Returns:
        Two numbers in [0, 1] without unit, lower is better. nn_copies is α for samples of the law of test. exact_copies is what test has
        itself for such samples (a note tells where that is not 0): 0 for continuous data.

        Intervals hold for this training set: for nn_copies those of the proportion at a given quantile (Wilson) and of the quantile's
        own level, Beta(α (m + 1), (1 − α)(m + 1)), joined end by end as roots of squares (MOVER), both narrower where ties share out;
        for exact_copies Clopper–Pearson.

        Table "pairs": the 100 samples nearest to a training sample, with it and their distance (of the features).

    Note:
        Samples that shrink towards the middle of the data, or to its dense regions, raise nn_copies without a copy; exact copies are
        counted apart, and the pairs show which it is. Copies under noise, shifts or crops hide from a distance of pixels; features of a
        network see through some of these. A few copies among good samples are within the interval: look at the pairs. With more than α of
        test exact copies themselves, copies enter nn_copies with weight α over that share.

    References:
        A Non-Parametric Test to Detect Data-Copying in Generative Models (Meehan et al., 2020), section 2: distances to training
        samples, generated against held-out.
        Construction of Confidence Limits about Effect Measures (Zou and Donner, 2008): MOVER.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> train, test, new = (Features(rng.normal(size=(n, 8))) for n in (1000, 500, 250))
        >>> copied = Features(np.concatenate([train.x[:250], new.x]))
        >>> near, exact = nn_copies.function(copied, train, test)
        >>> round(near.value, 2), exact.value
        (0.5, 0.5)
    """
    if not 0 < alpha < 1 or shift < 0:
        raise UsageError(f"nn_copies needs 0 < alpha < 1 and shift >= 0, found {alpha} and {shift}")
    n, m = len(gen), len(test)
    if not n or not len(train):
        return (Undefined(f"needs generated and training samples, found {n} and {len(train)}"),) * 2
    own, at = _to_train(gen, train)
    copied, known = (_copied(x, train) for x in (gen, test))
    count, held = int(copied.sum()), int(known.sum())
    low, high = _clopper_pearson(count, n)
    told = f"{count:,} of {n:,} samples are exact copies of training samples" + (f", of held-out ones {held:,} of {m:,}" if held else "")
    proper = held > 0 and low <= _clopper_pearson(held, m)[1]  # no more copies than real samples have
    influence = {"gen": copied - count / n}
    exact = Estimate(count / n, low, high, n, "Clopper–Pearson", notes=(told,), details=_pairs(own, at), influence=influence)

    reason = None
    if m and held == m:
        reason = "every held-out sample is also a training sample; pass held-out data that the model was not fitted on as test"
    elif min(alpha, 1 - alpha) * (m + 1) < 1:
        need = int(np.ceil(1 / min(alpha, 1 - alpha) - 1e-9)) - 1
        reason = f"the {alpha}-quantile of held-out distances needs at least {need} test samples, found {m}"
    elif (shift or flip) and not _is_pixels(gen):
        reason = (
            f"shift and flip move pixels: they need images and their pixels as features (@pixels), found {gen.extractor} rows of {gen.d}"
        )
    elif shift and gen.shape is not None and shift >= min(gen.shape[1:]):
        reason = f"a shift by {shift} pixels leaves nothing of images of {gen.shape[2]} x {gen.shape[1]}; choose a smaller shift"
    if reason:
        return Undefined(reason), exact

    (a, at), (b, _) = (_to_train(x, train, shift, flip) for x in (gen, test))
    place = alpha * (m + 1)
    inside, inside_test = below_order_statistic(a, b, place), below_order_statistic(b, b, place)
    value, low, high, slope = _calibrated(a, b, alpha)
    verdict = f"{100 * value:.3g} % of samples are nearer to training data than {100 * alpha:.3g} % of held-out ones"
    if low > alpha and (proper or not count):
        verdict += ": near-copies, or samples that shrink to the middle of the data (see the pairs)"
    if count:
        verdict = f"{told}; {verdict}"
    if low <= alpha and (proper or not count):
        verdict = f"no sign of copying: {verdict}"
    influence = {"gen": inside - value, "test": -slope * (inside_test - inside_test.mean())}
    near = Estimate(value, low, high, n, "MOVER of Wilson and Beta", notes=(verdict,), details=_pairs(a, at), influence=influence)
    return near, replace(exact, notes=(), details=near.details)


def _is_pixels(x: Features) -> bool:
    return x.shape is not None and len(x.shape) == 3 and x.d == int(np.prod(x.shape))


def _to_train(x: Features, train: Features, shift: int = 0, flip: bool = False) -> tuple[Vector, Index]:
    """Squared distance of each row to the nearest training row and which one, the least over shifted and flipped versions."""
    if x is train:  # neighbours() would leave each row itself out
        return np.zeros(len(x)), np.arange(len(x))
    if not len(x):
        return np.empty(0), np.empty(0, np.int64)
    squares, at = neighbours(x, train, 1)
    best, index = squares[:, 0].copy(), at[:, 0].copy()
    if not (shift or flip):
        return best, index
    assert x.shape is not None
    c, h, w = x.shape
    images = x.x.reshape(-1, c, h, w)
    steps = range(-shift, shift + 1)
    for dy, dx, mirrored in product(steps, steps, (False, True) if flip else (False,)):
        if (dy, dx, mirrored) != (0, 0, False):
            across = np.clip(np.arange(w) + dx, 0, w - 1)  # the edge is repeated
            moved = images[:, :, np.clip(np.arange(h) + dy, 0, h - 1)[:, None], across[::-1] if mirrored else across]
            squares, at = nearest(moved.reshape(len(x), -1), train.x, 1)
            nearer = squares[:, 0] < best
            best[nearer], index[nearer] = squares[nearer, 0], at[nearer, 0]
    return best, index


def _copied(x: Features, train: Features) -> NDArray[np.bool_]:
    """Rows at distance 0 of a training row, or of the same content."""
    return np.asarray((_to_train(x, train)[0] == 0) | x.among(train))


def _calibrated(a: Vector, b: Vector, alpha: float) -> tuple[float, float, float, float]:
    """Share of a below the alpha-quantile of b, its interval, and its slope in alpha."""
    from scipy.special import betaincinv

    n, m = len(a), len(b)
    place = alpha * (m + 1)
    value = float(below_order_statistic(a, b, place).mean())
    # Rows tied at the quantile are counted in part, which has less variance than a yes or no: as that of more rows.
    counted, counted_b = (below_order_statistic(v, b, max(round(place), 1)) for v in (a, b))
    share, spread = float(counted.mean()), float(counted.var())
    within = wilson(value, n * share * (1 - share) / spread if spread > 0 else n, Z95)
    ties = min((float(counted_b @ counted_b) + 0.25) / float(counted_b.sum()), 1.0)  # a quarter: the quantile's own row is tied to itself
    ends = betaincinv(alpha * (m / ties + 1), (1 - alpha) * (m / ties + 1), [0.025, 0.975])
    below = [float(below_order_statistic(a, b, level * (m + 1)).mean()) for level in ends]
    low, high = mover(value, within, (below[0], below[1]))
    return value, max(low, 0.0), min(high, 1.0), (below[1] - below[0]) / float(ends[1] - ends[0])


def _clopper_pearson(count: int, n: int) -> tuple[float, float]:
    from scipy.special import betaincinv

    low = float(betaincinv(count, n - count + 1, 0.025)) if count else 0.0
    return low, float(betaincinv(count + 1, n - count, 0.975)) if count < n else 1.0


def _pairs(squares: Vector, index: Index) -> tuple[Detail]:
    order = np.argsort(squares, kind="stable")[:PAIRS]
    rows = tuple((int(i), int(index[i]), float(np.sqrt(squares[i]))) for i in order)
    return (Detail("pairs", ("gen", "train", "distance"), rows),)
