"""Negative log-likelihood."""

from genbench.estimate import Quantity
from genbench.likelihood import mean_nll
from genbench.metric import Outcome, metric
from genbench.statistics import LogLikelihood


@metric(Quantity("nll", "lower", unit="nats"), cost="n", source="Theis et al. 2016, section 3.1")
def nll(test: LogLikelihood) -> Outcome:
    """Mean negative log-likelihood of held-out samples, −1/n Σ log p(x_i).

    Interval: over new test samples, the model as it is. Student's t, widened on the side of the longer tail
    (`genbench.likelihood.mean_interval`).

    Args:
        test: log p of every test sample (n,), or a bound on it.

    Returns:
        A number in (−∞, ∞) in nats per sample, lower is better; its mean is at least the entropy of the data where p is exact. The bound
        is turned round: a lower bound on log p (ELBO, IWAE) makes an upper one here. The measure is carried: a density depends on the
        data's units and may give negative values, a mass may not. Undefined where a test sample has no probability at all; no interval
        for a single sample.

    Note:
        Values of different measures, binarisations, scalings or bounds do not compare. Says little of the samples: 1 % of a good model in a
        mixture with noise costs at most log 100 = 4.6 nats, and a good likelihood goes with bad samples and the other way round.
        Kinds of samples rarer than one in n, with a far lower log p than those seen, are in no interval.

    References:
        A note on the evaluation of generative models (Theis et al., 2016), sections 3.1 and 3.2.
        On the removal of skewness by transformation (Hall, 1992): the interval.

    Example:
        >>> import numpy as np
        >>> found = nll.function(LogLikelihood(np.array([-1.0, -2.0, -3.0]), dims=2, bound="lower"))
        >>> (found.value, found.bound, found.low < 2 < found.high)
        (2.0, 'upper', True)
    """
    return mean_nll(test)
