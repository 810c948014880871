"""The committed tables of speed and memory: what they say follows from their numbers. Nothing is timed here."""

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def speed() -> ModuleType:
    return load("speed")


@pytest.fixture(scope="module")
def growth(speed: ModuleType) -> ModuleType:
    return load("speed_growth")


def rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / f"{name}.csv").open(newline="") as f:
        return list(csv.DictReader(f))


def test_every_case_is_in_the_table_with_its_peers_and_goals(speed: ModuleType) -> None:
    found = {(r["case"], r["peer"]): r for r in rows("speed")}
    known = {(c.name, peer) for c in speed.CASES for peer in c.goals}
    assert set(found) <= known
    assert {key for key in known if not next(c for c in speed.CASES if c.name == key[0]).long} <= set(found)
    for case in speed.CASES:
        for peer, goal in case.goals.items():
            row = found.get((case.name, peer))
            if row is not None:
                assert row["goal"] == ("" if goal is None else f"{goal:.4g}")
                assert row["memory_goal"] == (f"{case.memory[peer]:.4g}" if peer in case.memory else "")
                assert row["tolerance"] == (f"{case.tolerance[peer]:.4g}" if peer in case.tolerance else "")


def test_ratios_lie_in_their_range_and_results_agree() -> None:
    for row in rows("speed"):
        assert float(row["low"]) <= float(row["ratio"]) <= float(row["high"]), row["case"]
        assert int(row["rounds"]) >= 3
        assert row["machine"]
        assert not row["tolerance"] or float(row["difference"]) <= float(row["tolerance"]), row["case"]


def test_a_missed_goal_says_what_bounds_it(speed: ModuleType) -> None:
    missed = {r["case"] for r in rows("speed") if speed.verdict(r) == "no"}
    assert all(case.bound for case in speed.CASES if case.name in missed), missed


def test_the_report_is_that_of_the_table(speed: ModuleType) -> None:
    assert (FOLDER / "speed.md").read_text() == speed.markdown(rows("speed"))


def test_verdicts(speed: ModuleType) -> None:
    row = {"ratio": "3.1", "goal": "3", "memory": "100", "memory_peer": "250", "memory_goal": ""}
    assert speed.verdict(row) == "yes"
    assert speed.verdict(row | {"ratio": "2.9"}) == "no"
    assert speed.verdict(row | {"memory_goal": "6"}) == "no", "both goals are asked for"
    assert speed.verdict(row | {"goal": ""}) == "–"


def test_a_difference_beyond_the_tolerance_ends_the_run(speed: ModuleType) -> None:
    case = speed.Case("x", "x", lambda scratch: None, {"peer": 1}, {"peer": 1e-3})
    assert speed.differences(case, {"genbench": [10.0, 3.0], "peer": [10.001]})["peer"] == pytest.approx(1e-4, rel=1e-3)
    with pytest.raises(RuntimeError, match="peer differs"):
        speed.differences(case, {"genbench": 10.0, "peer": 10.1})
    with pytest.raises(RuntimeError, match="peer differs"):
        speed.differences(case, {"genbench": 10.0, "peer": float("nan")})


def test_every_round_begins_with_another_contender(speed: ModuleType) -> None:
    seen: list[str] = []

    def once(name: str) -> tuple[float, str]:
        seen.append(name)
        return float(len(seen)), name

    cpu, results = speed.in_turn(["a", "b"], 2, True, once)
    assert seen == ["a", "b", "b", "a", "a", "b"]
    assert cpu == {"a": [4.0, 5.0], "b": [3.0, 6.0]}, "the first round is not counted"
    assert results == {"a": "a", "b": "b"}


def test_growth_has_every_size_and_its_report(growth: ModuleType) -> None:
    found = rows("speed_growth")
    for what, (_, _, usual, _) in growth.KINDS.items():
        assert {n for n in growth.SIZES if n <= usual} <= {int(r["n"]) for r in found if r["what"] == what}
    assert (FOLDER / "speed_growth.md").read_text() == growth.markdown(found)
    assert all((FOLDER / f"speed_growth.{end}").is_file() for end in ("png", "svg"))


def test_precision_and_recall_of_the_largest_sets_fit_into_a_gibibyte(growth: ModuleType) -> None:
    largest = [r for r in rows("speed_growth") if r["what"].startswith("precision") and int(r["n"]) == 50_000]
    assert all(float(r["memory"]) < 1024 for r in largest)


def test_slopes(growth: ModuleType) -> None:
    assert growth.slopes([{"n": "10", "cpu": "1"}, {"n": "100", "cpu": "100"}]) == pytest.approx([2.0])
