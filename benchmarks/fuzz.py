"""Seeded damage to every kind of file that genbench reads: it opens with the right data, or it is refused by a clear error.

    python benchmarks/fuzz.py                # 5,000 damaged files, counts to benchmarks/fuzz.csv
    python benchmarks/fuzz.py --count 300    # fewer, to look at

A damaged file ends in one of these ways:

    refused   a GenbenchError of one printable message that names the file
    same      the content is that of the undamaged file
    part      some of the content is missing, and a warning says so
    other     other content, where the format has no checksum by which it could be noticed
    fault     anything else: another exception, other content in a format that has checksums, content lost without a word, too slow

There must be no fault; tests/test_fuzz.py runs the first 300 in every test run.
"""

import argparse
import csv
import io
import json
import re
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from genbench.errors import GenbenchError

OUTCOMES = ("refused", "same", "part", "other", "fault")
FIELDS = ("kind", "files", *OUTCOMES, "slowest_s")
SECONDS = 10.0
"""One damaged file may not take longer; the undamaged ones take milliseconds."""
NUMBERS = (b"0", b"-1", b"1", b"9", b"255", b"65536", b"2147483648", b"1152921504606846976", b"1e999", b"NaN", b"")
VALUES: tuple[Any, ...] = (None, True, -1, 0, 2**70, 1e308, float("nan"), "", "../x", "\0", [], {}, [[]], [0, [1]], {"a": 0})


# -- damage ------------------------------------------------------------------------------------------------------------------------


def flip(data: bytearray, rng: np.random.Generator) -> None:
    """One to eight bits are turned."""
    for _ in range(rng.integers(1, 9)):
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))


def overwrite(data: bytearray, rng: np.random.Generator) -> None:
    """One to four bytes become others."""
    for _ in range(rng.integers(1, 5)):
        data[rng.integers(len(data))] = int(rng.choice([0, 255, rng.integers(256)]))


def truncate(data: bytearray, rng: np.random.Generator) -> None:
    """The end is missing."""
    del data[rng.integers(len(data)) :]


def insert(data: bytearray, rng: np.random.Generator) -> None:
    """Bytes that do not belong there."""
    at = int(rng.integers(len(data) + 1))
    data[at:at] = rng.bytes(int(rng.integers(1, 65)))


def remove(data: bytearray, rng: np.random.Generator) -> None:
    """Bytes in the middle are missing."""
    at = int(rng.integers(len(data)))
    del data[at : at + int(rng.integers(1, 65))]


def repeat(data: bytearray, rng: np.random.Generator) -> None:
    """A piece occurs twice."""
    a, b = sorted(rng.integers(len(data) + 1, size=2).tolist())
    data[b:b] = data[a:b]


def blank(data: bytearray, rng: np.random.Generator) -> None:
    """A block of a disk is zeros."""
    at = int(rng.integers(0, len(data), endpoint=False)) // 512 * 512
    size = min(512, len(data) - at)
    data[at : at + size] = bytes(size)


def header(data: bytearray, rng: np.random.Generator) -> None:
    """A field of the header, or of the directory at the end, has an extreme value."""
    at = int(rng.integers(min(96, len(data))))
    if rng.random() < 0.3:
        at = len(data) - 1 - at
    size = int(rng.choice([1, 2, 4, 8]))
    value = [bytes(size), b"\xff" * size, b"\x7f" + b"\xff" * (size - 1), b"\xff" * (size - 1) + b"\x7f", b"\x01" + bytes(size - 1)]
    data[at : at + size] = value[rng.integers(len(value))]


def number(data: bytearray, rng: np.random.Generator) -> None:
    """A number that is written in digits becomes another one, or none."""
    found = list(re.finditer(rb"\d+", bytes(data[:4096])))
    if not found:
        return header(data, rng)
    match = found[rng.integers(len(found))]
    data[match.start() : match.end()] = NUMBERS[rng.integers(len(NUMBERS))]


DAMAGE = (flip, overwrite, truncate, insert, remove, repeat, blank, header, number)


def revalue(data: bytearray, rng: np.random.Generator) -> None:
    """One value of a JSON document becomes another one, goes, or is one too many."""
    tree = json.loads(bytes(data))
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(tree)
    node, key = places[rng.integers(len(places))]
    if rng.random() < 0.2:
        del node[key]
    elif rng.random() < 0.1 and isinstance(node, dict):
        node["unknown"] = 1
    else:
        node[key] = VALUES[rng.integers(len(VALUES))]
    data[:] = json.dumps(tree).encode()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with one to three kinds of damage, JSON values among them where it is JSON."""
    out = bytearray(data)
    if data[:1] == b"{" and rng.random() < 0.6:
        revalue(out, rng)
        return bytes(out)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        if out:
            DAMAGE[rng.integers(len(DAMAGE))](out, rng)
    return bytes(out)


# -- what is damaged, and how it is read -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Content:
    """What was read.

    Args:
        items: of a set of samples the digest of each, else one text for all.
        said: warnings, conversions and what was left out.
    """

    items: Counter[str]
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        file: where it lies in its folder.
        data: an undamaged one.
        read: reads the folder.
        sealed: a checksum covers the content, so that other content is a fault.
        others: files beside it, name -> bytes.
    """

    file: str
    data: bytes
    read: Callable[[Path], Content]
    sealed: bool
    others: tuple[tuple[str, bytes], ...] = ()


