"""Leaderboards: ranks are honest, tables are derived, nothing of a hostile name gets through."""

import csv
import io
import itertools
import math
import re

import numpy as np
import pytest

from genbench import leaderboard
from genbench import run as runs
from genbench.errors import DataError, FailedError
from genbench.leaderboard import Cell, compare, derive, to_csv, to_markdown


def record(
    model,
    value,
    half=0.1,
    seed=0,
    *,
    role="model",
    bound="exact",
    better="lower",
    quantity="fid_debiased",
    protocol="p",
    n=100,
    extra=(),
    **baseline,
):
    """A run record with what a leaderboard reads."""
    low, high = (None, None) if half is None else (value - half, value + half)
    results = [
        {
            "metric": "fid",
            "extractor": "identity",
            "quantity": quantity,
            "value": value,
            "low": low,
            "high": high,
            "n": n,
            "interval": None if half is None else "made-up",
            "bound": bound,
            "better": better,
            "unit": "1",
        },
        *extra,
    ]
    subject = {"name": model, "kind": "baseline", "fingerprint": f"{model}{seed}", "n": n, "shape": [2], "converted": [], "skipped": []}
    subject["baseline"] = {
        "name": model,
        "family": "made up",
        "role": role,
        "config": {},
        "passed": {},
        "seed": seed,
        "parameters": 3,
        "notes": [],
    } | baseline
    content = {
        "subject": subject,
        "reference": {"name": "ring8/train", "kind": "dataset", "fingerprint": "r", "n": 100},
        "train": None,
        "test": None,
        "protocol": {
            "name": protocol,
            "hash": f"hash-{protocol}",
            "reference": "ring8/train",
            "n": n,
            "extractor": "identity",
            "metrics": ["fid"],
        },
        "extractors": {},
        "results": results,
        "skipped": [],
        "warnings": [],
        "environment": {},
    }
    return runs.make(content, {"training_seconds": 0.5})


def ranks(table):
    return {r.model: r.rank for r in table.rows}


# -- ranks ---------------------------------------------------------------------------------------------------------------------------


def test_models_far_apart_get_their_own_ranks():
    (table,) = derive([record("good", 1.0), record("bad", 9.0), record("middling", 4.0)])
    assert [r.model for r in table.rows] == ["good", "middling", "bad"]
    assert ranks(table) == {"good": (1, 1), "middling": (2, 2), "bad": (3, 3)}


def test_models_within_their_intervals_share_a_rank_range():
    (table,) = derive([record("a", 1.0), record("b", 1.05), record("c", 9.0)])
    assert ranks(table) == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    assert "| 1–2 | a |" in to_markdown([table])


def test_higher_is_better_where_the_quantity_says_so():
    made = {"better": "higher", "quantity": "coverage"}
    (table,) = derive([record("a", 0.2, 0.01, **made), record("b", 0.9, 0.01, **made)])
    assert ranks(table) == {"b": (1, 1), "a": (2, 2)}


def test_identical_models_are_hardly_ever_parted():
    # 20 models of one law in 200 tables: Holm keeps the chance of any false difference at 5 %. Binomial(200, .05) exceeds 20 with
    # probability 2e-3; the seed is fixed. Conservative intervals would make it rarer still.
    rng = np.random.default_rng(0)
    parted = 0
    for _ in range(200):
        x = rng.normal(0.0, 0.1 / 1.959963984540054, size=20)
        (table,) = derive([record(f"m{i}", float(v)) for i, v in enumerate(x)])
        parted += any(r.rank != (1, 20) for r in table.rows)
    assert parted <= 20


def test_critical_value_is_that_of_all_pairs():
    (table,) = derive([record(f"m{i}", float(i)) for i in range(20)])
    assert table.pairs == 190
    assert math.erfc(table.critical / math.sqrt(2)) == pytest.approx(0.05 / 190)  # two-sided
    assert "|z| = 3.649" in to_markdown([table])


