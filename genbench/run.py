"""The run record: one content-addressed JSON per evaluation, from which every table and report is derived.

The `id` is the sha256 of the canonical JSON of everything but `id` and `timing`: the same samples under the same protocol on the
same software give the same id, however long it took.
"""

import hashlib
import json
import platform
import subprocess
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.errors import DataError, near_miss
from genbench.estimate import Better, Bound, Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA = 1
# What readers of a record rely on: key -> type, set of the allowed texts, [shape of all entries] or shape of an object. A key with "?" may
# be absent or null. More keys are welcome.
SHAPE: dict[str, Any] = {
    "subject": {
        "name": str,
        "fingerprint": str,
        "n": int,
        "shape": [int],
        "skipped?": [[str]],
        "converted?": [[str]],
        "baseline?": {
            "name": str,
            "config": dict,
            "seed": int,
            "passed?": dict,
            "dataset?": str,
            "sample_seed?": int,
            "family?": str,
            "role?": str,
            "notes?": [str],
            "parameters?": int,
            "nfe?": int | float,
        },
    },
    "reference": {"name": str, "fingerprint": str, "n": int | None},
    "train?": {"fingerprint": str},
    "test?": {"fingerprint": str},
    "protocol": {
        "name": str,
        "hash": str,
        "extractor": str,
        "reference?": str,
        "metrics?": [str],
        "preprocess?": str,
        "n?": int,
        "n_ref?": int,
        "seed?": int,
        "shard?": int,
        "batch?": int,
        "order?": str,
    },
    "results": [
        {
            "metric": str,
            "extractor": str,
            "quantity": str,
            "value": int | float,
            "low": int | float | None,
            "high": int | float | None,
            "n": int,
            "interval": str | None,
            "bound": {*typing.get_args(Bound)},
            "better": {*typing.get_args(Better)},
            "unit": str,
            "measure?": str,
            "estimator?": str,
        }
    ],
    "skipped": [{"metric": str, "reason": str, "quantity?": str}],
    "warnings": [str],
    "environment": {"packages?": dict},
    "timing?": {"training_seconds?": int | float, "samples_per_second?": int | float},
}
_PACKAGES = ("numpy", "scipy", "torch", "torchvision", "scikit-learn", "pillow", "clean-fid")


def canonical(record: Mapping[str, Any]) -> str:
    """Canonical JSON: sorted keys, no spaces, shortest exact floats, no NaN."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def record_id(record: Mapping[str, Any]) -> str:
    """sha256 (32 hex digits) of the canonical record without `id` and `timing`."""
    content = {k: v for k, v in record.items() if k not in ("id", "timing")}
    return hashlib.sha256(canonical(content).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def version() -> str:
    """The installed version of genbench, or "unknown" in a bare checkout."""
    try:
        return metadata.version("genbench")
    except metadata.PackageNotFoundError:
        return "unknown"


@cache
def _commit() -> dict[str, Any]:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        dirt = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, timeout=10, check=True
        )
    except (FileNotFoundError, PermissionError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": head, "dirty": bool(dirt.stdout.strip())}


@cache
def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (FileNotFoundError, PermissionError):
        pass
    return platform.processor() or platform.machine()


def environment(device: str) -> dict[str, Any]:
    """What the numbers were made with: versions, commit, processor, device, threads."""
    import torch

    from genbench.extractor import RUNTIMES, runtime_version

    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = None
    if device in RUNTIMES:
        named = f"{device} {runtime_version(device)}"
    else:
        named = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return {
        "genbench": version(),
        **_commit(),
        "python": platform.python_version(),
        "packages": packages,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "device": named,
        "threads": torch.get_num_threads(),
    }


def migrate(record: dict[str, Any], source: str) -> dict[str, Any]:
    """Bring an old record to the present schema; records load for ever.

    Raises:
        DataError: not a record, or one of a newer genbench.
    """
    schema = record.get("schema")
    if not isinstance(schema, int):
        raise DataError(f"{source}: expected a run record with a schema number, found none; is it a file that genbench eval --out wrote?")
    if schema > SCHEMA:
        raise DataError(f"{source}: written by a newer genbench (schema {schema}, this one reads up to {SCHEMA}); upgrade genbench")
    return record


def check_shape(found: Any, shape: Any, source: str, where: str = "") -> None:
    """Refuse a record that lacks what its readers need.

    Args:
        found: the record, or a part of it.
        shape: see SHAPE.
        source: the file, for the message.
        where: the part's place in the record.

    Raises:
        DataError: a key is missing, or holds something else.
    """
    end = "; its id fits, so no genbench wrote it like this: run the evaluation again"
    if isinstance(shape, dict) and isinstance(found, dict):
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if name in found if name == key else found.get(name) is not None:
                check_shape(found[name], inner, source, f"{where}.{name}" if where else name)
            elif name == key:
                keys = ", ".join(sorted(found))[:200] or "none"
                raise DataError(f"{source}: expected the key {name} in {where or 'the record'}, found the keys {keys}{end}")
    elif isinstance(shape, list) and isinstance(found, list):
        for i, entry in enumerate(found):
            check_shape(entry, shape[0], source, f"{where}[{i}]")
    else:
        if isinstance(shape, set):
            fits, wanted = isinstance(found, str) and found in shape, " or ".join(sorted(shape))
        else:
            kind = type(shape) if isinstance(shape, dict | list) else shape
            fits = isinstance(found, kind) and not isinstance(found, bool)  # a bool is an int to Python alone
            wanted = getattr(kind, "__name__", str(kind))
        if not fits:
            raise DataError(f"{source}: expected {where or 'the record'} to be {wanted}, found {json.dumps(found)[:80]}{end}")


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


@dataclass(frozen=True)
class Table:
    """A table behind a value: the pairs of copies, a curve, one row per class or sample. Not a part of the record.

    Args:
        metric: the spec that made it, with its extractor.
        name: of the table.
        columns: names.
        rows: one tuple per row.
        images: two uint8 stacks (k, c, h, w), the images of the first rows' two samples; or none.
    """

    metric: str
    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    images: tuple[Any, ...] = ()

    def to_pandas(self) -> Any:
        """The table as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(list(self.rows), columns=list(self.columns))


