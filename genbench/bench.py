"""Suites: train, sample, score; records and leaderboards come out, and a second run of the same command goes on where the first stopped.

A suite is data: tasks (datasets under their protocols), baselines and a number of seeds. A cell is one (task, baseline, config, seed). Its
record's place is `<out>/<protocol>/runs/`, its checkpoint's `<out>/models/`. A cell whose record is there, with the same config and the
same protocol hash, is not computed again; what a killed run had trained of one is continued. A cell that fails is recorded under
`<out>/<protocol>/failures/`, counted in the table, tried again next time, and does not stop the others.

A budget is a number of steps, so that it can be done again. Where a baseline has none for a time, its steps are measured once and kept in
`<out>/budgets.json`.
"""

import dataclasses
import json
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench import families, leaderboard, models, registry, trained, training
from genbench import protocol as _protocol
from genbench.errors import DataError, FailedError, GenbenchError, UsageError, near_miss
from genbench.files import listed, write_atomic
from genbench.models import TrainingData
from genbench.protocol import Protocol
from genbench.run import Run, printable
from genbench.trained import Choice

if TYPE_CHECKING:
    from genbench.samples import Samples

Progress = Callable[..., None]

# What a cell may die of without ending the suite. Interrupts and exits are not here; neither is anything that says the program itself is
# broken beyond the cell.
CELL_FAULTS = (
    GenbenchError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    Warning,
)


@dataclass(frozen=True)
class Task:
    """A dataset of a suite.

    Args:
        dataset: its name.
        kind: "images" or "vectors".
        protocol: a protocol or its name; None for the newest of the dataset's own, "<dataset>-<version>".
    """

    dataset: str
    kind: str
    protocol: str | Protocol | None = None


@dataclass(frozen=True)
class Suite:
    """What `genbench bench NAME` runs.

    Args:
        name: of the suite.
        summary: one line.
        tasks: datasets.
        baselines: names; None for every baseline that has a recipe, without its variants.
        seeds: training seeds per baseline.
        budget: such as "5min": for how long the baselines that learn in steps are trained; None for RECIPES as they stand.
        also: variants that run beside the baselines, such as "made:fvsbn".
    """

    name: str
    summary: str
    tasks: tuple[Task, ...]
    baselines: tuple[str, ...] | None = None
    seeds: int = 3
    budget: str | None = None
    also: tuple[str, ...] = ()


QUICK = ("test_set", "train_replay", "train_noise", "one_class", "blurred", "uniform_noise", "gmm", "kde", "independent")
TOYS = ("ring8", "ring8-r2", "two-gaussians", "grid25", "moons", "checkerboard", "pinwheel", "swissroll")
SUITES = {
    s.name: s
    for s in (
        Suite(
            "quick",
            "controls and classical models on ring8 and digits, no download",
            (Task("ring8", "vectors", "ring8-quick-2"), Task("digits", "images")),
            QUICK,
            2,
        ),
        Suite("toy2d", "every baseline on the 2-D toys", tuple(Task(t, "vectors") for t in TOYS)),
        Suite("digits", "every baseline on scikit-learn's digits", (Task("digits", "images"),), also=("made:fvsbn",)),
        Suite(
            "digits-conditional",
            "class-conditional models of every family on scikit-learn's digits, each sample with the class that it was drawn for",
            (Task("digits", "images", "digits-conditional-1"),),
            (
                "test_set",
                "train_replay",
                "train_replay:shuffled",
                "one_class",
                "gmm:conditional",
                "pixelcnn:conditional",
                "vae:conditional",
                "gan:conditional",
                "realnvp:conditional",
                "ebm:conditional",
                "ddpm:conditional",
                "flow_matching:conditional",
                "flow_matching:guided",
            ),
        ),
        Suite("mnist", "every baseline on MNIST", (Task("mnist", "images"),), seeds=1),
        Suite(
            "mnist-dynbin",
            "likelihoods and samples on dynamically binarised MNIST, 5 minutes of training each",
            (Task("mnist-dynbin", "images"),),
            seeds=1,
            budget="5min",
            also=("made:fvsbn",),
        ),
        Suite(
            "cifar10",
            "deep families on CIFAR-10, about 20 minutes of one GPU each (steps sized by arithmetic, none measured yet)",
            (Task("cifar10", "images"),),
            ("flow_matching", "ddpm", "gan", "glow", "pixelcnn"),
            seeds=1,
            budget="20min",
        ),
    )
}


