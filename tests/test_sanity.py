"""The sanity checks: verdicts follow from the committed table, and known verdicts come out of small runs."""

import csv
import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from genbench import registry

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
NAMES = (
    "gaussian_mean_difference",
    "gaussian_mean_difference_outlier",
    "gaussian_mean_difference_pareto",
    "gaussian_std_difference",
    "hypercube_sample_size",
    "hypercube_synthetic_size",
    "hypersphere_surface",
    "mode_collapse",
    "mode_dropping_invention",
    "sequential_mode_dropping",
    "simultaneous_mode_dropping",
    "scaling_one_dimension",
    "one_disjoint_dimension",
    "sphere_torus",
    "discrete_continuous",
)


@pytest.fixture(scope="module")
def sanity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sanity", FOLDER / "sanity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sanity"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return list(csv.DictReader((FOLDER / "sanity.csv").read_text().splitlines()))


def small(sanity: ModuleType, name: str, keep: str = "") -> dict[str, dict[str, float]]:
    """quantity -> parameter -> value, of the cases of a check whose parameter begins with `keep`."""
    found: dict[str, dict[str, float]] = {}
    for case in sanity.CHECKS[name].cases:
        if case.parameter.startswith(keep):
            for r in sanity.values(sanity.CHECKS[name], case):
                found.setdefault(r["quantity"], {})[r["parameter"]] = float(r["value"])
    return found


def points(sanity: ModuleType, name: str, value: dict[str, float]) -> dict[str, object]:
    """Points without any noise."""
    return {case.parameter: sanity.Point(case.parameter, *[value[case.parameter]] * 3) for case in sanity.CHECKS[name].cases}


def test_the_committed_table_follows_from_the_committed_values(sanity: ModuleType, rows: list[dict[str, str]]) -> None:
    assert (FOLDER / "sanity.md").read_text() == sanity.markdown(rows)


def test_the_committed_values_are_of_every_case_and_every_quantity(sanity: ModuleType, rows: list[dict[str, str]]) -> None:
    quantities = [q for of_metric in sanity.metrics().values() for q in of_metric]
    assert [(r["check"], r["parameter"], r["quantity"]) for r in rows] == [
        (name, case.parameter, q) for name, one in sanity.CHECKS.items() for case in one.cases for q in quantities
    ]
    assert all(r["kind"] == sanity.KINDS[r["quantity"]] for r in rows)
    assert all(float(r["low"]) <= float(r["value"]) <= float(r["high"]) for r in rows if r["value"])


def test_every_quantity_with_a_kind_is_in_the_registry_and_in_the_table(sanity: ModuleType) -> None:
    known = {q.name for name in registry.modules("metrics") for q in registry.metric(name).quantities}
    assert set(sanity.KINDS) <= known
    header = next(line for line in (FOLDER / "sanity.md").read_text().splitlines() if line.startswith("| check |"))
    assert set(header.replace(" ", "").strip("|").split("|")[1:]) == set(sanity.KINDS)
    for metric in ("prdc", "clipped", "alpha_precision_beta_recall"):
        assert {q.name for q in registry.metric(metric).quantities} <= set(sanity.KINDS)


def test_the_checks_are_those_of_the_paper_and_one_of_ours(sanity: ModuleType) -> None:
    assert set(sanity.CHECKS) == {*NAMES, "identical_dimensions"}
    for one in sanity.CHECKS.values():
        parameters = [case.parameter for case in one.cases]
        assert len(set(parameters)) == len(parameters)
        assert one.about.endswith(".")


def test_no_constant_passes_a_check_that_knows_its_answer(sanity: ModuleType) -> None:
    for name, one in sanity.CHECKS.items():
        for kind in ("fidelity", "diversity"):
            wants = [case.wanted[kind] for case in one.cases]
            for constant in (0.0, 1.0):
                faults = one.verdict(kind, points(sanity, name, {case.parameter: constant for case in one.cases}))
                assert bool(faults) == any(not w.least <= constant <= w.most for w in wants), (name, kind, constant)
    known = [name for name in sanity.CHECKS if not name.startswith("hypercube")]
    for name in known:
        assert any(c.wanted[k] != sanity.ANY for c in sanity.CHECKS[name].cases for k in ("fidelity", "diversity")), name


def overlap(parameter: str) -> float:
    """Shared mass of the two Gaussians of gaussian_mean_difference, in closed form."""
    at = dict(pair.split("=") for pair in parameter.split())
    return math.erfc(abs(float(at["mean"])) * math.sqrt(int(at["d"])) / 2 / math.sqrt(2))