def test_rank_ranges_hold_the_sorted_place():
    rng = np.random.default_rng(1)
    values, halves = rng.normal(size=15), rng.uniform(0.05, 1, 15)
    (table,) = derive([record(f"m{i}", float(v), float(h)) for i, (v, h) in enumerate(zip(values, halves, strict=True))])
    for place, row in enumerate(table.rows, 1):
        assert row.rank is not None
        assert row.rank[0] <= place <= row.rank[1]


def test_controls_are_shown_in_their_place_and_not_ranked():
    (table,) = derive(
        [
            record("model", 5.0),
            record("test_set", 1.0, role="ceiling"),
            record("train_replay", 0.0, role="planted"),
            record("noise", 90.0, role="floor"),
        ]
    )
    assert [(r.model, r.rank) for r in table.rows] == [("train_replay", None), ("test_set", None), ("model", (1, 1)), ("noise", None)]
    text = to_markdown([table])
    assert "| planted | train_replay **planted** |" in text
    assert "planted cheat" in text
    assert "| ceiling | test_set" in text


def test_blind_spots_name_the_controls_that_a_quantity_does_not_see():
    made = [("test_set", 1.0, "ceiling"), ("train_replay", 1.01, "planted"), ("noise", 90.0, "floor")]
    (table,) = derive([record(name, value, role=role) for name, value, role in made])
    text = to_markdown([table])
    assert "Blind spots (no significant difference from test_set at this n): fid_debiased does not see train_replay." in text


def test_vectors_are_ranked_by_coverage():
    more = {
        "metric": "prdc",
        "extractor": "identity",
        "quantity": "coverage",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 9,
        "interval": "x",
        "bound": "exact",
        "better": "higher",
        "unit": "1",
    }
    (table,) = derive([record("a", 1.0, extra=[more | {"value": 0.1, "low": 0.05, "high": 0.15}]), record("b", 9.0, extra=[more])])
    assert table.primary == "coverage"
    assert [r.model for r in table.rows] == ["b", "a"]


def test_values_that_bound_from_different_sides_are_not_compared():
    cell = {"low": 0.0, "high": 1.0, "seed_sd": None, "variance": 1e-9, "freedom": math.inf}
    assert compare(Cell(1.0, bound="upper", **cell), Cell(2.0, bound="exact", **cell)) is None
    exact, upper = derive([record("a", 1.0, bound="upper"), record("b", 9.0), record("c", 20.0)])
    assert (ranks(exact), ranks(upper)) == ({"b": (1, 1), "c": (2, 2)}, {"a": (1, 1)})
    assert "≤ 1.00" in to_markdown([upper])


def likely(model, nats, bound="exact", measure="mass", fid=1.0, **baseline):
    """A record of a protocol whose first metric is nll; without a likelihood where nats is None."""
    one = record(model, fid, protocol="q", **baseline).record
    row = one["results"][0] | {"metric": "nll", "quantity": "nll", "unit": "nats", "bound": bound, "measure": measure}
    row |= {"value": nats, "low": (nats or 0) - 0.1, "high": (nats or 0) + 0.1}
    content = {k: v for k, v in one.items() if k not in ("id", "timing", "schema")}
    content["protocol"] = content["protocol"] | {"metrics": ["nll", "fid"]}
    content["results"] = [*([row] if nats is not None else []), *content["results"]]
    return runs.make(content, {"training_seconds": 90.0, "samples_per_second": 430.0})


