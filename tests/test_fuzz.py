"""Damaged files of every kind open with the right data or are refused by a clear error; the damage is that of benchmarks/fuzz.py."""

import csv
import importlib.util
import resource
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
FEW, MANY = 300, 5000
KINDS = ("png", "jpg", "gif", "tiff", "webp", "bmp", "avif", "npy", "npz stored", "npz compressed", "safetensors", "statistics")
KINDS += ("likelihood", "idx", "zip", "tar", "tar.gz", "record", "model.json", "model.safetensors")


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", FOLDER / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run(fuzz: ModuleType, count: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = list(fuzz.trials(count))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert [f"{t.kind} {t.turn}: {t.why}" for t in found if t.outcome == "fault"] == []
    assert len(found) == count
    assert {t.kind for t in found} == set(KINDS)
    assert Counter(t.outcome for t in found)["refused"] > count / 2, "the damage does damage"
    assert grown < 2**30, "a small file that asks for a gigabyte is refused"


def test_few_damaged_files(fuzz: ModuleType) -> None:
    run(fuzz, FEW)


@pytest.mark.slow
def test_many_damaged_files(fuzz: ModuleType) -> None:
    run(fuzz, MANY)


def test_the_damage_is_the_same_every_time_and_of_every_sort(fuzz: ModuleType) -> None:
    data = bytes(range(256)) * 8 + b" 12345 "
    once, twice = ([fuzz.damaged(data, np.random.default_rng([7, i])) for i in range(60)] for _ in range(2))
    assert once == twice
    assert len({len(d) for d in once}) > 20
    assert sum(d != data for d in once) > 50
    for kind in fuzz.DAMAGE:
        out = bytearray(data)
        kind(out, np.random.default_rng(3))
        assert bytes(out) != data, kind.__name__


def test_undamaged_files_are_read_and_a_fault_is_seen(fuzz: ModuleType, tmp_path: Path) -> None:
    """The judge itself: the right data are the same, lost items and other exceptions are faults."""
    from concurrent.futures import Future

    kinds = fuzz.kinds()
    assert sorted(kinds) == sorted(KINDS)
    kind = kinds["zip"]
    (tmp_path / kind.file).write_bytes(kind.data)
    good = kind.read(tmp_path)
    assert good.items.total() == 6

    def judged(result: object) -> str:
        reading: Future[object] = Future()
        if isinstance(result, BaseException):
            reading.set_exception(result)
        else:
            reading.set_result(result)
        return fuzz.judge(kind, good, reading)[0]

    lost = good.items - Counter([next(iter(good.items))])
    from genbench.errors import DataError

    assert judged(good) == "same"
    assert judged(fuzz.Content(lost)) == "fault"
    assert judged(fuzz.Content(lost, ("5 of 6 were read",))) == "part"
    assert judged(fuzz.Content(Counter(["another image"]))) == "fault"
    assert judged(KeyError("x")) == "fault"
    assert judged(DataError("x.zip: damaged; pack it again")) == "refused"
    assert judged(DataError("damaged")) == "fault", "the file is not named"
    assert judged(DataError("x.zip: \x1b[31m")) == "fault", "a control character"


def test_the_committed_counts_have_no_fault() -> None:
    rows = list(csv.DictReader((FOLDER / "fuzz.csv").read_text().splitlines()))
    assert [r["kind"] for r in rows] == list(KINDS)
    assert sum(int(r["files"]) for r in rows) == MANY
    assert all(r["fault"] == "0" for r in rows)


# -- the report on bad input (benchmarks/robustness.py) ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def robustness(fuzz: ModuleType) -> ModuleType:
    spec = importlib.util.spec_from_file_location("robustness", FOLDER / "robustness.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["robustness"] = module
    spec.loader.exec_module(module)
    return module


def test_no_bad_input_ends_badly_in_the_committed_report(robustness: ModuleType) -> None:
    rows = robustness.table(FOLDER / "robustness.csv")
    mine = {r["input"]: r["outcome"] for r in rows if r["tool"] == "genbench"}
    assert len({(c.group, c.about) for c in robustness.CASES}) == len(robustness.CASES) >= 90
    assert {(c.group, c.about) for c in robustness.CASES} == {(r["group"], r["input"]) for r in rows if r["tool"] == "genbench"}
    assert {name: how for name, how in mine.items() if how not in robustness.GOOD} == {}
    right = {c.about for c in robustness.CASES if c.means is not None}
    others = {name: how for name, how in mine.items() if name in right and how != "number equal"}
    assert others == {"link to the folder above": "clear error"}, "the right number where there is one; a loop of links is refused"
    page = (FOLDER / "robustness.md").read_text().splitlines()
    made = robustness.markdown(rows, robustness.table(FOLDER / "fuzz.csv"), []).splitlines()
    assert [line for line in made if line not in page] == []


def test_the_judge_of_the_report(robustness: ModuleType) -> None:
    def judged(kind: str, value: float | None, said: str, clean: float | None = None) -> str:
        return robustness.outcome(kind, value, said, "x.png", clean, 2.0, "always said")

    assert judged("hang", None, "") == "hang"
    assert judged("explained", None, "exit 2: x.png: damaged") == "clear error"
    assert judged("explained", None, "exit 2: damaged") == "bare traceback"
    assert judged("traceback", None, "OSError: truncated") == "bare traceback"
    assert judged("number", 3.0, "always said", 3.0) == "number equal"
    assert judged("number", 3.1, "always said", 3.0) == "moved without a word"
    assert judged("number", 2.0, "always said", 3.0) == "dropped without a word"
    assert judged("number", 2.5, "") == "moved without a word"
    assert judged("number", 2.5, "a file was left out") == "number, said"
    assert judged("number", float("nan"), "a file was left out") == "moved without a word"


@pytest.mark.skipif(sys.platform == "win32", reason="needs FIFOs and links")
@pytest.mark.parametrize("group", ["no regular files", "archives"])
def test_a_part_of_the_report_comes_out_as_committed(robustness: ModuleType, group: str, tmp_path: Path) -> None:
    """In this process; a hang would be one of the test."""
    committed = {r["input"]: r for r in robustness.table(FOLDER / "robustness.csv") if (r["tool"], r["group"]) == ("genbench", group)}
    score = robustness.genbench_tool(tmp_path)
    robustness.write(tmp_path / "reference", robustness.REFERENCE)
    for i, case in enumerate(c for c in robustness.CASES if c.group == group):
        (tmp_path / str(i)).mkdir()
        samples, needle = case.make(tmp_path / str(i))
        row = committed[case.about]
        if row["outcome"] == "number equal":
            assert score(str(samples), str(tmp_path / "reference"), ())[0] == pytest.approx(float(row["value"]), rel=1e-4), case.about
        else:
            with pytest.raises(robustness.Explained, match=needle):
                score(str(samples), str(tmp_path / "reference"), ())
