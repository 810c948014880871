"""Log-likelihood gap between test samples and the model's own."""

import numpy as np

from genbench.estimate import Bound, Estimate, Quantity, Undefined
from genbench.likelihood import INTERVAL, mean_interval, unsound
from genbench.metric import Outcome, metric
from genbench.statistics import LogLikelihood


@metric(Quantity("ll_gap", "closer", unit="nats", ideal=0.0), cost="n", source="genbench; Nalisnick et al. 2019")
def ll_gap(gen: LogLikelihood, test: LogLikelihood) -> Outcome:
    """Mean log p of held-out samples less mean log p of the model's own samples.

        E_test log p − E_gen log p = H(p) − H(test, p): the model's entropy less its cross entropy with the data

    Interval: Welch's for two independent means, widened on the side of the longer tail (`genbench.likelihood.mean_interval`); it holds
    for new samples of both, the model as it is.

    Args:
        gen: log p of the model's own samples (n,).
        test: log p of held-out samples (m,), of the same model, bound and measure.

    Returns:
        A number in (−∞, ∞) in nats per sample; 0 where the laws are equal. Negative where the test samples are less likely than the
        model's own (too narrow, over-fitted, a mode missing), positive where they are more likely (too broad, noisy). A difference of two
        bounds is an estimate, not a bound. No offset of units moves it. Undefined where a sample has no probability.

    Note:
        0 does not say that the laws are equal: only one number of them is. A mean that fits can hide a missing mode behind noise.

    References:
        Do Deep Generative Models Know What They Don't Know? (Nalisnick et al., 2019): the mean log p of two sets.
        On the removal of skewness by transformation (Hall, 1992): the interval.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = ll_gap.function(LogLikelihood(rng.normal(size=400), 2), LogLikelihood(rng.normal(size=300), 2))
        >>> found.low < 0 < found.high
        True
    """
    if (gen.bound, gen.measure, gen.dims) != (test.bound, test.measure, test.dims):
        sides = (f"{x.bound}, {x.measure}, {x.dims} dims" for x in (gen, test))
        return Undefined(f"both sides need one bound, measure and number of dims, found {' against '.join(sides)}")
    reason = unsound(gen, "generated") or unsound(test, "test")
    if reason:
        return Undefined(reason)
    bound: Bound = "exact" if gen.bound == "exact" else "estimate"
    if min(len(gen), len(test)) < 2:
        value = float(test.nats.mean() - gen.nats.mean())
        return Estimate(value, None, None, len(gen), None, bound, ("no interval: 1 sample on a side",), gen.measure, test.estimator)
    value, low, high = mean_interval(test.nats, gen.nats)
    influence = {"test": test.nats - float(np.mean(test.nats)), "gen": float(np.mean(gen.nats)) - gen.nats}
    return Estimate(value, low, high, len(gen), INTERVAL, bound, measure=gen.measure, estimator=test.estimator, influence=influence)
