"""Sanity checks of the fidelity and diversity metrics: laws for which the right answer is known, pass or fail.

    python benchmarks/sanity.py [--out benchmarks] [--only CHECK ...]

The checks follow Position: All Current Generative Fidelity and Diversity Metrics are Flawed (Räisä, van Breugel & van der Schaar, 2025);
one is ours (identical_dimensions). The verdicts are not theirs: Gaussians and mixtures are those of their code, the rest is built anew.
A metric should read 1 where the laws are equal and 0 where they are disjoint; fidelity asks whether generated rows are possible in the
reference's law, diversity whether all of that law is generated.

Ours, not the paper's, are these:
- fewer parameter values than theirs, and three seeded draws of 500 rows a side (theirs: one of 1,000) but in the checks of size;
- cubes that share half of their volume, where only stability is asked (a constant would pass); the modes' places where they are invented;
  the spread at one collapsed mode; the radii of ball and torus; what the discrete laws are made of;
- what passes. Every value, the mean of the draws, has a wanted range: 0.95 to 1.05 where the laws are equal, at most 0.05 where one side
  has at most 0.05 of its mass in reach of the other, within 0.1 of a share that is known, and at most 1.05 where nothing else is asked.
  It is at fault where the 95 % interval of each draw (the value where there is none) is outside on the same side: `low` and `high` span
  the draws' intervals. Two values break a rule of order, symmetry or stability where they differ by more than 0.05 and these spans do
  not meet. One fault is a fail, and the worst of each sort is told.

A fail is no bug of the code: most are properties of the definitions, which is the paper's point. alpha_precision is meant to punish rows
more typical than real ones, clipped_coverage to fall with the share of bad rows, and beta_recall of equal laws is about 0.5.

`sanity.csv` has every value, `sanity.md` the verdicts, which follow from the CSV and this file alone.
"""

import argparse
import csv
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genbench import registry
from genbench.estimate import Estimate
from genbench.metric import Outcome
from genbench.statistics import Features

Matrix = NDArray[np.float64]
Law = Callable[[np.random.Generator, int], Matrix]

N, DRAWS = 500, 3
FIELDS = ("check", "quantity", "kind", "parameter", "value", "low", "high")
KINDS = {
    "precision": "fidelity",
    "density": "fidelity",
    "clipped_density": "fidelity",
    "alpha_precision": "fidelity",
    "recall": "diversity",
    "coverage": "diversity",
    "clipped_coverage": "diversity",
    "beta_recall": "diversity",
}
TOLERANCE = 0.05


@dataclass(frozen=True)
class Wanted:
    """The range that a value must meet.

    Args:
        least: smallest value.
        most: largest value.
        where: of the laws there, in words.
    """

    least: float
    most: float
    where: str


def high(where: str = "the laws are equal") -> Wanted:
    """1, up to the tolerance."""
    return Wanted(1 - TOLERANCE, 1 + TOLERANCE, where)


def low(where: str = "the laws are disjoint") -> Wanted:
    """0, up to the tolerance."""
    return Wanted(0.0, TOLERANCE, where)


def near(share: float, where: str) -> Wanted:
    """A known share, up to 0.1."""
    return Wanted(max(share - 0.1, 0.0), min(share + 0.1, 1 + TOLERANCE), where)


ANY = Wanted(0.0, 1 + TOLERANCE, "1 is the bound")


@dataclass(frozen=True)
class Point:
    """One value of a quantity, with the span of its intervals."""

    parameter: str
    value: float
    low: float
    high: float

    @property
    def place(self) -> tuple[str, float]:
        """What stands before the last `=`, which names a curve, and the number behind it."""
        curve, _, at = self.parameter.rpartition("=")
        return curve, float(at)


def apart(a: Point, b: Point) -> bool:
    """Whether two values differ by more than chance and by more than the tolerance."""
    return abs(a.value - b.value) > TOLERANCE and (a.high < b.low or b.high < a.low)


Pairs = Iterable[tuple[Point, Point]]


@dataclass(frozen=True)
class Relation:
    """A rule about the values of a curve.

    Args:
        broken: what to say where it does not hold.
        pairs: a curve -> pairs of points that must not be apart.
    """

    broken: str
    pairs: Callable[[list[Point]], Pairs]