def test_likelihoods_are_ranked_by_kind_and_samples_all_together():
    tables = derive(
        [
            likely("made", 88.0, fid=5.0),
            likely("tree", 135.0, fid=7.0),
            likely("vae", 80.0, "upper", fid=3.0),
            likely("iwae", 79.0, "upper", fid=4.0),
            likely("flow", -300.0, measure="density", fid=6.0),
            likely("rbm", 86.0, "estimate", fid=8.0),
            likely("gan", None, fid=1.0),
            likely("noise", 543.0, fid=90.0, role="floor"),
            likely("test_set", None, fid=0.0, role="ceiling"),
        ]
    )
    found = [(t.kind, ranks(t)) for t in tables]
    assert found[0] == (("exact", "density"), {"flow": (1, 1)})
    assert found[1] == (("exact", "mass"), {"made": (1, 1), "tree": (2, 2), "noise": None})
    assert found[2] == (("upper", "mass"), {"iwae": (1, 1), "vae": (2, 2)})
    assert found[3] == (("estimate", "mass"), {"rbm": (1, 1)})
    assert found[4][0] is None
    assert [r.model for r in tables[4].rows] == ["test_set", "gan", "vae", "iwae", "made", "flow", "tree", "rbm", "noise"]
    assert all(t.primary == "nll" and list(t.quantities) == ["nll"] for t in tables[:4])
    assert (tables[4].primary, list(tables[4].quantities)) == ("fid_debiased", ["nll", "fid_debiased"])
    text = to_markdown(tables)
    assert "# q: nll, upper bounds: a rank compares the bounds, not what they bound (of a mass)" in text
    rows = list(csv.DictReader(io.StringIO(to_csv(tables).partition("\n")[2])))
    assert [(r["model"], r["ranked_by"], r["bound"], r["measure"]) for r in rows[:2]] == [
        ("flow", "nll", "exact", "density"),
        ("made", "nll", "exact", "mass"),
    ]
    assert rows[0]["fid_debiased"] == ""


def with_estimator(run, estimator):
    """The same record, whose likelihood says which bound it is."""
    content = {k: v for k, v in run.record.items() if k not in ("id", "timing", "schema")}
    content["results"] = [r | {"estimator": estimator} if r["quantity"] == "nll" else r for r in content["results"]]
    return runs.make(content, run.record["timing"])


def test_every_bound_says_which_it_is_and_a_ranking_of_several_says_so():
    tables = derive(
        [
            with_estimator(likely("vae", 88.6, "upper"), "IWAE-1000"),
            with_estimator(likely("flow", 85.6, "upper"), "64 draws of dequantisation noise"),
            likely("old_vae", 93.0, "upper", notes=["log_prob is the importance-weighted lower bound of 50 draws (IWAE-50)"]),
            likely("other", 95.0, "upper"),
            likely("rbm", 86.0, "estimate", notes=["log Z by AIS: 256 chains, 8000 temperatures, SE 0.1 nats"]),
            likely("made", 85.0, notes=["(IWAE-3) is not what an exact value is"]),
        ]
    )
    exact, upper, estimate, samples = tables
    assert {r.model: r.cells["nll"].estimator for r in samples.rows} == {
        "vae": "IWAE-1000",
        "flow": "64 draws of dequantisation noise",
        "old_vae": "IWAE-50",
        "other": None,
        "rbm": "AIS, 256 chains × 8000",
        "made": None,
    }
    said = "Ranked together here: 64 draws of dequantisation noise; IWAE-1000; IWAE-50; one that is not known."
    assert said in to_markdown([upper])
    for alone in (exact, estimate, samples):  # of one kind, or ranked by something else
        assert "Ranked together" not in to_markdown([alone])
    text = to_markdown(tables)
    assert re.search(r"\| ≤ 88\.60* \(IWAE-1000\) ", text)
    assert re.search(r"\| 86\.00* \(AIS, 256 chains × 8000\) ", text)
    rows = list(csv.DictReader(io.StringIO(to_csv(tables).partition("\n")[2])))
    assert {r["model"]: r["estimator"] for r in rows}["vae"] == "IWAE-1000"
    assert {r["model"]: r["estimator"] for r in rows}["made"] == ""


def test_seeds_of_several_bounds_are_said_to_be_so():
    made = [with_estimator(likely("vae", 88.0, "upper", seed=s), f"IWAE-{k}") for s, k in enumerate((50, 1000))]
    assert derive(made)[0].rows[0].cells["nll"].estimator == "several kinds"


def test_an_old_record_keeps_its_id_and_loads(tmp_path):
    old = likely("vae", 88.0, "upper")
    new = with_estimator(likely("vae", 88.0, "upper"), "IWAE-1000")
    assert old.id != new.id
    for made, wanted in ((old, None), (new, "IWAE-1000")):
        found = runs.Run.load(made.save(tmp_path))
        assert (found.id, found["nll"].estimator) == (made.id, wanted)