@dataclass(frozen=True)
class Run:
    """The result of an evaluation.

    Args:
        record: the run record; see `canonical`.
        tables: what stands behind the values; only of a run that was just made, a loaded record has none.
        nats: the model's log-likelihood of every held-out sample, (n,) in the order of their digests; kept beside a leaderboard's record.

    Example:
        >>> run = Run({"schema": 1, "results": [{"metric": "fid", "extractor": "identity", "quantity": "fid", "value": 0.5,
        ...            "low": 0.4, "high": 0.6, "n": 100, "interval": "jackknife-5", "bound": "exact"}]})
        >>> run["fid"].value
        0.5
    """

    record: dict[str, Any]
    tables: tuple[Table, ...] = ()
    nats: "NDArray[Any] | None" = field(default=None, repr=False, compare=False)

    @property
    def id(self) -> str:
        """The content id."""
        return str(self.record["id"])

    def __iter__(self) -> Iterator[str]:
        for row in self.record["results"]:
            yield self._full(row)

    @staticmethod
    def _full(row: Mapping[str, Any]) -> str:
        settings = row["metric"].partition(":")[2]
        return row["quantity"] + (f":{settings}" if settings else "") + f"@{row['extractor']}"

    def __getitem__(self, name: str) -> Estimate:
        """The estimate of a quantity, e.g. "fid", "fid_debiased", "precision@pixels", "kid:subsets=100@mnist".

        Raises:
            KeyError: there is no such quantity; the message has the reason if it was skipped, else the near miss.
        """
        quantity, _, extractor = name.partition("@")
        quantity, _, settings = quantity.partition(":")
        rows = [r for r in self.record["results"] if r["quantity"] == quantity and extractor in ("", r["extractor"])]
        rows = [r for r in rows if not settings or r["metric"].partition(":")[2] == settings]
        if len(rows) > 1:
            raise KeyError(f"{name!r} is ambiguous: {', '.join(self._full(r) for r in rows)}")
        if not rows:
            for s in self.record.get("skipped", ()):
                if quantity in (s["metric"].partition("@")[0].partition(":")[0], s.get("quantity")):
                    raise KeyError(f"{name!r} was skipped: {s['reason']}")
            raise KeyError(str(near_miss(name, {r["quantity"] for r in self.record["results"]}, "quantity")))
        r = rows[0]
        return Estimate(
            r["value"], r["low"], r["high"], r["n"], r["interval"], r["bound"], measure=r.get("measure"), estimator=r.get("estimator")
        )

    def to_json(self) -> str:
        """The record as indented JSON, exactly as it is stored."""
        return json.dumps(self.record, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"

    def to_pandas(self) -> Any:
        """The results as a pandas DataFrame, one row per quantity."""
        import pandas as pd

        return pd.DataFrame(self.record["results"])

    def save(self, folder: str | Path) -> Path:
        """Write the record as `<id>.json` into a folder; returns the path."""
        from genbench.files import write_atomic

        path = Path(folder) / f"{self.id}.json"
        write_atomic(path, self.to_json().encode())
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Read a record; check that its content still has its id, and that it has all that its readers need.

        Raises:
            DataError: not a readable record, changed after it was written, or without a needed key.
        """
        try:
            record = json.loads(Path(path).read_text("utf-8"), parse_constant=_no_number)
            if not isinstance(record, dict):
                raise DataError(f"{path}: expected a JSON object, found {type(record).__name__}")
            found = record_id(record)
        except FileNotFoundError as e:
            raise DataError(f"{path}: no such run record") from e
        except (OSError, ValueError, RecursionError) as e:  # a number too large for a float is infinity, which has no canonical form
            raise DataError(f"{path}: not a readable run record ({e})") from e
        if record.get("id") != found:
            raise DataError(
                f"{path}: the record was changed after it was written (its content has id {found}, "
                f"it says {record.get('id')!r}); run the evaluation again"
            )
        record = migrate(record, str(path))
        check_shape(record, SHAPE, str(path))
        for i, r in enumerate(record["results"]):
            try:
                Estimate(r["value"], r["low"], r["high"], r["n"], r["interval"], r["bound"])
            except (ValueError, OverflowError) as e:
                raise DataError(f"{path}: results[{i}] is no estimate: {e}; run the evaluation again") from e
        return cls(record)


def make(content: dict[str, Any], timing: dict[str, Any], tables: Sequence[Table] = (), nats: "NDArray[Any] | None" = None) -> Run:
    """A Run from a record's content: adds schema, id and timing."""
    record = {**content, "schema": SCHEMA}
    record["id"] = record_id(record)
    record["timing"] = timing
    return Run(record, tuple(tables), nats)


def printable(text: object, encoding: str | None = None) -> str:
    """A name that is safe on a terminal, or in a file of that encoding: control characters and invalid UTF-8 are escaped."""
    encoding = encoding or sys.stdout.encoding or "utf-8"
    safe = str(text).encode(encoding, "backslashreplace").decode(encoding)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in safe)
