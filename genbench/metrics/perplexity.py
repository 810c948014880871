"""Perplexity of sequences."""

from dataclasses import replace
from math import exp, inf

from genbench.estimate import Quantity, Undefined
from genbench.likelihood import mean_nll
from genbench.metric import Outcome, metric
from genbench.statistics import LogLikelihood

LARGEST = 700.0  # nats per token: e^700 is below the largest float64


@metric(Quantity("perplexity", "lower", unit="tokens", range=(1, inf)), cost="n", source="Jelinek et al. 1977")
def perplexity(test: LogLikelihood) -> Outcome:
    """Perplexity of held-out sequences, exp(−1/n Σ log p(x_i) / tokens): as many equally likely tokens would be as hard to guess.

    Interval: exp of that of the mean nats per token, over new sequences; long on the upper side where sequences differ by nats per token.

    Args:
        test: log p of every sequence (n,), measure "tokens", `dims` the number of tokens of each.

    Returns:
        A number in [1, ∞), lower is better; the size of the vocabulary for a uniform model. A lower bound on log p makes an upper bound
        here. Undefined for other measures.

    Note:
        Values of different vocabularies do not compare: a coarser tokenisation has the higher perplexity. All sequences have one length
        here; of different lengths, the total of nats over the total of tokens would be the perplexity.

    References:
        Perplexity: a measure of the difficulty of speech recognition tasks (Jelinek et al., 1977).

    Example:
        >>> import numpy as np
        >>> round(perplexity.function(LogLikelihood(np.full(5, -3 * np.log(50)), dims=3, measure="tokens")).value, 9)
        50.0
    """
    if test.measure != "tokens":
        return Undefined(f"perplexity is of tokens, found likelihoods of measure {test.measure!r}; use nll or bits_per_dim")
    if test.dims < 1:
        return Undefined(f"perplexity needs at least 1 token, found {test.dims}")
    found = mean_nll(test, float(test.dims))
    if isinstance(found, Undefined):
        return found
    if max(found.value, found.high or 0.0) > LARGEST:
        return Undefined(f"{found.value:.6g} nats per token have a perplexity beyond float64; use nll")
    value = exp(found.value)
    low, high = (None if end is None else exp(end) for end in (found.low, found.high))
    influence = None if found.influence is None else {"test": value * found.influence["test"]}
    return replace(found, value=value, low=low, high=high, influence=influence)
