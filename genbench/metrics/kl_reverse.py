"""KL divergence from the model's law to the data's, from samples of the model and the data's density."""

from dataclasses import dataclass
from math import inf, lgamma, log, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Float, neighbours, student95
from genbench.statistics import Features, Law

NODES = 64  # of the integral over a ball
COARSE = 16  # the same for the parts behind the interval, of which only the spread counts
EXCESS = 1.2  # on the design effect's excess over 1: it comes from parts smaller than the whole (simulated)
HALVINGS = 12  # of the tilt's range
STRAY = 1e6  # nats of log p within a ball from which on its sample has left the law altogether: no power of p is q there
STEEPEST = 4.0  # tilt at most: a model half as wide as the data has 4
DIMENSIONS = 5  # up to which the interval was simulated


@metric(
    Quantity("kl_reverse", "lower", unit="nats", ideal=0.0),
    cost="n² d + n nodes",
    source="Kozachenko & Leonenko 1987; Berrett, Samworth & Yuan 2019",
)
def kl_reverse(ref: Law, gen: Features, *, k: int = 5, seed: int = 0) -> Outcome:
    """KL divergence of the data's law p from the model's q, q known by its samples only: nearest neighbours give log q.

        KL(q ‖ p) = E_q log q(x) − E_q log p(x) ≈ 1/n Σ_i log q̂(x_i) − log p(x_i)
        log q̂(x) = ψ(k) − ψ(n) + a log p(x) − log ∫_B(x) p(z)^a dz        B(x): the ball to the k-th nearest other sample

    With a = 0 this is the estimate of Kozachenko and Leonenko, which takes q as constant within a ball; its bias exceeds its error even
    in two dimensions. Here q is taken to run like a power of the known p within a ball: a is the tilt for which the k − 1 samples inside
    the balls are the likeliest, at least 0 and at most 4. Equal laws have a = 1 and no bias at any n. The integral is a mean over 64 fixed
    points of the ball.

    Interval: value ± t sqrt(D Var/n), Var the variance of the terms and D = 1 + 1.2 max(E − 1, 0) the design effect of neighbourhoods
    that share points: E is the variance between disjoint parts of the samples, several times over, over that of independent terms.

    Args:
        ref: the data's law.
        gen: generated samples (n, d), n > k, in the samples' own space.
        k: neighbours, at least 2; few have more noise, many a wider ball.
        seed: of the parting, by position.

    Returns:
        A number in (−∞, ∞) in nats per sample, lower is better, 0 for the true law; noise may take it below 0. An estimate, consistent and
        nearly unbiased where q runs smoothly against p. Undefined where samples lie off the support of p, as the divergence is infinite
        then, and where more than k samples coincide, as q has no density then. A ball over which log p runs by more than a million nats
        (a sample that diverged) has a = 0. No interval below 4 (k + 5) samples and above 5 dimensions.

    Note:
        Punishes what the model invents, and hardly what it leaves out: one mode of K, well drawn, reads log K only (see kl_forward). A
        model off by a few standard deviations of a narrow mode reads tens of nats.

    References:
        Sample Estimate of the Entropy of a Random Vector (Kozachenko & Leonenko, 1987).
        Efficient Multivariate Entropy Estimation via k-Nearest Neighbour Distances (Berrett, Samworth & Yuan, 2019).
        Breaking the Bandwidth Barrier: Geometrical Adaptive Entropy Estimation (Gao, Oh & Viswanath, 2016): a local likelihood.
        The tilt by the known density and its interval were derived and simulated for this project.

    Example:
        >>> law = Law("standard normal", 1, lambda x: -x[:, 0] ** 2 / 2 - 0.9189385332, 1.4189385332)
        >>> found = kl_reverse.function(law, Features(np.random.default_rng(0).normal(1.0, 1.0, (500, 1))))
        >>> found.low < 0.5 < found.high
        True
    """
    if k < 2:
        raise UsageError(f"kl_reverse needs k >= 2, found {k}")
    n, d = len(gen), gen.d
    if d != ref.d:
        return Undefined(f"the law has {ref.d} dimensions, the samples {d}; it lives in the samples' own space (@identity)")
    if n <= k:
        return Undefined(f"needs more than k = {k} samples, found {n}")
    log_p = ref.log_density(gen.x.astype(np.float64))
    if off := int(np.sum(log_p == -inf)):
        return Undefined(f"{off:,} of {n:,} samples lie off the support of {ref.name}: the divergence is infinite")
    found = _terms(gen, ref, k, _nodes(d, NODES))
    if found is None:
        return Undefined(f"a sample has at least k = {k} copies: the model's law has no density, the divergence is infinite")
    value, variance = float(found.mean()), float(found.var(ddof=1))
    notes: tuple[str, ...] = ()
    if copies := int(np.sum(neighbours(gen, None, k)[0][:, 0] == 0)):
        notes += (
            f"{copies:,} samples are copies of others: if the model repeats itself its law has no density, the divergence is infinite",
        )
    design = _design(gen, ref, k, seed) if d <= DIMENSIONS else None
    if design is None:
        few = f"{n} samples are too few for k = {k}" if d <= DIMENSIONS else f"the bias above {DIMENSIONS} dimensions is not known"
        return Estimate(value, None, None, n, None, bound="estimate", notes=(*notes, f"no interval: {few}"))
    half = student95(design.freedom) * sqrt(design.effect * variance / n)
    return Estimate(value, value - half, value + half, n, "design effect", bound="estimate", notes=notes)


