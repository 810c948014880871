"""Hostile input, each with its exact safe outcome: nothing runs, nothing is written elsewhere, nothing is read that was not asked for,
no name reaches a terminal, a spreadsheet or a page as anything but text, and no small file takes much memory or time.

Symbolic links in a folder are followed, as every tool that reads folders does: whoever makes the folder chooses its links. A link in an
archive is never followed: whoever made the archive does not choose what lies on this machine.
"""

import csv
import io
import json
import os
import pickle
import signal
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import genbench
from genbench import cli, report
from genbench.errors import DataError, GenbenchError, UsageError
from genbench.models import load_model
from genbench.run import Run, make
from genbench.samples import open_samples
from genbench.statistics import Moments

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _never_hangs() -> Iterator[None]:
    """A test that waits on something is stopped after a minute."""
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Would be made by any code that a hostile file runs."""
    return tmp_path / "executed"


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def png(x: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(x).save(out, "png")
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def folder(path: Path, names: list[str] | None = None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names or [f"{i}.png" for i in range(len(IMAGES))], IMAGES, strict=False):
        (path / name).write_bytes(png(image))
    return path


def tar_with(path: Path, name: str, kind: bytes, link: str = "") -> Path:
    with tarfile.open(path, "w") as t:
        for i, image in enumerate(IMAGES):
            member = tarfile.TarInfo(f"{i}.png")
            data = png(image)
            member.size = len(data)
            t.addfile(member, io.BytesIO(data))
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        t.addfile(member)
    return path


def peak(work: Callable[[], object]) -> int:
    """Bytes that Python and NumPy held at most."""
    tracemalloc.start()
    try:
        work()
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


# -- archives: read as streams, never unpacked by name ---------------------------------------------------------------------------------

OUTSIDE = ["../../up.png", "/tmp/genbench-absolute.png", "a/../../b.png", "C:\\windows\\x.png", "..\\up.png"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_names_that_lead_out_write_nothing_and_are_said(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    monkeypatch.chdir(inside)
    path = inside / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as z:
            for name in OUTSIDE:
                z.writestr(name, png(IMAGES[0]))
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as t:
            for name in OUTSIDE:
                member = tarfile.TarInfo(name)
                member.size = len(png(IMAGES[0]))
                t.addfile(member, io.BytesIO(png(IMAGES[0])))
    samples = open_samples(path)
    assert len(samples) == len(OUTSIDE)
    assert any(f"{len(OUTSIDE)} members have an absolute name or one with '..'" in w for w in samples.warnings)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["in", f"x.{kind}"]
    assert not Path("/tmp/genbench-absolute.png").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_an_archive_is_not_followed(tmp_path: Path, kind: bytes) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(IMAGES[0]))
    path = tar_with(tmp_path / "x.tar", "x.png", kind, str(secret))
    with pytest.raises(DataError, match=r"x\.png: a link in a tar archive, expected a regular file; pack the image itself"):
        open_samples(path)
    assert "x.png" not in open_samples(path, on_bad="skip").names


def test_a_link_in_a_zip_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("0.png", png(IMAGES[0]))
        info = zipfile.ZipInfo("x.png")
        info.external_attr = 0o120777 << 16
        z.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match=r"x\.png: a symbolic link, expected an image"):
        open_samples(path)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_in_an_archive_is_not_made_or_opened(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(DataError, match=r"x\.png: a (device|FIFO) in a tar archive, expected a regular file"):
        open_samples(tar_with(tmp_path / "x.tar", "x.png", kind))
    assert not (tmp_path / "x.png").exists()


def test_a_folder_by_name_that_has_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("0.png", png(IMAGES[0]))
        z.writestr("hidden/", png(IMAGES[1]))
    with pytest.raises(DataError, match="hidden/: a folder by name, yet of"):
        open_samples(path)


def test_images_hidden_from_the_directory_of_a_zip_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as z:
        for i in range(4):
            z.writestr(f"{i}.png", png(IMAGES[i]))
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"PK\x01\x02"))
    size = len(data) - 22 - entry - 46 - 5
    data[entry + 32 : entry + 34] = struct.pack("<H", size)  # the third entry's comment swallows the fourth
    path.write_bytes(data)
    with pytest.raises(DataError, match="its directory has 3 entries, its end says 4"):
        open_samples(path)


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_members_behind_a_false_end_of_a_tar_are_noticed(tmp_path: Path, kind: str) -> None:
    data = bytearray(tar_with(tmp_path / "plain.tar", "pipe", tarfile.FIFOTYPE).read_bytes())
    at = next(i for i in range(2048, len(data), 512) if data[i + 257 : i + 262] == b"ustar")
    data[at : at + 512] = bytes(512)
    path = tmp_path / f"x.{kind}"
    path.write_bytes(zlib.compress(bytes(data), wbits=31) if kind == "tar.gz" else data)
    with pytest.raises(DataError, match=rf"an end mark before byte {at + 512:,}, but the file goes on"):
        open_samples(path)


# -- pickles: nothing runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_a_pickle_in_an_array_file_never_runs(tmp_path: Path, marker: Path, name: str) -> None:
    objects = np.array([Touch(marker)], dtype=object)
    (np.save if name == "x.npy" else np.savez)(tmp_path / name, objects)
    with pytest.raises(DataError, match="pickled objects run code when they are read, so they are refused"):
        open_samples(tmp_path / name)
    assert not marker.exists()
    np.load(tmp_path / name, allow_pickle=True)[() if name == "x.npy" else "arr_0"]
    assert marker.exists(), "the pickle is a live one"


@pytest.mark.parametrize("key", ["mu", "sigma"])
def test_a_pickle_in_a_statistics_file_never_runs(tmp_path: Path, marker: Path, key: str) -> None:
    arrays: dict[str, Any] = {"mu": np.zeros(2), "sigma": np.eye(2)}
    np.savez(tmp_path / "s.npz", **(arrays | {key: np.array([Touch(marker)], dtype=object)}))
    with pytest.raises(DataError, match=r"s\.npz: not a readable statistics file .*allow_pickle=False"):
        genbench.evaluate(RNG.normal(size=(9, 2)), tmp_path / "s.npz", metrics=["fid"], extractor="identity", cache=None)
    assert not marker.exists()


def test_a_pickle_in_a_likelihood_file_never_runs(tmp_path: Path, marker: Path) -> None:
    np.savez(tmp_path / "l.npz", nats=np.array([Touch(marker)], dtype=object), dims=3)
    with pytest.raises(DataError, match=r"l\.npz: not readable"):
        genbench.likelihood.load(tmp_path / "l.npz")
    assert not marker.exists()


@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_a_pickle_of_weights_never_runs(tmp_path: Path, marker: Path, way: str) -> None:
    import torch

    path = tmp_path / "weights.pth"
    if way == "torch":
        torch.save({"conv.weight": Touch(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(Touch(marker)))
    with pytest.raises(DataError, match=r"weights\.pth holds no weights that extractor inception can read"):
        genbench.evaluate(IMAGES, IMAGES, metrics=["fid"], extractor="inception", weights=path, cache=None, device="cpu")
    assert not marker.exists()


def test_a_raw_pickle_under_any_name_is_no_sample_file(tmp_path: Path, marker: Path) -> None:
    for name in ("x.npy", "x.npz", "x.safetensors", "x.pkl", "x.tar"):
        (tmp_path / name).write_bytes(pickle.dumps(Touch(marker)))
        with pytest.raises(DataError, match=name):
            open_samples(tmp_path / name)
    assert not marker.exists()


# -- checkpoints: data, never code ---------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    from genbench import models, registry

    home = registry.module("baselines", "gmm")
    toy = models.TrainingData("ring8", open_samples("ring8/train", n=100))
    model = home.train(models.recipe(home, "ring8", toy.shape), toy, seed=0)
    return models.save_model(tmp_path / "model", model, models.describe("gmm", home, model, passed={}, seed=0, dataset="ring8"))


def sealed(checkpoint: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change model.json and give it the digest that belongs to it, as an attacker would."""
    from genbench.models import _Saved

    fields = json.loads((checkpoint / "model.json").read_text())
    change(fields)
    known = {k: v for k, v in fields.items() if k in _Saved.__dataclass_fields__}
    fields["digest"] = _Saved(**known).sealed()["digest"]
    (checkpoint / "model.json").write_text(json.dumps(fields))


