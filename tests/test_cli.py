"""The command line: what it prints, where, and its exit codes."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genbench import models, registry
from genbench.cli import run
from genbench.listing import listing

RNG = np.random.default_rng(3)


@pytest.fixture
def vectors(tmp_path: Path) -> tuple[str, str]:
    np.save(tmp_path / "gen.npy", RNG.normal(size=(300, 3)))
    np.save(tmp_path / "ref.npy", RNG.normal(size=(300, 3)))
    return str(tmp_path / "gen.npy"), str(tmp_path / "ref.npy")


def test_json_is_exactly_the_stored_record(vectors: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gen, ref = vectors
    assert run(["eval", gen, "--reference", ref, "--metrics", "fid", "kid", "--json", "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    stored = tmp_path / "out" / f"{record['id']}.json"
    assert stored.read_text() == out
    assert "record written" in err
    keys = {"metric", "extractor", "quantity", "value", "low", "high", "n", "interval", "bound", "better", "unit"}
    assert all(set(row) == keys for row in record["results"])
    assert run(["show", str(stored), "--json"]) == 0
    assert capsys.readouterr().out == out


def test_table_csv_and_markdown(vectors: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gen, ref = vectors
    assert (
        run(["eval", gen, "--reference", ref, "--metrics", "fid", "--csv", str(tmp_path / "t.csv"), "--markdown", str(tmp_path / "t.md")])
        == 0
    )
    out = capsys.readouterr().out
    assert "fid_debiased" in out
    assert "95 % interval" in out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert [r["quantity"] for r in rows] == ["fid", "fid_debiased"]
    assert float(rows[0]["value"]) > 0
    assert "| fid_debiased |" in (tmp_path / "t.md").read_text()


@pytest.mark.parametrize(
    ("words", "code", "match"),
    [
        (["eval", "GEN", "--reference", "REF", "--metric", "fid"], 2, "--metrics"),
        (["eval", "GEN", "--reference", "REF", "--metrics", "fidd"], 2, "did you mean 'fid'"),
        (["eval", "GEN", "--reference", "mnits"], 2, "mnist"),
        (["eval", "GEN", "--reference", "ring8/tset"], 2, "test"),
        (["eval", "GEN"], 2, "reference"),
        (["eval", "nowhere/at/all", "--reference", "REF"], 2, "nowhere/at/all"),
        (["eval", "GEN", "--reference", "REF", "-n", "many"], 2, "many"),
        (["eval", "GEN", "--reference", "REF", "--csv", "no/such/folder/x.csv"], 2, "does not exist"),
        (["ls", "metric"], 2, "metrics"),
        (["evl"], 2, "eval"),
        (["bench", "quik"], 2, "quick"),
        (["check", "gmmm"], 2, "gmm"),
        (["show", "nothing.json"], 2, "nothing.json"),
    ],
)
def test_a_mistake_is_an_error_with_the_near_miss(
    words: list[str], code: int, match: str, vectors: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"GEN": vectors[0], "REF": vectors[1]}
    assert run([named.get(w, w) for w in words]) == code
    out, err = capsys.readouterr()
    assert match in err
    assert out == ""
    assert "Traceback" not in err


def test_a_mistyped_key_of_the_configuration_file_is_an_error(
    vectors: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    gen, ref = vectors
    (tmp_path / "genbench.toml").write_text(f'[eval]\nreference = "{ref}"\nmetrics = ["fid"]\nseed = 5\n')
    assert run(["eval", gen, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["seed"] == 5
    monkeypatch.setenv("GENBENCH_EVAL_SEED", "6")
    assert run(["eval", gen, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["seed"] == 6
    assert run(["eval", gen, "--json", "--seed", "7"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["seed"] == 7
    (tmp_path / "genbench.toml").write_text('[eval]\nreferense = "x"\n')
    assert run(["eval", gen]) == 2
    assert "referense" in capsys.readouterr().err


def test_absent_data_exits_3_and_says_what_to_put_where(
    vectors: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path / "empty"))
    assert run(["eval", vectors[0], "--reference", "mnist"]) == 3
    err = capsys.readouterr().err
    assert "train-images-idx3-ubyte" in err
    assert "--download" in err
    assert str(tmp_path / "empty") in err


def test_absent_weights_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", RNG.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8))
    assert (
        run(["eval", str(tmp_path / "x.npy"), "--reference", str(tmp_path / "x.npy"), "--extractor", "inception", "--metrics", "fid"]) == 3
    )
    assert "--weights" in capsys.readouterr().err


def test_an_interrupt_exits_130(vectors: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("genbench.evaluation.evaluate", interrupted)
    assert run(["eval", vectors[0], "--reference", vectors[1]]) == 130
    assert "again to go on" in capsys.readouterr().err


def test_doctor_and_cache(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) in (0, 1)
    assert "Python 3." in capsys.readouterr().out
    assert run(["cache", "ls"]) == 0
    assert run(["cache", "verify"]) == 0
    assert run(["cache", "clear"]) == 0
    assert "deleted" in capsys.readouterr().out


def test_baselines_are_listed_with_their_variants_data_and_budgets() -> None:
    columns, rows = listing("baselines")
    assert columns == ["baseline", "family", "recipes for", "budgets", "what it is"]
    found = {row[0]: row[1:] for row in rows}
    installed = registry.modules("baselines")
    variants = [f"{name}:{v}" for name in installed for v in models.variants(registry.module("baselines", name))]
    assert len(found) == len(rows)
    assert sorted(found) == sorted([*installed, *variants])
    assert {"made:fvsbn", "gan:wgan-gp", "vae:iwae"} <= set(found)
    made = registry.module("baselines", "made")
    family, recipes, budgets, what = found["made:fvsbn"]
    assert (family, recipes.split()) == (made.FAMILY, list(made.VARIANTS["fvsbn"]))
    for dataset in recipes.split():
        for budget in models.budgets(made, dataset, (1, 28, 28), "fvsbn"):
            assert f"{dataset} " in budgets
            assert budget in budgets
    assert "hidden" in what
    assert found["kde"][2] == "–"
    assert all(found[v][3].startswith("other ") for v in variants)


def test_hostile_names_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = tmp_path / "=cmd|\x1b[31m<script>.npy"
    np.save(name, RNG.normal(size=(50, 2)))
    assert (
        run(
            [
                "eval",
                str(name),
                "--reference",
                str(name),
                "--metrics",
                "fid",
                "--csv",
                str(tmp_path / "t.csv"),
                "--markdown",
                str(tmp_path / "t.md"),
                "--no-cache",
            ]
        )
        == 0
    )
    assert "\x1b[31m" not in capsys.readouterr().out
    text = (tmp_path / "t.md").read_text()
    assert "<script>" not in text
    assert "\x1b" not in text


def test_python_m_genbench() -> None:
    done = subprocess.run([sys.executable, "-m", "genbench", "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "leaderboard" in done.stdout
