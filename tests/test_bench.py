"""Suites: the plan, resuming, failing cells; and the whole loop on small things."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Rows

from genbench import leaderboard, models, registry, trained, training
from genbench import run as runs
from genbench.bench import Suite, Task, bench
from genbench.errors import DataError, FailedError, MissingError, UsageError
from genbench.models import TrainingData
from genbench.protocol import Protocol

suites = importlib.import_module("genbench.bench")  # `from genbench import bench` is the function
ROOT = Path(__file__).resolve().parent.parent


class FakeProtocol(Protocol):
    """A protocol that needs no metric and no extractor to be there."""

    @property
    def hash(self):
        return f"hash-of-{self.name}"

    @property
    def specs(self):
        return ()


@pytest.fixture
def fake(monkeypatch):
    """Everything beyond the suite is replaced: small data, a score that is the mean of the samples. Lists what was trained."""
    trained = []

    def open_data(task):
        rng = np.random.default_rng(0)
        rows = [Rows(rng.normal(size=(n, 2)), rng.integers(2, size=n)) for n in (300, 200)]
        return TrainingData(task.dataset, *rows)

    def run_cell(cell, data, folder, cache):
        trained.append((cell.task.dataset, cell.baseline, cell.seed))
        model = cell.module.train(cell.config, data, seed=cell.seed)
        about = models.describe(cell.baseline, cell.module, model, passed={}, seed=cell.seed, dataset=cell.task.dataset)
        value = float(model.sample(100, seed=cell.seed).mean())
        return runs.make(
            {
                "subject": {"name": cell.baseline, "kind": "baseline", "fingerprint": "x", "n": 100, "shape": [2], "baseline": about},
                "reference": {"name": "r", "kind": "dataset", "fingerprint": "r", "n": 300},
                "train": None,
                "test": None,
                "protocol": {"name": cell.protocol.name, "hash": cell.protocol.hash, "extractor": "identity", "n": 100},
                "extractors": {},
                "skipped": [],
                "warnings": [],
                "environment": {},
                "results": [
                    {
                        "metric": "mean",
                        "extractor": "identity",
                        "quantity": "mean",
                        "value": value,
                        "low": value - 0.1,
                        "high": value + 0.1,
                        "n": 100,
                        "interval": "x",
                        "bound": "exact",
                        "better": "lower",
                        "unit": "1",
                    }
                ],
            },
            {"training_seconds": 0.0},
        )

    monkeypatch.setattr(suites, "open_data", open_data)
    monkeypatch.setattr(suites, "run_cell", run_cell)
    monkeypatch.setattr(suites, "protocol_of", lambda task: FakeProtocol(f"{task.dataset}-1", f"{task.dataset}/train", ("mean",)))
    return trained


SMALL = Suite("small", "two toys", (Task("ring8", "vectors"), Task("moons", "vectors")), ("test_set", "train_replay", "blurred"), 2)


# -- plans ---------------------------------------------------------------------------------------------------------------------------


def test_unknown_suite_and_baseline_name_the_near_miss(tmp_path, fake):
    with pytest.raises(UsageError, match="did you mean 'quick'"):
        bench("quik", out=tmp_path)
    with pytest.raises(UsageError, match="did you mean 'gmm'"):
        bench(SMALL, only=["gm"], out=tmp_path)
    with pytest.raises(UsageError, match="seeds is at least 1, found 0"):
        bench(SMALL, seeds=0, out=tmp_path)
    assert fake == []


def test_every_suite_names_installed_baselines_only():
    for chosen in suites.SUITES.values():
        for name in chosen.baselines or ():
            trained.named(name)  # raises where there is none
        for name in chosen.also:
            assert trained.named(name)


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, fake, capsys):
    assert bench(SMALL, dry_run=True, out=tmp_path / "x") == []
    out = capsys.readouterr().out
    assert "8 of 8 cells to do" in out
    assert "left out: blurred on ring8: no recipe for vectors; it has digits, images" in out
    assert not (tmp_path / "x").exists()
    assert fake == []


def test_only_and_seeds_narrow_the_plan_and_may_name_what_the_suite_does_not_list(tmp_path, fake):
    bench(SMALL, only=["uniform_noise"], seeds=1, out=tmp_path)
    assert fake == [("ring8", "uniform_noise", 0), ("moons", "uniform_noise", 0)]


def test_a_suite_without_a_list_takes_every_baseline_with_a_recipe(tmp_path, fake):
    cells, left_out = suites.plan(Suite("all", "", (Task("ring8", "vectors"),), None, 1, also=("made:fvsbn",)), tmp_path)
    listed = {c.baseline for c in cells} | {name for _, name, _ in left_out}
    assert listed == {*registry.modules("baselines"), "made:fvsbn"}  # of the variants only those that are named
    assert "blurred" in {name for _, name, _ in left_out}


# -- resuming ------------------------------------------------------------------------------------------------------------------------


def test_records_and_tables_are_written_and_a_second_run_trains_nothing(tmp_path, fake, capsys):
    first = bench(SMALL, out=tmp_path)
    assert len(fake) == len(first) == 8
    for name in ("ring8-1", "moons-1"):
        assert len(list((tmp_path / name / "runs").glob("*.json"))) == 4
        assert (tmp_path / name / "table.csv").is_file()
    assert "test_set" in capsys.readouterr().out
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.*")}
    second = bench(SMALL, out=tmp_path)
    assert len(fake) == 8
    assert [r.id for r in second] == [r.id for r in first]
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.*")} == before


def test_another_config_or_protocol_is_computed_again(tmp_path, fake, monkeypatch):
    bench(SMALL, only=["train_noise"], seeds=1, out=tmp_path)
    module = registry.module("baselines", "train_noise")
    monkeypatch.setattr(module, "RECIPES", {"vectors": module.Config(0.3)})
    bench(SMALL, only=["train_noise"], seeds=1, out=tmp_path)
    assert len(fake) == 4
    monkeypatch.setattr(FakeProtocol, "hash", property(lambda self: "another"))
    bench(SMALL, only=["train_noise"], seeds=1, out=tmp_path)
    assert len(fake) == 6


def test_a_damaged_record_is_said_and_computed_again(tmp_path, fake, capsys):
    bench(SMALL, only=["test_set"], seeds=1, out=tmp_path)
    (path,) = (tmp_path / "ring8-1" / "runs").glob("*.json")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    bench(SMALL, only=["test_set"], seeds=1, out=tmp_path)
    assert "computed again" in capsys.readouterr().err
    assert path.read_bytes() == whole
    assert fake.count(("ring8", "test_set", 0)) == 2


# -- failing -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [DataError("no good"), ValueError("singular"), np.linalg.LinAlgError("singular"), MemoryError("full")])
def test_a_failing_cell_is_recorded_and_the_others_go_on(tmp_path, fake, monkeypatch, fault):
    good = suites.run_cell

    def faulty(cell, data, folder, cache):
        if cell.baseline == "train_replay" and cell.seed == 1:
            raise fault
        return good(cell, data, folder, cache)

    monkeypatch.setattr(suites, "run_cell", faulty)
    with pytest.raises(FailedError, match=r"2 of 8 cells failed; the others were kept.*\n.*train_replay on ring8, seed 1") as e:
        bench(SMALL, out=tmp_path)
    assert e.value.exit_code == 1
    assert len(fake) == 6
    (path,) = (tmp_path / "ring8-1" / "failures").glob("*.json")
    assert json.loads(path.read_text())["error"].startswith(type(fault).__name__)
    (table,) = leaderboard.tables(tmp_path / "ring8-1")
    assert {(r.model, r.seeds, r.failed) for r in table.rows} == {("test_set", 2, 0), ("train_replay", 1, 1)}
    monkeypatch.setattr(suites, "run_cell", good)
    bench(SMALL, out=tmp_path)
    assert len(fake) == 8
    assert not list(tmp_path.rglob("failures/*.json"))


def test_an_interrupt_is_no_failure_and_keeps_what_is_done(tmp_path, fake, monkeypatch):
    good = suites.run_cell

    def stopped(cell, data, folder, cache):
        if len(fake) == 3:
            raise KeyboardInterrupt
        return good(cell, data, folder, cache)

    monkeypatch.setattr(suites, "run_cell", stopped)
    with pytest.raises(KeyboardInterrupt):
        bench(SMALL, out=tmp_path)
    assert len(list(tmp_path.rglob("runs/*.json"))) == 3
    assert not list(tmp_path.rglob("failures"))
    monkeypatch.setattr(suites, "run_cell", good)
    assert len(bench(SMALL, out=tmp_path)) == 8
    assert len(fake) == 8


def test_missing_data_stop_the_suite_before_any_training(tmp_path, fake, monkeypatch):
    def absent(task):
        raise MissingError("put the files there")

    monkeypatch.setattr(suites, "open_data", absent)
    with pytest.raises(MissingError):
        bench(SMALL, out=tmp_path)
    assert fake == []
    assert not list(tmp_path.rglob("*.json"))


def test_publishing_from_an_installed_package_is_refused(tmp_path, fake, monkeypatch):
    monkeypatch.setattr(leaderboard, "home", lambda: tmp_path / "_leaderboards")
    with pytest.raises(UsageError, match="from a clone"):
        bench(SMALL, publish=True, out=tmp_path)


def test_publishing_writes_the_boards_into_the_projects_folder(tmp_path, fake, monkeypatch):
    monkeypatch.setattr(leaderboard, "home", lambda: tmp_path / "leaderboards")
    bench(SMALL, publish=True, only=["test_set"], out=tmp_path / "work")
    assert (tmp_path / "leaderboards" / "ring8-1" / "table.csv").is_file()
    assert not list((tmp_path / "work").rglob("*.csv"))


# -- the real thing ------------------------------------------------------------------------------------------------------------------


def test_dry_run_of_quick_imports_no_torch(tmp_path):
    code = (
        "import sys; from genbench.bench import bench; bench('quick', dry_run=True, out=sys.argv[1]); "
        "assert not {'torch', 'pandas', 'torchvision'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.returncode == 0, found.stderr
    assert "left out: blurred on ring8" in found.stdout
    assert "34 of 34 cells to do" in found.stdout


def test_quick_scores_the_controls_where_they_belong(tmp_path):
    made = bench("quick", only=["test_set", "train_replay", "one_class", "uniform_noise", "independent"], seeds=1, out=tmp_path, cache=None)
    assert len(made) == 10
    for board in ("ring8", "digits"):
        (home,) = (b for b in leaderboard.boards(tmp_path) if b.name.startswith(board))
        likelihoods, table = leaderboard.tables(home)
        assert "independent" in {r.model for r in likelihoods.rows}
        assert {r.model: r.flags for r in table.rows} == {
            "test_set": (),
            "train_replay": ("memorises",),
            "one_class": ("memorises", "collapsed"),  # training images of one class
            "uniform_noise": (),
            "independent": (),
        }
        covered = {r.model: r.cells["coverage"] for r in table.rows}  # moments alone cannot tell ring8 from uniform noise
        assert covered["test_set"].low > covered["one_class"].high
        assert covered["test_set"].low > covered["uniform_noise"].high
        distance = {r.model: r.cells["fid_debiased"] for r in table.rows}
        assert distance["test_set"].high < distance["one_class"].low
        assert distance["train_replay"].low <= distance["test_set"].high
    again = bench("quick", only=["test_set"], seeds=1, out=tmp_path, cache=None)
    assert {r.id for r in again} <= {r.id for r in made}
    models_saved = list((tmp_path / "models").rglob("model.json"))
    assert len(models_saved) == 10
    assert models.load_model(models_saved[0].parent).sample(5, seed=0).shape[0] == 5


# -- CIFAR-10: sized for a GPU -------------------------------------------------------------------------------------------------------


def test_the_cifar10_suite_has_recipes_and_likelihoods(tmp_path):
    cells, left_out = suites.plan(suites.find("cifar10"), tmp_path)
    assert left_out == []
    assert [c.baseline for c in cells] == list(suites.SUITES["cifar10"].baselines)
    for c in cells:
        assert (c.passed, c.seconds, c.config) == ({"budget": "20min"}, None, c.module.RECIPES["cifar10"])
        assert "bits_per_dim" in c.protocol.metrics


@pytest.mark.parametrize("name", suites.SUITES["cifar10"].baselines)
def test_a_cifar10_recipe_takes_a_step(name):
    """The true nets at the true size; where there is no GPU a minibatch of 2."""
    import torch

    images = np.random.default_rng(0).integers(256, size=(8, 3, 32, 32)).astype(np.uint8)
    choice = trained.choose(name, "cifar10", (3, 32, 32), budget="20min")
    config = choice.config if torch.cuda.is_available() else replace(choice.config, batch=2)
    told = []
    with pytest.raises(training.Stopped), training.session(stop_after=1, progress=lambda *line: told.append(line)):
        choice.module.train(config, TrainingData("cifar10", Rows(images)), seed=0)
    assert [(done, total) for _, done, total, _ in told] == [(1, config.steps)]  # a loss that is no number would have been refused


def test_log_likelihoods_are_kept_beside_the_record(tmp_path):
    (run,) = bench(Suite("one", "", (Task("ring8", "vectors", "ring8-quick-2"),), ("independent",), 1), out=tmp_path, cache=None)
    (found,) = leaderboard.records(tmp_path / "ring8-quick-2")
    assert found.id == run.id
    assert len(found.nats) == found["nll"].n
    assert -found.nats.mean(dtype=float) == pytest.approx(found["nll"].value, rel=1e-6)
