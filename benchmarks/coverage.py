"""Simulated coverage of the 95 % intervals: how often they hold the true value, and how wide they are.

    python benchmarks/coverage.py [--only fid kid ...] [--replications N] [--out benchmarks]

Each setting draws many pairs of samples from laws that are known, computes the metric with its interval, and counts. The target is
- fid_debiased: the Fréchet distance of the two laws, in closed form;
- fid (raw), precision, recall, density, coverage: the quantity's mean over new samples of the same sizes, from the replications;
- kid: the U-statistic's mean, from 32,000 to 400,000 samples a side;
- inception_score_debiased: exp of the mutual information of the law, in closed form.
`width` is the mean half width over the 95 % quantile of |value − target|: 1 is what 95 % needs. Every setting is seeded by its
name; results are kept in coverage.csv after every setting, and settings that are there are not computed again.
"""

import argparse
import csv
import math
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import digamma
from simulate import FIELDS, markdown, more_settings, row, simulate

from genbench import registry
from genbench.estimate import Estimate
from genbench.numerics import cubic_moments, cubic_sums, polynomial_mmd
from genbench.statistics import Features, Probabilities

Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Law:
    """A law of vectors with known mean and covariance.

    Args:
        name: of the pair of laws.
        gen: draws generated rows.
        ref: draws reference rows.
        fd: the Fréchet distance of the two.
    """

    name: str
    gen: Draw
    ref: Draw
    fd: float


def spectrum(d: int) -> np.ndarray:
    """Variances that fall like those of network features: i^(-1/2)."""
    return np.arange(1, d + 1) ** -0.5


def gaussian_pair(d: int, shift: float, stretch: float) -> Law:
    """Diagonal Gaussians that differ in every mean and variance."""
    s = np.sqrt(spectrum(d))
    fd = d * (shift / math.sqrt(d)) ** 2 + float(((stretch - 1) ** 2 * s**2).sum())
    name = "equal Gaussians" if fd == 0 else f"Gaussians, FD {fd:.2g}"
    return Law(
        name, lambda r, n: shift / math.sqrt(d) + stretch * s * r.standard_normal((n, d)), lambda r, n: s * r.standard_normal((n, d)), fd
    )


def skewed_pair(d: int, shift: float) -> Law:
    """Centred exponentials, like features after a ReLU."""
    s = np.sqrt(spectrum(d))

    def draw(r: np.random.Generator, n: int) -> np.ndarray:
        return s * (r.standard_exponential((n, d)) - 1)

    fd = shift**2
    return Law(f"exponentials, FD {fd:.2g}" if fd else "equal exponentials", lambda r, n: draw(r, n) + shift / math.sqrt(d), draw, fd)


def heavy_pair(d: int, shift: float) -> Law:
    """Multivariate Student with 8 degrees of freedom: one radius shared by all coordinates."""
    s = np.sqrt(spectrum(d) * 6 / 8)

    def draw(r: np.random.Generator, n: int) -> np.ndarray:
        return s * r.standard_normal((n, d)) / np.sqrt(r.chisquare(8, (n, 1)) / 8)

    fd = shift**2
    return Law(f"Student t(8), FD {fd:.2g}" if fd else "equal Student t(8)", lambda r, n: draw(r, n) + shift / math.sqrt(d), draw, fd)


def collapsed_pair(d: int) -> Law:
    """A generator with a hundredth of the reference's variance: near collapse."""
    s = np.sqrt(spectrum(d))
    fd = float((0.9**2 * s**2).sum())
    return Law("collapsed generator", lambda r, n: 0.1 * s * r.standard_normal((n, d)), lambda r, n: s * r.standard_normal((n, d)), fd)


def vector_settings(which: str) -> Iterator[tuple[Law, int, int, int, int]]:
    """(law, d, n, m, replications) of the metrics on features."""
    if which == "fid":
        for d, n, m, count in (
            (2, 200, 200, 1000),
            (16, 64, 64, 1000),
            (16, 400, 1000, 1000),
            (64, 256, 256, 500),
            (64, 1000, 5000, 400),
            (256, 1024, 1024, 150),
        ):
            yield gaussian_pair(d, 0, 1), d, n, m, count
            yield gaussian_pair(d, 0.5, 1.2), d, n, m, count
            yield skewed_pair(d, 0.5), d, n, m, count
            yield heavy_pair(d, 0.5), d, n, m, count
        yield collapsed_pair(64), 64, 500, 500, 400
        yield skewed_pair(256, 0.0), 256, 4096, 4096, 400
        yield gaussian_pair(1024, 0, 1), 1024, 4096, 4096, 30
        yield skewed_pair(1024, 0.5), 1024, 4096, 4096, 30
        yield gaussian_pair(2048, 0, 1), 2048, 8192, 8192, 30
        yield skewed_pair(2048, 0.5), 2048, 8192, 8192, 20
    elif which == "kid":
        for d, n, m, count in (
            (2, 200, 200, 20_000),
            (2, 1000, 1000, 1500),
            (16, 200, 400, 1000),
            (64, 500, 500, 500),
            (256, 500, 1000, 300),
            (2048, 500, 500, 150),
        ):
            yield gaussian_pair(d, 0, 1), d, n, m, count
            yield gaussian_pair(d, 0.15, 1), d, n, m, count
            if n == 1000:
                yield gaussian_pair(d, 0.1, 1), d, n, m, count  # weak and visible: the hardest
            yield gaussian_pair(d, 0.5, 1.2), d, n, m, count
            yield skewed_pair(d, 0.5), d, n, m, count
    else:
        for d, n, m, count in ((2, 300, 300, 300), (16, 500, 500, 150), (64, 1000, 1000, 60), (2048, 500, 500, 240)):
            yield gaussian_pair(d, 0, 1), d, n, m, count
            yield gaussian_pair(d, 0.5, 1.2), d, n, m, count
            yield skewed_pair(d, 0.5), d, n, m, count


