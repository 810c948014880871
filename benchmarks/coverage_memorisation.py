"""Settings of the coverage simulation: authenticity, C_T, MiFID, FLD.

Training rows are drawn anew in every replication too, but for laws named "train fixed": the interval of C_T is conditional on them
where the laws differ, since the cells follow train and the value follows the cells.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from simulate import Setting

from genbench.statistics import Features

Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def normal(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Unit Gaussians."""
    return rng.standard_normal((n, d))


def skewed(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Exponentials, like features after a ReLU."""
    return rng.standard_exponential((n, d))


def heavy(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Multivariate Student with 6 degrees of freedom."""
    return rng.standard_normal((n, d)) / np.sqrt(rng.chisquare(6, (n, 1)) / 6)


def modes(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Five unequal modes of unequal width."""
    k = rng.choice(5, n, p=[0.4, 0.25, 0.2, 0.1, 0.05])
    centres = 6 * np.random.default_rng(5).standard_normal((5, d))
    return centres[k] + (0.5 + 0.3 * k)[:, None] * rng.standard_normal((n, d))


def laws(
    roles: tuple[str, ...], law: Draw, n: int, m: int, d: int, change: tuple[float, float, float], fixed: bool
) -> Callable[[np.random.Generator], Mapping[str, Features]]:
    """Draws rows of these roles: the generated ones shifted, scaled, and a share of them drawn from train."""
    shift, scale, copies = change

    def draw(rng: np.random.Generator) -> dict[str, Features]:
        x = {role: law(np.random.default_rng(d) if fixed and role == "train" else rng, m, d) for role in roles if role != "gen"}
        x["gen"] = shift / np.sqrt(d) + scale * law(rng, n, d)
        copied = rng.random(n) < copies
        x["gen"][copied] = x["train"][rng.integers(0, m, int(copied.sum()))]
        return {role: Features(rows.astype(np.float32)) for role, rows in x.items()}

    return draw


def settings() -> Iterator[Setting]:
    """Equal laws, different ones, copies, skewed and heavy-tailed rows, few rows, many to one training row."""
    equal, moved, tight, copied = (0.0, 1.0, 0.0), (0.7, 1.0, 0.0), (0.0, 0.7, 0.0), (0.0, 1.0, 0.5)
    tables: dict[tuple[str, tuple[str, ...]], list[tuple[str, Draw, int, int, int, tuple[float, float, float], int]]] = {
        ("authenticity", ("gen", "train")): [
            ("equal Gaussians", normal, 2, 200, 200, equal, 400),
            ("equal Gaussians", normal, 16, 500, 1000, equal, 400),
            ("exponentials, shifted", skewed, 8, 1000, 300, moved, 400),
            ("five modes", modes, 4, 400, 400, equal, 400),
            ("half copies", normal, 8, 400, 2000, copied, 300),
        ],
        ("ct_score", ("gen", "train", "test")): [
            ("equal Gaussians", normal, 2, 60, 60, equal, 1000),
            ("equal five modes", modes, 8, 500, 500, equal, 800),
            ("exponentials, shifted, train fixed", skewed, 8, 600, 400, moved, 800),
            ("Student t(6), tight, train fixed", heavy, 4, 300, 600, tight, 800),
            ("five modes, half copies, train fixed", modes, 4, 500, 500, copied, 800),
        ],
        ("mifid", ("ref", "gen", "train")): [
            ("equal Gaussians", normal, 16, 400, 400, equal, 1000),
            ("exponentials, shifted", skewed, 4, 200, 400, moved, 1000),
            ("Student t(6), tight", heavy, 16, 1000, 500, tight, 800),
            ("five modes", modes, 4, 300, 300, equal, 1000),
            ("half copies", normal, 8, 500, 500, copied, 1000),
            ("exponentials, copies", skewed, 8, 400, 1000, (0.7, 1.0, 0.9), 1000),
        ],
        ("fld", ("gen", "train", "test")): [
            ("equal Gaussians", normal, 2, 200, 400, equal, 300),
            ("equal Gaussians", normal, 16, 200, 400, equal, 300),
            ("exponentials, shifted", skewed, 8, 200, 400, moved, 300),
            ("Student t(6), tight", heavy, 8, 200, 400, tight, 300),
            ("half copies", normal, 8, 200, 400, copied, 300),
            ("half copies, size 150", normal, 8, 200, 1000, copied, 300),
        ],
    }
    for (metric, roles), table in tables.items():
        for law, rows, d, n, m, change, replications in table:
            draw = laws(roles, rows, n, m, d, change, law.endswith("train fixed"))
            options = {"size": 150} if law.endswith("size 150") else {}
            yield Setting(metric, law, d, n, m, replications, draw, options=options)
