"""Inception Score, and the same score of any other classifier."""

from math import exp, inf

import numpy as np

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Z95, Float
from genbench.statistics import Probabilities


@metric(
    Quantity("{extractor}_score", "higher", range=(1, inf)),
    Quantity("{extractor}_score_debiased", "higher", range=(0, inf)),
    cost="n k²",
    source="Salimans et al. 2016, section 4",
)
def inception_score(gen: Probabilities, *, splits: int = 1, shuffle: bool = True, seed: int = 0) -> tuple[Outcome, Outcome]:
    """Exponential of the mutual information of a classifier's label and the sample.

        IS = exp( mean_i KL(p_i ‖ p̄) ),      p_i = p(label | sample i),  p̄ = mean_i p_i

    Reported under the classifier's name: `inception_score` for the Inception network (logits without bias, 1008 classes), else for
    example `mnist_score`; scores of different classifiers do not compare.

    Args:
        gen: class probabilities (n, k) of the generated samples.
        splits: 1 uses all samples at once. More gives the mean over that many contiguous parts, the original habit of 10: it sits
            lower (4 % at n = 5,000) as each part's p̄ is noisier, and its parts' spread covers 14 % where 95 % are claimed.
        shuffle: shuffle with the seed before splitting; without it a folder that is sorted by class is cut into classes.
        seed: of the shuffle, drawn as torch-fidelity does (its own default is 2020).

    Returns:
        Two numbers without unit, higher is better.

        `{extractor}_score` in [1, k]: the plug-in value. Biased downward by about (k − 1)/(2n) in the exponent. The interval, for one
        split, is the spread over new samples of the same size.

        `{extractor}_score_debiased` in (0, ∞): exp(MI + Σ_c Var(p_c)/(2 n p̄_c)); compares across n. Interval
        exp(exponent ± 1.96 se) with se² = Var(KL_i)/n + v2, v2 = Σ_cd Cov(p_c, p_d)²/(p̄_c p̄_d)/(2n²): the second term is all there is
        for a sure classifier and even classes, where every KL_i is log k.

        The classes' number bounds it: k is reached by sure and even predictions only.

    Note:
        Blind to the reference: memorised, out-of-domain or one-per-class samples score well. Falls short where samples with probability
        below about 1/n hold much of a class.

    References:
        Improved Techniques for Training GANs (Salimans et al., 2016), section 4.
        A Note on the Inception Score (Barratt & Sharma, 2018), sections 4 and 5: splits, other classifiers.

    Example:
        >>> raw, _ = inception_score.function(Probabilities(np.eye(4)[np.arange(400) % 4]))
        >>> round(raw.value, 6)
        4.0
    """
    n = len(gen)
    if splits < 1:
        raise UsageError(f"inception_score needs splits >= 1, found {splits}")
    if n < 2:
        why = Undefined(f"needs at least 2 samples, found {n}")
        return why, why
    if n < splits:
        why = Undefined(f"{splits} splits need as many samples, found {n}")
        return why, why
    p = gen.p
    kl = _kl(p)
    information = max(float(kl.mean()), 0.0)
    mean = p.mean(axis=0)
    present = mean > 0
    scaled = (p[:, present] - mean[present]) / np.sqrt(mean[present])  # (n, classes that occur)
    spread = scaled.T @ scaled / (n - 1)
    point = information + float(np.trace(spread)) / (2 * n)
    half = Z95 * float(np.sqrt(kl.var(ddof=1) / n + (spread**2).sum() / (2 * n**2)))
    method = "delta method, second order"
    debiased = Estimate(exp(point), exp(point - half), exp(point + half), n, method)
    if splits == 1:
        low, high = max(exp(information - half), 1.0), exp(information + half)
        return Estimate(exp(information), low, high, n, f"{method}, same n"), debiased
    rows = p[np.random.RandomState(seed).permutation(n)] if shuffle else p
    parts = [exp(max(float(_kl(rows[s * n // splits : (s + 1) * n // splits]).mean()), 0.0)) for s in range(splits)]
    note = (
        f"mean of {splits} splits{'' if shuffle else ' in the order given'}; their standard deviation {np.std(parts):.3g} is "
        f"not a standard error: no interval; one split reads {exp(information):.6g}"
    )
    return Estimate(float(np.mean(parts)), None, None, n, None, notes=(note,)), debiased


def _kl(p: Float) -> Float:
    """(n,) KL divergence of every row from the rows' mean; 0 log 0 is 0."""
    mean = p.mean(axis=0)
    ratio = np.divide(p, mean, out=np.ones_like(p), where=(p > 0) & (mean > 0))
    return (p * np.log(ratio)).sum(axis=1)
