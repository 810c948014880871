"""Classifier two-sample test."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Float, wilson
from genbench.statistics import Features

MOST = 10_000  # rows of a side: the accuracy's half width is then 0.009, and its feature matrix stays near 100 MB
FREQUENCIES = 256  # random Fourier frequencies, each a cosine and a sine; half as many as samples of a side where that is fewer
LINEAR = 512  # linear features: the coordinates, or as many random projections of them
SPREAD = (0.5, 8.0)  # frequencies in units of 1/median distance: from half a period over the data to structure an eighth as wide
PENALTIES = (0.01, 0.1, 1.0, 10.0)  # ridge penalties per training row, for features of unit variance
FLIPS = 400  # label flips; the smallest p-value is 1/401, and the design effect is known to 7 %
Z = 2.1  # over 1.96: accuracies of flipped labels have heavier tails than a normal law, and D an error of its own (simulated)
TILE = 2048


@metric(
    Quantity("c2st", "closer", ideal=0.5, range=(0, 1), placed=True),
    Quantity("c2st_p", "higher", range=(0, 1), interval=False, placed=True),
    cost="n p² + p³ with p = 512 + min(d, 512)",
    source="Lopez-Paz & Oquab 2017, section 3",
)
def c2st(ref: Features, gen: Features, *, folds: int = 5, classifier: str = "kernel", seed: int = 0) -> tuple[Outcome, Outcome]:
    """Accuracy of a classifier that tells generated samples from reference samples, on samples it was not trained on.

        c2st = 1/(2n) Σ_i 1[ f₋ₖ₍ᵢ₎(x_i) > 0 ] + 1[ f₋ₖ₍ᵢ₎(y_i) < 0 ],     x generated, y reference, n of each, k(i) the fold of pair i

    f₋ₖ is fitted to labels ±1 without fold k: ridge regression on standardised features (or 512 random projections of more than 512)
    and up to 512 random Fourier features whose frequencies span a factor of 16, its penalty chosen within the training folds by
    generalised cross-validation. On moons, scales, correlations and dropped modes in 2 to 64 dimensions it was about as accurate as
    boosted trees or more, and more than 15 nearest neighbours; a linear classifier is better on shifts (by 0.01 to 0.02) and sees nothing
    else. As labels enter linearly, it is refitted to hundreds of flipped labellings at once, which gives an exact test.

    Every generated sample is paired with a reference sample, and a pair is in one fold: labels are balanced in all folds. Copies are
    paired first, so that no copy of a training row, with the other label, is judged; repeats within one side remain evidence.

    Args:
        ref: reference features (m, d).
        gen: generated features (n, d). The larger side is cut to the smaller one's size (seeded), and both to 10,000.
        folds: of the cross-fitting, at least 2.
        classifier: "kernel" as above; "linear" for the linear features alone: what means explain.
        seed: of cuts, pairs, frequencies and flips.

    Returns:
        `c2st`, a share in [0, 1], closer to 0.5 is better, which equal laws read at every n. Below 0.5 the samples repel each other:
        copies with small changes do so. Its interval is Wilson's with 2n/D samples, z = 2.1, for the expected accuracy at this n. D >= 1
        is the accuracy's variance over flipped labels to that of independent rows: folds share training rows, so that it is up to 1.7
        for equal laws, and too much where laws lie apart (1.4 times as wide as need be). Simulated coverage: benchmarks/coverage.md.

        `c2st_p`, a p-value for equal laws in [0, 1], from 400 flips of the labels within pairs, each fitted anew: the share of flips that
        are as accurate. Exact at every n; at least 1/401. It has no interval. Under equal laws it is uniform, so higher means less
        evidence, not a better model.

        Undefined below 2 samples of a side per fold.

    Note:
        Blind to what its features do not hold, and to copies of the training data. Grows with n where the laws differ: compare at equal
        n only. In samples of thousands a hardly visible artefact (a resize, a JPEG) suffices for an accuracy of 1, and other writers
        of the same digits are seen: MNIST's test set against its training set reads 0.53, in pixels too, two parts of the latter 0.50.

    References:
        Revisiting Classifier Two-Sample Tests (Lopez-Paz & Oquab, 2017), section 3 and eq. 2.
        Random Features for Large-Scale Kernel Machines (Rahimi & Recht, 2007), algorithm 1.
        Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter (Golub, Heath & Wahba, 1979), eq. 1.5.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> gen, ref = Features(1.5 * rng.normal(size=(300, 4))), Features(rng.normal(size=(300, 4)))  # means do not differ
        >>> accuracy, p = c2st.function(ref, gen)
        >>> accuracy.low > 0.5, p.value < 0.01
        (True, True)
    """
    if folds < 2 or classifier not in ("kernel", "linear"):
        raise UsageError(f'c2st needs folds >= 2 and classifier "kernel" or "linear", found {folds} and {classifier!r}')
    smallest = min(len(gen), len(ref))
    if smallest < 2 * folds:
        why = Undefined(f"{folds} folds need at least {2 * folds} samples on each side, found {len(gen)} and {len(ref)}")
        return why, why
    n = min(smallest, MOST)
    notes: tuple[str, ...] = ()
    if n != max(len(gen), len(ref)):
        notes = (f"{len(gen):,} generated and {len(ref):,} reference samples are cut to {n:,} each",)
    x, y, draw = gen.cut(n, seed), ref.cut(n, seed), np.random.default_rng(seed)
    i, j = _pairs(x, y, draw)
    phi = _features(np.concatenate([x.x[i], y.x[j]]), classifier, draw)
    flips = np.ones((n, 1 + FLIPS))  # the first column holds the true labels
    flips[:, 1:] = draw.integers(0, 2, (n, FLIPS)) * 2 - 1
    share = _accuracies(phi[:n], phi[n:], flips, folds)
    value, null = float(share[0]), share[1:]
    design = max(float(((null - 0.5) ** 2).mean()) * 8 * n, 1.0)  # flips have the mean 0.5
    low, high = wilson(value, 2 * n / design, Z)
    p = (1 + int((null >= value - 1e-9).sum())) / (1 + FLIPS)
    return (
        Estimate(value, low, high, len(gen), "Wilson with design effect", notes=notes),
        Estimate(p, None, None, len(gen), None, notes=(*notes, f"a p-value from {FLIPS} label flips, at least 1/{FLIPS + 1}")),
    )


def _pairs(x: Features, y: Features, draw: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of x and of y that make a pair: copies with each other, the rest at random; in random order."""
    rows: list[NDArray[Any]] = [x.x + 0.0, y.x + 0.0]  # −0 is 0
    if x.digests is not None and y.digests is not None:
        rows = [x.digests, y.digests]
    both = np.concatenate(rows)
    content = np.ascontiguousarray(both).view(np.dtype((np.void, both.dtype.itemsize * both.shape[1]))).ravel()
    number = np.unique(content, return_inverse=True)[1].ravel()
    keys = []
    for side in (number[: len(x)], number[len(x) :]):  # the first copy here meets the first there, the second the second
        order = np.argsort(side, kind="stable")
        first = np.searchsorted(side[order], side[order])
        repeat = np.empty(len(side), np.int64)
        repeat[order] = np.arange(len(side)) - first
        keys.append(side * (len(x) + 1) + repeat)
    _, i, j = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    rest_i, rest_j = (np.setdiff1d(np.arange(len(x)), k, assume_unique=True) for k in (i, j))
    i, j = np.concatenate([i, draw.permutation(rest_i)]), np.concatenate([j, draw.permutation(rest_j)])
    order = draw.permutation(len(i))
    return i[order], j[order]


