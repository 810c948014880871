"""Break a run in every way that a machine can, run it again, and compare the result with an undisturbed run's.

    python benchmarks/faults.py [--out benchmarks/faults.csv] [--each 10] [--only TEXT ...] [--scenarios NAME ...] [--keep DIR]

Each trial is one command line in a process of its own, forked from a parent that has imported everything, in a fresh folder that holds the
samples, the weights, the cache and the output. In it the k-th call of one file operation fails, does half its work, or kills the process;
k runs over all calls. Other trials kill at a random moment, damage files between two runs, or take away disk, files or permissions. The
command is then run again, undisturbed, in the same folder.

    succeeded     exit code 0 and the undisturbed run's digests
    clean_error   a message of genbench's own, and its exit code
    killed        by the signal, which is the fault
    unclean       a traceback, or a message without a word of what to do
    rerun_equal   the second run ended with exit code 0 and the undisturbed run's digests
    lost          a wrong digest, a half-written file under its final name, a temporary file that stays, or a second run that is not equal

Scenarios: `eval` reads a folder and a zip archive, extracts nine shards and writes cache, record, tables and CSV; `cached` does so with a
full cache; `reread` reads a tar archive that memory does not hold; `bench` trains, saves, samples and scores two baselines.
"""

import argparse
import builtins
import csv
import errno
import io
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FIELDS = ("kind", "scenario", "injections", "succeeded", "clean_error", "killed", "unclean", "rerun_equal", "lost")
SCENARIOS = ("eval", "cached", "reread", "bench")
Hook = Callable[[Path], None]


# -- file operations that fail ---------------------------------------------------------------------------------------------------------