def test_what_is_derived_does_not_depend_on_the_terminal(monkeypatch):
    before = to_markdown(derive([likely("vää", 88.0, "upper")]))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert to_markdown(derive([likely("vää", 88.0, "upper")])) == before


def test_a_likelihood_that_is_not_the_first_metric_gets_no_table_and_ranks_nothing():
    made = likely("made", 88.0)
    made.record["protocol"]["metrics"] = ["fid", "nll"]
    (table,) = derive([made])
    assert (table.primary, table.kind) == ("fid_debiased", None)


def test_models_without_any_value_are_shown_beside_the_likelihoods():
    failure = {"baseline": "vae", "family": "x", "role": "model", "config": {}, "seed": 0, "protocol_hash": "hash-q", "error": "x"}
    content = {k: v for k, v in likely("made", 88.0).record.items() if k not in ("id", "timing", "schema")}
    content["results"] = content["results"][:1]
    exact, rest = derive([runs.make(content, {})], [failure])
    assert (ranks(exact), [(r.model, r.failed) for r in rest.rows]) == ({"made": (1, 1)}, [("vae", 1)])


def test_costs_have_columns():
    (table,) = derive([record("a", 1.0, parameters=1_234_567, nfe=784), record("b", 2.0)])
    text = to_markdown([table])
    assert "| parameters | training (s) | NFE |" in text
    assert "| 1,234,567 | 0.5 | 784 |" in text
    assert "| 3 | 0.5 | – |" in text
    rows = list(csv.DictReader(io.StringIO(to_csv([table]).partition("\n")[2])))
    assert (rows[0]["nfe"], rows[0]["parameters"], rows[0]["training_seconds"], rows[0]["samples_per_second"]) == (
        "784",
        "1234567",
        "0.5",
        "",
    )
    (fast,) = [t for t in derive([likely("made", 88.0)]) if t.kind is None]
    assert fast.rows[0].speed == 430.0


def test_a_value_without_an_interval_ties_with_all():
    (table,) = derive([record("a", 1.0), record("b", 9.0, None), record("c", 20.0)])
    assert ranks(table) == {"a": (1, 2), "b": (1, 3), "c": (2, 3)}
    assert table.pairs == 1


def test_exact_values_without_spread_compare_exactly():
    cell = {"low": 1.0, "high": 1.0, "seed_sd": None, "variance": 0.0, "freedom": math.inf, "bound": "exact"}
    assert compare(Cell(1.0, **cell), Cell(1.0, **cell)) == 1.0
    assert compare(Cell(1.0, **cell), Cell(2.0, **cell)) == 0.0


def test_few_seeds_cost_degrees_of_freedom():
    from scipy.stats import ttest_ind

    # With no sampling error left the test is Welch's.
    a, b = [1.0, 1.2, 0.9], [1.5, 1.9, 1.6]
    (table,) = derive([record(m, v, 1e-12, s) for m, xs in (("a", a), ("b", b)) for s, v in enumerate(xs)])
    cells = {r.model: r.cells["fid_debiased"] for r in table.rows}
    assert compare(cells["a"], cells["b"]) == pytest.approx(ttest_ind(a, b, equal_var=False).pvalue, rel=1e-6)


# -- paired likelihoods ----------------------------------------------------------------------------------------------------------------


def judged(model, nats, seed=0, test="t"):
    """A record of a likelihood with its values for every held-out sample."""
    made = likely(model, float(-nats.astype(np.float32).mean(dtype=float)), seed=seed)
    content = {k: v for k, v in made.record.items() if k not in ("id", "timing", "schema")}
    sd = float(nats.std(ddof=1)) / math.sqrt(len(nats))
    row = content["results"][0] | {"n": len(nats)}
    content["results"][0] = row | {"low": row["value"] - 1.959963984540054 * sd, "high": row["value"] + 1.959963984540054 * sd}
    content["test"] = {"fingerprint": test}
    return runs.make(content, {}, nats=nats)