def mirrored(curve: list[Point]) -> Pairs:
    """The points at x and −x."""
    at = {p.place[1]: p for p in curve}
    return [(at[-x], p) for x, p in at.items() if x > 0 and -x in at]


def climbs(curve: list[Point]) -> Pairs:
    """Points and later, larger ones."""
    return [(a, b) for a, b in combinations(curve, 2) if b.low > a.high]


def climbs_outwards(curve: list[Point]) -> Pairs:
    """Points and larger ones that are further from x = 0 on the same side."""
    return [*climbs([p for p in curve if p.place[1] <= 0][::-1]), *climbs([p for p in curve if p.place[1] >= 0])]


symmetric = Relation("not symmetric", mirrored)
falls = Relation("rises", climbs)
rises = Relation("falls", lambda curve: climbs(curve[::-1]))
peaked = Relation("rises with the distance", climbs_outwards)
stable = Relation("moves with the size", lambda curve: combinations(curve, 2))


@dataclass(frozen=True)
class Case:
    """Two laws at one value of the parameter, and what must be read there.

    Args:
        parameter: `name=value` pairs; the last is the one that a curve is drawn over.
        ref: law of the reference.
        gen: law of the generated rows.
        wanted: "fidelity" and "diversity" -> range.
        sizes: rows of ref and gen; None for N of each.
    """

    parameter: str
    ref: Law
    gen: Law
    wanted: Mapping[str, Wanted]
    sizes: tuple[int, int] | None = None


@dataclass(frozen=True)
class Check:
    """A named family of cases with rules about their curves.

    Args:
        name: of the function that makes it.
        about: first line of its docstring.
        cases: in the order of the curves.
        relations: "fidelity" and "diversity" -> rules.
    """

    name: str
    about: str
    cases: tuple[Case, ...]
    relations: Mapping[str, tuple[Relation, ...]]

    def verdict(self, kind: str, found: Mapping[str, Point | None]) -> list[str]:
        """What is at fault in the points of a quantity (None: undefined), by parameter; nothing for a pass."""
        faults: dict[str, tuple[float, str]] = {}
        curves: dict[str, list[Point]] = {}
        for case in self.cases:
            want, p = case.wanted[kind], found[case.parameter]
            if p is None:
                size, text = math.inf, f"undefined where {want.where} ({case.parameter})"
            else:
                curves.setdefault(p.place[0], []).append(p)
                size = max(want.least - p.value, p.value - want.most) if p.high < want.least or p.low > want.most else 0.0
                text = f"{p.value:.2f} where {want.where} ({case.parameter})"
            if size > faults.get(want.where, (0.0, ""))[0]:
                faults[want.where] = size, text
        told = [text for _, text in sorted(faults.values(), reverse=True)]
        for rule in self.relations[kind]:
            pairs = [pair for curve in curves.values() for pair in rule.pairs(curve) if apart(*pair)]
            if pairs:
                a, b = max(pairs, key=lambda pair: abs(pair[0].value - pair[1].value))
                told.append(f"{rule.broken}: {a.value:.2f} at {a.parameter}, {b.value:.2f} at {b.parameter}")
        return told


CHECKS: dict[str, Check] = {}


def check(
    both: tuple[Relation, ...] = (), fidelity: tuple[Relation, ...] = (), diversity: tuple[Relation, ...] = ()
) -> Callable[[Callable[[], Iterator[Case]]], Callable[[], Iterator[Case]]]:
    """Enter a function that yields cases as the check of its name."""

    def enter(function: Callable[[], Iterator[Case]]) -> Callable[[], Iterator[Case]]:
        about = (function.__doc__ or "").splitlines()[0]
        rules = {"fidelity": both + fidelity, "diversity": both + diversity}
        CHECKS[function.__name__] = Check(function.__name__, about, tuple(function()), rules)
        return function

    return enter


def same(wanted: Wanted) -> dict[str, Wanted]:
    """The same of both kinds."""
    return {"fidelity": wanted, "diversity": wanted}


