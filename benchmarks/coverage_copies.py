"""Coverage settings of nn_copies and duplicates.

nn_copies: the training set is one and the same in all replications, as its intervals are for it. Where a share w of the samples is
copied and the others are new, the target is w + (1 − w) α. duplicates: of S equally likely contents, 1 − S (1 − (1 − 1/S)ⁿ)/n.
For the others the mean over the replications.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from simulate import Setting

from genbench.statistics import Features

Draw = Callable[[np.random.Generator, int], np.ndarray]
Roles = Callable[[np.random.Generator], Mapping[str, Features]]
ALPHA = 0.01


def gaussian(d: int, scale: float = 1.0) -> Draw:
    """Isotropic."""
    return lambda rng, n: scale * rng.standard_normal((n, d))


def student(d: int, scale: float = 1.0) -> Draw:
    """Independent coordinates with 3 degrees of freedom."""
    return lambda rng, n: scale * rng.standard_t(3, (n, d))


def grid(d: int, side: int) -> Draw:
    """Uniform on whole numbers: exact copies by chance."""
    return lambda rng, n: rng.integers(0, side, (n, d)).astype(float)


def mixed(share: float, some: Draw, others: Draw) -> Draw:
    """A share of one law among another."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.where(rng.random((n, 1)) < share, some(rng, n), others(rng, n))

    return draw


def among(rows: np.ndarray, noise: float = 0.0) -> Draw:
    """Rows of a list, each as likely, under noise."""
    return lambda rng, n: rows[rng.integers(0, len(rows), n)] + noise * rng.standard_normal((n, rows.shape[1]))


def fixed(law: Draw, n: int) -> np.ndarray:
    """The same rows in every replication."""
    return law(np.random.default_rng(7), n)


def memorised(gen: Draw, real: Draw, train: np.ndarray, n: int, held: int) -> Roles:
    """Samples of nn_copies."""
    return lambda rng: {"gen": Features(gen(rng, n)), "train": Features(train), "test": Features(real(rng, held))}


def repeated(gen: Draw, real: Draw, n: int) -> Roles:
    """Samples of duplicates."""
    return lambda rng: {"gen": Features(gen(rng, n)), "ref": Features(real(rng, n))}


def settings() -> Iterator[Setting]:
    """One Setting per line of the table."""
    for d, n, m, held in ((8, 1000, 2000, 1000), (8, 400, 1000, 200), (64, 1000, 2000, 2000)):
        real = gaussian(d)
        train = fixed(real, m)
        equal, copied, noisy = (f"{name}, {held:,} held out" for name in ("equal Gaussians", "30 % copies", "5 % copies under noise"))
        yield Setting("nn_copies", equal, d, n, m, 300, memorised(real, real, train, n, held), {"nn_copies": ALPHA, "exact_copies": 0.0})
        for law, share, noise in ((copied, 0.3, 0.0), (noisy, 0.05, 1e-6)):
            targets = {"nn_copies": share + (1 - share) * ALPHA, "exact_copies": 0.0 if noise else share}
            gen = mixed(share, among(train, noise), real)
            yield Setting("nn_copies", law, d, n, m, 300, memorised(gen, real, train, n, held), targets)
    train = fixed(student(4), 2000)
    shrunk = memorised(student(4, 0.7), student(4), train, 1000, 500)
    yield Setting("nn_copies", "Student t(3) shrunk to 0.7, 500 held out", 4, 1000, 2000, 300, shrunk)
    for side in (100, 30):
        real = grid(2, side)
        train = fixed(real, 500)
        targets = {"nn_copies": ALPHA, "exact_copies": len(np.unique(train, axis=0)) / side**2}
        law = f"equal uniform on {side} x {side} points, 1,000 held out"
        yield Setting("nn_copies", law, 2, 1000, 500, 300, memorised(real, real, train, 1000, 1000), targets)

    for d, n in ((2, 300), (8, 1000), (32, 1000)):
        yield Setting("duplicates", "equal Gaussians", d, n, n, 300, repeated(gaussian(d), gaussian(d), n), {"duplicates": 0.0})
    yield Setting("duplicates", "Gaussian shrunk to 0.8", 8, 1000, 1000, 300, repeated(gaussian(8, 0.8), gaussian(8), 1000))
    yield Setting("duplicates", "Student t(3) shrunk to 0.8", 4, 500, 500, 300, repeated(student(4, 0.8), student(4), 500))
    for contents, n in ((5000, 500), (500, 500), (200, 600)):
        gen = among(fixed(gaussian(8), contents))
        targets = {"duplicates": 1 - contents * (1 - (1 - 1 / contents) ** n) / n}
        yield Setting("duplicates", f"{contents:,} contents", 8, n, n, 300, repeated(gen, gaussian(8), n), targets)
    for contents, share in ((1, 0.5), (20, 0.3), (3000, 0.5)):
        gen = mixed(share, among(fixed(gaussian(8), contents), 1e-4), gaussian(8))
        law = f"{100 * share:.0f} % near {contents:,} points"
        yield Setting("duplicates", law, 8, 500, 500, 300, repeated(gen, gaussian(8), 500), {"duplicates": 0.0})
    yield Setting(
        "duplicates", "uniform on 60 x 60 points, reference on 70 x 70", 2, 500, 500, 300, repeated(grid(2, 60), grid(2, 70), 500)
    )