def kid_target(law: Law, d: int, rng: np.random.Generator) -> float:
    """The population value: from 400,000 samples a side up to d = 64, else the mean of several U-statistics on 8,000."""
    if d <= 64:
        n = 400_000
        x, y = law.gen(rng, n), law.ref(rng, n)
        mx, my = cubic_moments(x), cubic_moments(y)
        (xx, xy), (yy,) = cubic_sums(x, [mx, my]), cubic_sums(y, [my])
        own_x, own_y = (((z * z).sum(axis=1) / d + 1) ** 3 for z in (x, y))
        return float((xx - own_x).mean() / (n - 1) + (yy - own_y).mean() / (n - 1) - 2 * xy.mean() / n)
    rounds = 10 if d <= 256 else 4
    return float(np.mean([polynomial_mmd(law.gen(rng, 8_000), law.ref(rng, 8_000)) for _ in range(rounds)]))


def vector_rows(which: str, law: Law, d: int, n: int, m: int, count: int) -> Iterator[dict[str, object]]:
    """Simulate one setting of fid, kid or prdc."""
    started = time.perf_counter()
    metric = registry.metric(which)
    rng = np.random.default_rng(zlib.crc32(f"{which}{law.name}{d}/{n}/{m}".encode()))
    settings = {"baseline": False} if which == "prdc" else {}
    found: dict[str, list[Estimate]] = {q.name: [] for q in metric.quantities}
    for _ in range(count):
        gen, ref = (Features(draw(rng, k).astype(np.float32)) for draw, k in ((law.gen, n), (law.ref, m)))
        for name, outcome in metric(ref=ref, gen=gen, **settings).items():
            found[name].append(outcome)
    for name, estimates in found.items():
        if name == "fid_debiased":
            target = law.fd
        elif name == "kid":
            target = kid_target(law, d, rng)
        else:
            target = float(np.mean([e.value for e in estimates]))
        yield row(which, name, law.name, d, n, m, estimates, target, started)


def score_rows(concentration: float, classes: int, n: int, count: int) -> Iterator[dict[str, object]]:
    """Simulate the Inception Score: probability rows from a Dirichlet law."""
    started = time.perf_counter()
    metric = registry.metric("inception_score")
    rng = np.random.default_rng(zlib.crc32(f"is{concentration}{classes}{n}".encode()))
    # E Σ p log p of a Dirichlet law, and p̄ = 1/k by symmetry
    target = classes * math.exp(digamma(concentration + 1) - digamma(concentration * classes + 1))
    found: dict[str, list[Estimate]] = {q.name: [] for q in metric.quantities}
    for _ in range(count):
        p = rng.dirichlet(np.full(classes, concentration), n)
        for name, outcome in metric(gen=Probabilities(p / p.sum(axis=1, keepdims=True))).items():
            found[name].append(outcome)
    law = f"Dirichlet({concentration:g}) on {classes} classes"
    for name, estimates in found.items():
        aim = target if name.endswith("debiased") else float(np.mean([e.value for e in estimates]))
        yield row("inception_score", name.replace("{extractor}", "inception"), law, classes, n, 0, estimates, aim, started)


def main() -> None:
    """Simulate what is not in coverage.csv yet, and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", default=registry.modules("metrics"), help="metrics")
    parser.add_argument("--dimensions", type=int, nargs="+", help="only these")
    parser.add_argument("--replications", type=int, help="fewer, for a trial")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    path = args.out / "coverage.csv"
    rows: list[dict[str, str]] = list(csv.DictReader(path.open())) if path.is_file() else []
    done = {(r["metric"], r["law"], r["d"], r["n"], r["m"]) for r in rows}

    def keep(found: Iterator[dict[str, object]]) -> None:
        for one in found:
            rows.append({k: str(v) for k, v in one.items()})
            print(*one.values(), flush=True)
        with path.open("w", newline="") as f:
            writer = csv.DictWriter(f, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        (args.out / "coverage.md").write_text(markdown(rows))

    for setting in more_settings():
        if setting.metric in args.only and setting.d in (args.dimensions or [setting.d]) and setting.key not in done:
            keep(simulate(setting, args.replications))
    for which in args.only:
        if which not in ("fid", "kid", "prdc", "inception_score"):
            continue
        if which == "inception_score":
            for concentration, classes, n, count in (
                (0.1, 10, 200, 1000),
                (0.05, 10, 1000, 1000),
                (0.5, 10, 500, 1000),
                (0.02, 100, 1000, 500),
                (0.01, 1008, 5000, 200),
            ):
                law = f"Dirichlet({concentration:g}) on {classes} classes"
                if (which, law, str(classes), str(n), "0") not in done:
                    keep(score_rows(concentration, classes, n, min(count, args.replications or count)))
            continue
        for law, d, n, m, count in vector_settings(which):
            if (which, law.name, str(d), str(n), str(m)) not in done and d in (args.dimensions or [d]):
                keep(vector_rows(which, law, d, n, m, min(count, args.replications or count)))


if __name__ == "__main__":
    main()