def gaussian(d: int, mean: float | Matrix = 0.0, scale: float | Matrix = 1.0) -> Law:
    """Independent coordinates."""
    return lambda rng, n: mean + scale * rng.normal(size=(n, d))


def mixture(centres: Matrix, scale: float, weights: Matrix) -> Law:
    """Isotropic Gaussians around the rows of centres."""

    def draw(rng: np.random.Generator, n: int) -> Matrix:
        which = rng.choice(len(centres), n, p=weights / weights.sum())
        return centres[which] + scale * rng.normal(size=(n, centres.shape[1]))

    return draw


def sphere(d: int, radius: float) -> Law:
    """Uniform on the surface."""

    def draw(rng: np.random.Generator, n: int) -> Matrix:
        z = rng.normal(size=(n, d))
        return radius * z / np.linalg.norm(z, axis=1, keepdims=True)

    return draw


def ball(d: int, radius: float) -> Law:
    """Uniform in the ball."""
    return lambda rng, n: sphere(d, radius)(rng, n) * rng.random((n, 1)) ** (1 / d)


def torus(rng: np.random.Generator, n: int) -> Matrix:
    """A tube of radius 0.1 around the unit circle in three dimensions."""
    angle, (across, height) = 2 * np.pi * rng.random(n), ball(2, 0.1)(rng, n).T
    return np.stack([(1 + across) * np.cos(angle), (1 + across) * np.sin(angle), height], axis=1)


def cube(d: int, shift: float = 0.0) -> Law:
    """Uniform on the unit cube, moved along every axis."""
    return lambda rng, n: shift + rng.random((n, d))


def spiked(law: Law, place: float) -> Law:
    """One row of the sample at (place, ..., place)."""

    def draw(rng: np.random.Generator, n: int) -> Matrix:
        x = law(rng, n)
        x[0] = place
        return x

    return draw


SHIFTS = {1: 6.0, 8: 3.0, 64: 1.0}


def shift_wanted(share: float) -> dict[str, Wanted]:
    """For a mean moved by a share of its way to a disjoint law."""
    return same(high() if share == 0 else low() if abs(share) == 1 else ANY)


@check(both=(symmetric, peaked))
def gaussian_mean_difference() -> Iterator[Case]:
    """A Gaussian against one of another mean."""
    for d, reach in SHIFTS.items():
        for share in (-1, -0.5, -0.25, 0, 0.25, 0.5, 1):
            yield Case(f"d={d} mean={reach * share:g}", gaussian(d), gaussian(d, reach * share), shift_wanted(share))


@check(both=(symmetric, peaked))
def gaussian_mean_difference_outlier() -> Iterator[Case]:
    """The same, with one outlier in ref or gen where the disjoint law would be."""
    for side in ("ref", "gen"):
        for d, reach in SHIFTS.items():
            for share in (-1, -0.5, 0, 0.5, 1):
                ref, gen = gaussian(d), gaussian(d, reach * share)
                ref, gen = (spiked(ref, reach), gen) if side == "ref" else (ref, spiked(gen, reach))
                yield Case(f"outlier={side} d={d} mean={reach * share:g}", ref, gen, shift_wanted(share))


@check(both=(symmetric, peaked))
def gaussian_mean_difference_pareto() -> Iterator[Case]:
    """A Gaussian coordinate of another mean beside a Pareto coordinate (b = 1.01) that is equal."""

    def law(mean: float) -> Law:
        return lambda rng, n: np.stack([mean + rng.normal(size=n), 1 + rng.pareto(1.01, n)], axis=1)

    for share in (-1, -0.5, -0.25, 0, 0.25, 0.5, 1):
        yield Case(f"mean={6 * share:g}", law(0), law(6 * share), shift_wanted(share))


