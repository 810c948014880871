"""Fréchet distance (FID on Inception features, FD on any others)."""

from math import inf, isfinite

import numpy as np

from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import T19, Z95, block_moments, frechet, frechet_spread, jackknife_se, without, without_rows
from genbench.statistics import Features, Moments

BLOCKS = 5  # of the jackknife that removes the bias where n is small or d large
FINE = 20  # of the jackknife that also gives the standard error
JACKKNIFE_RATIO = 10  # samples per dimension from which the finer jackknife is used: below, its own bias is not small (simulated)
JACKKNIFE_D = 512  # its 20 distances cost d³ each; above, the influence functions take one decomposition


@metric(
    Quantity("fid", "lower", unit="feature²", ideal=0.0, range=(0, inf)),
    Quantity("fid_debiased", "lower", unit="feature²", ideal=0.0, placed=True),
    cost="n d² + d³",
    source="Heusel et al. 2017, eq. 6",
)
def fid(ref: Features | Moments, gen: Features | Moments) -> tuple[Outcome, Outcome]:
    """Fréchet distance between Gaussians fitted to the features of two samples.

        FD = ‖μg − μr‖² + tr Σg + tr Σr − 2 tr (Σg Σr)^½

    Everything is float64, covariances have n − 1 in the denominator, no matrix square root is formed (`numerics.frechet`), and singular
    covariances are exact rather than regularised.

    Args:
        ref: reference features (m, d), or their moments. Moments alone, such as a published statistics file, are taken as the target
            itself: their own sampling error is unknown and not in the interval.
        gen: generated features (n, d). With moments alone only the raw value is reported.

    Returns:
        Two quantities in squared feature units, lower is better.

        `fid`, in [0, ∞): the published definition. It is biased upward by about constant/n: compare only equal n, m and features. Its
        interval is the spread of the raw value over new samples of the same sizes, not of the distance of the two laws.

        `fid_debiased`, in (−∞, ∞), 0 for equal laws: the 5-block jackknife FD − 4 (mean_b FD_(b) − FD), where FD_(b) leaves out the
        rows with index b mod 5 on both sides (classes in runs leave the blocks even). The number to compare across sample sizes; it may
        be negative where the laws are close.

        Intervals: from 10 samples per dimension on and up to 512 dimensions, the jackknife has 20 blocks and the half width is
        h = t(19) sqrt(max(J − v2, v2)), J its variance estimate and v2 the degenerate part of it, which a jackknife counts twice; as the
        estimate is skewed, the interval is taken on the scale of its square root, which shifts it up by h²/(4 max(value, h)).
        Elsewhere 1.96 sqrt(max(v1, v2)) for the debiased value, from the influence functions (`numerics.frechet_spread`); for the raw
        one 1.96 sqrt(max(v1 − v2, v2)), averaged with J up to 512 dimensions. Simulated coverage: benchmarks/coverage.md.

        No interval where n <= d on either side. Notes: "low n" for n < 4 d, "n too small for this dimension" where the jackknife and
        the closed-form bias differ by more than one standard error.

    Note:
        Sees means and covariances only: modes that are exchanged within equal covariances, and copies of training data, are invisible.
        Dependent rows (chains, tiled grids) make the interval too short.

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017), eq. 6.
        Effectively Unbiased FID and Inception Score (Chong & Forsyth, 2020), section 3: the bias in 1/n.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> a, b = Features(rng.normal(size=(500, 2))), Features(rng.normal(size=(500, 2)) + [1, 0])
        >>> raw, debiased = fid.function(a, b)
        >>> debiased.low < 1 < debiased.high
        True
    """
    n, fixed = len(gen), isinstance(ref, Moments)
    sizes = [x.n for x in (gen, ref) if isinstance(x, Moments) and x.n is not None] + [
        len(x) for x in (gen, ref) if isinstance(x, Features)
    ]
    smallest, d = min(sizes, default=2), gen.d
    if smallest < 2:
        why = Undefined(f"a covariance needs at least 2 samples on each side, found {smallest}")
        return why, why
    notes: tuple[str, ...] = ()
    if fixed:
        notes += ("the reference is moments only: it is taken as the target itself, its sampling error is not in the interval",)
    if isinstance(gen, Moments):
        return _raw_only(frechet(gen, ref), n, (*notes, "moments only of the samples: the raw value has no interval"))
    if smallest < BLOCKS:
        raw, _ = _raw_only(frechet(gen, ref), n, (*notes, f"no interval: {smallest} samples"))
        return raw, Undefined(f"the jackknife needs at least {BLOCKS} samples on each side, found {smallest}")

    known = [x for x in (gen, ref) if isinstance(x, Features)]
    moments: list[Moments | Features] = [gen, ref]
    parts: dict[int, list[Moments]] = {}
    if smallest > d:  # else singular: distances come from the rows, moments are never formed
        parts = {id(x): block_moments(x, BLOCKS) for x in known}
        moments = [Moments.merge(parts[id(x)]) if isinstance(x, Features) else x for x in (gen, ref)]

    def left(b: int) -> float:
        """The distance without a block. Only its own moments are held: a covariance of 2,048 features takes 32 MB."""
        g, r = (x if isinstance(x, Moments) else without(parts[id(x)], b) if parts else without_rows(x, b, BLOCKS) for x in (gen, ref))
        return frechet(g, r, lambda: rows(b))

    def rows(b: int | None = None) -> tuple[Features | Moments, Features | Moments]:
        g, r = (x if b is None or isinstance(x, Moments) else without_rows(x, b, BLOCKS) for x in (gen, ref))
        return g, r

    value = frechet(moments[0], moments[1], rows)
    if not isfinite(value):
        why = Undefined(f"the features are too large for float64: the distance overflows to {value}; rescale them")
        return why, why
    rest = sum(map(left, range(BLOCKS))) / BLOCKS
    parts.clear()
    plain, point = value, value - (BLOCKS - 1) * (rest - value)
    value = max(value, 0.0)
    if smallest <= d:
        notes += (f"no interval, and n too small for this dimension: {smallest:,} samples for {d:,} features",)
        return Estimate(value, None, None, n, None, notes=notes), Estimate(point, None, None, n, None, notes=notes)

    assert isinstance(moments[0], Moments)
    assert isinstance(moments[1], Moments)
    spread = frechet_spread(gen, ref, moments[0], moments[1])
    if smallest < 4 * d:
        notes += (f"low n: {smallest:,} samples for {d:,} features; 4 per feature make the interval reliable",)
    half, half_raw, method = Z95 * spread.se, Z95 * spread.tight, "influence functions"
    shift = shift_raw = 0.0
    if d <= JACKKNIFE_D and smallest >= 2 * FINE:
        fine = {id(x): block_moments(x, FINE) for x in known}
        pairs = [[without(fine[id(x)], b) if isinstance(x, Features) else x for x in (gen, ref)] for b in range(FINE)]
        values = np.array([frechet(g, r) for g, r in pairs])
        variance = float(jackknife_se(values[:, None])[0]) ** 2
        if smallest >= JACKKNIFE_RATIO * max(d, 4):
            point = plain - (FINE - 1) * (float(values.mean()) - plain)
            # A jackknife counts the degenerate part of the variance twice (Efron & Stein 1981); v2 is that part.
            half = half_raw = T19 * float(np.sqrt(max(variance - spread.v2, spread.v2)))
            shift, shift_raw, method = _shift(point, half), _shift(value, half), "jackknife-20"
        else:  # heavy tails make the one too wide, the other too short
            half_raw = Z95 * float(np.sqrt((spread.tight**2 + variance) / 2))
    if abs(point - (plain - spread.bias)) > spread.se:
        notes += (f"n too small for this dimension: {smallest:,} samples for {d:,} features leave a bias of higher order",)
    influence = {"gen": spread.inf_gen} | ({} if spread.inf_ref is None else {"ref": spread.inf_ref})
    return (
        Estimate(
            value,
            max(value - half_raw + shift_raw, 0.0),
            value + half_raw + shift_raw,
            n,
            method,
            notes=notes,
            influence=influence,
            degenerate=spread.v2,
        ),
        Estimate(point, point - half + shift, point + half + shift, n, method, notes=notes, influence=influence, degenerate=spread.v2),
    )


def _shift(value: float, half: float) -> float:
    """What an interval on the scale of the distance, the square root, lies higher: the estimate is skewed to the right."""
    return half**2 / (4 * max(value, half)) if value > 0 else 0.0


def _raw_only(value: float, n: int, notes: tuple[str, ...]) -> tuple[Outcome, Outcome]:
    if not isfinite(value):
        why = Undefined(f"the features are too large for float64: the distance overflows to {value}; rescale them")
        return why, why
    return Estimate(max(value, 0.0), None, None, n, None, notes=notes), Undefined("needs the samples' features, found moments only")
