"""Comparing models: paired differences, Holm's correction, ranks with ties."""

import itertools
import json

import numpy as np
import pytest

import genbench
from genbench import cli
from genbench.comparison import Difference, _differences, _ranks, standard_error
from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity

RNG = np.random.default_rng(5)
REF = RNG.normal(size=(400, 3))
NEAR, ALSO, FAR = RNG.normal(size=(300, 3)), RNG.normal(size=(300, 3)), RNG.normal(size=(300, 3)) + 1


def test_the_far_one_loses_and_the_near_ones_tie() -> None:
    found = genbench.compare({"near": NEAR, "also": ALSO, "far": FAR}, REF, metrics=["fid", "kid", "prdc"], cache=None)
    by = {(d.quantity, d.a, d.b): d for d in found.differences}
    for quantity in ("fid_debiased@identity", "kid@identity"):
        assert by[quantity, "near", "far"].better == "near"
        assert by[quantity, "near", "also"].better is None
    ranks = {(r.quantity, r.model): (r.best, r.worst) for r in found.ranks}
    assert ranks["fid_debiased@identity", "far"] == (3, 3)
    assert ranks["fid_debiased@identity", "near"] == ranks["fid_debiased@identity", "also"] == (1, 2)
    assert found.runs["far"]["fid"] == genbench.evaluate(FAR, REF, metrics=["fid", "kid", "prdc"], cache=None)["fid"]


def test_differences_are_antisymmetric() -> None:
    forth = genbench.compare({"a": NEAR, "b": FAR}, REF, metrics=["fid", "kid"], cache=None)
    back = genbench.compare({"b": FAR, "a": NEAR}, REF, metrics=["fid", "kid"], cache=None)
    for x, y in zip(forth.differences, back.differences, strict=True):
        assert (x.value, x.low, x.high, x.p) == pytest.approx((-y.value, -y.high, -y.low, y.p), rel=1e-9)
        assert x.better == y.better == "a"


def test_one_set_compared_with_itself_is_a_tie() -> None:
    found = genbench.compare({"a": NEAR, "b": NEAR.copy()}, REF, metrics=["fid", "kid"], cache=None)
    for d in found.differences:
        assert d.value == 0
        assert d.p == 1
        assert d.better is None


def test_the_shared_reference_cancels() -> None:
    """Far from a small reference most of the error is the reference's own, and common to both models."""
    rng = np.random.default_rng(0)
    ref = rng.normal(size=(60, 2))
    a, b = rng.normal(size=(3000, 2)) + 3, rng.normal(size=(3000, 2)) + 3.05
    found = genbench.compare({"a": a, "b": b}, ref, metrics=["fid"], cache=None)
    d = next(d for d in found.differences if d.quantity.startswith("fid_debiased"))
    own = found.runs["a"]["fid_debiased"]
    assert d.interval == "paired"
    assert d.high - d.low < 0.5 * (own.high - own.low)


@pytest.mark.parametrize("metric", ["fid", "kid"])
def test_the_interval_of_a_difference_covers_the_truth(metric: str) -> None:
    """60 pairs; at 95 % coverage 9 or more misses have a chance of 0.3 %. The laws: shifts by 0.6 and 0.3 along one axis."""
    missed = 0
    true = 0.6**2 - 0.3**2
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ref, a, b = rng.normal(size=(400, 4)), rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
        a[:, 0] += 0.6
        b[:, 0] += 0.3
        if metric == "kid":
            true = kid_of_shift(0.6, 4) - kid_of_shift(0.3, 4)
        found = genbench.compare({"a": a, "b": b}, ref, metrics=[metric], cache=None)
        d = next(d for d in found.differences if d.quantity in ("fid_debiased@identity", "kid@identity"))
        missed += not d.low <= true <= d.high
    assert missed <= 8


def kid_of_shift(v: float, d: int) -> float:
    """MMD² of N(0, I) and N(v e1, I) with the cubic kernel: E k(x, x') + E k(y, y') − 2 E k(x, y), from moments of u = x·y/d."""

    def mean_kernel(mx: float, my: float) -> float:
        # u·d = Σ x_i y_i; the first coordinate has means mx, my, all variances are 1
        first = mx * my
        second = (1 + mx**2) * (1 + my**2)
        third = (mx**3 + 3 * mx) * (my**3 + 3 * my)
        e1 = first
        e2 = second + (d - 1)
        e3 = third + 3 * first * (d - 1)
        return 1 + 3 * e1 / d + 3 * e2 / d**2 + e3 / d**3

    return mean_kernel(v, v) + mean_kernel(0, 0) - 2 * mean_kernel(v, 0)


