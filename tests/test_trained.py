"""Run folders: what is trained, continued, sampled and made again; budgets in steps; a killed suite goes on inside its cell."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Rows

from genbench import models, registry, trained, training, verification
from genbench import run as runs
from genbench.bench import Suite, Task, bench
from genbench.errors import DataError, FailedError, MissingError, UsageError
from genbench.evaluation import evaluate
from genbench.models import TrainingData
from genbench.protocol import Protocol
from genbench.samples import open_samples
from genbench.trained import choose, sample, train

ROOT = Path(__file__).resolve().parent.parent
MADE = registry.module("baselines", "made")
SMALL = {"hidden": [16], "steps": 30}
SHAPE = (1, 8, 8)
suites = importlib.import_module("genbench.bench")


# -- what to train -------------------------------------------------------------------------------------------------------------------


def test_a_budget_is_the_recipes_steps_where_it_has_them_under_any_name_of_that_time():
    shape = (1, 28, 28)
    recipe = MADE.RECIPES["mnist-dynbin"]
    one = choose("made", "mnist-dynbin", shape, budget="1min")
    assert one.config == replace(recipe, **MADE.BUDGETS["mnist-dynbin"]["1min"])
    assert choose("made", "mnist-dynbin", shape, budget="60s").config == one.config
    assert (one.passed, one.seconds) == ({"budget": "1min"}, None)
    assert choose("made", "mnist-dynbin", shape).config == recipe
    other = choose("made", "mnist-dynbin", shape, budget="7min", settings={"lr": 0.5})
    assert (other.seconds, other.config.lr, other.passed) == (420.0, 0.5, {"budget": "7min", "lr": 0.5})
    assert choose("made", "mnist-dynbin", shape, budget="7min", settings={"steps": 9}).seconds is None
    assert choose("made", "mnist-dynbin", shape, budget="smoke").config == MADE.SMOKE["images"]


def test_a_baseline_without_steps_has_one_recipe_for_every_budget():
    found = choose("kde", "digits", SHAPE, budget="7min")
    assert (found.config, found.passed, found.seconds) == (models.recipe(found.module, "digits", SHAPE), {}, None)


def test_a_variant_is_a_baseline_with_recipes_of_its_own():
    found = choose("made:fvsbn", "digits", SHAPE)
    assert (found.name, found.config.hidden) == ("made:fvsbn", ())
    assert choose("made:fvsbn", "ring8", (2,)) is None
    with pytest.raises(UsageError, match="unknown variant of made 'fvsb'; did you mean 'fvsbn'"):
        choose("made:fvsb", "digits", SHAPE)
    with pytest.raises(UsageError, match="it has none"):
        choose("kde:fvsbn", "digits", SHAPE)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("maed", {}, "did you mean 'made'"),
        ("made", {"budget": "5mins"}, "unknown budget '5mins'; did you mean '5min'"),
        ("made", {"settings": {"hiden": [3]}}, "did you mean 'hidden'"),
        ("made", {"settings": {"lr": "fast"}}, "setting lr"),
    ],
)
def test_mistyped_names_have_a_near_miss(name, options, said):
    with pytest.raises(UsageError, match=said):
        choose(name, "digits", SHAPE, **options)


def test_settings_are_parsed_as_json_or_text():
    assert trained.parse_settings(["lr=1e-3", "hidden=[5,6]", "decay=none", "direct=false"]) == {
        "lr": 1e-3,
        "hidden": [5, 6],
        "decay": "none",
        "direct": False,
    }
    for words in (["lr"], ["=3"], ["lr=1", "lr=2"]):
        with pytest.raises(UsageError, match="name=value"):
            trained.parse_settings(words)


# -- training ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "run"
    return train("made", "digits", settings=SMALL, out=folder)


def test_a_training_ends_in_a_run_folder_with_what_it_reached(made, capsys):
    assert sorted(p.name for p in made.folder.iterdir()) == ["curve.csv", "model.json", "model.safetensors", "train.json"]
    assert made.split == "valid"
    assert (made.held_out.bound, made.held_out.measure, made.held_out.n) == ("exact", "mass", 350)
    rows = open_samples("digits/valid")
    assert made.held_out.value == pytest.approx(-made.model.log_prob(rows.read(0, 350)).mean())
    assert made.model.provenance["passed"] == SMALL
    assert made.model.provenance["nfe"] == 1
    trained.show(made)
    first, _, nll = capsys.readouterr().out.splitlines()
    assert first == str(made.folder)
    assert nll.startswith("nll ")
    assert "nats, exact, on 350 samples of the valid split" in nll


def test_the_same_call_again_trains_nothing_and_another_one_is_refused(made, monkeypatch):
    monkeypatch.setattr(MADE, "train", lambda *a, **k: pytest.fail("it was trained again"))
    again = train("made", "digits", settings=SMALL, out=made.folder)
    assert again.found
    assert again.held_out == made.held_out
    assert again.model.seconds == pytest.approx(made.model.seconds, abs=1e-3)
    for name, settings, seed in (("made", SMALL, 1), ("made", {"steps": 3}, 0), ("made:fvsbn", SMALL, 0)):
        with pytest.raises(UsageError, match="holds another run"):
            train(name, "digits", settings=settings, seed=seed, out=made.folder)


def test_a_stopped_training_goes_on_to_the_same_model(made, tmp_path, capsys):
    with pytest.raises(training.Stopped), training.session(stop_after=11):
        train("made", "digits", settings=SMALL, out=tmp_path)
    assert (tmp_path / training.STATE).is_file()
    found = train("made", "digits", settings=SMALL, out=tmp_path)
    assert "going on after step 11 of 30" in capsys.readouterr().err
    assert not (tmp_path / training.STATE).exists()
    assert found.held_out == made.held_out
    assert (found.folder / "model.safetensors").read_bytes() == (made.folder / "model.safetensors").read_bytes()


def test_measured_steps_are_noted_and_kept_when_a_training_goes_on(tmp_path, capsys):
    ask = {"budget": "0.5s", "settings": {"hidden": [16]}, "out": tmp_path}
    with pytest.raises(training.Stopped), training.session(stop_after=3):
        train("made", "digits", **ask)
    steps = json.loads((tmp_path / "train.json").read_text())["config"]["steps"]
    assert f"so 0.5s are {steps:,} steps" in capsys.readouterr().err
    assert train("made", "digits", **ask).model.config.steps == steps
    err = capsys.readouterr().err
    assert f"going on after step 3 of {steps:,}" in err
    assert "per step" not in err


@pytest.fixture
def clock(monkeypatch):
    """A clock of training's that only tests move."""
    now = [0.0]
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: now[0]))
    return now