def test_likelihoods_of_the_same_samples_are_compared_pairwise():
    from scipy.special import ndtr
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    common = rng.normal(-90, 25, 400)  # some images are harder than others, for every model
    a, b = common + rng.normal(0, 1, 400), common + rng.normal(-0.4, 1, 400)
    (table, _) = derive([judged("a", a), judged("b", b)])
    assert ranks(table) == {"a": (1, 1), "b": (2, 2)}
    assert "paired by held-out sample" in to_markdown([table])
    cells = {r.model: r.cells["nll"] for r in table.rows}
    assert compare(cells["a"], cells["b"]) == pytest.approx(2 * ndtr(-abs(ttest_rel(a, b).statistic)), rel=1e-6)
    (other, _) = derive([judged("a", a), judged("b", b, test="u")])  # of other held-out samples
    assert ranks(other) == {"a": (1, 2), "b": (1, 2)}
    assert "independent ones" in to_markdown([other])


def test_paired_differences_that_are_noise_are_rarely_significant():
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(400):
        common = rng.normal(-90, 25, 200)
        (table, _) = derive([judged(m, common + rng.normal(0, 1, 200)) for m in "ab"])
        false += ranks(table) != {"a": (1, 2), "b": (1, 2)}
    assert 5 <= false <= 40  # 5 % of 400 are 20


def test_seeds_count_in_a_paired_difference():
    rng = np.random.default_rng(2)
    common = rng.normal(-90, 25, 300)

    def seeds(model, apart):
        return [judged(model, common + shift + rng.normal(0, 0.1, 300), seed) for seed, shift in enumerate(apart)]

    (near, _) = derive(seeds("a", (0.0, 0.01, -0.01)) + seeds("b", (-0.5, -0.51, -0.49)))
    (far, _) = derive(seeds("a", (0.0, 1.0, -1.0)) + seeds("b", (-0.5, 0.5, -1.5)))
    assert ranks(near) == {"a": (1, 1), "b": (2, 2)}
    assert ranks(far) == {"a": (1, 2), "b": (1, 2)}  # retraining moves a model by more than the two are apart


def test_log_likelihoods_lie_beside_their_record_and_are_checked(tmp_path):
    made = judged("a", np.random.default_rng(0).normal(-90, 25, 50))
    leaderboard.save(made, tmp_path)
    (found,) = leaderboard.records(tmp_path)
    assert found.id == made.id
    assert np.array_equal(found.nats, made.nats.astype(np.float32))
    path = tmp_path / "runs" / f"{made.id}.npy"
    for broken, said in (
        (found.nats[:-1], "float32 number for each"),
        (found.nats + 1, "is not the record's nll"),
        (np.full(50, np.nan, "f4"), "float32"),
    ):
        np.save(path, broken.astype(np.float32))
        with pytest.raises(DataError, match=said):
            leaderboard.records(tmp_path)
    path.write_bytes(b"x")
    with pytest.raises(DataError, match="not readable log-likelihoods"):
        leaderboard.records(tmp_path)


def test_a_model_without_a_finite_likelihood_has_no_file_beside_its_record(tmp_path):
    leaderboard.save(
        runs.make(record("a", 1.0).record | {"results": record("a", 1.0).record["results"]}, {}, nats=np.array([-np.inf, 1.0])), tmp_path
    )
    assert [p.suffix for p in (tmp_path / "runs").iterdir()] == [".json"]


# -- rows ----------------------------------------------------------------------------------------------------------------------------


def test_a_row_is_the_mean_over_seeds_with_their_sd():
    (table,) = derive([record("a", 1.0, 0.2, 0), record("a", 2.0, 0.4, 1)])
    (row,) = table.rows
    cell = row.cells["fid_debiased"]
    assert row.seeds == 2
    assert (cell.value, cell.low, cell.high) == (1.5, pytest.approx(1.2), pytest.approx(1.8))
    assert cell.seed_sd == pytest.approx(math.sqrt(0.5))