@pytest.mark.parametrize("name", ["../../evil", "os", "..gmm", "/etc/passwd", "gmm.__init__", "gmm\0", "", "_base"])
def test_a_checkpoint_names_an_installed_baseline_or_nothing(checkpoint: Path, name: str) -> None:
    (checkpoint.parent / "evil.py").write_text("raise SystemExit(66)")
    sealed(checkpoint, lambda fields: fields["baseline"].update(name=name))
    with pytest.raises(UsageError, match="model.json: unknown baseline"):
        load_model(checkpoint)


def test_a_changed_checkpoint_is_refused(checkpoint: Path) -> None:
    text = (checkpoint / "model.json").read_text()
    (checkpoint / "model.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(DataError, match="changed after it was written"):
        load_model(checkpoint)
    (checkpoint / "model.json").write_text(text)
    arrays = bytearray((checkpoint / "model.safetensors").read_bytes())
    arrays[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(arrays)
    with pytest.raises(DataError, match="its sha256 is not the one in model.json"):
        load_model(checkpoint)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f.update(code="import os"), "unexpected keyword argument"),
        (lambda f: f["baseline"]["config"].update(path="/etc"), "unknown setting 'path'"),
        (lambda f: f["baseline"]["config"].update(steps="many"), "steps"),
        (lambda f: f.update(shape=[2**60]), r"a shape is \[d\] or \[c, h, w\]"),
        (lambda f: f.update(shape=["../x"]), r"a shape is \[d\] or \[c, h, w\]"),
        (lambda f: f.update(format=99), "written by a newer genbench"),
        (lambda f: f.update(format="1"), "written by a newer genbench"),
        (lambda f: f.update(baseline=[]), "expected the baseline's name and config"),
        (lambda f: f["baseline"].update(notes=3), "its settings do not fit"),
    ],
)
def test_a_hostile_checkpoint_is_refused_by_name(checkpoint: Path, change: Callable[[dict[str, Any]], None], match: str) -> None:
    sealed(checkpoint, change)
    with pytest.raises(GenbenchError, match=rf"(?s)model\.json: .*{match}"):
        load_model(checkpoint)