def in_parts(clock, costs, counts):
    """A baseline whose part i takes costs[i] seconds per step, counts[i](settings.steps) times."""

    def part(i, config):
        def step(now):
            clock[0] += costs[i] + (3.0 if now.i == 0 else 0.0)  # the first step warms up
            return {}

        training.fit(step, replace(config, steps=counts[i](config.steps)), np.zeros((4, 2)), modules={}, seed=0, name=f"part{i}")

    def train_all(config, data, *, seed, out):
        for i in range(len(costs)):
            part(i, config)

    return SimpleNamespace(train=train_all)


@pytest.mark.parametrize(
    ("counts", "steps"),
    [
        ([lambda s: s, lambda s: s], 200),  # 20 s over .02 + .08 s a step
        ([lambda s: s, lambda s: s // 2], 333),  # .02 + .08/2
        ([lambda s: s, lambda s: 100], 600),  # 8 s are the second part's, whatever the first one's steps
    ],
)
def test_a_budget_is_shared_by_all_parts_of_a_training(clock, capsys, counts, steps):
    choice = trained.Choice("two", in_parts(clock, [0.02, 0.08], counts), training.Config(steps=5000), {"budget": "20s"}, 20.0)
    found = trained.measured(choice, None)
    assert (found.config.steps, found.seconds) == (steps, None)
    before = clock[0]
    found.module.train(found.config, None, seed=0, out=None)
    assert clock[0] - before - 6.0 == pytest.approx(20.0, rel=0.01)
    assert f"20s are {steps:,} steps" in capsys.readouterr().err


def test_a_budget_that_one_part_uses_up_is_refused(clock):
    module = in_parts(clock, [0.02, 0.08], [lambda s: s, lambda s: 1000])
    with pytest.raises(UsageError, match="take 80 s here, expected less than 20s"):
        trained.measured(trained.Choice("two", module, training.Config(steps=50), {"budget": "20s"}, 20.0), None)


def test_without_a_recipe_or_held_out_data_it_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"made has no recipe for ring8; it has mnist-dynbin, digits"):
        train("made", "ring8", out=tmp_path / "a")
    with pytest.raises(UsageError, match="found its split digits/test; pass digits"):
        train("gmm", "digits/test", out=tmp_path / "a")
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(300, 2)))
    found = train("gmm", str(tmp_path / "mine.npy"), out=tmp_path / "b")
    assert found.held_out is None
    assert found.model.sample(3, seed=0).shape == (3, 2)
    (tmp_path / "b" / "train.json").unlink()
    with pytest.raises(UsageError, match="genbench train has not made"):
        train("gmm", str(tmp_path / "mine.npy"), out=tmp_path / "b")


