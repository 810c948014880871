"""Authenticity: the share of samples that are further from training data than training data from each other."""

import numpy as np
from numpy.typing import NDArray

from genbench.estimate import Estimate, Quantity, Undefined
from genbench.metric import Outcome, metric
from genbench.numerics import SAME, Z95, Float, neighbours, wilson
from genbench.statistics import Features

EXCESS = 1.5  # on the design effect's excess over 1: samples further apart share neighbourhoods too (simulated)
HELD = 1000  # training rows that are read as if they were generated: their share is known to about 0.03


@metric(Quantity("authenticity", "higher", range=(0, 1)), cost="n m d", source="Alaa et al. 2022, section 4 (authenticity)")
def authenticity(gen: Features, train: Features) -> Outcome:
    """Share of generated samples that are authentic: not a noisy copy of the training sample next to them.

        authentic(g)  iff  ‖g − r*‖ > min { ‖r − r*‖ : r in train, r is not r* },     r* = nearest training sample of g

    The authors' published code takes the spacing at the row number of g rather than at that of r*, which compares unrelated samples.

    Args:
        gen: generated features (n, d).
        train: training features (m, d), m >= 2.

    Returns:
        A number in [0, 1], higher is better, without unit. Exact copies are at distance 0 and never authentic; ties are not authentic.
        Real samples do not read 1, nor 1/2: about 1/3 in one dimension, and for Gaussians 0.38 in 2, 0.58 in 8 and 0.86 in 128, where
        few training samples are the neighbours of many. A note says what real samples read: up to 1,000 of the training rows, each
        against all others. The value depends on n hardly, on m little: compare it with that note, or with runs on the same train.

        Interval: Wilson's, for new generated and new training samples of these numbers, at n over a design effect. With e = authentic
        minus the value, D = Σ e_i e_j / Σ e_i² over all pairs that share a training sample, be it r* or the neighbour of r*; it is taken
        as 1 + 1.5 (D − 1). Simulated coverage: benchmarks/coverage.md.

    Note:
        Sees copies, near and exact, and samples closer to train than train is sparse. Blind to quality: far away samples are all
        authentic. A generator of too little variance reads lower than one that copies as little. Of equally near training samples any
        one decides.

    References:
        How Faithful is your Synthetic Data? Sample-level Metrics for Evaluating and Auditing Generative Models (Alaa et al., 2022),
        section 4: authenticity as a test on every sample.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> train, new = rng.normal(size=(200, 2)), rng.normal(size=(100, 2))
        >>> authenticity.function(Features(train[:100]), Features(train)).value
        0.0
        >>> authenticity.function(Features(new), Features(train)).value > 0.2
        True
    """
    n, m = len(gen), len(train)
    if n < 1 or m < 2:
        return Undefined(f"authenticity needs at least 1 generated and 2 training samples, found {n} and {m}")
    squares, index = neighbours(gen, train, 1)
    nearest, group = np.unique(index[:, 0], return_inverse=True)
    spacing, second = neighbours(train, None, 1, rows=nearest)
    authentic = squares[:, 0] * (1 - SAME) > spacing[group, 0]
    value = float(authentic.mean())
    residual = authentic - value
    spread = float(residual @ residual)
    effect = 1 + EXCESS * max(_shared(residual, nearest[group], second[group, 0], m) / spread - 1, 0.0) if spread > 0 else 1.0
    low, high = wilson(value, n / effect, Z95)
    notes = (f"real samples read {_held_out(train):.3g}: training rows, each against all others",) if m > 2 else ()
    return Estimate(value, low, high, n, "Wilson with design effect", notes=notes, influence={"gen": residual})


def _shared(residual: Float, a: NDArray[np.int64], b: NDArray[np.int64], m: int) -> float:
    """Σ e_i e_j over the pairs with {a_i, b_i} ∩ {a_j, b_j} not empty, a pair of a sample with itself included."""
    touched = np.bincount(a, residual, minlength=m) + np.bincount(b, residual, minlength=m)
    both = np.bincount(np.unique(np.minimum(a, b) * m + np.maximum(a, b), return_inverse=True)[1], residual)  # share two: counted twice
    return float(touched @ touched - both @ both)


def _held_out(train: Features) -> float:
    """The value of up to HELD evenly spaced training rows, each against the others."""
    rows = np.unique(np.linspace(0, len(train) - 1, HELD).astype(np.int64))
    squares, index = neighbours(train, None, 1, rows=rows)
    nearest, group = np.unique(index[:, 0], return_inverse=True)
    to, at = neighbours(train, None, 2, rows=nearest)
    spacing = np.where(at[group, 0] == rows, to[group, 1], to[group, 0])  # without the row that is held out
    return float((squares[:, 0] * (1 - SAME) > spacing).mean())
