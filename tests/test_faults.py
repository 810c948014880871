"""Faults of disks, files, signals and machines: no half file, no wrong number, and the same digest after a re-run."""

import csv
import errno
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import genbench
from genbench import arrays, bench, cache, cli, doctor, files, parallel
from genbench.errors import DataError
from genbench.protocol import Protocol

ROOT = Path(__file__).resolve().parent.parent
RNG = np.random.default_rng(11)
IMAGES = RNG.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
OTHERS = RNG.integers(0, 200, (40, 3, 8, 8), dtype=np.uint8)
PROTOCOL = Protocol("small shards", "*", ("kid",), "random", shard=16)


def score(where: Path | None, **settings: Any) -> genbench.Run:
    """Six shards: three a side."""
    return genbench.evaluate(IMAGES, OTHERS, protocol=PROTOCOL, cache=where, **settings)


@pytest.fixture(scope="module")
def undisturbed() -> str:
    return score(None).id


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# -- files that are written --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_mode_of_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        files.write_atomic(tmp_path / "x", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


@pytest.mark.parametrize("call", ["fsync", "replace", "fstat"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_atomic(tmp_path / "x", b"old")
    with monkeypatch.context() as m:
        m.setattr(os, call, no_space)
        with pytest.raises(OSError, match="No space left"):
            files.write_atomic(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    files.write_atomic(tmp_path / "y", b"")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x", "y"]


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    (tmp_path / ".genbench-dead.part").write_bytes(b"half")
    with files.replacing(tmp_path / "slow") as f:
        f.write(b"slow")
        files.write_atomic(tmp_path / "quick", b"quick")
        assert not (tmp_path / ".genbench-dead.part").exists()
        assert Path(f.name).exists()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"slow": b"slow", "quick": b"quick"}


def test_a_file_system_without_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    (tmp_path / ".genbench-whose.part").write_bytes(b"half")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    files.write_atomic(tmp_path / "x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1"
    assert (tmp_path / ".genbench-whose.part").exists(), "it may be that of a living process"


def test_what_is_no_regular_file_is_written_to_and_a_link_is_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    files.write_atomic(tmp_path / "pipe", b"through")
    reader.join(10)
    assert got == [b"through"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    files.write_atomic(tmp_path / "link", b"1")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"1"
    with pytest.raises(IsADirectoryError):
        files.write_atomic(tmp_path, b"1")


# -- the cache -----------------------------------------------------------------------------------------------------------------------


def damaged(path: Path, other: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "a folder":
        path.unlink()
        path.mkdir()
    elif how == "of another key":
        shutil.copy(other, path)
    else:
        flipped = data[:-3] + bytes([data[-3] ^ 4]) + data[-2:]
        now = {"truncated": data[:-9], "empty": b"", "zeros": bytes(len(data)), "text": b"404", "a flipped bit": flipped}
        path.write_bytes(now[how])


@pytest.mark.parametrize("how", ["truncated", "a flipped bit", "empty", "zeros", "text", "of another key", "a folder"])
def test_a_damaged_shard_is_said_once_counted_and_moves_no_digest(
    tmp_path: Path, how: str, undisturbed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    score(tmp_path)
    shards = list(cache.Cache(tmp_path).entries())
    assert len(shards) == 6
    for path in shards[:2]:
        damaged(path, shards[-1], how)
    found = dict(cache.Cache(tmp_path).verify())
    assert set(found) == set(shards[:2])
    capsys.readouterr()
    again = score(tmp_path)
    assert again.id == undisturbed
    assert capsys.readouterr().err.count("genbench: cache file") == 1
    assert "2 damaged cache files were computed again" in again.record["timing"]["cache_faults"]
    assert again.record["timing"]["cached"] == 80 - again.record["timing"]["extracted"] < 80
    if how != "a folder":
        assert not list(cache.Cache(tmp_path).verify()), "what was damaged is written anew"
        assert "cache_faults" not in score(tmp_path).record["timing"]


def test_what_another_process_left_beside_a_whole_shard_is_removed(tmp_path: Path) -> None:
    score(tmp_path)
    left = next(cache.Cache(tmp_path).entries()).with_name(".genbench-dead.part")
    left.write_bytes(b"half")
    score(tmp_path)
    assert not left.exists()


def test_a_cache_that_cannot_be_written_is_said_once_and_done_without(
    tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for where, reason in ((tmp_path / "file", "Not a directory"), (tmp_path / "full", "No space left on device")):
        if where.name == "full":
            monkeypatch.setattr(os, "fsync", no_space)
        run = score(where)
        said = capsys.readouterr().err
        assert run.id == undisturbed
        assert said.count("cannot write the cache") == 1
        assert reason in said
        assert any(reason in f for f in run.record["timing"]["cache_faults"])
    assert not list((tmp_path / "full").rglob("*.part"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_is_done_without(tmp_path: Path, undisturbed: str, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o555)
    assert score(tmp_path).id == undisturbed
    assert "Permission denied" in capsys.readouterr().err


def test_cache_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    score(tmp_path)
    assert cli.run(["cache", "verify"]) == 0
    bad = next(cache.Cache(tmp_path).entries())
    bad.write_bytes(b"404")
    (bad.parent / ".genbench-dead.part").write_bytes(b"half")
    capsys.readouterr()
    assert cli.run(["cache", "verify"]) == 1
    printed = capsys.readouterr()
    assert str(bad) in printed.out
    assert "6 shards, 1 damaged" in printed.out
    assert "cache clear" in printed.err
    assert cli.run(["cache", "clear"]) == 0
    assert "6 shards deleted, 0.1 MB freed" in capsys.readouterr().out
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    assert cli.run(["cache", "ls"]) == 0
    assert "0 shards" in capsys.readouterr().out


# -- interrupts ------------------------------------------------------------------------------------------------------------------------


def test_an_interrupt_keeps_the_finished_shards(tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = cache.Cache.put, []

    def put(self: cache.Cache, *rest: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(self, *rest)

    with monkeypatch.context() as m:
        m.setattr(cache.Cache, "put", put)
        with pytest.raises(KeyboardInterrupt):
            score(tmp_path)
    again = score(tmp_path)
    assert again.id == undisturbed
    assert again.record["timing"]["cached"] == 16 + 16 + 8


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/out/x.json"), "/out/x.json: No space left on device; free some space"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.EIO, "Input/output error"), "check the disk"),
        (MemoryError(), "out of memory"),
    ],
)
def test_a_fault_of_the_machine_is_no_traceback(
    error: Exception, mend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("genbench.evaluation.evaluate", broken)
    assert cli.run(["eval", "x", "--reference", "y"]) == 2
    assert mend in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_is_no_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.run(["cache", "ls"]) == 2
    assert "No space left on device" in capsys.readouterr().err


def test_a_record_that_cannot_be_read_now_is_not_set_aside(tmp_path: Path) -> None:
    record = tmp_path / "runs" / "x.json"
    record.mkdir(parents=True)  # reading it fails, for root too
    with pytest.raises(DataError, match="check the disk"):
        bench._done(tmp_path)
    assert record.exists()


# -- workers that fail -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", ["plain", "wrapped"])
def test_a_part_is_tried_three_times(workers: int, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(parallel, "PAUSE", 0.0)
    tries: dict[int, int] = {}

    def task(i: int, bad: int) -> int:
        tries[i] = tries.get(i, 0) + 1
        if i == 5 and tries[i] <= bad:
            fault = OSError(errno.EIO, "Input/output error")
            if kind == "plain":
                raise fault
            raise DataError("x.png: cannot be read; check the disk") from fault
        return i * i

    assert list(parallel.ordered(lambda i: task(i, 2), range(9), workers)) == [i * i for i in range(9)]
    assert tries[5] == 3
    assert capsys.readouterr().err.count("tried again") == 2
    tries.clear()
    with pytest.raises((OSError, DataError), match=r"Input/output error|x\.png"):
        list(parallel.ordered(lambda i: task(i, 3), range(9), workers))
    assert tries[5] == 3


@pytest.mark.parametrize("fault", [FileNotFoundError(errno.ENOENT, "gone"), DataError("bad"), ValueError("bug")])
def test_what_will_not_pass_is_not_tried_again(fault: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def task(_: int) -> int:
        raise fault

    with pytest.raises(type(fault)):
        list(parallel.ordered(task, [1], 1))
    assert capsys.readouterr().err == ""


def test_a_reader_that_fails_twice_changes_no_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genbench import samples

    monkeypatch.setattr(parallel, "PAUSE", 0.0)
    monkeypatch.setattr(arrays, "CACHE_BYTES", 0)
    opened = genbench.open_samples(written(tmp_path, "folder"))
    plain = genbench.evaluate(opened, OTHERS, protocol=PROTOCOL, cache=None)
    real, left = samples.decode, [2]

    def decode(data: bytes) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "Input/output error")
        return real(data)

    monkeypatch.setattr(samples, "decode", decode)
    assert genbench.evaluate(opened, OTHERS, protocol=PROTOCOL, cache=None, workers=3).id == plain.id
    assert left == [0]
    left[0] = 1000
    with pytest.raises(DataError, match=r"\.png: Input/output error"):
        genbench.evaluate(opened, OTHERS, protocol=PROTOCOL, cache=None)


# -- files that change while they are read -----------------------------------------------------------------------------------------


def written(tmp_path: Path, container: str) -> Path:
    """The images in a container that is read anew each time."""
    from PIL import Image

    folder = tmp_path / "folder"
    folder.mkdir()
    for i, image in enumerate(IMAGES):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i:02d}.png")
    if container == "npy":
        np.save(tmp_path / "x.npy", IMAGES)
        return tmp_path / "x.npy"
    if container != "folder":
        return Path(shutil.make_archive(str(tmp_path / "x"), container, folder))
    return folder


@pytest.mark.parametrize("container", ["folder", "zip", "tar", "npy"])
def test_samples_that_change_during_the_run_are_an_error_that_names_them(
    tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "CACHE_BYTES", 0)
    path = written(tmp_path, container)
    opened = genbench.open_samples(path)
    before = genbench.evaluate(opened, OTHERS, protocol=PROTOCOL, cache=None)
    changed = path / "07.png" if container == "folder" else path
    data = bytearray(changed.read_bytes() if container != "folder" else (path / "08.png").read_bytes())
    if container != "folder":
        data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    os.utime(changed, (1, 1))
    with pytest.raises(DataError, match="07.png" if container == "folder" else "changed|damaged|CRC") as e:
        genbench.evaluate(opened, OTHERS, protocol=PROTOCOL, cache=None)
    assert "run again" in str(e.value)
    assert before.id


def test_samples_that_vanish_during_the_run_are_an_error_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CACHE_BYTES", 0)
    opened = genbench.open_samples(written(tmp_path, "folder"))
    (tmp_path / "folder" / "11.png").unlink()
    with pytest.raises(DataError, match=r"11\.png: cannot be opened"):
        genbench.evaluate(opened, OTHERS, protocol=PROTOCOL, cache=None)


# -- doctor ------------------------------------------------------------------------------------------------------------------------------


def found() -> dict[str, list[tuple[str, str]]]:
    states: dict[str, list[tuple[str, str]]] = {"ok": [], "note": [], "fault": []}
    for state, what, fix in doctor.examine():
        assert state == "ok" or fix or what, what
        states[state].append((what, fix))
    return states


def test_doctor_says_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("GENBENCH_DATA", raising=False)
    score(tmp_path)
    assert doctor.main() == 0
    text = capsys.readouterr().out
    cached = f"cache {tmp_path}, writable, 6 shards"
    for part in ("Python 3.", "torch ", "threads on", "GB free", cached, "ring8", "extra [encoders]", "inception"):
        assert part in text, part
    assert "datasets that are not there: cifar10" in text
    assert not [p for p in tmp_path.iterdir() if p.name != "features"], "looking leaves nothing behind"


def test_doctor_sees_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"):
        (raw / name).write_bytes(b"x")
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path))
    there = next(what for what, _ in found()["ok"] if what.startswith("datasets that are there"))
    assert "mnist" in there.split(": ")[1].split(", ")
    assert "fashion_mnist" not in there


@pytest.mark.parametrize(("package", "mend"), [("torch", "torch"), ("PIL", "pillow"), ("safetensors", "safetensors")])
def test_doctor_lives_without_a_package(package: str, mend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    assert any(mend in fix and "pip install" in fix for _, fix in found()["fault"])


def test_doctor_lives_without_numpy() -> None:
    code = "import sys; sys.modules['numpy'] = None; from genbench import doctor; sys.exit(doctor.main())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "pip install --force-reinstall numpy" in done.stdout
    assert "extra [plots]" in done.stdout, "the other checks go on"


def broken_torch(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("driver of another version")

    monkeypatch.setitem(sys.modules, "torch", Broken())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("breaks", "what", "fix"),
    [
        (lambda m, p: m.setenv("GENBENCH_DATA", str(p / "nowhere")), "GENBENCH_DATA", "unset it"),
        (lambda m, p: m.setenv("GENBENCH_CACHE", f"{p / 'file'}/cache"), "is a file", "GENBENCH_CACHE"),
        (lambda m, p: m.setattr(doctor.tempfile, "TemporaryFile", no_space), "No space left", "GENBENCH_CACHE"),
        (lambda m, p: m.setattr(doctor.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0)), "0.0 GB free", "cache clear"),
        (lambda m, p: m.setattr(doctor.sys, "version_info", (3, 9, 0)), "Python", "install Python 3.11"),
        (
            lambda m, p: m.setattr(doctor, "_NEEDED", {"no-such-package": "none"}),
            "no-such-package is not installed",
            "pip install no-such-package",
        ),
        (
            lambda m, p: (p / "weights").mkdir() or (p / "weights" / "inception-2015-12-05.pt").write_bytes(b"x"),
            "not the published",
            "fetch",
        ),
        (lambda m, p: m.setattr("genbench.registry.modules", no_space), "cannot be looked at", "mend"),
        (broken_torch, "driver of another version", "pip install"),
    ],
)
def test_doctor_names_each_fault_and_its_mend(
    breaks: Callable[[pytest.MonkeyPatch, Path], Any], what: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    breaks(monkeypatch, tmp_path)
    faults = found()["fault"]
    assert any(what in w and fix in f for w, f in faults), faults
    monkeypatch.setattr(doctor, "examine", lambda: iter([("fault", w, f) for w, f in faults]))
    assert doctor.main() == 1


# -- every call that can fail ------------------------------------------------------------------------------------------------------


def broken(tmp_path: Path, each: int, scenarios: str, *only: str) -> list[dict[str, str]]:
    """Rows of benchmarks/faults.py, run in a process of its own, which forks."""
    out = tmp_path / "faults.csv"
    program = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--out", str(out)]
    done = subprocess.run(
        [*program, "--each", str(each), "--scenarios", *scenarios.split(), "--only", *only],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with out.open(newline="") as f:
        rows = list(csv.DictReader(f))
    for row in rows:
        assert row["rerun_equal"] == row["injections"], row
        assert row["lost"] == row["unclean"] == "0", row
    return rows


FEW = (
    "open: EIO",
    "write: ENOSPC",
    "write: short",
    "read: short",
    "SIGKILL at the k-th rename",
    "SIGTERM at the k-th write",
)


def test_a_few_faults_change_no_digest(tmp_path: Path) -> None:
    rows = {r["kind"]: r for r in broken(tmp_path, 1, "eval", *FEW)}
    assert len(rows) == len(FEW)
    assert rows["read: short"]["succeeded"] == rows["write: short"]["succeeded"] == "1"
    assert rows["SIGKILL at the k-th rename"]["killed"] == "1"
    assert rows["SIGTERM at the k-th write"]["clean_error"] == "1", "SIGTERM ends as Ctrl-C does"


@pytest.mark.slow
def test_a_run_killed_at_more_than_fifty_points_ends_the_same(tmp_path: Path) -> None:
    rows = broken(tmp_path, 10, "eval bench", "SIG")
    assert sum(int(r["injections"]) for r in rows) >= 150
    assert sum(int(r["killed"]) for r in rows) >= 50