class Faults:
    """Puts itself between Python and the file operations of one process, for files below a folder.

    Files are then opened by the standard library's Python twin of `io`, so that each read and write is a call that can fail.

    Args:
        root: the folder; other files are left alone.
        operation: which calls count; "" for none.
        at: number of the first call that is hit, from 1.
        effect: an errno, a signal (negative), "short" or "memory".
        sticky: hit all calls from then on.
        under: only paths with this in them.
    """

    OPERATIONS = ("open", "read", "write", "fsync", "rename", "mkdir", "list", "stat", "unlink", "lock", "decode")

    def __init__(self, root: Path, operation: str = "", at: int = 0, effect: Any = None, sticky: bool = False, under: str = "") -> None:
        self.root, self.under = f"{root}{os.sep}", under
        self.operation, self.at, self.effect, self.sticky = operation, at, effect, sticky
        self.calls: Counter[str] = Counter()
        self.paths: dict[int, str] = {}
        self.met = root.parent / "met"  # is there once a fault has happened
        self.met.unlink(missing_ok=True)

    def hit(self, operation: str, path: Any) -> bool:
        """Count a call; raise or kill where it is its turn; True where it is to do half its work."""
        name = self.paths.get(path, "") if isinstance(path, int) else os.fsdecode(path) if path is not None else ""
        if not name.startswith(self.root) or self.under not in name:
            return False
        self.calls[operation] += 1
        now = self.calls[operation]
        if operation != self.operation or now < self.at or (now > self.at and not self.sticky):
            return False
        if not os.path.lexists(self.met):
            os.mkfifo(self.met)  # in one call that is none of those that are replaced
        if self.effect == "short":
            return True
        if self.effect == "memory":
            raise MemoryError
        if self.effect < 0:
            os.kill(os.getpid(), -self.effect)
            return False
        raise OSError(self.effect, os.strerror(self.effect), name)

    def install(self) -> None:
        """Replace the functions of os, io, fcntl and the image decoder. There is no way back: the process is for one trial."""
        import _pyio
        import fcntl

        from genbench import samples

        real = {n: getattr(os, n) for n in ("open", "read", "write", "fsync", "close")}
        plain = io.open

        def opened(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            self.hit("open", path)
            handle = int(real["open"](path, flags, *rest, **more))
            self.paths[handle] = os.path.join(self.root, os.fsdecode(path))
            return handle

        def closed(handle: int) -> None:
            self.paths.pop(handle, None)
            real["close"](handle)

        def read(handle: int, n: int) -> Any:
            return real["read"](handle, max(1, n // 2) if self.hit("read", handle) else n)

        def write(handle: int, data: Any) -> Any:
            return real["write"](handle, memoryview(data).cast("B")[: max(1, len(data) // 2)] if self.hit("write", handle) else data)

        def any_open(file: Any, *rest: Any, **more: Any) -> Any:
            inside = isinstance(file, str | bytes | os.PathLike) and os.fsdecode(file).startswith(self.root)
            return (_pyio.open if inside else plain)(file, *rest, **more)

        def counted(operation: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def called(*rest: Any, **more: Any) -> Any:
                self.hit(operation, rest[0] if rest else None)
                return function(*rest, **more)

            return called

        os.open, os.read, os.write, os.close = opened, read, write, closed  # type: ignore[assignment]
        os.fsync = counted("fsync", real["fsync"])
        for name, operation in (
            ("replace", "rename"),
            ("rename", "rename"),
            ("mkdir", "mkdir"),
            ("scandir", "list"),
            ("listdir", "list"),
            ("stat", "stat"),
            ("unlink", "unlink"),
        ):
            setattr(os, name, counted(operation, getattr(os, name)))
        fcntl.flock = lambda f, how, real=fcntl.flock: (self.hit("lock", f if isinstance(f, int) else f.fileno()), real(f, how))[1]
        decode = samples.decode
        samples.decode = lambda data: (self.hit("decode", self.root + self.under), decode(data))[1]
        builtins.open = io.open = any_open  # type: ignore[assignment]


# -- one command in one process --------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """How a process ended: exit code (negative: the signal) and what it said."""

    code: int
    said: str


def spawn(folder: Path, scenario: str, hook: Hook | None, errors: Path) -> int:
    """Fork a process that runs the scenario's command; returns its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        out = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "w", closefd=False), line_buffering=True) for n in (1, 2))
        os.chdir(folder)
        os.environ["GENBENCH_CACHE"] = str(folder / "cache")
        sys.argv = ["genbench", *command(folder, scenario)]
        if hook is not None:
            hook(folder)
        from genbench import cli

        cli.main()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 98
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = code or 97
        os._exit(code)


def wait(child: int, errors: Path, kill_after: float | None = None, how: int = signal.SIGKILL) -> Result:
    """How the process ended; killed before, where that is asked."""
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, how)
    _, status = os.waitpid(child, 0)
    return Result(os.waitstatus_to_exitcode(status), errors.read_text(errors="replace"))


def run(folder: Path, scenario: str, hook: Hook | None = None, kill_after: float | None = None, how: int = signal.SIGKILL) -> Result:
    """Run the scenario's command once."""
    errors = folder.parent / f"{folder.name}.said"
    return wait(spawn(folder, scenario, hook, errors), errors, kill_after, how)


# -- scenarios -------------------------------------------------------------------------------------------------------------------------


def command(folder: Path, scenario: str) -> list[str]:
    """The command line of a scenario."""
    if scenario == "bench":
        return ["bench", "faults", "--out", str(folder / "out")]
    samples = folder / ("samples.tar" if scenario == "reread" else "samples")
    return [
        *("eval", str(samples), "--reference", str(folder / "reference.zip"), "--protocol", "faults-1", "--workers", "1", "--quiet"),
        *("--weights", str(folder / "digits.safetensors"), "--out", str(folder / "out"), "--csv", str(folder / "table.csv")),
    ]


def prepare(folder: Path) -> None:
    """The files that all scenarios read, a protocol with small shards and a suite with small sets; imports all that a run needs."""
    from PIL import Image

    from genbench import bench, open_samples, run
    from genbench.datasets import digits
    from genbench.protocol import Protocol

    digits.PROTOCOLS["faults-1"] = Protocol("faults-1", "*", ("kid", "prdc", "duplicates"), "digits", shard=16)
    small = Protocol("faults-2", "ring8/test", ("kid", "prdc"), "identity", n=120, n_ref=150)
    tasks = (bench.Task("ring8", "vectors", small),)
    bench.SUITES["faults"] = bench.Suite("faults", "two baselines, small sets", tasks, ("test_set", "independent"), 1)
    images = open_samples("digits/test").read(0, 144)
    files = {}
    for i, image in enumerate(images):
        out = io.BytesIO()
        Image.fromarray(image[0]).save(out, "png")
        files[f"{i:03d}.png"] = out.getvalue()
    folder.mkdir(parents=True)
    (folder / "samples").mkdir()
    with zipfile.ZipFile(folder / "reference.zip", "w") as z, tarfile.open(folder / "samples.tar", "w") as t:
        for i, (name, data) in enumerate(files.items()):
            if i < 64:
                (folder / "samples" / name).write_bytes(data)
                member = tarfile.TarInfo(name)
                member.size = len(data)
                t.addfile(member, io.BytesIO(data))
            else:
                z.writestr(name, data)
    shipped = Path(digits.__file__).parent.parent / "extractors" / "_weights" / "digits.safetensors"
    shutil.copy(shipped, folder / "digits.safetensors")
    run.environment("cpu")  # the commit is looked up once, however often the checkout changes meanwhile


def warm(folder: Path) -> None:
    """Import what a run imports, by running it here. Nothing of it may leave a thread behind: the process is forked later."""
    from genbench import cli

    os.environ["GENBENCH_CACHE"] = str(folder / "cache")
    for scenario in ("eval", "bench"):
        with open(os.devnull, "w") as nowhere:
            held = sys.stdout, sys.stderr
            sys.stdout = sys.stderr = nowhere
            try:
                code = cli.run(command(folder, scenario))
            finally:
                sys.stdout, sys.stderr = held
        if code:
            raise SystemExit(f"the undisturbed {scenario} ends with exit code {code}")
    for made in ("cache", "out"):
        shutil.rmtree(folder / made)
    (folder / "table.csv").unlink()


def before(scenario: str) -> Hook:
    """What a scenario sets up in its process."""

    def hook(_: Path) -> None:
        if scenario == "reread":
            from genbench import arrays

            arrays.CACHE_BYTES = 0

    return hook


@dataclass
class State:
    """What a run leaves: digests of its records, and every other file's bytes.

    Args:
        records: their ids; None where a file is no whole record.
        tables: where a leaderboard differs from its records.
        files: relative name -> bytes, for shards and tables that hold no time.
        left: temporary files.
    """

    records: set[str | None] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path) -> "State":
        from genbench import leaderboard
        from genbench.errors import DataError
        from genbench.run import Run

        found = cls()
        try:
            found.tables = leaderboard.check(folder / "out") if (folder / "out").is_dir() else []
        except DataError as e:
            found.tables = [str(e)]
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = str(path.relative_to(folder))
            if path.suffix == ".part":
                found.left.append(name)
            elif name.startswith("cache/") or name == "table.csv" or (path.suffix == ".csv" and path.name != "table.csv"):
                found.files[name] = path.read_bytes()
            elif path.suffix == ".json" and path.parent.name in ("runs", "out"):
                try:
                    found.records.add(Run.load(path).id)
                except DataError:
                    found.records.add(None)
        return found


class Bench:
    """A prepared folder, the undisturbed state of each scenario, and trials.

    Args:
        work: for the trials' folders.
        scenarios: those that are needed; `eval` makes the full cache of `cached`.
    """

    def __init__(self, work: Path, scenarios: Sequence[str] = SCENARIOS) -> None:
        self.work, self.source = work, work / "source"
        prepare(self.source)
        warm(self.source)
        if len(os.listdir("/proc/self/task")) != 1:
            raise SystemExit("a library has started a thread in the parent; set OMP_NUM_THREADS=1")
        self.count = itertools.count()
        self.whole: dict[str, State] = {}
        self.calls: dict[str, Counter[str]] = {}
        self.seconds: dict[str, float] = {}
        for scenario in scenarios:
            folder = self.fresh(scenario)
            started = time.perf_counter()
            done = run(folder, scenario, before(scenario))
            self.seconds[scenario] = time.perf_counter() - started
            if done.code:
                raise SystemExit(f"the undisturbed {scenario} failed:\n{done.said}")
            self.whole[scenario] = State.of(folder)
            if scenario == "eval":
                shutil.copytree(folder / "cache", self.work / "full")
            self.calls[scenario] = self.counted(scenario)

    def fresh(self, scenario: str) -> Path:
        """A new folder with all that the scenario reads; the same path each time, as it is in the record."""
        folder = self.work / "trial"
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(self.source, folder)
        if scenario == "cached":
            shutil.copytree(self.work / "full", folder / "cache")
        return folder

    def counted(self, scenario: str) -> Counter[str]:
        """How often an undisturbed run calls each operation."""
        folder = self.fresh(scenario)
        told = self.work / "calls.json"

        def hook(where: Path) -> None:
            import atexit

            before(scenario)(where)
            faults = Faults(where)
            faults.install()
            done = sys.exit

            def end(code: Any = None) -> None:
                told.write_text(json.dumps(faults.calls))
                done(code)

            sys.exit = end  # type: ignore[assignment]
            atexit.unregister(end)

        run(folder, scenario, hook)
        return Counter(json.loads(told.read_text()))

    def judge(self, scenario: str, folder: Path, first: Sequence[Result], row: Counter[str]) -> None:
        """Count how a trial ended, run the command again, and compare."""
        whole = self.whole[scenario]
        row["injections"] += 1
        after, bad = State.of(folder), []
        for result in first:
            if result.code == 0:
                row["succeeded"] += 1
                if (after.records, after.tables) != (whole.records, whole.tables):
                    bad.append(f"exit code 0 with records {after.records} and tables {after.tables}, expected {whole}")
            elif result.code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT):
                row["killed"] += 1
            elif "Traceback" not in result.said and "genbench: " in result.said and result.code in (1, 2, 3, 130):
                row["clean_error"] += 1
            else:
                row["unclean"] += 1
                bad.append(f"unclean, exit code {result.code}:\n{result.said}")
        bad += [f"a record that is not whole, or another one: {r}" for r in after.records - whole.records]
        bad += [f"not the undisturbed file: {n}" for n, data in after.files.items() if whole.files.get(n) != data]
        again = run(folder, scenario, before(scenario))
        state = State.of(folder)
        if again.code == 0 and (state.records, state.files, state.tables) == (whole.records, whole.files, whole.tables):
            row["rerun_equal"] += 1
        else:
            bad.append(f"second run, exit code {again.code}: {state.records}, {set(state.files) ^ set(whole.files)}\n{again.said}")
        bad += [f"temporary files stay: {state.left}"] if state.left else []
        row["lost"] += bool(bad)
        for what in bad:
            print(f"  {what}", file=sys.stderr)

    def faulty(self, scenario: str, faults: Callable[[Path], Faults], row: Counter[str]) -> None:
        """A trial whose first run meets a fault of a file operation."""
        folder = self.fresh(scenario)

        def hook(where: Path) -> None:
            before(scenario)(where)
            faults(where).install()

        done = run(folder, scenario, hook)
        if (self.work / "met").exists():  # else the run has fewer such calls than were counted
            self.judge(scenario, folder, [done], row)


# -- kinds of fault --------------------------------------------------------------------------------------------------------------------

Trial = Callable[[Bench, str, Counter[str]], None]


def spread(count: int, each: int) -> list[int]:
    """Up to `each` numbers spread over 1 ... count, first and last among them; the middle one where one is asked for."""
    if count <= each:
        return list(range(1, count + 1))
    return sorted({1 + round(i * (count - 1) / (each - 1)) for i in range(each)}) if each > 1 else [(count + 1) // 2]


def at_each_call(operation: str, effect: Any, *, sticky: bool = False, under: str = "") -> Callable[[Bench, str, int], Iterator[Trial]]:
    """Trials of one fault at the k-th call, for all k or as many as there is time for."""

    def trials(bench: Bench, scenario: str, each: int) -> Iterator[Trial]:
        for k in spread(bench.calls[scenario][operation], each):

            def trial(b: Bench, s: str, row: Counter[str], k: int = k) -> None:
                b.faulty(s, lambda where: Faults(where, operation, k, effect, sticky, under), row)

            yield trial

    return trials


def at_a_moment(how: int) -> Callable[[Bench, str, int], Iterator[Trial]]:
    """Trials of a signal at a random moment."""

    def trials(bench: Bench, scenario: str, each: int) -> Iterator[Trial]:
        draw = random.Random(f"{scenario} {how}")
        for _ in range(each):
            after = draw.uniform(0.01, 0.8 * bench.seconds[scenario])

            def trial(b: Bench, s: str, row: Counter[str], after: float = after) -> None:
                folder = b.fresh(s)
                done = run(folder, s, before(s), after, how)
                if done.code:  # else it was too late
                    b.judge(s, folder, [done], row)

            yield trial

    return trials


def between(damage: Callable[[list[Path], random.Random], None], pattern: str) -> Callable[[Bench, str, int], Iterator[Trial]]:
    """Trials that damage files, which a finished run has left, before the next one."""

    def trials(bench: Bench, scenario: str, each: int) -> Iterator[Trial]:
        for seed in range(each):

            def trial(b: Bench, s: str, row: Counter[str], seed: int = seed) -> None:
                folder = b.fresh(s)
                if s != "cached":
                    run(folder, s, before(s))
                damage(sorted(folder.glob(pattern)), random.Random(seed))
                b.judge(s, folder, [run(folder, s, before(s))], row)

            yield trial

    return trials


def truncated(files: list[Path], draw: random.Random) -> None:
    path = draw.choice(files)
    os.truncate(path, draw.randrange(path.stat().st_size))


def flipped(files: list[Path], draw: random.Random) -> None:
    path = draw.choice(files)
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def zeroed(files: list[Path], draw: random.Random) -> None:
    path = draw.choice(files)
    path.write_bytes(bytes(path.stat().st_size))


def exchanged(files: list[Path], draw: random.Random) -> None:
    one, other = draw.sample(files, 2)
    shutil.copy(one, other)


def replaced_by_text(files: list[Path], draw: random.Random) -> None:
    draw.choice(files).write_text("404 not found\n")


def litter(files: list[Path], draw: random.Random) -> None:
    path = draw.choice(files)
    (path.parent / ".genbench-0123456789abcdef.part").write_bytes(path.read_bytes()[: draw.randrange(100)])
    path.unlink()


def limited(what: int, values: Callable[[int], Sequence[int]]) -> Callable[[Bench, str, int], Iterator[Trial]]:
    """Trials under a limit of the system itself."""

    def trials(bench: Bench, scenario: str, each: int) -> Iterator[Trial]:
        for value in values(each):

            def trial(b: Bench, s: str, row: Counter[str], value: int = value) -> None:
                def hook(where: Path) -> None:
                    before(s)(where)
                    resource.setrlimit(what, (value, resource.getrlimit(what)[1]))

                folder = b.fresh(s)
                b.judge(s, folder, [run(folder, s, hook)], row)

            yield trial

    return trials


def together(kill: bool) -> Callable[[Bench, str, int], Iterator[Trial]]:
    """Trials of two processes in one folder at once, one of which is killed or not."""

    def trials(bench: Bench, scenario: str, each: int) -> Iterator[Trial]:
        draw = random.Random(f"{scenario} together {kill}")
        for _ in range(each):
            later, after = draw.uniform(0, 0.1), draw.uniform(0.02, bench.seconds[scenario])

            def trial(b: Bench, s: str, row: Counter[str], later: float = later, after: float = after) -> None:
                folder = b.fresh(s)
                said = [b.work / "first.said", b.work / "second.said"]
                first = spawn(folder, s, before(s), said[0])
                time.sleep(later)
                second = spawn(folder, s, before(s), said[1])
                results = [wait(first, said[0], after if kill else None), wait(second, said[1])]
                b.judge(s, folder, results[1:], row)
                if not kill and results[0].code:
                    row["lost"] += 1
                    print(f"  of two at once: {results[0]}", file=sys.stderr)

            yield trial

    return trials


def clock(step: float) -> Callable[[Bench, str, int], Iterator[Trial]]:
    """Trials in which the clock is set while the run goes on."""

    def trials(bench: Bench, scenario: str, each: int) -> Iterator[Trial]:
        for k in range(min(each, 4)):

            def trial(b: Bench, s: str, row: Counter[str], k: int = k) -> None:
                def hook(where: Path) -> None:
                    before(s)(where)
                    real, calls = time.time, itertools.count()
                    time.time = lambda: real() + step * (next(calls) >= k)

                folder = b.fresh(s)
                b.judge(s, folder, [run(folder, s, hook)], row)

            yield trial

    return trials


EVERY, FILES, SHARDS, CACHED = SCENARIOS, ("eval", "reread"), "cache/features/??/*", ("cached",)
KINDS: dict[str, tuple[Sequence[str], Callable[[Bench, str, int], Iterator[Trial]]]] = {
    **{
        f"{operation}: {errno.errorcode[code]}": (scenarios, at_each_call(operation, code))
        for operation, codes, scenarios in (
            ("open", (errno.EIO, errno.EACCES, errno.EMFILE), EVERY),
            ("read", (errno.EIO, errno.ESTALE), EVERY),
            ("write", (errno.ENOSPC, errno.EIO, errno.EDQUOT), EVERY),
            ("fsync", (errno.EIO, errno.ENOSPC, errno.EINVAL), ("eval", "bench")),
            ("rename", (errno.EIO, errno.EACCES, errno.EROFS), ("eval", "bench")),
            ("mkdir", (errno.ENOSPC, errno.EACCES), ("eval", "bench")),
            ("list", (errno.EIO, errno.EACCES), ("eval", "bench")),
            ("stat", (errno.EIO, errno.ESTALE), ("eval", "bench")),
            ("lock", (errno.ENOLCK, errno.EWOULDBLOCK), ("eval", "bench")),
            ("decode", (errno.EIO,), FILES),
        )
        for code in codes
    },
    "read: short": (EVERY, at_each_call("read", "short")),
    "write: short": (EVERY, at_each_call("write", "short")),
    "decode: no memory": (FILES, at_each_call("decode", "memory")),
    "disk full from some write on": (("eval", "bench"), at_each_call("write", errno.ENOSPC, sticky=True)),
    "disk dead from some read on": (("eval", "cached"), at_each_call("read", errno.EIO, sticky=True)),
    "write fails and so does the clean-up": (("eval",), at_each_call("unlink", errno.EIO, sticky=True)),
    "cache on a read-only disk": (("eval", "cached"), at_each_call("open", errno.EROFS, sticky=True, under="/cache/")),
    "cache without permission": (("eval",), at_each_call("mkdir", errno.EACCES, sticky=True, under="/cache/")),
    **{
        f"{name} at the k-th {operation}": (("eval", "bench"), at_each_call(operation, -how))
        for name, how in (("SIGKILL", signal.SIGKILL), ("SIGTERM", signal.SIGTERM), ("SIGINT", signal.SIGINT))
        for operation in ("open", "write", "fsync", "rename")
    },
    "SIGKILL at a random moment": (EVERY, at_a_moment(signal.SIGKILL)),
    "SIGTERM at a random moment": (EVERY, at_a_moment(signal.SIGTERM)),
    "SIGINT at a random moment": (EVERY, at_a_moment(signal.SIGINT)),
    "shard truncated": (CACHED, between(truncated, SHARDS)),
    "shard with one bit flipped": (CACHED, between(flipped, SHARDS)),
    "shard of zeros": (CACHED, between(zeroed, SHARDS)),
    "shard of another key": (CACHED, between(exchanged, SHARDS)),
    "shard replaced by text": (CACHED, between(replaced_by_text, SHARDS)),
    "shard half written by a killed process": (CACHED, between(litter, SHARDS)),
    "record truncated": (("bench",), between(truncated, "out/*/runs/*.json")),
    "record replaced by text": (("bench",), between(replaced_by_text, "out/*/runs/*.json")),
    "checkpoint truncated": (("bench",), between(truncated, "out/models/*/*/model.*")),
    "limit of a file's size": (EVERY, limited(resource.RLIMIT_FSIZE, lambda each: [2500 + 400 * i for i in range(min(each, 12))])),
    "limit of open files": (EVERY, limited(resource.RLIMIT_NOFILE, lambda each: [3 + i for i in range(min(each, 16))])),
    "two processes at once": (("eval", "cached"), together(kill=False)),
    "two processes at once, one killed": (("eval",), together(kill=True)),
    "clock set back by a year": (("eval", "bench"), clock(-3e7)),
    "clock set forward by a year": (("eval", "bench"), clock(3e7)),
}


def measure(work: Path, each: int, only: Sequence[str] = (), chosen: Sequence[str] = SCENARIOS) -> list[dict[str, Any]]:
    """All trials of all kinds; one row per kind and scenario.

    Args:
        work: an empty folder.
        each: the most trials of one kind in one scenario.
        only: parts of kinds' names.
        chosen: scenarios.
    """
    bench = Bench(work, [s for s in SCENARIOS if s in chosen or (s == "eval" and "cached" in chosen)])
    rows = []
    for kind, (scenarios, trials) in KINDS.items():
        if only and not any(text in kind for text in only):
            continue
        for scenario in (s for s in scenarios if s in chosen):
            row: Counter[str] = Counter()
            for trial in trials(bench, scenario, each):
                trial(bench, scenario, row)
            if row["injections"]:
                rows.append({"kind": kind, "scenario": scenario} | {f: row[f] for f in FIELDS[2:]})
                print(f"{kind:42} {scenario:7}", " ".join(f"{k}={v}" for k, v in row.items()), flush=True)
    return rows


def main() -> int:
    """Write the table; exit code 1 where anything was lost or unclean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--scenarios", nargs="*", default=SCENARIOS, choices=SCENARIOS)
    parser.add_argument("--keep", type=Path, help="folder for the trials; a temporary one where it is not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(arguments.keep or Path(temporary), arguments.each, arguments.only, arguments.scenarios)
    with open(arguments.out, "w", newline="") as f:
        writer = csv.DictWriter(f, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    total = {f: sum(r[f] for r in rows) for f in FIELDS[2:]}
    print(f"{len({r['kind'] for r in rows})} kinds: {total}")
    return 1 if total["lost"] or total["unclean"] else 0


if __name__ == "__main__":
    sys.exit(main())