def _features(rows: Float, classifier: str, draw: np.random.Generator) -> Float:
    """Linear and random Fourier features (N, p) of rows (N, d), each of mean 0 and variance 1, or 0."""
    count, d = rows.shape
    mean = rows.mean(axis=0, dtype=np.float64)
    scale = rows.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 1e-9 * np.abs(mean), scale, np.inf)  # a feature that varies by rounding alone is constant

    def standard(a: int, b: int) -> Float:
        return (rows[a:b] - mean) / scale

    project = draw.standard_normal((d, LINEAR)) / np.sqrt(d) if d > LINEAR else None
    linear = min(d, LINEAR)
    few = standard(0, 500)  # rows come in random order
    squares = (few**2).sum(axis=1)
    apart = (squares[:, None] + squares[None, :] - 2 * few @ few.T)[np.triu_indices(len(few), 1)]
    width = float(np.sqrt(max(np.median(apart), 1e-12)))
    fourier = min(FREQUENCIES, count // 4) if classifier == "kernel" else 0
    frequency = draw.standard_normal((d, fourier)) * np.exp(draw.uniform(np.log(SPREAD[0]), np.log(SPREAD[1]), fourier)) / width
    phi = np.empty((count, linear + 2 * fourier))
    for a in range(0, count, TILE):
        z = standard(a, a + TILE)
        b = a + len(z)
        phi[a:b, :linear] = z if project is None else z @ project
        angle = z @ frequency
        np.cos(angle, out=phi[a:b, linear : linear + fourier])
        np.sin(angle, out=phi[a:b, linear + fourier :])
    phi -= phi.mean(axis=0)
    spread = np.sqrt(np.einsum("ij,ij->j", phi, phi) / count)
    phi /= np.where(spread > 1e-9, spread, np.inf)
    return phi


def _accuracies(gen: Float, ref: Float, flips: Float, folds: int) -> Float:
    """Cross-fitted accuracy for each column of flips: where it is −1, the two rows of a pair have exchanged their labels."""
    n = len(gen)
    fold = np.arange(n) % folds
    grams, sums = [], []
    for k in range(folds):
        a, b = gen[fold == k], ref[fold == k]
        grams.append(a.T @ a + b.T @ b)
        sums.append((a - b).T @ flips[fold == k])
    gram, total = sum(grams), sum(sums)
    right = np.zeros(flips.shape[1])
    for k in range(folds):
        values, vectors = np.linalg.eigh(gram - grams[k])
        values, c = np.maximum(values, 0.0)[:, None], vectors.T @ (total - sums[k])
        rows = 2 * int((fold != k).sum())
        best, w = np.full(flips.shape[1], np.inf), np.zeros_like(c)
        for penalty in PENALTIES:
            shrunk = values + penalty * rows
            residual = rows - (c**2 * (2 / shrunk - values / shrunk**2)).sum(axis=0)
            score = residual / (rows - float((values / shrunk).sum())) ** 2  # generalised cross-validation
            better = score < best
            best, w = np.where(better, score, best), np.where(better, c / shrunk, w)
        w = vectors @ w
        a, b, s = gen[fold == k], ref[fold == k], flips[fold == k]
        right += (np.sign((a @ w) * s) + np.sign((b @ w) * -s) + 2).sum(axis=0) / 2
    return right / (2 * n)
