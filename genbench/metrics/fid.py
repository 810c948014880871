"""Fréchet distance between feature distributions: FID on Inception features, FD on any others."""

from math import inf

import numpy as np

from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import Z95, block_moments, frechet, frechet_spread, without
from genbench.statistics import Features, Moments

JACKKNIFE = 5


def _without_rows(x: Features, b: int) -> Features:
    return Features(x.x[np.arange(len(x)) % JACKKNIFE != b], x.extractor)


def _debiased(gen: Features, ref: Features | Moments, mr: Moments, raw: float) -> float:
    """The jackknife over 5 blocks: raw − 4 (mean of the values without a block − raw)."""
    if len(gen) <= gen.d or (isinstance(ref, Features) and len(ref) <= ref.d):
        parts = [(_without_rows(gen, b), _without_rows(ref, b) if isinstance(ref, Features) else ref) for b in range(JACKKNIFE)]
        values = [frechet(Moments.of(g), Moments.of(r) if isinstance(r, Features) else mr, (g, r)) for g, r in parts]
    else:
        gens = block_moments(gen, JACKKNIFE)
        refs = block_moments(ref, JACKKNIFE) if isinstance(ref, Features) else None
        values = [frechet(without(gens, b), without(refs, b) if refs else mr) for b in range(JACKKNIFE)]
    return raw - (JACKKNIFE - 1) * (sum(values) / JACKKNIFE - raw)


@metric(
    Quantity("fid", "lower", unit="feature²", ideal=0.0, range=(0, inf)),
    Quantity("fid_debiased", "lower", unit="feature²", ideal=0.0),
    cost="n d² + d³",
    source="Heusel et al. 2017, eq. 6",
)
def fid(ref: Features | Moments, gen: Features | Moments) -> tuple[Outcome, Outcome]:
    """Squared Fréchet distance of two Gaussians fitted to the features.

        FD = ‖μg − μr‖² + tr Σg + tr Σr − 2 tr (Σg Σr)^½,   covariances with n − 1, everything in float64

    No matrix square root is iterated: eigenvalues of Lᵀ Σg L where Σr = L Lᵀ, else the nuclear norm of the product of two factors, exact
    for n <= d and for constant features. No eps on a diagonal, no imaginary part.

    `fid` is that raw value. It is biased upward by about a constant / n: two samples of one law do not read 0. Its interval is the spread
    of the raw value over new samples of the same sizes. `fid_debiased` removes the first-order bias by a jackknife over 5 blocks and
    estimates the distance of the two laws; compare it across sample sizes. It can be negative near 0.

    Args:
        ref: reference rows (m, d); Moments for a statistics file, which is taken as the target itself, without sampling error.
        gen: generated rows (n, d); from Moments alone there is a raw value without an interval.

    Returns:
        fid in [0, ∞) and fid_debiased in (−∞, ∞), squared feature units, lower is better. Interval: value ± 1.96 se with
        se² = v1 + v2, the variance of the influence functions plus the second-order part (`numerics.frechet_spread`); simulated coverage
        in benchmarks/coverage.md. None for n <= d on either side; a note for n < 4 d, and where the jackknife and the closed-form bias
        differ by more than one se.

    Note:
        Sees only two moments: it is blind to copies of the training set, and to any difference that keeps mean and covariance.
        Numbers of different extractors, preprocessing modes or reference sets are not comparable.

    References:
        GANs Trained by a Two Time-Scale Update Rule (Heusel et al. 2017), eq. 6, https://arxiv.org/abs/1706.08500
        Effectively Unbiased FID and Inception Score (Chong & Forsyth 2020), on the bias, https://arxiv.org/abs/1911.07023

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x, y = Features(rng.normal(size=(1000, 2))), Features(rng.normal(size=(1000, 2)) + 1)
        >>> out = fid(ref=x, gen=y)
        >>> bool(out["fid_debiased"].low < 2 < out["fid_debiased"].high)
        True
    """
    n = len(gen)
    fixed = isinstance(ref, Moments) and ref.n is None
    sizes = [n] if fixed else [n, len(ref)]
    if min(sizes) < 2:
        why = Undefined(f"a covariance needs at least 2 samples on each side, found {' and '.join(map(str, sizes))}")
        return why, why
    mg = gen if isinstance(gen, Moments) else Moments.of(gen)
    mr = ref if isinstance(ref, Moments) else Moments.of(ref)
    raw = max(frechet(mg, mr, (gen, ref)), 0.0)  # rounding may leave −1e-16 for equal samples
    notes = ("the reference is a statistics file, taken as the target: its own sampling error is in no interval",) if fixed else ()
    if isinstance(gen, Moments) or (isinstance(ref, Moments) and not fixed):
        return Estimate(raw, None, None, n, None, notes=notes), Undefined("needs feature rows, found their moments only")
    if min(sizes) < 2 * JACKKNIFE:
        few = Undefined(f"the jackknife over {JACKKNIFE} blocks needs at least {2 * JACKKNIFE} samples on each side, found {min(sizes)}")
        return Estimate(raw, None, None, n, None, notes=(*notes, f"no interval: {min(sizes)} samples")), few
    point = _debiased(gen, ref, mr, raw)
    if min(sizes) <= gen.d:
        why_not = f"no interval: {min(sizes):,} samples for {gen.d:,} dimensions; it takes more than {gen.d:,}, better {4 * gen.d:,}"
        return Estimate(raw, None, None, n, None, notes=(*notes, why_not)), Estimate(point, None, None, n, None)
    spread = frechet_spread(gen, ref, mg, mr)
    half = Z95 * spread.se
    if min(sizes) < 4 * gen.d:
        notes += (f"low n: {min(sizes):,} samples for {gen.d:,} dimensions; the interval is safe from {4 * gen.d:,} on",)
    if spread.se > 0 and abs(point - (raw - spread.bias)) > spread.se:
        notes += ("n too small for this dimension: two estimates of the bias differ by more than one standard error",)
    return (
        Estimate(raw, max(raw - half, 0.0), raw + half, n, "influence function", notes=notes),
        Estimate(point, point - half, point + half, n, "jackknife-5, influence function"),
    )