def test_a_damaged_note_is_refused(tmp_path):
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(DataError, match="delete the folder and train again"):
        train("kde", "digits", out=tmp_path)


IMAGES = TrainingData("pictures", Rows(np.random.default_rng(0).integers(3, size=(120, 1, 4, 4)).astype(np.uint8) * 120))


@pytest.mark.parametrize("name", registry.modules("baselines"))
def test_a_bound_says_which_it_is(name):
    module = registry.module("baselines", name)
    smoke = getattr(module, "SMOKE", {}).get("images")
    if smoke is None:
        smoke = models.recipe(module, "pictures", (1, 4, 4))
    if smoke is None or models.role(module) != "model":
        pytest.skip("is no model of images, or a control")
    if isinstance(smoke, training.Config):
        smoke = replace(smoke, steps=2)
    model = module.train(smoke, IMAGES, seed=0)
    assert (model.estimator is None) == (model.bound in (None, "exact")), f"{name}: bound {model.bound}, estimator {model.estimator}"


def test_the_run_folder_and_the_record_say_which_bound(tmp_path, capsys):
    vae = {"hidden": [8], "latent": 2, "steps": 5, "draws": 7}
    found = train("vae", "digits", settings=vae, out=tmp_path / "vae")
    assert (found.held_out.bound, found.held_out.estimator) == ("upper", "IWAE-7")
    trained.show(found)
    assert "nats, upper (IWAE-7), on 350 samples" in capsys.readouterr().out
    assert train("vae", "digits", settings=vae, out=tmp_path / "vae").held_out == found.held_out
    run = evaluate(tmp_path / "vae", "digits/train", test="digits/test", metrics=["nll", "bits_per_dim"], n=50, cache=None)
    assert {r["quantity"]: r.get("estimator") for r in run.record["results"]} == {"nll": "IWAE-7", "bits_per_dim": "IWAE-7"}
    assert run["nll"].estimator == "IWAE-7"


# -- sampling ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pngs/", "x.zip", "x.npz", "x.npy", "x.safetensors"])
def test_samples_are_the_same_in_every_container(made, tmp_path, name):
    out = str(tmp_path / name) + ("/" if name.endswith("/") else "")
    digest = sample(made.folder, 300, out, seed=4)
    drawn = open_samples(made.folder, n=300, seed=4)
    assert digest == drawn.fingerprint()
    found = open_samples(tmp_path / name.rstrip("/"))
    assert (len(found), found.fingerprint()) == (300, digest)
    if not name.endswith("/"):
        first = (tmp_path / name).read_bytes()
        sample(made.folder, 300, out, seed=4)
        assert (tmp_path / name).read_bytes() == first


def test_vectors_go_into_array_files_only(tmp_path):
    run = train("gmm", "ring8", settings={"components": [8], "restarts": 1}, out=tmp_path / "run")
    for name in ("x.npz", "x.npy", "x.safetensors"):
        digest = sample(run.folder, 50, tmp_path / name)
        assert open_samples(tmp_path / name).fingerprint() == digest
    for name in ("folder", "x.zip"):
        with pytest.raises(DataError, match="pass a .npz file"):
            sample(run.folder, 50, tmp_path / name)
        assert not (tmp_path / name).exists()


def test_an_unknown_ending_and_a_full_folder_are_refused(made, tmp_path):
    with pytest.raises(UsageError, match=r"ending in \.npz, \.npy, \.safetensors, \.zip"):
        sample(made.folder, 5, tmp_path / "x.gz")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        sample(made.folder, 5, tmp_path / "full")