def test_a_checkpoint_of_the_first_format_still_loads(checkpoint: Path) -> None:
    fields = json.loads((checkpoint / "model.json").read_text())
    del fields["digest"]
    (checkpoint / "model.json").write_text(json.dumps(fields | {"format": 1}))
    assert load_model(checkpoint).sample(3, seed=0).shape == (3, 2)


# -- records -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"schema": 1, "value": NaN}',
        '{"schema": 1, "value": -Infinity}',
        '{"schema": 1, "value": 1e999}',
        '{"schema": ' + "9" * 10_000 + "}",
        '{"schema": 1, "name": "\\ud800"}',
        "\x00\x01\x02",
        '{"schema": 1, "schema": 2}',
        '{"__class__": "os.system", "id": "x"}',
    ],
    ids=["nested lists", "nested objects", "NaN", "infinity", "1e999", "10,000 digits", "lone surrogate", "binary", "key twice", "class"],
)
def test_a_hostile_record_is_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"record\.json: (not a readable run record|the record was changed|expected a JSON object)"):
        Run.load(path)
    assert cli.run(["show", str(path)]) == 2
    assert "Traceback" not in capsys.readouterr().err


# -- names: text and nothing else ----------------------------------------------------------------------------------------------------

FORMULAS = ["=cmd|'calc'!A0.png", "+1+1.png", "-2+3.png", "@SUM(A1).png"]
NAMES = [
    *FORMULAS,
    "<script>alert(1)<script>.png",
    "[x](javascript:alert(1)).png",
    "a|b`c`.png",
    "new\nline.png",
    "esc\x1b]0;owned\x07.png",
]
NAMES += ["rtl\u202egnp.png", "cr\r.png", "tab\t.png"]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder of files with hostile names, all grey so that each is listed as converted, and some bad ones."""
    root = folder(tmp_path / "<b>=set", ["plain.png"])
    for name, image in zip(NAMES, IMAGES, strict=False):
        (root / name).write_bytes(png(image[..., 0]))
    return root


def test_names_reach_a_terminal_without_control_characters(hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "ref.npy", IMAGES)
    words = ["eval", str(hostile), "--reference", str(tmp_path / "ref.npy"), "--metrics", "fid", "--extractor", "pixels", "--no-cache"]
    (hostile / "bad\x1b[2J\n.png").write_bytes(b"")
    assert cli.run(words) == 2
    err = capsys.readouterr().err
    assert "bad\\x1b[2J\\n.png" in err
    assert all(c.isprintable() or c == "\n" for c in err)
    assert cli.run([*words, "--on-bad", "skip", "--out", str(tmp_path / "out")]) == 0
    both = "".join(capsys.readouterr())
    assert all(c.isprintable() or c == "\n" for c in both)


def test_names_reach_a_spreadsheet_as_text(hostile: Path, tmp_path: Path) -> None:
    (hostile / "=bad.png").write_bytes(b"")
    run = genbench.evaluate(hostile, IMAGES, metrics=["fid"], extractor="pixels", on_bad="skip", cache=None, device="cpu")
    rows = list(csv.reader(io.StringIO(report.file_list(run))))
    assert len(rows) == 1 + 1 + len(NAMES)
    assert {f"'{name}" for name in FORMULAS} <= {row[2] for row in rows}
    assert ["subject", "skipped", "'=bad.png", "expected an image, the file is empty (0 bytes)"] in rows
    for row in [*rows, *csv.reader(io.StringIO(report.to_csv([run])))]:
        assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in row)
        assert all(not cell.startswith("-") or float(cell) < 0 for cell in row)


def test_names_reach_a_page_as_text(hostile: Path) -> None:
    (hostile / "<img src=x onerror=alert(1)>|[y](z).png").write_bytes(b"")
    run = genbench.evaluate(hostile, IMAGES, metrics=["fid"], extractor="pixels", on_bad="skip", cache=None, device="cpu")
    run.record["warnings"].append("samples: <script>alert(1)</script> | [a](javascript:b) `c` \x1b[31m")
    text = report.to_markdown(run)
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text
    assert "\\[a](javascript:b)" in text
    assert all(c.isprintable() or c == "\n" for c in text)


def test_a_model_with_a_hostile_name_stays_in_its_cell(tmp_path: Path) -> None:
    from genbench import leaderboard

    evil = "=HYPERLINK(1)|<img src=x>\n| forged | 0 |"
    row = {"metric": "fid", "extractor": "identity", "quantity": "fid", "value": 1.0, "low": 0.5, "high": 1.5, "n": 9, "interval": "x"}
    content = {
        "subject": {"name": evil, "kind": "samples", "fingerprint": "g", "n": 9, "shape": [2], "converted": [], "skipped": []},
        "reference": {"name": evil, "kind": "samples", "fingerprint": "r", "n": 9},
        "protocol": {"name": evil, "hash": "h", "reference": evil, "n": 9, "extractor": "identity", "metrics": ["fid"]},
        "results": [row | {"bound": "exact", "better": "lower", "unit": "1"}],
        "skipped": [],
        "warnings": [],
        "environment": {},
    }
    board = tmp_path / "board"
    (board / "runs").mkdir(parents=True)
    make(content, {}).save(board / "runs")
    leaderboard.write(tmp_path)
    table = list(csv.reader(io.StringIO((board / "table.csv").read_text())))
    assert not any(cell.startswith("=") for cells in table for cell in cells)
    page = (board / "README.md").read_text()
    assert "<img" not in page
    assert "\n| forged | 0 |" not in page


# -- what a small file may cost ------------------------------------------------------------------------------------------------------


def bomb(side: int) -> bytes:
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def claims() -> dict[str, tuple[bytes, str]]:
    """name -> (a small file that claims to be huge, how it is refused)."""
    x = io.BytesIO()
    np.save(x, IMAGES)
    array = x.getvalue()
    huge = array[:128].replace(b"(12, 8, 8, 3), }", b"(%d, 3), }" % 2**60)
    huge = huge[:127].ljust(127) + b"\n" if len(huge) <= 128 else huge[:127].rstrip(b" \n").ljust(127) + b"\n"
    lying = json.dumps({"images": {"dtype": "U8", "shape": [2**30, 2**30], "data_offsets": [0, 2**60]}}).encode()
    crossed = json.dumps(
        {name: {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]} for name in ("images", "other")} | {"__metadata__": {}}
    ).encode()
    return {
        "rows.npy": (huge + array[128:], "truncated array, expected 3,458,764,513,820,540,928 bytes"),
        "header.npy": (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{" * 100, "truncated or damaged array"),
        "length.safetensors": (struct.pack("<Q", 2**60) + b"{}", "truncated or damaged safetensors file"),
        "offsets.safetensors": (struct.pack("<Q", len(lying)) + lying + bytes(64), "truncated or damaged safetensors file"),
        "overlap.safetensors": (struct.pack("<Q", len(crossed)) + crossed + bytes(64), "truncated or damaged safetensors file"),
    }


@pytest.mark.parametrize("name", ["rows.npy", "header.npy", "length.safetensors", "offsets.safetensors", "overlap.safetensors"])
def test_a_header_that_lies_is_refused_at_no_cost(tmp_path: Path, name: str) -> None:
    data, match = claims()[name]
    (tmp_path / name).write_bytes(data)

    def work() -> None:
        with pytest.raises(DataError, match=match):
            open_samples(tmp_path / name)

    assert peak(work) < 2**22


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_bomb_is_refused_at_no_cost(tmp_path: Path, side: int) -> None:
    root = folder(tmp_path / "set")
    (root / "x.png").write_bytes(bomb(side))

    def work() -> None:
        with pytest.raises(DataError, match=rf"x\.png: {side}×{side} = {side**2 // 10**6} Mpx, the limit is 64 Mpx"):
            open_samples(root)

    assert peak(work) < 2**22


def test_a_statistics_file_that_claims_terabytes_is_refused(tmp_path: Path) -> None:
    x = io.BytesIO()
    np.save(x, np.zeros(4))
    head = x.getvalue()[:128].replace(b"(4,), }", b"(%d,), }" % 2**45)
    head = head[:127].rstrip(b" \n").ljust(127) + b"\n"
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as z:
        z.writestr("mu.npy", head + bytes(32))
        z.writestr("sigma.npy", head + bytes(32))
    with pytest.raises(DataError, match=r"s\.npz: not a readable statistics file"):
        Moments.load(tmp_path / "s.npz")


def test_a_million_blocks_in_a_png_end(tmp_path: Path) -> None:
    good = png(IMAGES[0])
    root = folder(tmp_path / "set", ["0.png"])
    (root / "x.png").write_bytes(good[:33] + chunk(b"tEXt", b"") * 100_000 + good[33:])
    assert len(open_samples(root)) == 2


def test_a_tiff_whose_pages_go_round_ends(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(out, "tiff")
    data = bytearray(out.getvalue())
    first = int.from_bytes(data[4:8], "little")
    after = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    data[after : after + 4] = struct.pack("<I", first)  # the next page is the first one
    root = folder(tmp_path / "set", ["0.png"])
    (root / "x.tif").write_bytes(data)
    samples = open_samples(root, on_bad="skip")
    assert "x.tif" in [*samples.names, *(n for n, _ in samples.skipped)]


def test_braces_that_multiply_are_refused(tmp_path: Path) -> None:
    for pattern in ("{a,b}" * 40, "{0..999}" * 4, "{0..99999999}"):
        with pytest.raises(UsageError, match="more than 100,000 parts"):
            open_samples(str(tmp_path / f"{pattern}.tar"))


# -- links and special files in a folder ---------------------------------------------------------------------------------------------


def test_links_in_a_folder_are_followed_to_files_and_folders_only(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", ["0.png"])
    far = folder(tmp_path / "far", ["1.png"])
    (root / "file.png").symlink_to(far / "1.png")
    (root / "folder").symlink_to(far, target_is_directory=True)
    assert list(open_samples(root).names) == ["0.png", "file.png", "folder/1.png"]
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "round").symlink_to(root, target_is_directory=True)
    with pytest.raises(
        DataError, match=r"(?s)round: a symbolic link back to a folder above it.*zero\.png: a device, expected a regular file"
    ):
        open_samples(root)


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/stdin", "/proc/self/mem"])
def test_a_device_as_the_source_is_refused(target: str) -> None:
    if not Path(target).exists():
        pytest.skip(f"no {target} here")
    with pytest.raises(DataError, match=target):
        open_samples(target)


def test_names_of_metrics_and_protocols_are_no_paths() -> None:
    x = RNG.normal(size=(9, 2))
    for spec in ("../fid", "fid@../../x", "os.system:x=1", "fid:__class__=1", "__import__", "fid@os"):
        with pytest.raises(UsageError):
            genbench.evaluate(x, x, metrics=[spec], cache=None)
    with pytest.raises(UsageError, match="unknown protocol"):
        genbench.evaluate(x, x, protocol="../../etc/passwd", cache=None)


def test_a_setting_is_a_literal_and_never_an_expression(marker: Path) -> None:
    from genbench.metric import parse_spec

    text = f"__import__('os').mkdir({str(marker)!r})"
    assert parse_spec(f"kid:subsets={text}").settings == (("subsets", text),)
    with pytest.raises(UsageError, match="of type"):
        genbench.evaluate(RNG.normal(size=(9, 2)), RNG.normal(size=(9, 2)), metrics=[f"kid:subsets={text}"], cache=None)
    assert not marker.exists()