@dataclass(frozen=True)
class Cell:
    """One unit of work.

    Args:
        task: dataset and protocol.
        protocol: resolved.
        baseline: name.
        module: the baseline's module.
        config: resolved settings.
        seed: of training and of sampling.
        board: folder of its record.
        done: its record, if there is one.
        passed: the budget, where the suite has one.
        seconds: time whose steps are still to be measured; None where the settings are final.
    """

    task: Task
    protocol: Protocol
    baseline: str
    module: types.ModuleType
    config: models.Config
    seed: int
    board: Path
    done: Run | None
    passed: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None

    @property
    def choice(self) -> Choice:
        """Baseline and settings."""
        return Choice(self.baseline, self.module, self.config, self.passed, self.seconds)

    @property
    def label(self) -> str:
        """For people and file names: no character that a file system minds."""
        return label(self.baseline, self.config.to_dict(), self.seed)

    @property
    def failure(self) -> Path:
        """Where a failure is recorded."""
        return self.board / "failures" / f"{self.label}.json"


def label(baseline: str, settings: Mapping[str, Any], seed: int) -> str:
    """Name of a cell's folder."""
    return f"{baseline.replace(':', '-')}-{models.settings_hash(settings)[:8]}-seed{seed}"


def find(name: str) -> Suite:
    """The suite of that name.

    Raises:
        UsageError: there is none; the message has the near miss.
    """
    if name not in SUITES:
        raise near_miss(name, SUITES, "suite")
    return SUITES[name]


def protocol_of(task: Task) -> Protocol:
    """The task's protocol: the one it gives or names, else the newest of the dataset's own.

    Raises:
        UsageError: the dataset has no protocol "<dataset>-<version>".
    """
    if isinstance(task.protocol, str):
        return _protocol.protocol(task.protocol).resolved()
    if task.protocol is not None:
        return task.protocol.resolved()
    own: dict[str, Protocol] = getattr(registry.dataset(task.dataset), "PROTOCOLS", {})
    parts = [(p, p.name.rpartition("-")) for p in own.values()]
    versions = {int(last): p for p, (first, _, last) in parts if first == task.dataset and last.isdigit()}
    if not versions:
        raise UsageError(f"dataset {task.dataset} has no protocol of its own; add {task.dataset}-1 to PROTOCOLS in its file")
    return versions[max(versions)].resolved()


def plan(
    chosen: Suite,
    folder: Path,
    *,
    only: Sequence[str] = (),
    seeds: int | None = None,
    budget: str | None = None,
    work: Path | None = None,
) -> tuple[list[Cell], list[tuple[str, str, str]]]:
    """The suite's cells, and what is left out: (dataset, baseline, why).

    Args:
        chosen: the suite.
        folder: where the boards are, to see what is done.
        only: names of baselines; none for the suite's own. An installed baseline that the suite does not list may be named too.
        seeds: training seeds per baseline.
        budget: of training; None for the suite's own.
        work: where the measured budgets are kept; None for the same folder.
    """
    budget = budget or chosen.budget
    count = chosen.seeds if seeds is None else seeds
    if count < 1:
        raise UsageError(f"seeds is at least 1, found {count}")
    for name in only:
        trained.named(name)
    names = list(dict.fromkeys(only)) or [*(registry.modules("baselines") if chosen.baselines is None else chosen.baselines), *chosen.also]
    shape = {"images": (1, 1, 1), "vectors": (1,)}
    cells: list[Cell] = []
    left_out: list[tuple[str, str, str]] = []
    for task in chosen.tasks:
        found = protocol_of(task)
        board = folder / found.name
        done = _done(board)
        for name in names:
            choice = trained.choose(name, task.dataset, shape[task.kind], budget=budget)
            if choice is None:
                recipes = ", ".join(models.recipes_of(*trained.named(name)))
                left_out.append((task.dataset, name, f"no recipe for {task.kind}; it has {recipes}"))
                continue
            choice = _known(choice, task.dataset, work or folder)
            for seed in range(count):
                key = _key(name, choice.config.to_dict(), seed, found.hash)
                ran = done.get(key) if choice.seconds is None else None
                cells.append(Cell(task, found, name, choice.module, choice.config, seed, board, ran, dict(choice.passed), choice.seconds))
    return cells, left_out


def _budget_key(choice: Choice, dataset: str) -> str:
    return json.dumps([choice.name, dataset, choice.passed.get("budget"), choice.config.hash, training.current().device])


def _known(choice: Choice, dataset: str, work: Path) -> Choice:
    """The choice with the steps that were measured for it before, if they were."""
    if choice.seconds is None:
        return choice
    steps = _budgets(work).get(_budget_key(choice, dataset))
    if steps is None:
        return choice
    return dataclasses.replace(choice, config=dataclasses.replace(choice.config, steps=steps), seconds=None)


def _budgets(work: Path) -> dict[str, int]:
    path = work / "budgets.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: not readable ({e}); delete it, and steps are measured again") from e
    if not isinstance(found, dict) or not all(type(v) is int and v > 0 for v in found.values()):
        raise DataError(f"{path}: expected numbers of steps, found others; delete it, and steps are measured again")
    return found