def test_the_shared_mass_passes_where_it_is_the_answer(sanity: ModuleType) -> None:
    one = sanity.CHECKS["gaussian_mean_difference"]
    truth = {case.parameter: overlap(case.parameter) for case in one.cases}
    assert one.verdict("fidelity", points(sanity, one.name, truth)) == []
    assert one.verdict("diversity", points(sanity, one.name, truth)) == []
    for parameter, value, told in (
        ("d=8 mean=3", 0.37, "0.37 where the laws are disjoint (d=8 mean=3)"),
        ("d=1 mean=0", 0.8, "0.80 where the laws are equal (d=1 mean=0)"),
        ("d=1 mean=1.5", 0.1, "not symmetric: 0.45 at d=1 mean=-1.5, 0.10 at d=1 mean=1.5"),
        ("d=1 mean=-3", 0.6, "rises with the distance: 0.45 at d=1 mean=-1.5, 0.60 at d=1 mean=-3"),
        ("d=64 mean=0.25", 1.2, "1.20 where 1 is the bound (d=64 mean=0.25)"),
    ):
        assert told in one.verdict("fidelity", points(sanity, one.name, truth | {parameter: value})), told


def test_chance_is_no_fault(sanity: ModuleType) -> None:
    one = sanity.CHECKS["gaussian_mean_difference"]
    exact = points(sanity, one.name, {case.parameter: overlap(case.parameter) for case in one.cases})
    assert one.verdict("fidelity", exact | {"d=1 mean=0": sanity.Point("d=1 mean=0", 0.9, 0.84, 0.96)}) == []
    assert one.verdict("fidelity", exact | {"d=1 mean=0": sanity.Point("d=1 mean=0", 0.9, 0.84, 0.94)}) != []
    assert one.verdict("fidelity", exact | {"d=1 mean=0": None}) == ["undefined where the laws are equal (d=1 mean=0)"]


def test_direction_of_the_rules_of_order(sanity: ModuleType) -> None:
    curve = [sanity.Point(f"n={i}", *[v] * 3) for i, v in enumerate((0.2, 0.4, 0.9))]
    held = {rule: [pair for pair in rule.pairs(curve) if sanity.apart(*pair)] for rule in (sanity.falls, sanity.rises, sanity.stable)}
    assert [len(pairs) for pairs in held.values()] == [3, 0, 3]
    assert not [pair for pair in sanity.falls.pairs(curve[::-1]) if sanity.apart(*pair)]


@pytest.mark.parametrize("law", ["sphere", "ball", "torus", "cube"])
def test_supports(sanity: ModuleType, law: str) -> None:
    rng = np.random.default_rng(0)
    if law == "sphere":
        np.testing.assert_allclose(np.linalg.norm(sanity.sphere(16, 1.5)(rng, 100), axis=1), 1.5)
    elif law == "ball":
        radius = np.linalg.norm(sanity.ball(3, 0.8)(rng, 4000), axis=1)
        assert radius.max() <= 0.8
        assert abs((radius < 0.4).mean() - 1 / 8) < 0.02
    elif law == "torus":
        x = sanity.torus(rng, 1000)
        tube = np.hypot(np.hypot(x[:, 0], x[:, 1]) - 1, x[:, 2])
        assert tube.max() <= 0.1
        assert np.linalg.norm(x, axis=1).min() > 0.8  # disjoint from the ball
    else:
        ref, gen = (draw(rng, 4000) for draw in sanity.half_cubes(8))
        assert abs(((gen >= 0) & (gen <= 1)).all(axis=1).mean() - 0.5) < 0.03
        assert ref.max() <= 1


def test_precision_and_density_see_a_far_mean_and_fall_for_an_outlier(sanity: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanity, "N", 120)
    monkeypatch.setattr(sanity, "DRAWS", 1)
    plain = small(sanity, "gaussian_mean_difference", "d=8 mean=3")
    assert all(values["d=8 mean=3"] <= 0.05 for values in plain.values())
    spiked = small(sanity, "gaussian_mean_difference_outlier", "outlier=ref d=8 mean=3")
    at = {quantity: values["outlier=ref d=8 mean=3"] for quantity, values in spiked.items()}
    assert at["precision"] == 1  # one ball of ref holds all of gen
    assert at["density"] == pytest.approx(0.2)  # ... and is one of the k = 5 that count
    assert at["clipped_density"] < at["density"]  # that ball is cut to the median one
    assert max(at["recall"], at["coverage"], at["clipped_coverage"]) <= 0.05


def test_a_case_gives_its_committed_values(sanity: ModuleType, rows: list[dict[str, str]]) -> None:
    one = sanity.CHECKS["sphere_torus"]
    first = list(sanity.values(one, one.cases[0]))
    committed = [r for r in rows if r["check"] == one.name and r["parameter"] == one.cases[0].parameter]
    assert [float(r["value"]) for r in first] == pytest.approx([float(r["value"]) for r in committed], abs=0.002)


def test_only_keeps_the_rows_of_other_checks(sanity: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanity, "N", 40)
    monkeypatch.setattr(sanity, "DRAWS", 1)
    for name in ("scaling_one_dimension", "gaussian_mean_difference_pareto"):
        monkeypatch.setattr(sys, "argv", ["sanity.py", "--only", name, "--out", str(tmp_path)])
        sanity.main()
    found = list(csv.DictReader((tmp_path / "sanity.csv").read_text().splitlines()))
    assert {r["check"] for r in found} == {"scaling_one_dimension", "gaussian_mean_difference_pareto"}
    assert (tmp_path / "sanity.md").read_text() == sanity.markdown(found)