def read_samples(name: str, folder: Path) -> Content:
    """What open_samples reads: a file of the folder, or the folder itself."""
    from genbench.samples import open_samples

    found = open_samples(folder / name if name else folder, workers=1)
    items = Counter(d.tobytes().hex() for d in found.digests())
    assert len(found.read(0, len(found))) == len(found)
    return Content(items, (*found.warnings, *map(str, found.converted), *map(str, found.info.get("ignored", ()))))


def read_record(folder: Path) -> Content:
    """A record without its timing, which is not covered by its id."""
    from genbench.report import to_csv, to_markdown
    from genbench.run import Run, canonical

    run = Run.load(folder / "record.json")
    to_markdown(run), to_csv([run])
    return Content(Counter([canonical({k: v for k, v in run.record.items() if k != "timing"})]))


def read_model(folder: Path) -> Content:
    """A checkpoint's arrays and settings, and that it can draw."""
    from genbench.models import load_model

    model = load_model(folder)
    model.sample(4, seed=0)
    arrays = [f"{k}{v.dtype}{v.shape}{v.tobytes().hex()}" for k, v in sorted(model.arrays().items())]
    return Content(Counter([*arrays, json.dumps(model.provenance, sort_keys=True)]))


def read_statistics(folder: Path) -> Content:
    """Mean and covariance."""
    from genbench.statistics import Moments

    found = Moments.load(folder / "statistics.npz")
    return Content(Counter([found.mean.tobytes().hex(), found.m2.tobytes().hex()]))


def read_likelihood(folder: Path) -> Content:
    """Log-likelihoods and what they are."""
    from genbench.likelihood import load

    found = load(folder / "likelihood.npz")
    return Content(Counter([found.nats.tobytes().hex(), f"{found.dims} {found.bound} {found.measure}"]))


def read_idx(folder: Path) -> Content:
    """An array in MNIST's format."""
    from genbench.arrays import open_idx

    found = open_idx(folder / "x-idx3-ubyte")
    return Content(Counter([f"{found.dtype}{found.shape}{np.asarray(found).tobytes().hex()}"]))


def encode(x: np.ndarray, kind: str, **options: Any) -> bytes:
    """An image file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(x).save(out, kind, **options)
    return out.getvalue()


def packed(kind: str, files: dict[str, bytes]) -> bytes:
    """A zip (deflated or "stored"), tar or tar.gz of the files; no clock in it."""
    out = io.BytesIO()
    if kind in ("zip", "stored"):
        with zipfile.ZipFile(out, "w") as z:
            for name, data in files.items():
                z.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            t.addfile(member, io.BytesIO(data))
    if kind == "tar":
        return out.getvalue()
    import gzip

    return gzip.compress(out.getvalue(), mtime=0)


def npy(x: Any) -> bytes:
    """A .npy file."""
    out = io.BytesIO()
    np.save(out, x)
    return out.getvalue()


def npz(kind: str, **arrays: Any) -> bytes:
    """A .npz file; NumPy's own would have the time in it, and the damage would not be the same twice."""
    return packed(kind, {f"{name}.npy": npy(x) for name, x in arrays.items()})


def kinds() -> dict[str, Kind]:
    """Every kind by name, each with a small undamaged file."""
    from safetensors.numpy import save

    from genbench import models, registry
    from genbench.evaluation import evaluate
    from genbench.models import TrainingData, describe, save_model
    from genbench.samples import open_samples

    rng = np.random.default_rng(11)
    x = rng.integers(0, 256, (6, 24, 20, 3), dtype=np.uint8)
    files = {f"{i}.png": encode(image, "png") for i, image in enumerate(x)}
    rows = rng.normal(size=(40, 3))
    made = {
        "png": Kind("x.png", encode(x[0], "png"), partial(read_samples, ""), True),
        "jpg": Kind("x.jpg", encode(x[0], "jpeg", quality=90), partial(read_samples, ""), False),
        "gif": Kind("x.gif", encode(x[0, ..., 0], "gif"), partial(read_samples, ""), False),
        "tiff": Kind("x.tif", encode(x[0], "tiff", compression="tiff_lzw"), partial(read_samples, ""), False),
        "webp": Kind("x.webp", encode(x[0], "webp", lossless=True), partial(read_samples, ""), False),
        "bmp": Kind("x.bmp", encode(x[0], "bmp"), partial(read_samples, ""), False),
        "avif": Kind("x.avif", encode(x[0], "avif"), partial(read_samples, ""), False),
        "npy": Kind("x.npy", npy(x), partial(read_samples, "x.npy"), False),
        "npz stored": Kind("x.npz", npz("stored", images=x), partial(read_samples, "x.npz"), True),
        "npz compressed": Kind("x.npz", npz("zip", images=x), partial(read_samples, "x.npz"), True),
        "safetensors": Kind("x.safetensors", save({"images": x}), partial(read_samples, "x.safetensors"), False),
        "statistics": Kind("statistics.npz", npz("stored", mu=rows.mean(0), sigma=np.cov(rows, rowvar=False)), read_statistics, True),
        "likelihood": Kind("likelihood.npz", npz("stored", nats=-np.abs(rows[:, 0]), dims=3, measure="mass"), read_likelihood, True),
        "idx": Kind("x-idx3-ubyte", b"\0\0\x08\x03" + np.array(x.shape[:3], ">u4").tobytes() + x[..., 0].tobytes(), read_idx, False),
    }
    for kind in ("zip", "tar", "tar.gz"):
        made[kind] = Kind(f"x.{kind}", packed(kind, files), partial(read_samples, f"x.{kind}"), True)
    run = evaluate(rows, rows[::-1] + 0.1, metrics=["fid", "prdc"], cache=None, device="cpu")
    made["record"] = Kind("record.json", run.to_json().encode(), read_record, True)
    toy = TrainingData("ring8", open_samples("ring8/train", n=200))
    home = registry.module("baselines", "gmm")
    config = models.recipe(home, "ring8", toy.shape)
    model = home.train(config, toy, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder, model, describe("gmm", home, model, passed={}, seed=0, dataset="ring8"))
        both = {name: (Path(folder) / name).read_bytes() for name in ("model.json", "model.safetensors")}
    made["model.json"] = Kind("model.json", both["model.json"], read_model, True, (("model.safetensors", both["model.safetensors"]),))
    made["model.safetensors"] = Kind(
        "model.safetensors", both["model.safetensors"], read_model, True, (("model.json", both["model.json"]),)
    )
    return made