def _nodes(d: int, count: int) -> NDArray[np.float64]:
    """Points spread evenly over the unit ball (count, d), with every point its opposite."""
    from scipy.special import ndtri

    golden = 1.5
    for _ in range(60):
        golden = (1 + golden) ** (1 / (d + 2))  # g^(d+2) = g + 1: multiples of its powers fill a cube of d + 1 dimensions evenly
    u = (0.5 + np.arange(1, count // 2 + 1)[:, None] * golden ** -np.arange(1.0, d + 2)) % 1
    z = ndtri(np.clip(u[:, :d], 1e-9, 1 - 1e-9))
    z *= (u[:, d] ** (1 / d) / np.maximum(np.linalg.norm(z, axis=1), 1e-12))[:, None]
    if d <= DIMENSIONS:  # with the ball's own second moments they integrate polynomials up to degree 3 exactly
        z = np.linalg.solve(np.linalg.cholesky((d + 2) * z.T @ z / len(z)), z.T).T
    return np.concatenate([z, -z])


def _terms(gen: Features, ref: Law, k: int, nodes: Float) -> NDArray[np.float64] | None:
    """(n,) log q̂ − log p; None where a ball has no extent."""
    n, d = len(gen), gen.d
    x = gen.x.astype(np.float64)
    squares, index = neighbours(gen, None, k)
    radius = np.sqrt(squares[:, -1])
    if not radius.all():
        return None
    own = ref.log_density(x)
    around = np.empty((n, len(nodes)))  # log p at the nodes of every ball, relative to its centre
    for a in range(0, n, 1024):
        z = x[a : a + 1024, None] + radius[a : a + 1024, None, None] * nodes
        around[a : a + 1024] = ref.log_density(z.reshape(-1, d)).reshape(-1, len(nodes))
    around -= own[:, None]
    stray = np.ptp(np.where(np.isfinite(around), around, 0), axis=1) > STRAY
    around = np.maximum(around, -1e30)  # −∞ times a tilt of 0 is no number
    if stray.all():
        return np.asarray(_digamma(k) - _digamma(n) - _volume(radius, d) - own)
    inside = float((own[index[:, :-1]] - own[:, None])[~stray].mean())
    tilt = _tilt(around[~stray], inside)
    around[stray] = 0  # for these few the plain estimate, so that the tilt is not theirs
    top = tilt * around.max(axis=1)
    mass = top + np.log(np.exp(tilt * around - top[:, None]).mean(axis=1))
    return _digamma(k) - _digamma(n) - _volume(radius, d) - mass - own


def _volume(radius: Float, d: int) -> NDArray[np.float64]:
    """log volume of balls."""
    return np.asarray(d / 2 * log(pi) - lgamma(d / 2 + 1) + d * np.log(radius))


def _tilt(around: Float, inside: float) -> float:
    """The a for which the mean of log p over the samples inside the balls is what p^a gives: the likelihood's maximum."""

    def excess(a: float) -> float:
        w = np.exp(a * (around - around.max(axis=1, keepdims=True)))
        return inside - float(((w * around).sum(axis=1) / w.sum(axis=1)).mean())

    low, high = 0.0, STEEPEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2


def _digamma(n: int) -> float:
    from scipy.special import digamma

    return float(digamma(n))


@dataclass(frozen=True)
class _Design:
    """Sampling variance of the mean of terms over that of as many independent ones.

    Args:
        effect: at least 1.
        freedom: degrees of freedom behind it.
    """

    effect: float
    freedom: int


def _design(gen: Features, ref: Law, k: int, seed: int) -> _Design | None:
    """From disjoint parts, as numerics.manifold_design; None where the parts would have too few rows."""
    n = len(gen)
    parts = int(np.clip(n // 1000, 2, 20))  # few and large: small parts have balls that span modes
    if n // parts < 2 * (k + 5):
        return None
    draw, nodes = np.random.default_rng(seed), _nodes(gen.d, COARSE)
    between, units = [], []
    repeats = -(-30 // (parts - 1))
    for _ in range(repeats):
        order = draw.permutation(n)
        found = [_terms(gen.take(np.sort(order[p::parts])), ref, k, nodes) for p in range(parts)]
        if any(t is None for t in found):
            continue
        between.append(np.var([t.mean() for t in found if t is not None], ddof=1))
        units.append(np.mean([t.var() for t in found if t is not None]))
    if not units or np.mean(units) == 0:
        return None
    effect = n / parts * float(np.mean(between)) / float(np.mean(units))
    return _Design(1 + EXCESS * max(effect - 1, 0.0), len(units) * (parts - 1))