@check(fidelity=(falls,), diversity=(rises,))
def gaussian_std_difference() -> Iterator[Case]:
    """A Gaussian against one of another spread: fidelity may only fall with it, diversity only rise."""
    for d, spreads in {1: (0.01, 0.1, 0.5, 1, 2, 10, 100), 8: (0.1, 0.5, 1, 2, 10), 64: (0.3, 0.7, 1, 1.4, 3)}.items():
        for scale in spreads:
            wide, narrow = low("gen is far wider than ref"), low("gen is far narrower than ref")
            inside = high("gen lies in the middle of ref") if d == 1 and scale < 1 else ANY  # in many dimensions the middle is empty
            wanted = {
                "fidelity": high() if scale == 1 else wide if scale == spreads[-1] else inside,
                "diversity": high() if scale == 1 else narrow if scale == spreads[0] else ANY,
            }
            yield Case(f"d={d} scale={scale:g}", gaussian(d), gaussian(d, 0, scale), wanted)


def half_cubes(d: int) -> tuple[Law, Law]:
    """Two cubes that share half of their volume."""
    return cube(d), cube(d, 1 - 0.5 ** (1 / d))


@check(both=(stable,))
def hypercube_sample_size() -> Iterator[Case]:
    """Cubes that share half of their volume, in samples of growing size."""
    for d in (1, 8):
        for n in (125, 250, 500, 1000):
            yield Case(f"d={d} n={n}", *half_cubes(d), same(ANY), (n, n))


@check(both=(stable,))
def hypercube_synthetic_size() -> Iterator[Case]:
    """Cubes that share half of their volume, 1,000 reference rows and a growing number of generated ones."""
    for d in (1, 8):
        for n in (125, 250, 500, 1000):
            yield Case(f"d={d} gen={n}", *half_cubes(d), same(ANY), (1000, n))


@check()
def hypersphere_surface() -> Iterator[Case]:
    """Surfaces of concentric spheres, which are disjoint but for equal radii."""
    for d in (2, 16, 128):
        for radius in (0.1, 0.5, 1, 1.5, 1.9):
            yield Case(f"d={d} radius={radius:g}", sphere(d, 1), sphere(d, radius), same(high() if radius == 1 else low()))


@check(fidelity=(falls,))
def mode_collapse() -> Iterator[Case]:
    """Two modes against one Gaussian of the same mean and variances."""
    for d in (1, 8):
        for distance in (0, 4, 8, 16):
            ref = mixture(np.outer([-distance / 2, distance / 2], np.ones(d)), 1.0, np.ones(2))
            wanted = same(high() if distance == 0 else ANY)
            if distance == 16 and d == 1:
                wanted = {"fidelity": Wanted(0, 0.5, "most of gen lies in no mode"), "diversity": ANY}
            elif distance == 16:
                wanted = same(low("gen has next to nothing in the modes"))
            yield Case(f"d={d} distance={distance}", ref, gaussian(d, 0, math.sqrt(1 + distance**2 / 4)), wanted)


@check()
def mode_dropping_invention() -> Iterator[Case]:
    """Five modes against the first k of ten that begin with these five."""
    angle = 2 * np.pi * 3 * np.arange(10) / 10  # neighbours of a mode are not next in order
    centres = 10 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for k in (1, 2, 3, 5, 7, 10):
        kept, real = min(k / 5, 1), min(5 / k, 1)
        wanted = {
            "fidelity": near(real, f"{real:.0%} of gen is real") if k > 5 else high("no mode is invented"),
            "diversity": near(kept, f"{kept:.0%} of the modes are generated") if k < 5 else high("no mode is dropped"),
        }
        yield Case(f"modes={k}", mixture(centres[:5], 0.25, np.ones(5)), mixture(centres[:k], 0.25, np.ones(k)), wanted)


def ten_modes(d: int) -> tuple[Matrix, float]:
    """Centres on the diagonal, and the standard deviation at which they are apart."""
    return np.outer(np.linspace(0, 10, 10), np.ones(d)), {1: 1 / 6, 8: 1 / 3, 64: 1.0}[d]


@check(diversity=(falls,))
def sequential_mode_dropping() -> Iterator[Case]:
    """Ten modes that are dropped one after the other: fidelity stays, diversity is the share that is left."""
    for d in (1, 8, 64):
        centres, scale = ten_modes(d)
        for dropped in (0, 3, 6, 9):
            kept = 10 - dropped
            wanted = {
                "fidelity": high("every mode of gen is real") if dropped else high(),
                "diversity": near(kept / 10, f"{kept} of 10 modes are generated") if dropped else high(),
            }
            gen = mixture(centres[:kept], scale, np.ones(kept))
            yield Case(f"d={d} dropped={dropped}", mixture(centres, scale, np.ones(10)), gen, wanted)


