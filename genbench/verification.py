"""Make a number again: retrain or resample a trained baseline from its record or run folder, and compare every quantity.

How far apart two values may be:

- on the same machine (processor, device, threads and package versions of the record) 1e-6 of 1 + |value|: the same seeds give the same
  bits;
- elsewhere 2.5 half-widths of the record's 95 % interval. Rounding sets two trainings on their own ways, so that the two runs are two
  draws of one law: a difference of two such values is larger once in 1,800 quantities. Where there is no interval, 5 % of the value.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genbench import models, trained, training
from genbench.bench import Task, label, open_data, score
from genbench.errors import DataError, FailedError, MissingError, UsageError
from genbench.files import listed
from genbench.models import TrainingData
from genbench.protocol import Protocol
from genbench.run import Run, check_shape, environment, printable
from genbench.trained import Choice

SAME, HALF_WIDTHS, SHARE = 1e-6, 2.5, 0.05
_MACHINE = ("cpu", "device", "threads", "platform", "packages")


@dataclass(frozen=True)
class Line:
    """One quantity, twice.

    Args:
        quantity: its name.
        recorded: as the record has it.
        found: now; None where there is none.
        tolerance: the largest difference that is allowed.
        why: why there is none now.
    """

    quantity: str
    recorded: float
    found: float | None
    tolerance: float
    why: str = ""

    @property
    def ok(self) -> bool:
        """Whether the two agree."""
        return self.found is not None and abs(self.found - self.recorded) <= self.tolerance


@dataclass(frozen=True)
class Verification:
    """Everything that was compared.

    Args:
        name: of the baseline.
        how: "retrained" or "resampled".
        lines: one per quantity.
        machine: how this machine differs from the record's; empty where it does not.
    """

    name: str
    how: str
    lines: tuple[Line, ...]
    machine: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all quantities agree, and there were some."""
        return bool(self.lines) and all(line.ok for line in self.lines)


def verify(
    source: str | Path,
    *,
    resample: bool = False,
    model: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    cache: str | Path | None = "auto",
    progress: training.Progress | None = None,
) -> Verification:
    """Make a trained baseline's numbers again and compare them with its record.

    Args:
        source: a run record, or a run folder; of one that genbench bench made, the record beside it is taken.
        resample: draw and score again from the checkpoint; False: train again first.
        model: the run folder with the checkpoint; None for the one beside the record.
        out: folder for the training; None for one under ./genbench-runs/verify. What is found there is continued.
        device: auto, cpu or cuda.
        cache: of extracted features; "auto" for the user's cache folder, None for no cache.
        progress: called with (what, done, total).

    Raises:
        UsageError: the record is not that of a baseline, or has nothing that can be compared here.
        MissingError: no checkpoint to sample from.
        DataError: the record or the data are not what they were.
    """
    path = Path(source)
    folder = path if (path / "model.json").is_file() else None
    record = path if folder is None else _record_of(folder)
    if folder is not None and resample and model is None:
        model = folder
    with training.session(device=device, progress=progress):
        if record is None:
            assert folder is not None
            return _run_folder(folder, resample, Path(out) if out is not None else None)
        return _record(record, resample, model, Path(out) if out is not None else None, cache)


# -- records -------------------------------------------------------------------------------------------------------------------------


def _record(path: Path, resample: bool, model: str | Path | None, out: Path | None, cache: str | Path | None) -> Verification:
    run = Run.load(path)
    record = run.record
    about = record["subject"].get("baseline")
    if not about:
        raise UsageError(f"{path}: {record['subject']['name']} is no trained baseline; only what has a training can be made again")
    check_shape(about, {"dataset": str, "sample_seed": int, "passed": dict, "parameters": int}, str(path), "subject.baseline")
    check_shape(record["protocol"], {"reference": str, "metrics": [str]}, str(path), "protocol")
    protocol, choice = _protocol(path, record["protocol"]), _choice(path, about)
    data = open_data(Task(about["dataset"], "images" if len(record["subject"]["shape"]) == 3 else "vectors", protocol))
    if resample:
        home = Path(model) if model is not None else _checkpoint(path, protocol.name, about)
        made = models.load_model(home)
        wrong = [k for k in ("name", "config", "seed", "dataset") if made.provenance.get(k) != about[k]]
        if wrong:
            raise UsageError(f"{home} is another model than the record's: its {', '.join(wrong)} differ; pass --model RUN")
    else:
        made = _retrained(choice, data, about["seed"], out)
    again = score(made, protocol, data, seed=about["sample_seed"], n=record["subject"]["n"], cache=cache)
    for role in ("reference", "train", "test"):
        if (record.get(role) or {}).get("fingerprint") != (again.record[role] or {}).get("fingerprint"):
            raise DataError(f"{path}: the {role} data are not those of the record (their fingerprints differ); get the record's data")
    machine = _machine(record["environment"], again.record["environment"])
    lines = [_line(row, again, bool(machine)) for row in record["results"]]
    lines.insert(0, Line("parameters", float(about["parameters"]), float(made.parameters), 0.0))
    return Verification(about["name"], "resampled" if resample else "retrained", tuple(lines), machine)


def _protocol(path: Path, recorded: Mapping[str, Any]) -> Protocol:
    known = {f.name for f in dataclasses.fields(Protocol)}
    fields: dict[str, Any] = {k: tuple(v) if k == "metrics" else v for k, v in recorded.items() if k in known and v is not None}
    found = Protocol(**fields).resolved()
    if found.hash != recorded["hash"]:
        raise DataError(
            f"{path}: its protocol {recorded['name']} has the hash {recorded['hash']}, this genbench makes {found.hash} of it: a default "
            "has changed since; use the genbench of the record's environment"
        )
    return found