# -- the outcome -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """One damaged file.

    Args:
        kind: of the file.
        turn: its number; with the kind it seeds the damage.
        outcome: one of OUTCOMES.
        why: of a fault.
        seconds: it took.
    """

    kind: str
    turn: int
    outcome: str
    why: str
    seconds: float


def judge(kind: Kind, good: Content, reading: Future[Content]) -> tuple[str, str]:
    """How reading the damaged file ended, and of a fault why."""
    try:
        error = reading.exception(timeout=SECONDS)
    except TimeoutError:
        return "fault", f"more than {SECONDS:.0f} s"
    if isinstance(error, GenbenchError):
        text = str(error)
        if not all(c.isprintable() or c == "\n" for c in text) or not text.strip():
            return "fault", f"message with control characters: {text!r}"
        named = any(part in text for part in (kind.file, "model.", *good.items)) or any(f"{i}.png" in text for i in range(6))
        return ("refused", "") if named else ("fault", f"message without the file's name: {text!r}")
    if error is not None:
        return "fault", f"{type(error).__name__}: {error}"
    found = reading.result()
    if found.items == good.items:
        return "same", ""
    if not kind.sealed:
        return "other", ""
    if not found.items <= good.items:
        return "fault", "other content, although a checksum covers it"
    if len(found.said) > len(good.said):
        return "part", ""
    return "fault", f"{good.items.total() - found.items.total()} items were lost without a word"


def trials(count: int, seed: int = 0, only: tuple[str, ...] = ()) -> Iterator[Trial]:
    """`count` damaged files, spread evenly over the kinds; the first ones of a longer run are the same."""
    known = {name: kind for name, kind in kinds().items() if name in (only or (name,))}
    with tempfile.TemporaryDirectory() as base, ThreadPoolExecutor(1) as reader:
        good = {}
        for number_of, (name, kind) in enumerate(known.items()):
            folder = Path(base) / str(number_of)
            folder.mkdir()
            for file, data in (*kind.others, (kind.file, kind.data)):
                (folder / file).write_bytes(data)
            good[name] = kind.read(folder), folder
        for turn in range(count):
            name = list(known)[turn % len(known)]
            kind, (content, folder) = known[name], good[name]
            rng = np.random.default_rng([seed, turn // len(known), *name.encode()])
            (folder / kind.file).write_bytes(damaged(kind.data, rng))
            started = time.perf_counter()
            outcome, why = judge(kind, content, reader.submit(kind.read, folder))
            yield Trial(name, turn, outcome, why, time.perf_counter() - started)


def counts(found: list[Trial]) -> list[dict[str, Any]]:
    """Rows of the table: outcomes by kind."""
    rows = []
    for name in dict.fromkeys(t.kind for t in found):
        mine = [t for t in found if t.kind == name]
        how = Counter(t.outcome for t in mine)
        rows.append({"kind": name, "files": len(mine), **{o: how[o] for o in OUTCOMES}, "slowest_s": f"{max(t.seconds for t in mine):.2f}"})
    return rows


def main() -> None:
    """Run and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "fuzz.csv")
    args = parser.parse_args()
    found = []
    for t in trials(args.count, args.seed, tuple(args.only)):
        found.append(t)
        if t.outcome == "fault":
            print(f"{t.kind} {t.turn}: {t.why}", flush=True)
    rows = counts(found)
    with args.out.open("w", newline="") as f:
        writer = csv.DictWriter(f, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