def test_a_folder_is_whole_or_not_there(made, tmp_path, monkeypatch):
    drawn = models.Stream.sample

    def broken(self, n, *, seed, start=0):
        if start > 0:
            raise MemoryError
        return drawn(self, n, seed=seed, start=start)

    monkeypatch.setattr(models.Stream, "sample", broken)
    with pytest.raises(MemoryError):
        sample(made.folder, 4000, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(models.Stream, "sample", drawn)
    sample(made.folder, 20, tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 20


# -- suites --------------------------------------------------------------------------------------------------------------------------

PROTOCOL = Protocol("tiny-1", "digits/train", ("nll", "fid"), "pixels", n=100, n_ref=100)
TINY = Suite("tiny", "made for a moment", (Task("digits", "images", PROTOCOL),), ("made",), 1)


@pytest.fixture
def quick(monkeypatch):
    """A recipe that is trained in a moment."""
    recipe = replace(MADE.RECIPES["digits"], hidden=(16,), steps=60)
    monkeypatch.setattr(MADE, "RECIPES", {"digits": recipe})
    monkeypatch.setattr(MADE, "VARIANTS", {})
    return recipe


def test_a_suite_goes_on_inside_a_half_trained_cell(tmp_path, quick, capsys):
    (whole,) = bench(TINY, out=tmp_path / "a", cache=None)
    with pytest.raises(training.Stopped), training.session(stop_after=20):
        bench(TINY, out=tmp_path / "b", cache=None)
    capsys.readouterr()
    (resumed,) = bench(TINY, out=tmp_path / "b", cache=None)
    assert "going on after step 20 of 60" in capsys.readouterr().err
    assert resumed.id == whole.id
    timing = resumed.record["timing"]
    assert timing["training_seconds"] > 0
    assert timing["samples_per_second"] > 0


def test_a_cell_that_was_trained_but_not_scored_is_not_trained_again(tmp_path, quick, monkeypatch):
    def interrupted(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(suites, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench(TINY, out=tmp_path, cache=None)
    monkeypatch.undo()
    monkeypatch.setattr(MADE, "RECIPES", {"digits": quick})
    before = MADE.train
    monkeypatch.setattr(MADE, "train", lambda *a, **k: pytest.fail("it was trained again"))
    (run,) = bench(TINY, out=tmp_path, cache=None)
    assert run.record["timing"]["training_seconds"] > 0
    again = trained.choose("made", "digits", SHAPE)
    (folder,) = (tmp_path / "models" / "tiny-1").iterdir()
    assert trained.finished(folder, again, trained.open_data("digits"), 1) is None  # another seed
    monkeypatch.setattr(MADE, "train", before)


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_a_suite_that_was_killed_ends_with_the_record_of_one_that_was_not(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_trained as t; from dataclasses import replace\n"
        "t.MADE.RECIPES = {'digits': replace(t.MADE.RECIPES['digits'], hidden=(16,), steps=int(sys.argv[2]))}; t.MADE.VARIANTS = {}\n"
        "with t.training.session(save_every=0.0): print(t.bench(t.TINY, out=sys.argv[1], cache=None)[0].id)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "killed"), "150"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ends = time.monotonic() + 120
    while not list((tmp_path / "killed").rglob(training.STATE)) and running.poll() is None and time.monotonic() < ends:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    (state,) = (tmp_path / "killed").rglob(training.STATE)
    assert not list((tmp_path / "killed").rglob("runs/*.json"))
    recipes, variants = MADE.RECIPES, MADE.VARIANTS
    MADE.RECIPES, MADE.VARIANTS = {"digits": replace(recipes["digits"], hidden=(16,), steps=150)}, {}
    try:
        (resumed,) = bench(TINY, out=tmp_path / "killed", cache=None)
        (whole,) = bench(TINY, out=tmp_path / "whole", cache=None)
    finally:
        MADE.RECIPES, MADE.VARIANTS = recipes, variants
    assert resumed.id == whole.id
    assert not state.exists()


def test_the_steps_of_a_suites_budget_are_measured_once(tmp_path, quick, capsys):
    first = bench(TINY, seeds=2, budget="0.3s", out=tmp_path, cache=None)
    err = capsys.readouterr().err
    assert err.count("s per step here") == 1
    (steps,) = json.loads((tmp_path / "budgets.json").read_text()).values()
    assert [r.record["subject"]["baseline"]["config"]["steps"] for r in first] == [steps, steps]
    assert first[0].record["subject"]["baseline"]["passed"] == {"budget": "0.3s"}
    again = bench(TINY, seeds=2, budget="0.3s", out=tmp_path, cache=None)
    assert [r.id for r in again] == [r.id for r in first]
    assert "per step" not in capsys.readouterr().err
    (tmp_path / "budgets.json").write_text('{"x": "many"}')
    with pytest.raises(DataError, match="delete it, and steps are measured again"):
        bench(TINY, budget="0.3s", out=tmp_path, cache=None)


def test_a_record_counts_as_done_after_its_baseline_got_a_new_setting(tmp_path, quick):
    (run,) = bench(TINY, out=tmp_path, cache=None)
    content = {k: v for k, v in run.record.items() if k not in ("id", "timing", "schema")}
    content["subject"]["baseline"]["config"].pop("orders")  # as if it had been made before there was that setting
    for path in tmp_path.rglob("runs/*.json"):
        path.unlink()
    older = runs.make(content, run.record["timing"])
    older.save(tmp_path / "tiny-1" / "runs")
    assert [r.id for r in bench(TINY, out=tmp_path, cache=None)] == [older.id]


# -- making it again -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scored(tmp_path, quick):
    (run,) = bench(TINY, out=tmp_path / "board", cache=None)
    return tmp_path / "board" / "tiny-1" / "runs" / f"{run.id}.json"


def test_a_record_is_made_again_by_training_or_from_its_checkpoint(scored, tmp_path, capsys):
    for options in ({"resample": True}, {"out": tmp_path / "again"}):
        found = verification.verify(scored, cache=None, **options)
        assert found.ok
        assert found.machine == ()
        assert [line.quantity for line in found.lines] == ["parameters", "nll", "fid", "fid_debiased"]
        assert all(line.found == line.recorded for line in found.lines)
    (folder,) = (tmp_path / "board" / "models" / "tiny-1").iterdir()
    assert verification.main(folder, resample=True, cache=None) == 0
    assert "all 4 quantities agree" in capsys.readouterr().out


def test_a_number_that_comes_out_otherwise_fails_with_a_table(scored, tmp_path, capsys):
    record = json.loads(scored.read_text())
    nll = next(r for r in record["results"] if r["quantity"] == "nll")
    nll["value"] += 0.01
    changed = runs.make({k: v for k, v in record.items() if k not in ("id", "timing", "schema")}, record["timing"]).save(scored.parent)
    with pytest.raises(FailedError, match="1 of 4 quantities differ") as e:
        verification.main(changed, resample=True, cache=None)
    assert e.value.exit_code == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines[1:5]] == [["ok", "parameters"], ["differs", "nll"], ["ok", "fid"], ["ok", "fid_debiased"]]


def test_elsewhere_the_tolerance_is_the_records_own_interval(scored):
    record = json.loads(scored.read_text())
    record["environment"]["threads"] += 1
    nll = next(r for r in record["results"] if r["quantity"] == "nll")
    half = (nll["high"] - nll["low"]) / 2
    nll["value"] += 2 * half
    changed = runs.make({k: v for k, v in record.items() if k not in ("id", "timing", "schema")}, record["timing"]).save(scored.parent)
    found = verification.verify(changed, resample=True, cache=None)
    (line,) = (x for x in found.lines if x.quantity == "nll")
    assert line.tolerance == pytest.approx(2.5 * half)
    assert found.ok
    assert len(found.machine) == 1
    assert found.machine[0].startswith("threads ")


def test_what_cannot_be_made_again_is_said(scored, made, tmp_path):
    record = json.loads(scored.read_text())

    def changed(edit):
        content = json.loads(json.dumps({k: v for k, v in record.items() if k not in ("id", "timing", "schema")}))
        edit(content)
        return runs.make(content, {}).save(tmp_path / "deep" / "x" / "runs")

    with pytest.raises(UsageError, match="no trained baseline"):
        verification.verify(changed(lambda c: c["subject"].pop("baseline")))
    with pytest.raises(DataError, match="a default has changed since"):
        verification.verify(changed(lambda c: c["protocol"].update(hash="0" * 16)))
    with pytest.raises(MissingError, match="pass --model RUN"):
        verification.verify(changed(lambda c: c["subject"]["baseline"].update(seed=7)), resample=True)
    with pytest.raises(UsageError, match="its config differ"):
        verification.verify(scored, resample=True, model=made.folder)
    (checkpoint,) = (tmp_path / "board" / "models" / "tiny-1").iterdir()
    moved = changed(lambda c: c["reference"].update(fingerprint="0"))
    with pytest.raises(DataError, match="the reference data are not those of the record"):
        verification.verify(moved, resample=True, model=checkpoint, cache=None)


def test_a_run_folder_without_a_record_is_compared_with_what_it_reached(made, tmp_path):
    for options in ({"resample": True}, {"out": tmp_path / "again"}):
        found = verification.verify(made.folder, **options)
        assert found.ok
        assert [(x.quantity, x.recorded) for x in found.lines] == [
            ("nll (valid)", made.held_out.value),
            ("share of first samples alike", 1.0),
        ]
    trained.build(trained.choose("independent", "digits", SHAPE), trained.open_data("digits"), seed=0, out=tmp_path / "bare")
    with pytest.raises(UsageError, match="does not say what its model reached"):
        verification.verify(tmp_path / "bare")