def _settled(cell: Cell, data: TrainingData, work: Path) -> Cell:
    """The cell with final settings: its steps are measured, and kept for its other seeds and the next run."""
    if cell.seconds is None:
        return cell
    choice = _known(cell.choice, cell.task.dataset, work)
    if choice.seconds is not None:
        key, choice = _budget_key(choice, cell.task.dataset), trained.measured(choice, data)
        if isinstance(choice.config, training.Config):
            text = json.dumps(_budgets(work) | {key: choice.config.steps}, indent=1, sort_keys=True)
            write_atomic(work / "budgets.json", (text + "\n").encode())
    ran = _done(cell.board).get(_key(cell.baseline, choice.config.to_dict(), cell.seed, cell.protocol.hash))
    return dataclasses.replace(cell, config=choice.config, seconds=None, done=ran)


def _key(baseline: str, config: Any, seed: int, protocol_hash: str) -> str:
    return json.dumps([baseline, config, seed, protocol_hash], sort_keys=True)


def _done(board: Path) -> dict[str, Run]:
    """The records of a board by cell. A damaged one is said and left aside: its cell is computed again."""
    found = {}
    for path in listed(board / "runs", ".json"):
        try:
            run = Run.load(path)
        except DataError as e:
            if isinstance(e.__cause__, OSError):  # which does not make it a bad one
                raise DataError(f"{e}; check the disk, or give yourself permission to read it, then run again") from e
            print(f"genbench: {printable(e)}; set aside as {printable(path.name)}.damaged and computed again", file=sys.stderr)
            path.replace(path.with_name(path.name + ".damaged"))
            continue
        baseline = run.record["subject"].get("baseline")
        if baseline:
            settings = trained.completed(baseline["name"], baseline["config"])
            found[_key(baseline["name"], settings, baseline["seed"], run.record["protocol"]["hash"])] = run
    return found


def bench(
    suite: str | Suite,
    *,
    only: Sequence[str] = (),
    seeds: int | None = None,
    budget: str | None = None,
    device: str = "auto",
    dry_run: bool = False,
    out: str | Path | None = None,
    publish: bool = False,
    cache: str | Path | None = "auto",
    progress: Progress | None = None,
) -> list[Run]:
    """Train, sample and score every cell of a suite that has no record yet; write leaderboards and print them.

    Args:
        suite: a name ("quick"), or one made by hand.
        only: names of the baselines to run; none for all of the suite's.
        seeds: training seeds per baseline; None for the suite's own.
        budget: of training, such as "1min"; None for the suite's own.
        device: that trains and samples: auto, cpu or cuda.
        dry_run: print the plan and stop; torch is not imported.
        out: folder for records, tables and checkpoints; None for ./genbench-runs/SUITE.
        publish: write records and tables into the project's leaderboards/ instead.
        cache: folder for extracted features; "auto" for the user's cache folder, None for no cache.
        progress: called with (what, done, total).

    Returns:
        The records of all cells, in the plan's order, those that were there before included.

    Raises:
        UsageError: an unknown suite or baseline.
        MissingError: a dataset is not there; nothing has been trained then.
        FailedError: at least one cell failed; the others were kept.
    """
    chosen = find(suite) if isinstance(suite, str) else suite
    work = Path(out) if out is not None else Path("genbench-runs") / chosen.name
    boards = _published() if publish else work
    with training.session(device=device):
        cells, left_out = plan(chosen, boards, only=only, seeds=seeds, budget=budget, work=work)
    if dry_run:
        _show_plan(chosen, cells, left_out, boards)
        return []
    for dataset, name, why in left_out:
        print(f"left out: {name} on {dataset}: {why}", file=sys.stderr)
    missing = dict.fromkeys(c.task for c in cells if c.done is None)
    data = {task: open_data(task) for task in missing}  # before any training, in case one is not there
    runs: list[Run] = []
    failed: list[str] = []
    for i, cell in enumerate(cells):
        if progress:
            progress(f"bench {chosen.name}", i, len(cells))
        if cell.done is not None:
            runs.append(cell.done)
            continue
        try:
            with training.session(device=device, progress=progress):
                cell = _settled(cell, data[cell.task], work)
                run = cell.done or run_cell(cell, data[cell.task], work / "models", cache)
        except CELL_FAULTS as e:
            why = f"{type(e).__name__}: {e}"
            failed.append(f"{cell.baseline} on {cell.task.dataset}, seed {cell.seed}: {why}")
            write_atomic(cell.failure, (json.dumps(_failure(cell, why), indent=1, sort_keys=True) + "\n").encode())
            print(f"genbench: failed: {printable(failed[-1])}", file=sys.stderr)
            continue
        leaderboard.save(run, cell.board)
        cell.failure.unlink(missing_ok=True)
        runs.append(run)
    if progress:
        progress(f"bench {chosen.name}", len(cells), len(cells))
    for board in dict.fromkeys(c.board for c in cells):
        if (board / "runs").is_dir() or (board / "failures").is_dir():
            (board / "runs").mkdir(exist_ok=True)
            leaderboard.write(board)
            leaderboard.show(leaderboard.tables(board))
            print(f"records and tables: {printable(board)}\n")
    if any((c.board / "runs").is_dir() for c in cells):
        families.write(boards)
    if failed:
        raise FailedError(
            f"{len(failed)} of {len(cells)} cells failed; the others were kept. Run the same command again to retry:\n  "
            + "\n  ".join(failed)
        )
    return runs