def _choice(path: Path, about: Mapping[str, Any]) -> Choice:
    try:
        module, _ = trained.named(about["name"])
        return Choice(about["name"], module, module.Config.from_dict(about["config"]), dict(about["passed"]))
    except UsageError as e:
        raise UsageError(f"{path}: {e}") from e


def _retrained(choice: Choice, data: TrainingData, seed: int, out: Path | None) -> models.Model:
    home = out if out is not None else Path("genbench-runs") / "verify" / f"{data.name}-{label(choice.name, choice.config.to_dict(), seed)}"
    return trained.build(choice, data, seed=seed, out=home)


def _checkpoint(path: Path, protocol: str, about: Mapping[str, Any]) -> Path:
    """The run folder of a record in `<out>/<protocol>/runs/`."""
    home = path.resolve().parents[2] / "models" / protocol / label(about["name"], about["config"], about["seed"])
    if not (home / "model.json").is_file():
        raise MissingError(f"no checkpoint at {home}; pass --model RUN, or leave --resample out to train again")
    return home


def _record_of(folder: Path) -> Path | None:
    """The record of a run folder `<out>/models/<protocol>/<cell>`; None where it has none."""
    home = folder.resolve()
    if home.parent.parent.name != "models":
        return None
    about = models.load_model(folder).provenance
    for path in listed(home.parents[2] / home.parent.name / "runs", ".json"):
        baseline = Run.load(path).record["subject"].get("baseline") or {}
        if all(baseline.get(k) == about.get(k) for k in ("name", "config", "seed", "dataset")):
            return path
    return None


def _machine(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    flat = [{k: v for k, v in e.items() if k in _MACHINE and k != "packages"} | dict(e.get("packages") or {}) for e in (recorded, now)]
    return tuple(f"{k} {flat[0].get(k)}, here {flat[1].get(k)}" for k in flat[0] | flat[1] if flat[0].get(k) != flat[1].get(k))


def _tolerance(value: float, low: float | None, high: float | None, elsewhere: bool) -> float:
    same = SAME * (1 + abs(value))
    if not elsewhere:
        return same
    return max(same, HALF_WIDTHS * (high - low) / 2 if low is not None and high is not None else SHARE * abs(value))


def _line(row: Mapping[str, Any], again: Run, elsewhere: bool) -> Line:
    same = ("metric", "extractor", "quantity")
    name = row["quantity"] + (f"@{row['extractor']}" if row["extractor"] != again.record["protocol"]["extractor"] else "")
    found = next((r for r in again.record["results"] if all(r[k] == row[k] for k in same)), None)
    why = "" if found else next((s["reason"] for s in again.record["skipped"] if row["quantity"] == s.get("quantity")), "not computed")
    allowed = _tolerance(row["value"], row["low"], row["high"], elsewhere)
    return Line(name, row["value"], None if found is None else found["value"], allowed, why)


# -- run folders without a record ----------------------------------------------------------------------------------------------------


def _run_folder(folder: Path, resample: bool, out: Path | None) -> Verification:
    recorded = trained.note(folder).get("reached")
    if not recorded:
        raise UsageError(
            f"{folder} does not say what its model reached; train it with genbench train, or verify a record of genbench bench"
        )
    old = models.load_model(folder)
    about = old.provenance
    data = trained.open_data(about["dataset"])
    made = old if resample else _retrained(_choice(folder, about), data, about["seed"], out)
    machine = _machine(recorded["environment"], environment(str(training.device())))
    now = trained.reached(made, data)
    lines = []
    if (held := recorded["held_out"]) is not None:
        allowed = _tolerance(held["value"], held["low"], held["high"], bool(machine))
        lines.append(Line(f"nll ({held['split']})", held["value"], (now["held_out"] or {}).get("value"), allowed))
    if not machine:
        lines.append(Line("share of first samples alike", 1.0, float(now["samples"] == recorded["samples"]), 0.0))
    if not lines:
        raise UsageError(
            f"{folder} was made on another machine ({'; '.join(machine)}) and has no likelihood, so nothing can be compared; score it with "
            "genbench bench there, and verify the record here"
        )
    return Verification(about["name"], "resampled" if resample else "retrained", tuple(lines), machine)


# -- the command ---------------------------------------------------------------------------------------------------------------------


def main(source: Path, **options: Any) -> int:
    """`genbench verify`: print every quantity twice; the options are those of `verify`.

    Raises:
        FailedError: one differs by more than its tolerance.
    """
    from genbench.report import show_listing

    found = verify(source, **options)
    rows = [
        [
            "ok" if line.ok else "differs",
            line.quantity,
            f"{line.recorded:.9g}",
            line.why if line.found is None else f"{line.found:.9g}",
            "" if line.found is None else f"{line.found - line.recorded:.2g}",
            f"{line.tolerance:.2g}",
        ]
        for line in found.lines
    ]
    show_listing(["", "quantity", "recorded", found.how, "difference", "tolerance"], rows)
    where = "made on another machine: " + "; ".join(found.machine) if found.machine else "made on a machine like this one"
    print(printable(f"{found.name}: {where}"))
    if not found.ok:
        differ = sum(not line.ok for line in found.lines)
        raise FailedError(f"{printable(source)}: {differ} of {len(found.lines)} quantities differ by more than the tolerance")
    print(f"{printable(source)}: all {len(found.lines)} quantities agree")
    return 0
