"""Bits per dimension of discrete data."""

from math import inf, log

from genbench.estimate import Quantity, Undefined
from genbench.likelihood import mean_nll
from genbench.metric import Outcome, metric
from genbench.statistics import LogLikelihood


@metric(Quantity("bits_per_dim", "lower", unit="bits", range=(0, inf)), cost="n", source="Theis et al. 2016, section 3.1")
def bits_per_dim(test: LogLikelihood) -> Outcome:
    """Negative log-likelihood of discrete held-out data in bits per dimension, −1/n Σ log p(x_i) / (dims ln 2).

    Interval: that of `nll`, in these units.

    Args:
        test: log mass of every test sample (n,), or a bound on it, e.g. of a dequantised density (`genbench.likelihood.dequantised_bound`).

    Returns:
        A number in [0, ∞), lower is better; log2 of the number of grey values for a uniform model, 8 for 256. Bound and measure as in
        `nll`. Undefined for a density, which is of other units than the data, and for tokens.

    Note:
        A density's bits per dimension become those of the data by an offset, −log2 of a bin's width: + 8 for 256 grey values on [0, 1],
        + 7 on [−1, 1], + log2 17 = 4.09 for 17 on [0, 1]; even so only as a bound, and only if the noise covers exactly one bin.
        Values of data with different numbers of grey values do not compare.

    References:
        A note on the evaluation of generative models (Theis et al., 2016), section 3.1.

    Example:
        >>> import numpy as np
        >>> uniform = LogLikelihood(np.full(5, -784 * np.log(256)), dims=784, measure="mass")
        >>> round(bits_per_dim.function(uniform).value, 9)
        8.0
    """
    if test.measure == "tokens":
        return Undefined("the likelihoods are of tokens, which have no grey values; use perplexity")
    if test.measure == "density":
        return Undefined(
            "a density on other units is not bits per dimension of the discrete data: give the log mass of a bin (measure 'mass'), as "
            "genbench.likelihood.dequantised_bound does; the offset is +8 bits for 256 grey values on [0, 1], +7 on [−1, 1], +log2 17 for "
            "17 on [0, 1]"
        )
    if test.dims < 1:
        return Undefined(f"bits per dimension need at least 1 dimension, found {test.dims}")
    return mean_nll(test, test.dims * log(2))