@check(diversity=(falls,))
def simultaneous_mode_dropping() -> Iterator[Case]:
    """Nine of ten modes that lose their weight together: fidelity stays, diversity falls before they are gone."""
    for d in (1, 8, 64):
        centres, scale = ten_modes(d)
        for lost in (0, 0.5, 0.9, 1):
            weights = np.array([1.0] + [1.0 - lost] * 9)
            diversity = {
                0: high(),
                0.5: ANY,
                0.9: Wanted(0, 0.9, "nine modes have a tenth of their weight left"),
                1: near(0.1, "1 of 10 modes is generated"),
            }
            wanted = {"fidelity": high("every mode of gen is real") if lost else high(), "diversity": diversity[lost]}
            yield Case(f"d={d} lost={lost:g}", mixture(centres, scale, np.ones(10)), mixture(centres, scale, weights), wanted)


APART = np.array([6.0, 0.0])


@check()
def scaling_one_dimension() -> Iterator[Case]:
    """Gaussians disjoint in one coordinate, while the unit of the other one changes: both stay 0."""
    for scale in (0.001, 0.1, 1, 10, 1000):
        unit = np.array([1.0, scale])
        yield Case(f"scale={scale:g}", gaussian(2, 0, unit), gaussian(2, APART, unit), same(low()))


@check()
def one_disjoint_dimension() -> Iterator[Case]:
    """Gaussians disjoint in one coordinate, beside a growing number of others that are equal: both stay 0."""
    for extra in (1, 10, 100, 1000):
        mean = np.append(6.0, np.zeros(extra))
        yield Case(f"extra={extra}", gaussian(extra + 1), gaussian(extra + 1, mean), same(low()))


@check()
def identical_dimensions() -> Iterator[Case]:
    """Ours: the same beside one equal coordinate that is repeated: both stay 0."""

    def law(extra: int, mean: float) -> Law:
        return lambda rng, n: np.column_stack([mean + rng.normal(size=n), np.repeat(rng.normal(size=(n, 1)), extra, axis=1)])

    for extra in (1, 10, 100, 1000):
        yield Case(f"extra={extra}", law(extra, 0), law(extra, 6), same(low()))


@check()
def sphere_torus() -> Iterator[Case]:
    """A ball of radius 0.8 in the hole of a torus, which it does not touch."""
    inner = ball(3, 0.8)
    for name, ref, gen in (("ball", inner, torus), ("torus", torus, inner)):
        for n in (125, 500, 1000):
            yield Case(f"ref={name} gen={n}", ref, gen, same(low()), (1000, n))


@check()
def discrete_continuous() -> Iterator[Case]:
    """Whole numbers against the normal variates that they are rounded from; a fine step must not matter."""

    def whole(scale: float) -> Law:
        return lambda rng, n: np.rint(gaussian(1, 0, scale)(rng, n))

    for scale in (1, 10, 1000):
        some = "the step is 1/1000 of the spread"
        possible, other = high("every value is a possible one"), low("no value is a possible one")
        covered, missed = high("every whole number is generated"), low("gen has whole numbers only")
        for ref, fidelity, diversity in (("whole", other, covered), ("real", possible, missed)):
            wanted = same(ANY) if scale == 10 else same(high(some)) if scale == 1000 else {"fidelity": fidelity, "diversity": diversity}
            laws = (whole(scale), gaussian(1, 0, scale))
            yield Case(f"ref={ref} scale={scale}", *(laws if ref == "whole" else laws[::-1]), wanted)


def metrics() -> dict[str, list[str]]:
    """Metric -> its quantities that have a kind."""
    found = {name: [q.name for q in registry.metric(name).quantities if q.name in KINDS] for name in registry.modules("metrics")}
    return {name: quantities for name, quantities in found.items() if quantities}