def estimate(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half, 10, "test")


def test_holm_by_hand() -> None:
    """p = 0.01, 0.02, 0.04 of three pairs become 0.03, 0.04, 0.04."""
    from scipy.stats import norm

    z = [norm.isf(p / 2) for p in (0.01, 0.02, 0.04)]
    # values on a line whose three differences have just these z at standard errors of 1 each
    q = Quantity("x", "lower")
    se = 1 / np.sqrt(2)
    values = {n: (q, estimate(v, 1.959963984540054 * se)) for n, v in (("a", 0.0), ("b", z[2]), ("c", z[2] + z[1]))}
    found = _differences("x", values, set())
    raw = sorted(d.p for d in found)
    holm = sorted(d.p_holm for d in found)
    assert raw[1:] == pytest.approx([0.02, 0.04], rel=1e-6)
    assert holm == pytest.approx([3 * raw[0], 0.04, 0.04], rel=1e-6)


@pytest.mark.parametrize(("better", "winner"), [("lower", "a"), ("higher", "c"), ("closer", "b")])
def test_the_direction_decides_who_is_better(better: str, winner: str) -> None:
    q = Quantity("x", better, ideal=5.0)
    values = {n: (q, estimate(v, 0.1)) for n, v in (("a", 0.0), ("b", 5.5), ("c", 7.0))}
    found = _differences("x", values, set())
    ranks = {r.model: (r.best, r.worst) for r in _ranks("x", values, found)}
    assert ranks[winner] == (1, 1)


def test_values_without_intervals_are_told_but_not_ranked() -> None:
    q = Quantity("x", "lower")
    values = {"a": (q, Estimate(1.0, None, None, 5, None)), "b": (q, estimate(2.0, 0.1))}
    (d,) = _differences("x", values, set())
    assert d == Difference("x", "a", "b", -1.0, None, None, None, None, None, None)
    assert _ranks("x", values, [d]) == []


def test_standard_errors_by_hand() -> None:
    a = Estimate(1.0, 0.0, 2.0, 4, "x", influence={"gen": np.array([1.0, -1]), "ref": np.array([2.0, -2, 0, 0])})
    b = Estimate(1.0, 0.0, 2.0, 4, "x", influence={"gen": np.array([3.0, -3]), "ref": np.array([2.0, -2, 0, 0])})
    assert standard_error(a, b) == (pytest.approx(np.sqrt(1 / 2 + 9 / 2)), "paired")
    assert standard_error(a, b, same=True) == (pytest.approx(np.sqrt(4 / 2)), "paired")
    assert standard_error(a, estimate(0.0, 1.0))[1] == "independent"


def test_bad_calls() -> None:
    with pytest.raises(UsageError, match="two or more"):
        genbench.compare({"a": NEAR}, REF)
    with pytest.raises(UsageError, match="two sets"):
        genbench.compare(["ring8/test", "ring8/test"], "ring8")


def test_the_command_prints_tables_and_json(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    words = ["compare", "test=two-gaussians/test", "moons/test", "--reference", "two-gaussians", "-n", "300", "--metrics", "fid", "--quiet"]
    target = tmp_path / "x.csv"
    assert cli.run([*words, "--csv", str(target), "--markdown", str(tmp_path / "x.md"), "--out", str(tmp_path / "r")]) == 0
    shown = capsys.readouterr().out
    assert "test − moons/test" in shown
    assert "rank by" in shown
    assert target.read_text().startswith("quantity,a,b,value,low,high,p,p_holm,better,interval\n")
    assert len(list((tmp_path / "r").glob("*.json"))) == 2
    assert cli.run([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {d["better"] for d in found["differences"]} == {"test"}
    assert len(found["runs"]) == 2
    assert cli.run(["compare", "moons/test", "--reference", "moons"]) == 2
    assert cli.run(["compare", "moons/test", "moons/test", "--reference", "moons"]) == 2


def test_ranks_leave_open_what_the_data_leave_open() -> None:
    q = Quantity("x", "lower")
    values = {n: (q, estimate(v, 1.0)) for n, v in (("a", 0.0), ("b", 1.0), ("c", 2.0), ("d", 9.0))}
    ranks = {r.model: (r.best, r.worst) for r in _ranks("x", values, _differences("x", values, set()))}
    assert ranks["d"] == (4, 4)
    assert all(best <= worst for best, worst in ranks.values())
    assert ranks["a"][0] == 1
    assert len(list(itertools.combinations(values, 2))) == 6
