"""Vendi score: the effective number of different samples."""

from collections.abc import Iterator
from math import exp, inf, log

import numpy as np

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Float, jackknife_se, student95
from genbench.statistics import Features

TILE = 512
BLOCKS, FEW_BLOCKS = 20, 10  # of the jackknife; the fewer where its eigenvalues take more than a second
LARGE = 512  # size of a matrix whose eigenvalues do


@metric(Quantity("vendi", "higher", range=(1, inf)), cost="n d² + d³", source="Friedman & Dieng 2023, eq. 3; Pasarkar & Dieng 2023, eq. 3")
def vendi(gen: Features, *, q: float = 1.0) -> Outcome:
    """Exponential of the order-q Rényi entropy of the eigenvalues λ of K/n, where K_ij is the cosine of rows i and j.

        VS_q = (Σ_i λ_i^q)^(1/(1 − q)),    VS_1 = exp(−Σ_i λ_i log λ_i),    VS_∞ = 1/max_i λ_i

    The eigenvalues are those of Σ_i x_i x_iᵀ/n with rows of length 1, so that no n × n matrix is made where n > d.

    Args:
        gen: generated features (n, d); no row may be zero, as it has no direction.
        q: order of the entropy, above 0, 1 in the first paper; inf (1e999 in a spec) for the largest eigenvalue alone. Small orders see
            rare kinds of samples, large ones only the most common.

    Returns:
        A number from 1 (all alike) to min(n, d) (all orthogonal), higher is more diverse. It grows slowly with n: compare equal n.
        Interval for its mean at this n: jackknife of the entropy over 20 blocks of rows (10 for more than 512 features and samples),
        Student's t; the delta method lacks the second order in d/n and covers 59 to 85 % where n is near d. It is up to 1.6 times too
        wide for isotropic features, and more so for large q there. None below 2 samples a block.

    Note:
        Diversity alone: it knows no reference, and noise scores high; compare with the score of real samples. Features without negative
        entries, as those after a ReLU, all point one way, and their scores are low. Not invariant to a translation of the features.

    References:
        The Vendi Score: A Diversity Evaluation Metric for Machine Learning (Friedman & Dieng, 2023), eq. 3, arXiv:2210.02410.
        Cousins of the Vendi Score (Pasarkar & Dieng, 2023), eq. 3, arXiv:2310.12952: the order q.

    Example:
        >>> round(vendi.function(Features(np.eye(5)[np.arange(100) % 5])).value, 6)
        5.0
    """
    if not q > 0:
        raise UsageError(f"vendi needs an order q > 0, found {q}")
    n, d = len(gen), gen.d
    if n == 0:
        return Undefined("needs at least 1 sample, found 0")
    scale = np.abs(gen.x).max(axis=1).astype(np.float64)  # squares of tiny features would underflow
    if not scale.all():
        return Undefined(f"{int((scale == 0).sum()):,} of {n:,} rows are zero and have no direction, so no cosine; choose other features")
    blocks = BLOCKS if min(n, d) <= LARGE else FEW_BLOCKS
    matrices = _matrices(gen.x, scale, min(blocks, n))
    value = max(exp(_entropy(next(matrices), q)), 1.0)
    if n < 2 * blocks:
        return Estimate(value, None, None, n, None, notes=(f"no interval: {n} samples, {2 * blocks} are needed",))
    half = student95(blocks - 1) * float(jackknife_se(np.array([_entropy(left, q) for left in matrices])))
    return Estimate(value, max(value * exp(-half), 1.0), value * exp(half), n, f"jackknife-{blocks}, same n")


def _matrices(x: Float, scale: Float, blocks: int) -> Iterator[Float]:
    """The smaller of K/n and Σ x xᵀ/n, of rows of length 1, whose positive eigenvalues are the same; then those without each block."""
    n, d = x.shape

    def unit(start: int, stop: int, step: int) -> Float:
        rows = x[start:stop:step].astype(np.float64) / scale[start:stop:step, None]
        return np.asarray(rows / np.sqrt((rows * rows).sum(axis=1, keepdims=True)))

    if n <= d:
        rows = unit(0, n, 1)
        kernel = rows @ rows.T
        yield kernel / n
        for b in range(blocks):
            kept = np.flatnonzero(np.arange(n) % blocks != b)
            yield kernel[np.ix_(kept, kept)] / len(kept)
        return
    parts = []
    for b in range(blocks):
        second = np.zeros((d, d))
        for a in range(b, n, blocks * TILE):
            rows = unit(a, min(a + blocks * TILE, n), blocks)
            second += rows.T @ rows
        parts.append(second)
    whole = np.sum(parts, axis=0)
    yield whole / n
    for b, part in enumerate(parts):
        yield (whole - part) / (n - len(range(b, n, blocks)))


def _entropy(matrix: Float, q: float) -> float:
    """Rényi entropy of the eigenvalues; those up to rounding are left out."""
    values = np.linalg.eigvalsh(matrix)
    logs = np.log(values[values > values[-1] * len(values) * 1e-15])
    if q == 1:
        return -float(np.exp(logs) @ logs)
    if q == inf:
        return -float(logs[-1])
    top = q * float(logs[-1])
    return (top + log(float(np.exp(q * logs - top).sum()))) / (1 - q)