def values(one: Check, case: Case) -> Iterator[dict[str, str]]:
    """Draw a case and measure it: a row of the CSV per quantity."""
    n_ref, n_gen = case.sizes or (N, N)
    rng = np.random.default_rng(zlib.crc32(f"{one.name} {case.parameter}".encode()))
    found: dict[str, list[Outcome]] = {q: [] for quantities in metrics().values() for q in quantities}
    for _ in range(DRAWS):
        ref, gen = Features(case.ref(rng, n_ref)), Features(case.gen(rng, n_gen))
        for name, quantities in metrics().items():
            metric = registry.metric(name)
            settings = {"baseline": False} if "baseline" in metric.defaults else {}  # only a note, and twice the time
            outcomes = metric(ref=ref, gen=gen, **settings)
            for quantity in quantities:
                found[quantity].append(outcomes[quantity])
    for quantity, outcomes in found.items():
        estimates = [e for e in outcomes if isinstance(e, Estimate)]
        numbers: tuple[float, ...] | tuple[None, ...] = (None, None, None)
        if len(estimates) == DRAWS:
            ends = [(e.value, e.value) if e.low is None or e.high is None else (e.low, e.high) for e in estimates]
            numbers = float(np.mean([e.value for e in estimates])), min(a for a, _ in ends), max(b for _, b in ends)
        cells = (one.name, quantity, KINDS[quantity], case.parameter, *("" if v is None else f"{v:.6g}" for v in numbers))
        yield dict(zip(FIELDS, cells, strict=True))


def verdicts(rows: Iterable[Mapping[str, str]]) -> dict[tuple[str, str], list[str]]:
    """(check, quantity) -> what is at fault, from rows of the CSV."""
    found: dict[tuple[str, str], dict[str, Point | None]] = {}
    for r in rows:
        point = Point(r["parameter"], *(float(r[k]) for k in ("value", "low", "high"))) if r["value"] else None
        found.setdefault((r["check"], r["quantity"]), {})[r["parameter"]] = point
    return {(name, q): CHECKS[name].verdict(KINDS[q], points) for (name, q), points in found.items()}


def markdown(rows: Iterable[Mapping[str, str]]) -> str:
    """Checks down, quantities across, and the reasons below."""
    found = verdicts(rows)
    quantities = [q for q in KINDS if any(q == at for _, at in found)]
    names = [name for name in CHECKS if any(name == at for at, _ in found)]
    passed = {q: sum(not found.get((name, q), [""]) for name in names) for q in quantities}
    lines = [
        "<!-- generated by benchmarks/sanity.py -->",
        "# Sanity checks of fidelity and diversity",
        "",
        "After Räisä, van Breugel & van der Schaar (2025); some of the laws and what passes are ours, and told in benchmarks/sanity.py:",
        f"in short 1 ± {TOLERANCE} where the laws are equal, at most {TOLERANCE} where they are disjoint, never above {1 + TOLERANCE},",
        "beyond the 95 % intervals of three draws. Most fails are properties of the definitions: when not to trust the number.",
        "",
        "| check | " + " | ".join(quantities) + " |",
        "|---|" + "---|" * len(quantities),
        "| *kind* | " + " | ".join(f"*{KINDS[q]}*" for q in quantities) + " |",
    ]
    for name in names:
        cells = ["–" if (name, q) not in found else "fail" if found[name, q] else "pass" for q in quantities]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["| passed | " + " | ".join(f"{passed[q]} of {len(names)}" for q in quantities) + " |"]
    for name in names:
        lines += ["", f"## {name}", "", CHECKS[name].about, ""]
        failed = {q: found[name, q] for q in quantities if found.get((name, q))}
        lines += [f"- {q} fails: {'; '.join(reasons)}" for q, reasons in failed.items()]
        lines += [] if failed else ["- none fails"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the checks and write both tables; checks that are not asked for keep the rows that they have."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    path = args.out / "sanity.csv"
    kept: list[dict[str, str]] = list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []
    rows: list[dict[str, str]] = []
    for name, one in CHECKS.items():
        if name in args.only:
            made = [r for case in one.cases for r in values(one, case)]
            for (_, quantity), reasons in verdicts(made).items():
                print(name, quantity, "; ".join(reasons) or "pass", flush=True)
        else:
            made = [r for r in kept if r["check"] == name]
        rows += made
    args.out.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (args.out / "sanity.md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
