"""Classification accuracy score."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Detail, Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import wilson
from genbench.statistics import Features, Float

EXCESS = 1.5  # on the variance from halves of gen, which falls a little slower than 1/n for small n (simulated)
ITERATIONS = 300


@metric(
    Quantity("cas", "higher", range=(0, 1)),
    cost="n d classes iterations",
    source="Ravuri & Vinyals 2019, section 3",
)
def cas(gen: Features, test: Features, *, penalty: float = 1.0, splits: int = 6, seed: int = 0) -> Outcome:
    """Accuracy on real test samples of a classifier that was trained on generated ones.

    The classifier is a linear probe: logistic regression (L2) on features, standardised by the mean and deviation of gen. The original
    trains a ResNet-50 on the samples themselves; a probe is cheaper, and sees only what the extractor keeps.

        cas = share of test rows whose label is predicted

    Args:
        gen: generated features (n, d) with the labels that they were generated for.
        test: held-out real features (m, d) with their labels.
        penalty: of the squared norm of the weights, 1/C of scikit-learn; larger is simpler.
        splits: how often gen is halved for the interval; 0 makes it conditional on gen.
        seed: of these halves.

    Returns:
        A number in [0, 1], higher is better. It has no ideal of its own: compare with the same probe trained on real rows (run it with real
        training data in gen's place). Table "classes": test rows, generated rows and accuracy of each class.

        Interval: Wilson's on test rows, at m/D rows: D − 1 is the variance that the draw of gen adds, over that of the test rows:
        1.5 times what classifiers of halves of gen show (half their variance, less what they differ by chance on m test rows). Without
        that part (a note says so) below 16 generated samples.

        Undefined without labels, and where more than half of the generated samples are test samples themselves.

    Note:
        A generator that ignores its label reads chance; one that collapses within classes can still read high. Copies of the training data
        read as high as it. Test classes that gen lacks are always wrong (a note names them).

    References:
        Classification Accuracy Score for Conditional Generative Models (Ravuri & Vinyals, 2019), section 3.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 400)
        >>> x = rng.normal(size=(400, 2)) + 6 * y[:, None]
        >>> cas.function(Features(x[:200], labels=y[:200]), Features(x[200:], labels=y[200:])).value
        1.0
    """
    if penalty <= 0 or splits < 0:
        raise UsageError(f"cas needs penalty > 0 and splits >= 0, found {penalty} and {splits}")
    n, m = len(gen), len(test)
    if min(n, m) < 1:
        return Undefined(f"needs samples on both sides, found {n} generated and {m} of the test set")
    if gen.labels is None or test.labels is None:
        what = "generated" if gen.labels is None else "test"
        return Undefined(f"needs the class of every sample, found none of the {what} samples; give class sub-folders or labels in an .npz")
    copied = int(gen.among(test).sum())
    if 2 * copied > n:
        return Undefined(f"{copied:,} of {n:,} generated samples are test samples: a classifier is not tested on what it learnt from")
    probe = _Probe(test.x, test.labels, penalty)
    right = probe(gen.x, gen.labels)
    value = float(right.mean())
    classes, of_row, counts = np.unique(test.labels, return_inverse=True, return_counts=True)
    made = [int((gen.labels == c).sum()) for c in classes]
    accuracy = np.bincount(of_row, right) / counts
    table = Detail(
        "classes",
        ("class", "tested", "generated", "accuracy"),
        tuple(zip(classes.tolist(), counts.tolist(), made, accuracy.tolist(), strict=True)),
    )
    notes: tuple[str, ...] = (f"{copied:,} generated samples are test samples",) if copied else ()
    if 0 in made:
        missing = [str(c) for c, g in zip(classes, made, strict=True) if not g]
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        notes += (f"generated samples lack the test classes {', '.join(missing[:10])}{more}",)
    of_test = max(value * (1 - value), 1 / m) / m
    effect = 1.0
    if splits and n >= 16:
        draw, found = np.random.default_rng(seed), []
        for _ in range(splits):
            order = draw.permutation(n)
            halves = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
            found.append(_spread(np.array([probe(gen.x[rows], gen.labels[rows]) for rows in halves])))
        effect += EXCESS * max(float(np.mean(found)), 0.0) / 2 / of_test
    else:
        notes += ("the interval does not hold the variance of the generated samples",)
    low, high = wilson(value, m / effect, 2.0)
    return Estimate(value, low, high, n, "Wilson with gen's variance", notes=notes, details=(table,))


@dataclass(frozen=True)
class _Probe:
    """Trains on the rows that it is called with; returns 1 for test rows whose label it predicts, else 0."""

    x: Float
    labels: NDArray[np.int64]
    penalty: float

    def __call__(self, x: Float, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        if (labels == labels[0]).all():
            return np.asarray(self.labels == labels[0], np.float64)
        mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        scale = np.where(scale > 1e-10 * np.abs(x).max(axis=0), scale, 1.0)  # constant features up to rounding
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the classifier is the one after at most ITERATIONS
            fitted = LogisticRegression(C=1 / self.penalty, max_iter=ITERATIONS).fit((x - mean) / scale, labels)
        return np.asarray(fitted.predict((self.x - mean) / scale) == self.labels, np.float64)


def _spread(right: NDArray[np.float64]) -> float:
    """Variance of the true accuracy between classifiers, from their answers (classifiers, m), less what m rows add by chance."""
    m = right.shape[1]
    between = float(right.mean(axis=1).var(ddof=1))
    return between - (float(right.var(axis=0, ddof=1).mean()) - between) / (m - 1) if m > 1 else 0.0
