"""Spatial Fréchet distance (sFID): where things are, rather than what they are."""

from math import inf, isfinite

import numpy as np

from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import T19, Z95, frechet, frechet_spread, jackknife_se, without_rows
from genbench.statistics import Features, Moments

BLOCKS, FINE = 5, 20  # of the jackknife that removes the bias; where a distance costs little and there are samples enough, the finer one
FINE_D, FINE_RATIO = 512, 10  # up to this dimension, from that many samples per dimension


@metric(
    Quantity("sfid", "lower", unit="feature²", ideal=0.0, range=(0, inf)),
    Quantity("sfid_debiased", "lower", unit="feature²", ideal=0.0, placed=True),
    cost="n d² + d³",
    source="Nash et al. 2021; Heusel et al. 2017, eq. 6",
    extractor="inception_spatial",
)
def sfid(ref: Features | Moments, gen: Features) -> tuple[Outcome, Outcome]:
    """Fréchet distance of the first 7 channels of Inception's 17 × 17 map `mixed_6/conv`, 2,023 features of all places.

        sFID = ‖μg − μr‖² + tr Σg + tr Σr − 2 tr (Σg Σr)^½

    FID averages over the places of the last map and so hardly sees where a thing stands; these features are not averaged. They
    are those of the evaluator of guided-diffusion (`genbench.extractors.inception_spatial` says which tensor that is).

    Args:
        ref: reference features (m, d), or their moments: `sigma_s` and `mu_s` of a published file, under the names sigma and mu.
            Moments are taken as the target itself: their own sampling error is not in the interval.
        gen: generated features (n, d).

    Returns:
        Two quantities in squared feature units, lower is better.

        `sfid`, in [0, ∞): the published definition, biased upward by about constant/n: compare only equal n, m and preprocessing. Its
        interval is the spread of the raw value over new samples of the same sizes.

        `sfid_debiased`, in (−∞, ∞), 0 for equal laws: the 5-block jackknife FD − 4 (mean_b FD_(b) − FD), as `fid_debiased`; it may be
        negative where the laws are close.

        Intervals: half width h = 1.96 sqrt(max(v1, v2)) for the debiased value, from the influence functions
        (`numerics.frechet_spread`), and 1.96 sqrt((max(v1 − v2, v2) + J)/2) for the raw one, J the jackknife's variance. On other
        features of up to 512 dimensions, from 10 samples per dimension on, the jackknife has 20 blocks and
        h = t(19) sqrt(max(J − v2, v2)) for both. As the estimates are skewed, the intervals are taken on the scale of the square root,
        which shifts them up by h²/(4 max(value, h)). None for n <= d on either side. Notes: "low n" for n < 4 d, "n too small for
        this dimension" where the jackknife and the closed-form bias differ by more than one standard error. Simulated coverage:
        benchmarks/coverage.md.

    Note:
        The layer is an inner one: textures and edges count, objects hardly. Published values are on the evaluator's own resizing
        (preprocess "tf1"). Means and covariances only, as `fid`.

    References:
        Generating Images with Sparse Representations (Nash et al., 2021): the measure.
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), section 2.2: its evaluator.
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017), eq. 6.

    Example:
        >>> rng = np.random.default_rng(3)
        >>> a, b = Features(rng.normal(size=(500, 2))), Features(rng.normal(size=(500, 2)) + [1, 0])
        >>> raw, debiased = sfid.function(a, b)
        >>> debiased.low < 1 < debiased.high
        True
    """
    n, d, fixed = len(gen), gen.d, isinstance(ref, Moments)
    smallest = n if isinstance(ref, Moments) else min(n, len(ref))
    if smallest < 2:
        why = Undefined(f"a covariance needs at least 2 samples on each side, found {smallest}")
        return why, why
    notes: tuple[str, ...] = ()
    if fixed:
        notes += ("the reference is moments only: it is taken as the target itself, its sampling error is not in the interval",)
    raw = frechet(gen, ref)
    if not isfinite(raw):
        why = Undefined(f"the features are too large for float64: the distance overflows to {raw}; rescale them")
        return why, why
    value = max(raw, 0.0)
    if smallest < BLOCKS:
        few = Undefined(f"the jackknife needs at least {BLOCKS} samples on each side, found {smallest}")
        return Estimate(value, None, None, n, None, notes=(*notes, f"no interval: {smallest} samples")), few
    blocks = FINE if d <= FINE_D and smallest >= max(FINE_RATIO * d, 2 * FINE) else BLOCKS
    rest = np.empty(blocks)
    for b in range(blocks):
        g, r = (x if isinstance(x, Moments) else without_rows(x, b, blocks) for x in (gen, ref))
        rest[b] = frechet(g, r)
    point = raw - (blocks - 1) * (float(rest.mean()) - raw)
    if smallest <= d:
        notes += (f"no interval, and n too small for this dimension: {smallest:,} samples for {d:,} features",)
        return Estimate(value, None, None, n, None, notes=notes), Estimate(point, None, None, n, None, notes=notes)
    spread = frechet_spread(gen, ref, Moments.of(gen), ref if isinstance(ref, Moments) else Moments.of(ref))
    if smallest < 4 * d:
        notes += (f"low n: {smallest:,} samples for {d:,} features; 4 per feature make the interval reliable",)
    if abs(point - (raw - spread.bias)) > spread.se:
        notes += (f"n too small for this dimension: {smallest:,} samples for {d:,} features leave a bias of higher order",)
    influence = {"gen": spread.inf_gen} | ({} if spread.inf_ref is None else {"ref": spread.inf_ref})
    variance = float(jackknife_se(rest[:, None])[0]) ** 2
    if blocks == FINE:  # a jackknife counts the degenerate part v2 twice
        half = half_raw = T19 * float(np.sqrt(max(variance - spread.v2, spread.v2)))
        method = "jackknife-20"
    else:  # heavy tails make the influence functions' variance too large for the raw value, and the jackknife's has 4 degrees of freedom
        half_raw, half = Z95 * float(np.sqrt((spread.tight**2 + variance) / 2)), Z95 * spread.se
        method = "influence functions"

    def estimate(x: float, width: float, floor: float) -> Estimate:
        shift = width**2 / (4 * max(x, width)) if x > 0 else 0.0
        low, high = max(x - width + shift, floor), x + width + shift
        return Estimate(x, low, high, n, method, notes=notes, influence=influence, degenerate=spread.v2)

    return estimate(value, half_raw, 0.0), estimate(point, half, -inf)
