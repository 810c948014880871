"""Inception Score, and the same score of any other classifier."""

from math import inf

import numpy as np
from numpy.typing import NDArray

from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Z95
from genbench.statistics import Probabilities


def _divergences(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(p_i ‖ p̄) of every row, in nats; 0 log 0 = 0."""
    tiny = np.finfo(np.float64).tiny
    return (p * (np.log(np.maximum(p, tiny)) - np.log(np.maximum(p.mean(axis=0), tiny)))).sum(axis=1)


@metric(
    Quantity("{extractor}_score", "higher", range=(1, inf)),
    Quantity("{extractor}_score_debiased", "higher", range=(0, inf)),
    cost="n classes",
    source="Salimans et al. 2016, sec. 4",
)
def inception_score(gen: Probabilities, *, splits: int = 1, shuffle: bool = True, seed: int = 0) -> tuple[Outcome, Outcome]:
    """Exponential of the mutual information between a sample and its class.

        IS = exp E_x KL(p(y|x) ‖ p(y)),   p(y) = E_x p(y|x)

    Named after its classifier: `inception_score` for Inception (whose 1008 logits have no bias, as in the original), `mnist_score`,
    `digits_score` for others. Scores of different classifiers are not comparable.

    Args:
        gen: class probabilities (n, k).
        splits: 1; or 10 for the habit of averaging 10 contiguous splits, which reads lower and has no valid interval.
        shuffle: before splitting, in a seeded order: a folder sorted by class otherwise reads far too low.
        seed: of the order.

    Returns:
        The raw score in [1, k] and the debiased one, exp(MI + Σ_k Var(p_k)/(2 n p̄_k)), higher is better. Interval: exp(MI ± 1.96 se),
        se = sd(KL_i)/√n (98 % simulated coverage for the debiased score; ten splits cover 14 %).

    Note:
        Sees neither the reference nor diversity inside a class, and rewards a generator of one perfect image per class.

    References:
        Improved Techniques for Training GANs (Salimans et al. 2016), sec. 4, https://arxiv.org/abs/1606.03498
        A Note on the Inception Score (Barratt & Sharma 2018), https://arxiv.org/abs/1801.01973

    Example:
        >>> out = inception_score(gen=Probabilities(np.eye(4)[np.arange(400) % 4]))
        >>> round(out["{extractor}_score"].value, 6)
        4.0
    """
    n = len(gen)
    if n < 2:
        why = Undefined(f"needs at least 2 samples, found {n}")
        return why, why
    if not 1 <= splits <= n // 2:
        why = Undefined(f"splits must be from 1 to half the number of samples, {n // 2}, found {splits}")
        return why, why
    kl = _divergences(gen.p)
    information = float(kl.mean())
    mean = gen.p.mean(axis=0)
    seen = mean > 0
    shrink = float((gen.p.var(axis=0, ddof=1)[seen] / mean[seen]).sum()) / (2 * n)  # MI of a sample is low by this, to first order
    half = Z95 * float(kl.std(ddof=1)) / np.sqrt(n)
    debiased = information + shrink
    second = Estimate(float(np.exp(debiased)), float(np.exp(debiased - half)), float(np.exp(debiased + half)), n, "delta method")
    if splits == 1:
        low = max(float(np.exp(information - half)), 1.0)
        return Estimate(max(float(np.exp(information)), 1.0), low, max(float(np.exp(information + half)), low), n, "delta method"), second
    # The legacy generator on purpose: torch-fidelity draws with it, and the same seed then gives the same order.
    p = gen.p[np.random.RandomState(seed).permutation(n)] if shuffle else gen.p
    cuts = [i * n // splits for i in range(splits + 1)]
    scores = [float(np.exp(_divergences(p[a:b]).mean())) for a, b in zip(cuts, cuts[1:], strict=False)]
    note = f"mean of {splits} splits, standard deviation {np.std(scores):.3g}: a spread of splits, not a standard error"
    return Estimate(max(float(np.mean(scores)), 1.0), None, None, n, None, notes=(note,)), second
