"""KL divergence from the data's law to the model's, where both densities are known."""

from math import inf, sqrt

import numpy as np

from genbench.estimate import Bound, Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import student95
from genbench.statistics import Law, LogLikelihood

OPPOSITE: dict[str, Bound] = {"lower": "upper", "upper": "lower", "exact": "exact", "estimate": "estimate"}


@metric(Quantity("kl_forward", "lower", unit="nats", ideal=0.0), cost="n", source="Kullback & Leibler 1951, section 2")
def kl_forward(ref: Law, test: LogLikelihood) -> Outcome:
    """KL divergence of the model q from the data's law p: what the model's likelihood lacks to the best possible one.

        KL(p ‖ q) = E_p log p(x) − E_p log q(x) = −H(p) − mean over test of log q(x_i)

    The entropy H(p) is that of the formula, without sampling error. Interval: value ± t sd(log q)/√n, t with the degrees of freedom that
    the kurtosis of log q leaves.

    Args:
        ref: the data's law.
        test: log-densities that the model gives to samples of that law, in the samples' own space.

    Returns:
        A number in (−∞, ∞) in nats per sample, lower is better, 0 for the true law; sampling may take it below 0. Unbiased at every n.
        Where log q is a lower bound (a variational one), the value is an upper bound, and the other way round. Undefined where log q is
        −∞ for a sample, as the divergence is infinite then. No interval below 10 samples.

    Note:
        Punishes what the model leaves out, and hardly what it invents: a model that is too wide reads low (see kl_reverse). Only log q is
        known here, sample by sample, so that its whole spread stands in the interval, that of log p too.

    References:
        On Information and Sufficiency (Kullback & Leibler, 1951), section 2.
        A Note on the Evaluation of Generative Models (Theis, van den Oord & Bethge, 2016).

    Example:
        >>> law = Law("standard normal", 1, lambda x: -x[:, 0] ** 2 / 2 - 0.9189385332, 1.4189385332)
        >>> x = np.random.default_rng(0).normal(size=1000)
        >>> found = kl_forward.function(law, LogLikelihood(-((x - 1) ** 2) / 2 - 0.9189385332, 1))
        >>> found.low < 0.5 < found.high
        True
    """
    n, nats = len(test), test.nats
    if test.measure != "density":
        return Undefined(f"the law has a density, the model's log-likelihood is of a {test.measure}; give log-densities of the samples")
    if test.dims != ref.d:
        return Undefined(f"the law has {ref.d} dimensions, the model's log-likelihood {test.dims}; give it in the samples' own space")
    if n < 1:
        return Undefined("needs at least 1 test sample, found none")
    if without := int(np.sum(nats == -inf)):
        return Undefined(f"the model gives no density to {without:,} of {n:,} test samples: the divergence is infinite")
    value = -ref.entropy - float(nats.mean())
    if n < 10:
        return Estimate(value, None, None, n, None, bound=OPPOSITE[test.bound], notes=(f"no interval: {n} samples",))
    influence = nats.mean() - nats
    scale = float(influence.std())
    fourth = float(((influence / scale) ** 4).mean()) if scale > 0 else 1.0
    freedom = max(2 * n / (fourth - 1), 4.0) if fourth > 1 else float(n - 1)
    half = student95(min(freedom, n - 1)) * scale / sqrt(n - 1)
    bound, kind = OPPOSITE[test.bound], test.estimator
    return Estimate(
        value, value - half, value + half, n, "Student's t", bound, measure="density", estimator=kind, influence={"test": influence}
    )