def test_failed_runs_are_counted():
    failure = {"baseline": "a", "family": "made up", "role": "model", "config": {}, "seed": 1, "protocol_hash": "hash-p", "error": "x"}
    (table,) = derive([record("a", 1.0)], [failure, failure | {"baseline": "b"}, failure | {"protocol_hash": "other"}])
    assert [(r.model, r.seeds, r.failed, r.rank) for r in table.rows] == [("a", 1, 1, (1, 1)), ("b", 0, 1, None)]
    text = to_markdown([table])
    assert "1 (1 failed)" in text
    assert "| failed | b |" in text


def test_a_quantity_that_some_seeds_lack_is_left_out_of_the_row():
    more = {
        "metric": "kid",
        "extractor": "identity",
        "quantity": "kid",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 9,
        "interval": "x",
        "bound": "exact",
        "better": "lower",
        "unit": "1",
    }
    (table,) = derive([record("a", 1.0, extra=[more]), record("a", 1.0, seed=1)])
    assert set(table.quantities) == {"fid_debiased", "kid"}
    assert set(table.rows[0].cells) == {"fid_debiased"}


def test_two_configs_of_one_baseline_are_two_rows():
    (table,) = derive([record("a", 1.0), record("a", 5.0, config={"k": 2}, passed={"k": 2})])
    assert [r.model for r in table.rows] == ["a", "a (k=2)"]


def test_protocols_are_never_ranked_together():
    first, second = derive([record("a", 1.0), record("b", 2.0, protocol="q")])
    assert [len(first.rows), len(second.rows)] == [1, 1]
    assert (first.protocol["name"], second.protocol["name"]) == ("p", "q")


def test_samples_without_a_known_model_have_a_row():
    made = record("a", 1.0)
    content = {k: v for k, v in made.record.items() if k not in ("id", "timing", "schema")}
    content["subject"] = {k: v for k, v in content["subject"].items() if k != "baseline"} | {"name": "out/"}
    (table,) = derive([runs.make(content, {})])
    assert [(r.model, r.family, r.rank, r.seconds) for r in table.rows] == [("out/", "samples", (1, 1), None)]


def test_order_of_records_changes_nothing():
    made = [record("a", 1.0), record("b", 1.1), record("a", 1.3, seed=1), record("c", 9.0)]
    assert len({to_csv(derive(list(order))) + to_markdown(derive(list(order))) for order in itertools.permutations(made)}) == 1


# -- text ----------------------------------------------------------------------------------------------------------------------------


def test_csv_is_generated_with_full_precision_and_columns_of_their_own():
    (table,) = derive([record("a", 1 / 3)])
    text = to_csv([table])
    assert text.startswith("# generated by genbench leaderboard")
    (row,) = csv.DictReader(io.StringIO(text.partition("\n")[2]))
    assert float(row["fid_debiased"]) == 1 / 3
    assert float(row["fid_debiased_low"]) == 1 / 3 - 0.1
    assert row["fid_debiased_seed_sd"] == ""
    assert (row["rank_low"], row["rank_high"], row["parameters"]) == ("1", "1", "3")


def test_csv_opens_in_pandas():
    import pandas as pd

    frame = pd.read_csv(io.StringIO(to_csv(derive([record("a", 1.0), record("b", 2.0)]))), comment="#")
    assert frame["model"].tolist() == ["a", "b"]


def test_rows_are_flagged_by_what_is_significantly_worse_than_real_test_data():
    def extra(copies, near, classes):
        made = (("exact_copies", copies, 0.005), ("nn_copies", near, 0.008), ("missing_classes", classes, 0.0))
        return tuple(
            {
                "metric": "m",
                "extractor": "identity",
                "quantity": q,
                "value": v,
                "low": v - half,
                "high": v + half,
                "n": 100,
                "interval": "made-up",
                "bound": "exact",
                "better": "lower",
                "unit": "1",
            }
            for q, v, half in made
        )

    found = derive(
        [
            record("real", 1.0, role="ceiling", extra=extra(0.002, 0.012, 0)),
            record("replay", 1.0, role="planted", extra=extra(1.0, 1.0, 0)),
            record("noisy", 1.0, extra=extra(0.0, 0.11, 0)),
            record("few", 1.0, extra=extra(0.003, 0.015, 4)),
            record("good", 1.0, extra=extra(0.001, 0.003, 0)),
        ]
    )
    flags = {"real": (), "replay": ("memorises",), "noisy": ("near train",), "few": ("collapsed",), "good": ()}
    assert {r.model: r.flags for t in found for r in t.rows} == flags
    assert "| replay **planted** | made up | memorises |" in to_markdown(found)
    assert {r["model"]: r["flags"] for r in csv.DictReader(io.StringIO(to_csv(found).partition("\n")[2]))}["few"] == "collapsed"
    (alone,) = derive([record("replay", 1.0, extra=extra(1.0, 1.0, 0))])  # nothing to compare with
    assert alone.rows[0].flags == ()