def run_cell(cell: Cell, data: TrainingData, folder: Path, cache: str | Path | None) -> Run:
    """Train, sample and score one cell. What a killed run had trained of it is continued.

    Args:
        cell: what to do.
        data: of its task.
        folder: for the checkpoint.
        cache: of extracted features.
    """
    home = folder / cell.protocol.name / cell.label
    model = trained.finished(home, cell.choice, data, cell.seed) or trained.build(cell.choice, data, seed=cell.seed, out=home)
    return score(model, cell.protocol, data, seed=cell.seed, cache=cache)


def score(model: models.Model, protocol: Protocol, data: TrainingData, *, seed: int, n: int | None = None, cache: str | Path | None) -> Run:
    """Score a trained baseline under a protocol, with what it cost.

    Args:
        model: with its provenance.
        protocol: resolved.
        data: that it was trained on.
        seed: of its samples.
        n: how many; None for the protocol's.
        cache: of extracted features.
    """
    from genbench.evaluation import evaluate

    n = n or protocol.n or len(data.test if data.test is not None else data.train)
    roles = {role for spec in protocol.specs for role in registry.metric(spec.name).needs}
    run = evaluate(
        generated(model, n, seed=seed),
        protocol=protocol,
        cache=cache,
        device=str(training.device()),
        train=data.train if "train" in roles else None,
        test=data.test if "test" in roles else None,
        progress=training.current().progress,
    )
    timing = run.record["timing"]  # no part of the record's id
    timing["training_seconds"] = round(model.seconds or 0.0, 3)
    timing["samples_per_second"] = float(f"{model.draw_count / model.draw_seconds:.4g}")
    return run


def generated(model: models.Model, n: int, *, seed: int) -> "Samples":
    """n samples of a model as a set to score, with the model's provenance for the record."""
    from genbench.samples import open_samples

    found = open_samples(model, n=n, seed=seed)
    found.name = model.provenance["name"]
    return found


def open_data(task: Task) -> TrainingData:
    """The splits of a task's dataset.

    Raises:
        MissingError: the dataset is not there.
    """
    data = trained.open_data(task.dataset)
    if data.images != (task.kind == "images"):
        raise UsageError(f"the suite says that {task.dataset} has {task.kind}, its shape is {data.shape}; mend the suite")
    return data


def _published() -> Path:
    home = leaderboard.home()
    if home.name.startswith("_"):
        raise UsageError("--publish writes into a checkout's leaderboards/, this genbench is installed; run it from a clone, or pass --out")
    return home


def _failure(cell: Cell, why: str) -> dict[str, Any]:
    return {
        "baseline": cell.baseline,
        "family": cell.module.FAMILY,
        "role": models.role(cell.module),
        "config": cell.config.to_dict(),
        "seed": cell.seed,
        "dataset": cell.task.dataset,
        "protocol": cell.protocol.name,
        "protocol_hash": cell.protocol.hash,
        "error": why,
    }


def _show_plan(chosen: Suite, cells: Sequence[Cell], left_out: Sequence[tuple[str, str, str]], boards: Path) -> None:
    from genbench.report import show_listing

    print(f"suite {chosen.name}: {chosen.summary}")
    rows: dict[tuple[str, str], list[Cell]] = {}
    for c in cells:
        rows.setdefault((c.task.dataset, c.baseline), []).append(c)
    show_listing(
        ["dataset", "protocol", "baseline", "family", "role", "seeds", "to do"],
        [
            [
                dataset,
                f"{group[0].protocol.name} {group[0].protocol.hash}",
                name,
                group[0].module.FAMILY,
                models.role(group[0].module),
                str(len(group)),
                str(sum(c.done is None for c in group)),
            ]
            for (dataset, name), group in rows.items()
        ],
    )
    for dataset, name, why in left_out:
        print(f"left out: {name} on {dataset}: {why}")
    print(f"{sum(c.done is None for c in cells)} of {len(cells)} cells to do; records and tables go to {printable(boards)}")