def test_hostile_names_are_neutralised():
    (table,) = derive([record("=cmd|'/c calc'!A0", 1.0), record("a|b<script>\n", 2.0)])
    rows = list(csv.DictReader(io.StringIO(to_csv([table]).partition("\n")[2])))
    assert rows[0]["model"].startswith("'=cmd")
    text = to_markdown([table])
    assert "<script>" not in text
    assert all(line.count("|") - line.count("\\|") == 10 for line in text.splitlines() if "a\\|b" in line)


# -- folders -------------------------------------------------------------------------------------------------------------------------


def board(folder):
    for r in (record("a", 1.0), record("b", 3.0)):
        r.save(folder / "p" / "runs")
    return folder


def test_check_passes_on_what_write_wrote(tmp_path, capsys):
    board(tmp_path)
    assert {p.name for p in leaderboard.write(tmp_path)} == {"table.csv", "README.md"}
    assert leaderboard.check(tmp_path) == []
    assert (tmp_path / "p" / "README.md").read_text().startswith("<!-- generated by genbench leaderboard")
    assert leaderboard.main(tmp_path) == leaderboard.main(tmp_path, check=True) == 0
    assert "1 leaderboards agree" in capsys.readouterr().out


def test_check_names_the_file_and_line_that_differs(tmp_path):
    board(tmp_path)
    leaderboard.write(tmp_path)
    path = tmp_path / "p" / "table.csv"
    path.write_text(path.read_text().replace("3.0", "2.0", 1))
    assert leaderboard.check(tmp_path) == [f"{path}: line 4 is not what the records give"]
    (tmp_path / "p" / "README.md").unlink()
    with pytest.raises(FailedError, match=r"README\.md: is missing"):
        leaderboard.main(tmp_path, check=True)
    assert leaderboard.main(tmp_path) == 0
    assert leaderboard.check(tmp_path) == []


def test_a_record_that_was_changed_is_refused(tmp_path):
    board(tmp_path)
    path = sorted((tmp_path / "p" / "runs").glob("*.json"))[0]
    path.write_text(path.read_text().replace('"n": 100', '"n": 900', 1))
    with pytest.raises(DataError, match="changed after it was written"):
        leaderboard.check(tmp_path)


def test_no_folder_and_no_boards_are_said(tmp_path, capsys):
    with pytest.raises(DataError, match="found none"):
        leaderboard.main(tmp_path / "absent")
    assert leaderboard.main(tmp_path) == 0
    assert "no leaderboards" in capsys.readouterr().out


def test_tables_are_shown_with_their_notes(tmp_path, capsys):
    leaderboard.show(derive([record("a", 1.0), record("train_replay", 0.0, role="planted")]))
    out = capsys.readouterr().out
    assert "planted" in out
    assert "train_replay" in out
    assert "[0.900, 1.100]" in out or "[0.90, 1.10]" in out


def test_notes_of_seeds_that_differ_in_numbers_alone_are_shown_once():
    found = [
        record("rbm", 1.0 + seed, seed=seed, notes=[f"log Z by AIS: SE 0.00{seed} nats", "one text", f"kind {name}"])
        for seed, name in enumerate("aab")
    ]
    (row,) = derive(found)[0].rows
    assert row.notes == ("log Z by AIS: SE 0.000 nats (of one seed, others like it)", "one text", "kind a", "kind b")


def test_the_projects_own_tables_agree_with_their_records():
    if leaderboard.home().is_dir():
        assert leaderboard.check(leaderboard.home()) == []
