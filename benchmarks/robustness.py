"""What genbench and its peers do with bad and odd input: 24 good images and one bad thing, containers, arrays, statistics files.

    python benchmarks/robustness.py                   # all inputs, all tools: robustness.csv and robustness.md
    python benchmarks/robustness.py --only x.png FIFO  # inputs whose text has one of these words, printed only
    python benchmarks/robustness.py --render          # the report again from the CSV files

Needs the extra [parity] for the peers: pytorch-fid, torch-fidelity and clean-fid run through their own entry points, on Inception weights
that are random, written in their own file format and read by their own code. All three score 64 features (the first pooling layer: an
option of pytorch-fid and torch-fidelity, a custom extractor for clean-fid), genbench the 256 of its extractor "random". An image that a
network has seen is not computed again. Each tool has a worker process with a time limit per input, which is started again after a hang.

Every input that has a right answer comes with the images that it means, as plain 8-bit PNG: what a viewer shows on a white page. The same
tool scores these too, and its two numbers are compared.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import socket
import struct
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import encode, npy, npz, packed
from PIL import Image

HERE = Path(__file__).parent
PEERS = ("pytorch-fid", "torch-fidelity", "clean-fid")
TOOLS = ("genbench", *PEERS)
LIMIT = 60.0
"""Seconds for one input, of any tool; a clean one takes 1 to 8 on a busy machine."""
MEMORY = 16 * 2**30
SAME = 1e-5
"""Two numbers of one tool that are closer than this, relative to the clean one, are equal; the same pixels give 1e-7 or less."""
OUTCOMES = ("number equal", "number, said", "clear error", "moved without a word", "dropped without a word", "bare traceback", "hang")
GOOD = OUTCOMES[:3]
FIELDS = ("group", "input", "tool", "outcome", "clean", "value", "said", "skip", "seconds")

Rows = list[np.ndarray]


# -- the inputs --------------------------------------------------------------------------------------------------------------------


def scene(i: int) -> np.ndarray:
    """A smooth 32×32 colour image."""
    rng = np.random.default_rng([5, i])
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
    return np.asarray(coarse)


BASE: Rows = [scene(i) for i in range(24)]
REFERENCE: Rows = [scene(100 + i) for i in range(24)]
X = scene(24)
GREY = X[..., 1]
GREY3 = np.repeat(GREY[..., None], 3, axis=2)


@dataclass(frozen=True)
class Case:
    """An input.

    Args:
        group: heading of the report.
        about: what it is.
        make: writes it into an empty folder; returns what is passed to the tools and the text by which an error must name it.
        means: the images that it means; None where it has no right answer.
        peers: who claims to take such input.
        statistics: changes a tool's own mean and covariance of the reference into the file's bytes; it is then passed as the reference.
        options: more flags for genbench.
    """

    group: str
    about: str
    make: Callable[[Path], tuple[Path, str]] | None
    means: Rows | None
    peers: tuple[str, ...] = PEERS
    statistics: Callable[[np.ndarray, np.ndarray], bytes] | None = None
    options: tuple[str, ...] = ()


CASES: list[Case] = []


def write(folder: Path, images: Sequence[np.ndarray]) -> None:
    """Plain PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        (folder / f"{i:02d}.png").write_bytes(encode(image, "png"))


def beside(group: str, about: str, data: bytes, means: np.ndarray | None, name: str = "x.png", **more: Any) -> None:
    """24 good images and one file."""

    def make(folder: Path) -> tuple[Path, str]:
        write(folder / "set", BASE)
        (folder / "set" / name).write_bytes(data)
        return folder / "set", name

    CASES.append(
        Case(
            group,
            f"{about}" + (f" ({name})" if name.isascii() and name.isprintable() else ""),
            make,
            None if means is None else [*BASE, means],
            **more,
        )
    )


def folder_case(group: str, about: str, fill: Callable[[Path], str], means: Rows | None, good: Rows = BASE, **more: Any) -> None:
    """24 good images and whatever `fill` adds; it returns what an error must name."""

    def make(folder: Path) -> tuple[Path, str]:
        write(folder / "set", good)
        return folder / "set", fill(folder / "set") or "set"

    CASES.append(Case(group, about, make, means, **more))


def file_case(
    group: str, about: str, name: str, data: bytes, means: Rows | None, peers: tuple[str, ...] = (), options: tuple[str, ...] = ()
) -> None:
    """One file that is passed itself."""

    def make(folder: Path) -> tuple[Path, str]:
        (folder / name).write_bytes(data)
        return folder / name, name

    CASES.append(Case(group, about, make, means, peers, options=options))


def statistics_case(about: str, change: Callable[[np.ndarray, np.ndarray], bytes], right: bool = False) -> None:
    """A statistics file as the reference."""
    CASES.append(Case("statistics files", about, None, BASE if right else None, ("pytorch-fid",), statistics=change))


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG block."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG of unfiltered rows."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def lines(x: np.ndarray) -> bytes:
    """Unfiltered rows."""
    return b"".join(b"\0" + row.tobytes() for row in x)


def bomb(side: int) -> bytes:
    """A 1-bit PNG of side² pixels in a few kilobytes."""
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def over_white(x: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What a viewer shows on a white page."""
    a = alpha.astype(float)[..., None] / 255
    return np.floor(x * a + 255 * (1 - a) + 0.5 - 1e-9).astype(np.uint8)


def plain(data: bytes) -> np.ndarray:
    """What Pillow shows of a file without any trick in it."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def exif(turn: int) -> Any:
    """An EXIF block with an orientation."""
    made = Image.Exif()
    made[0x0112] = turn
    return made


def animation(kind: str, **options: Any) -> bytes:
    """Three frames, the first of them X."""
    out = io.BytesIO()
    frames = [Image.fromarray(f) for f in (X, 255 - X, X[::-1])]
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], **options)
    return out.getvalue()


def broken() -> None:
    """Files that cannot be read."""
    group = "files that cannot be read"
    png, jpg = encode(X, "png"), encode(X, "jpeg", quality=95)
    turned = bytearray(png)
    turned[len(png) // 2] ^= 1
    rows = lines(X)
    beside(group, "PNG cut in half", png[: len(png) // 2], None)
    beside(group, "PNG without its end block", png[:-12], None)
    beside(group, "PNG, one bit of the pixel data turned", bytes(turned), None)
    beside(group, "PNG, wrong checksum of the header", png[:29] + bytes(4) + png[33:], None)
    beside(group, "PNG, half of the rows missing, checksums right", raw_png(32, 32, 8, 2, rows[: len(rows) // 2]), None)
    beside(group, "PNG without pixel data", png[:33] + chunk(b"IEND", b""), None)
    beside(group, "palette PNG without palette", raw_png(32, 32, 8, 3, lines(GREY)), None)
    beside(group, "PNG of 0×32 pixels", raw_png(0, 32, 8, 2, b""), None)
    beside(group, "PNG of a bit depth that does not exist", raw_png(32, 32, 3, 0, bytes(999)), None)
    beside(group, "JPEG cut in half", jpg[: len(jpg) // 2], None, "x.jpg")
    beside(group, "JPEG without its end mark", jpg[:-2], None, "x.jpg")
    beside(group, "JPEG, header only", jpg[:160], None, "x.jpg")
    beside(group, "WebP cut", encode(X, "webp", lossless=True)[:-40], None, "x.webp")
    beside(group, "TIFF cut", encode(X, "tiff")[:1500], None, "x.tif")
    beside(group, "BMP cut", encode(X, "bmp")[:-500], None, "x.bmp")
    beside(group, "GIF cut", encode(GREY, "gif")[:-300], None, "x.gif")
    beside(group, "zero bytes", b"", None)
    beside(group, "4 KiB of zeros", bytes(4096), None)
    beside(group, "text", b"not an image\n", None)
    beside(group, "an HTML page, from a failed download", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", None)
    beside(group, "a git-lfs pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", None)
    beside(group, "a PDF", b"%PDF-1.7\n1 0 obj", None, "x.jpg")
    beside(group, "a gzip file", zlib.compress(png, wbits=31), None)
    beside(group, "random bytes", np.random.default_rng(1).bytes(3000), None)
    beside(group, "an SVG drawing", b"<svg xmlns='http://www.w3.org/2000/svg'/>", None)
    beside(group, "float TIFF, values 0 to 1", encode(X[..., 1].astype(np.float32) / 255, "tiff"), None, "x.tif")
    beside(group, "32-bit integer TIFF", encode(GREY.astype(np.int32) * 1000, "tiff"), None, "x.tif")
    out = io.BytesIO()
    Image.new("LAB", (32, 32)).save(out, "tiff")
    beside(group, "Lab TIFF", out.getvalue(), None, "x.tif")


def codings() -> None:
    """Good pictures in other codings: the 25th image has a right answer."""
    group = "other codings of a good picture"
    alpha = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))
    hidden = X.copy()
    hidden[:, :16] = (255, 0, 255)
    clear = np.where(np.arange(32) < 16, 0, 255).astype(np.uint8)[None].repeat(32, 0)
    wide = np.random.default_rng(2).integers(0, 65536, (32, 32, 3)).astype(np.uint16)
    narrow = np.rint(wide / 257).astype(np.uint8)
    bits = GREY > 128
    few = Image.fromarray(X).quantize(16)
    table, index = np.array(few.getpalette()[:48], np.uint8).reshape(-1, 3), np.asarray(few)
    shades = np.full(16, 255, np.uint8)
    shades[:4] = 0
    keyed = X.copy()
    keyed[:8] = (9, 9, 9)
    cmyk = Image.fromarray(X).convert("CMYK")
    out = io.BytesIO()
    cmyk.save(out, "tiff")
    cmyk_tiff = out.getvalue()
    out = io.BytesIO()
    cmyk.save(out, "jpeg", quality=95)
    cmyk_jpeg = out.getvalue()
    good, jpg, avif = encode(X, "png"), encode(X, "jpeg", quality=95), encode(X, "avif")
    turned = np.ascontiguousarray(np.rot90(X, -1))
    first = plain(animation("gif"))
    beside(group, "RGBA, colours hidden behind full transparency", encode(np.dstack([hidden, clear]), "png"), over_white(hidden, clear))
    beside(group, "RGBA, half transparent", encode(np.dstack([X, alpha]), "png"), over_white(X, alpha))
    beside(group, "RGBA, opaque", encode(np.dstack([X, np.full_like(GREY, 255)]), "png"), X)
    beside(group, "grey with alpha", encode(np.dstack([GREY, alpha]), "png"), over_white(GREY3, alpha))
    beside(
        group,
        "transparent colour key",
        raw_png(32, 32, 8, 2, lines(keyed), chunk(b"tRNS", struct.pack(">3H", 9, 9, 9))),
        np.where((keyed == 9).all(-1, keepdims=True), 255, keyed).astype(np.uint8),
    )
    beside(group, "palette", raw_png(32, 32, 8, 3, lines(index), chunk(b"PLTE", table.tobytes())), table[index])
    beside(
        group,
        "palette with transparency",
        raw_png(32, 32, 8, 3, lines(index), chunk(b"PLTE", table.tobytes()), chunk(b"tRNS", shades.tobytes())),
        over_white(table[index], shades[index]),
    )
    beside(group, "8-bit grey among colours", encode(GREY, "png"), GREY3)
    beside(group, "1-bit", encode(bits, "png"), np.repeat(bits[..., None], 3, 2) * np.uint8(255))
    beside(group, "16-bit grey", encode(wide[..., 0], "png"), np.repeat(narrow[..., :1], 3, 2))
    beside(group, "16-bit RGB", raw_png(32, 32, 16, 2, lines(wide.astype(">u2"))), narrow)
    beside(
        group,
        "16-bit grey with alpha 65535",
        raw_png(32, 32, 16, 4, lines(np.dstack([wide[..., 0], np.full((32, 32), 65535, np.uint16)]).astype(">u2"))),
        np.repeat(narrow[..., :1], 3, 2),
    )
    beside(group, "16-bit grey TIFF", encode(wide[..., 0], "tiff"), np.repeat(narrow[..., :1], 3, 2), "x.tif")
    beside(group, "CMYK TIFF", cmyk_tiff, plain(cmyk_tiff), "x.tif")
    beside(group, "CMYK JPEG", cmyk_jpeg, plain(cmyk_jpeg), "x.jpg")
    beside(group, "LZW TIFF", encode(X, "tiff", compression="tiff_lzw"), X, "x.tiff")
    beside(group, "a JPEG among PNG", jpg, plain(jpg), "x.jpg")
    beside(
        group,
        "JPEG with an EXIF rotation",
        encode(X, "jpeg", quality=95, exif=exif(6)),
        np.ascontiguousarray(np.rot90(plain(jpg), -1)),
        "x.jpg",
    )
    beside(group, "PNG with an EXIF rotation", encode(X, "png", exif=exif(6)), turned)
    beside(group, "PNG with an EXIF mirror", encode(X, "png", exif=exif(2)), X[:, ::-1])
    beside(group, "TIFF with a rotation", encode(X, "tiff", exif=exif(6)), turned, "x.tif")
    beside(group, "animated GIF", animation("gif"), first, "x.gif")
    beside(group, "animated WebP", animation("webp", lossless=True), X, "x.webp")
    beside(group, "animated PNG", animation("png"), X)
    beside(group, "TIFF of three pages", animation("tiff"), X, "x.tif")
    beside(group, "JPEG with junk behind its end", jpg + b"<script>" * 100, plain(jpg), "x.jpg")
    beside(group, "PNG with junk behind its end", encode(X, "png") + b"junk" * 100, X)
    beside(group, "a PNG that is called JPEG", encode(X, "png"), X, "x.jpg")
    beside(group, "a BMP that is called PNG", encode(X, "bmp"), X)
    beside(group, "upper-case ending", encode(X, "png"), X, "X.PNG")
    beside(group, "mixed-case ending", encode(X, "png"), X, "x.Png")
    beside(group, "BMP", encode(X, "bmp"), X, "x.bmp")
    beside(group, "lossless WebP", encode(X, "webp", lossless=True), X, "x.webp")
    beside(group, "GIF", encode(GREY, "gif"), GREY3, "x.gif")
    beside(group, "AVIF", avif, plain(avif), "x.avif")
    beside(group, "JPEG called .jfif", jpg, plain(jpg), "x.jfif")
    beside(group, "an image without an ending", encode(X, "png"), X, "x")
    beside(group, "PNG with a text block of 1 MB", good[:33] + chunk(b"tEXt", b"prompt\x00" + b"a " * 500000) + good[33:], X)


def sizes() -> None:
    """Bombs and odd sizes."""
    group = "bombs and odd sizes"
    good = encode(X, "png")
    bmp, gif = encode(X, "bmp"), encode(GREY, "gif")
    webp = (
        b"RIFF" + struct.pack("<I", 1000) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + (16382).to_bytes(3, "little") * 2 + bytes(978)
    )
    beside(group, "100-Mpx PNG of 12 KB", bomb(10000), None)
    beside(group, "400-Mpx PNG of 49 KB", bomb(20000), None)
    beside(group, "PNG whose header says 2³¹ × 2³¹", raw_png(2**31 - 1, 2**31 - 1, 8, 2, b""), None)
    beside(group, "WebP whose header says 268 Mpx", webp, None, "x.webp")
    beside(group, "BMP whose header says 400 Mpx", bmp[:18] + struct.pack("<ii", 20000, 20000) + bmp[26:], None, "x.bmp")
    beside(group, "GIF whose header says 4 Gpx", b"GIF89a" + struct.pack("<HH", 65535, 65535) + gif[10:], None, "x.gif")
    beside(group, "one image of 48×32", encode(np.pad(X, ((0, 0), (0, 16), (0, 0))), "png"), None)
    beside(group, "one image of 1×1", encode(X[:1, :1], "png"), None)
    beside(group, "one image of 1×1000", encode(np.repeat(X[:, :1], 32, 0)[:1000], "png"), None)
    for kind, head in ((b"zTXt", b"comment\0\0"), (b"iCCP", b"profile\0\0")):
        body = head + zlib.compress(bytes(200 * 2**20), 9)
        beside(group, f"200 MB of zeros in a {kind.decode()} block", good[:33] + chunk(kind, body) + good[33:], X)
    folder_case(group, "24 images of 24 sizes", lambda f: "01.png", None, [x[: 9 + i] for i, x in enumerate(BASE)])


def specials() -> None:
    """What is no regular file."""
    group = "no regular files"

    def entry(about: str, fill: Callable[[Path], Any], means: Rows | None = None, name: str = "x.png") -> None:
        def make(folder: Path) -> str:
            fill(folder)
            return name

        folder_case(group, about, make, means)

    def sock(folder: Path) -> None:
        with contextlib.chdir(folder), socket.socket(socket.AF_UNIX) as s:
            s.bind("x.png")

    def outside(folder: Path) -> None:
        (folder.parent / "elsewhere.png").write_bytes(encode(X, "png"))
        (folder / "x.png").symlink_to(folder.parent / "elsewhere.png")

    entry("FIFO called x.png", lambda f: os.mkfifo(f / "x.png"))
    entry("FIFO called pipe", lambda f: os.mkfifo(f / "pipe"), BASE)
    entry("socket called x.png", sock)
    entry("link to /dev/zero called x.png", lambda f: (f / "x.png").symlink_to("/dev/zero"))
    entry("dangling link", lambda f: (f / "x.png").symlink_to("nowhere.png"))
    entry("link to itself", lambda f: (f / "x.png").symlink_to("x.png"))
    entry("link to the folder above", lambda f: (f / "up").symlink_to(f, target_is_directory=True), BASE, name="up")
    entry("link to an image outside the folder", outside, [*BASE, X])
    entry("folder called x.png", lambda f: (f / "x.png").mkdir())
    if os.geteuid() != 0:  # root reads everything
        entry("unreadable file", lambda f: ((f / "x.png").write_bytes(encode(X, "png")), (f / "x.png").chmod(0)))


def names() -> None:
    """A good 25th image under an odd name, and odd names of the folder."""
    group = "odd names of a good file or its folder"
    good = encode(X, "png")
    beside(group, "name with spaces", good, X, "x y z.png")
    beside(group, "name with Unicode", good, X, "ünïcødé-日本.png")
    beside(group, "name with Unicode, decomposed", good, X, "ü.png")
    beside(group, "name with a newline", good, X, "x\ny.png")
    beside(group, "name with a tab", good, X, "x\ty.png")
    beside(group, "name with quotes", good, X, "x\"y'z.png")
    beside(group, "name with a backslash", good, X, "x\\y.png")
    beside(group, "name with a leading dash", good, X, "-x.png")
    beside(group, "name with a leading dot", good, X, ".x.png")
    beside(group, "name with a formula", good, X, "=cmd|'calc'!A0.png")
    beside(group, "name with a plus sign", good, X, "+x.png")
    beside(group, "name with an at sign", good, X, "@x.png")
    beside(group, "name with HTML", good, X, "<img src=x onerror=alert(1)>.png")
    beside(group, "name with a terminal escape", good, X, "x\x1b[31m.png")
    beside(group, "name with a bidirectional override", good, X, "x\u202egnp.png")
    beside(group, "name with format characters", good, X, "x%s{0}.png")
    beside(group, "name with brackets", good, X, "x[0].png")
    beside(group, "name with a star", good, X, "x*.png")
    beside(group, "name of 250 letters", good, X, "x" * 246 + ".png")
    beside(group, "name with only an ending", good, X, ".png")
    beside(group, "name with several endings", good, X, "x.tar.gz.png")

    def raw(folder: Path) -> str:
        Path(os.fsdecode(os.fsencode(folder) + b"/x\xff\xfe.png")).write_bytes(good)
        return "x"

    folder_case(group, "name that is not UTF-8", raw, [*BASE, X])
    for about, name in (
        ("brackets", "out[0]"),
        ("braces", "{a,b}"),
        ("a star", "out*"),
        ("a dot zip in the middle", "my.zip.d"),
        ("an npz ending", "x.npz"),
        ("a space at the end", "out "),
    ):

        def make(folder: Path, name: str = name) -> tuple[Path, str]:
            write(folder / name, BASE)
            return folder / name, name

        CASES.append(Case(group, f"folder's name with {about}", make, BASE))


def folders() -> None:
    """Folders with other things in them, or with little."""
    group = "folders"

    def entry(about: str, files: dict[str, bytes], means: Rows | None, needle: str = "set", good: Rows = BASE) -> None:
        def fill(folder: Path) -> str:
            for name, data in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
            return needle

        folder_case(group, about, fill, means, good)

    good = encode(X, "png")
    entry(".DS_Store and Thumbs.db", {".DS_Store": bytes(6148), "Thumbs.db": bytes(999)}, BASE)
    entry("macOS ._x.png", {"._x.png": b"\x00\x05\x16\x07" + bytes(100)}, BASE)
    entry("__MACOSX folder", {"__MACOSX/._00.png": b"\x00\x05\x16\x07"}, BASE)
    entry("notebook checkpoints", {".ipynb_checkpoints/00-checkpoint.png": encode(BASE[0], "png")}, BASE)
    entry("text and CSV files", {"notes.txt": b"hi", "labels.csv": b"a,b"}, BASE)
    entry("a zip of images beside the images", {"more.zip": packed("zip", {"a.png": good})}, BASE)
    entry("images in class folders", {f"{i % 3}/{i}.png": encode(x, "png") for i, x in enumerate(BASE)}, BASE, good=[])
    entry("one image in a subfolder", {"sub/x.png": good}, [*BASE, X])
    entry("empty folder", {}, None, good=[])
    entry("only a text file", {"notes.txt": b"hi"}, None, good=[])
    entry("one image", {}, None, good=BASE[:1])
    entry("two images", {}, None, good=BASE[:2])
    entry("24 equal images", {}, None, good=[X] * 24)
    entry("24 black images", {}, None, good=[np.zeros_like(X)] * 24)
    entry("every image twice", {}, BASE + BASE, good=BASE + BASE)
    entry("masks saved as 0 and 1", {}, None, good=[(x > 128).astype(np.uint8) for x in BASE])
    CASES.append(Case(group, "path that does not exist", lambda f: (f / "absent", "absent"), None))
    file_case(group, "path of one image", "x.png", good, None, PEERS)
    file_case(group, "path of a text file", "x.txt", b"hello", None, PEERS)


def archives() -> None:
    """Zip and tar files of images."""
    group = "archives"
    files = {f"{i:02d}.png": encode(x, "png") for i, x in enumerate(BASE)}
    good, tar, gz = packed("zip", files), packed("tar", files), packed("tar.gz", files)
    extra = {**files, "x.png": encode(X, "png")}
    zips = ("clean-fid",)
    used = sum(512 + -(-len(d) // 512) * 512 for d in files.values())

    def special_tar(name: str, kind: bytes, link: str = "") -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as t:
            for file, data in files.items():
                member = tarfile.TarInfo(file)
                member.size = len(data)
                t.addfile(member, io.BytesIO(data))
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            t.addfile(member)
        return out.getvalue()

    def link_zip() -> bytes:
        out = io.BytesIO(good)
        with zipfile.ZipFile(out, "a") as z:
            info = zipfile.ZipInfo("x.png")
            info.external_attr = 0o120777 << 16
            z.writestr(info, "/etc/passwd")
        return out.getvalue()

    def twice() -> bytes:
        out = io.BytesIO(good)
        with warnings.catch_warnings(), zipfile.ZipFile(out, "a") as z:
            warnings.simplefilter("ignore")
            z.writestr("00.png", encode(X, "png"))
        return out.getvalue()

    locked, crossed = bytearray(good), bytearray(packed("stored", extra))
    turned = bytearray(packed("stored", {f"{i:02d}.bmp": encode(x, "bmp") for i, x in enumerate(BASE)}))
    locked[6] |= 1
    locked[good.index(b"PK\x01\x02") + 8] |= 1
    last = crossed.rindex(b"PK\x01\x02")
    crossed[last + 42 : last + 46] = bytes(4)
    turned[2000] ^= 1
    bad_sum = bytearray(gz)
    bad_sum[-6] ^= 1
    blanked = bytearray(tar)
    at = next(i for i in range(used // 2 // 512 * 512, used, 512) if tar[i + 257 : i + 262] == b"ustar")
    blanked[at : at + 512] = bytes(512)
    inner = packed("zip", {"a.png": encode(X, "png")})
    file_case(group, "zip of the images", "x.zip", good, BASE, zips)
    file_case(
        group,
        "zip with names that lead out of it (../)",
        "x.zip",
        packed("zip", {**files, "../../x.png": extra["x.png"]}),
        [*BASE, X],
        zips,
    )
    file_case(group, "zip with absolute names", "x.zip", packed("zip", {**files, "/tmp/x.png": extra["x.png"]}), [*BASE, X], zips)
    file_case(group, "zip cut in half", "x.zip", good[: len(good) // 2], None, zips)
    file_case(group, "zip without its last 10 bytes", "x.zip", good[:-10], None, zips)
    file_case(group, "encrypted zip", "x.zip", bytes(locked), None, zips)
    file_case(group, "zip with a zip in it", "x.zip", packed("zip", {**files, "inner.zip": inner}), None, zips)
    file_case(group, "zip with a 200 : 1 bomb in it", "x.zip", packed("zip", {**files, "x.bmp": b"BM" + bytes(40 * 2**20)}), None, zips)
    file_case(group, "zip, two names for the same bytes", "x.zip", bytes(crossed), None, zips)
    file_case(group, "zip, one bit of a stored member turned", "x.zip", bytes(turned), None, zips)
    file_case(group, "zip with a symbolic link in it", "x.zip", link_zip(), None, zips)
    file_case(group, "zip with one name twice", "x.zip", twice(), [*BASE, X], zips)
    file_case(group, "zip without images", "x.zip", packed("zip", {"notes.txt": b"hi"}), None, zips)
    file_case(group, "empty zip", "x.zip", packed("zip", {}), None, zips)
    file_case(group, "text called .zip", "x.zip", b"hello " * 50, None, zips)
    file_case(group, "zip with macOS litter", "x.zip", packed("zip", {**files, "__MACOSX/._00.png": b"\x00\x05\x16\x07"}), BASE, zips)
    file_case(group, "tar of the images", "x.tar", tar, BASE)
    file_case(group, "tar.gz of the images", "x.tar.gz", gz, BASE)
    file_case(group, "tar with names that lead out of it (../)", "x.tar", packed("tar", {**files, "../x.png": extra["x.png"]}), [*BASE, X])
    file_case(group, "tar with absolute names", "x.tar", packed("tar", {**files, "/tmp/x.png": extra["x.png"]}), [*BASE, X])
    file_case(group, "tar with a device in it", "x.tar", special_tar("zero", tarfile.CHRTYPE), BASE)
    file_case(group, "tar with a device called x.png", "x.tar", special_tar("x.png", tarfile.CHRTYPE), None)
    file_case(group, "tar with a link to /etc/passwd called x.png", "x.tar", special_tar("x.png", tarfile.SYMTYPE, "/etc/passwd"), None)
    file_case(group, "tar with a hard link called x.png", "x.tar", special_tar("x.png", tarfile.LNKTYPE, "00.png"), None)
    file_case(group, "tar cut in half", "x.tar", tar[: used // 2], None)
    file_case(group, "tar without its end mark", "x.tar", tar[:used], BASE)
    file_case(group, "tar, one header blanked", "x.tar", bytes(blanked), None)
    file_case(group, "two tars joined", "x.tar", tar + packed("tar", {"x.png": extra["x.png"]}), None)
    file_case(group, "tar.gz cut in half", "x.tar.gz", gz[: len(gz) // 2], None)
    file_case(group, "tar.gz, wrong checksum at its end", "x.tar.gz", bytes(bad_sum), None)
    file_case(group, "tar with a tar in it", "x.tar", packed("tar", {**files, "inner.tar": tar}), None)


class _Runs:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[Callable[[int], Any], tuple[int]]:
        return sys.exit, (66,)


def array_files() -> None:
    """Images in array files; no peer reads them."""
    from safetensors.numpy import save

    group = "array files"
    x = np.stack(BASE)
    objects = io.BytesIO()
    np.save(objects, np.array([_Runs()], dtype=object), allow_pickle=True)
    turned, claim = bytearray(npz("stored", images=x)), bytearray(npy(x))
    turned[9000] ^= 1
    claim[:128] = claim[:128].replace(b"(24, 32, 32, 3), }          ", b"(1152921504606846976, 3), } ")
    good = save({"images": x})
    size = int.from_bytes(good[:8], "little")
    lying = (
        good[:8] + good[8 : 8 + size].replace(str(x.nbytes).encode(), str(x.nbytes * 9).encode()[: len(str(x.nbytes))]) + good[8 + size :]
    )
    nan = x / 255.0
    nan[3, 2, 1, 0] = np.nan
    infinite = x / 255.0
    infinite[5] = np.inf
    mixed = np.stack([b[:3] for b in BASE])
    file_case(group, "npy, uint8, channels last", "x.npy", npy(x), BASE)
    file_case(group, "npy, uint8, channels first", "x.npy", npy(x.transpose(0, 3, 1, 2)), BASE)
    file_case(group, "npy, Fortran order", "x.npy", npy(np.asfortranarray(x)), BASE)
    file_case(group, "npz, arr_0", "x.npz", npz("zip", arr_0=x), BASE)
    file_case(group, "safetensors", "x.safetensors", good, BASE)
    file_case(group, "npz, float in [0, 1]", "x.npz", npz("zip", images=(x / 255).astype(np.float32)), BASE)
    file_case(group, "npz, float in [−1, 1]", "x.npz", npz("zip", images=(x / 127.5 - 1).astype(np.float32)), BASE)
    file_case(group, "npz, float in [0, 255], whole", "x.npz", npz("zip", images=x.astype(np.float32)), BASE)
    file_case(group, "npz, float in [0, 300]", "x.npz", npz("zip", images=x * np.float32(300 / 255)), None)
    file_case(group, "npz, float in [−3, 3]", "x.npz", npz("zip", images=(x / 42.5 - 3).astype(np.float32)), None)
    file_case(
        group, "the same with --value-range −3 3", "x.npz", npz("zip", images=x / 42.5 - 3), BASE, options=("--value-range", "-3", "3")
    )
    file_case(group, "npz, int16 with negative values", "x.npz", npz("zip", images=x.astype(np.int16) - 1), None)
    file_case(group, "npz, one NaN", "x.npz", npz("zip", images=nan), None)
    file_case(group, "npz, an infinite image", "x.npz", npz("zip", images=infinite), None)
    file_case(group, "npz, (n, 3, 32, 3): either order", "x.npz", npz("zip", images=mixed), None)
    file_case(group, "npz, four channels", "x.npz", npz("zip", images=np.concatenate([x, x[..., :1]], -1)), None)
    file_case(group, "npz, two channels", "x.npz", npz("zip", images=x[..., :2]), None)
    file_case(group, "npz, one image (h, w, 3)", "x.npz", npz("zip", images=x[0]), None)
    file_case(group, "npz, no samples", "x.npz", npz("zip", images=x[:0]), None)
    file_case(group, "npz, complex numbers", "x.npz", npz("zip", images=x.astype(complex)), None)
    file_case(group, "npz, text", "x.npz", npz("zip", images=np.array(["a", "b"])), None)
    file_case(group, "npz, a table", "x.npz", npz("zip", images=np.zeros(3, [("a", "f4")])), None)
    file_case(group, "npz, an unknown key", "x.npz", npz("zip", pictures=x), None)
    file_case(group, "npz, two candidates", "x.npz", npz("zip", images=x, samples=x), None)
    file_case(group, "npz with a pickled object", "x.npz", packed("zip", {"images.npy": objects.getvalue()}), None)
    file_case(group, "npy with a pickled object", "x.npy", objects.getvalue(), None)
    file_case(group, "npy cut", "x.npy", npy(x)[:-100], None)
    file_case(group, "npy with a second array behind the first", "x.npy", npy(x[:12]) + npy(x[12:]), None)
    file_case(group, "npy whose header says 2⁶⁰ rows", "x.npy", bytes(claim), None)
    file_case(group, "npz cut", "x.npz", npz("zip", images=x)[:-2000], None)
    file_case(group, "npz, one bit of a stored array turned", "x.npz", bytes(turned), None)
    file_case(group, "npz with a broken header", "x.npz", packed("zip", {"images.npy": b"\x93NUMPY\x01\x00" + bytes(200)}), None)
    file_case(group, "safetensors cut", "x.safetensors", good[:-100], None)
    file_case(group, "safetensors whose header lies", "x.safetensors", lying, None)
    file_case(group, "safetensors whose header is 2⁶⁰ bytes long", "x.safetensors", struct.pack("<Q", 2**60) + good[8:], None)
    file_case(group, "text called .npy", "x.npy", b"hello\n" * 50, None)
    file_case(group, "HTML called .npz", "x.npz", b"<html>" * 50, None)
    file_case(group, "a statistics file as the samples", "x.npz", npz("zip", mu=np.zeros(3), sigma=np.eye(3)), None)
    file_case(group, "npz, uint8 masks of 0 and 1", "x.npz", npz("zip", images=(x > 128).astype(np.uint8)), None)


def statistics_files() -> None:
    """A reference of mean and covariance, changed."""

    def change(**new: Any) -> bytes:
        return npz("zip", **new)

    def poked(x: np.ndarray, at: Any, value: float) -> np.ndarray:
        x = np.array(x)
        x[at] = value
        return x

    def negative(s: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(s)
        values[:5] = -0.3 * values[-1]
        return (vectors * values) @ vectors.T

    objects = io.BytesIO()
    np.save(objects, np.array([_Runs()], dtype=object), allow_pickle=True)
    statistics_case("as written", lambda m, s: change(mu=m, sigma=s), True)
    statistics_case("with other arrays beside them", lambda m, s: change(mu=m, sigma=s, extra=np.zeros(3)), True)
    statistics_case("NaN in mu", lambda m, s: change(mu=poked(m, 3, np.nan), sigma=s))
    statistics_case("NaN in sigma", lambda m, s: change(mu=m, sigma=poked(s, (3, 3), np.nan)))
    statistics_case("infinity in sigma", lambda m, s: change(mu=m, sigma=poked(s, (2, 2), np.inf)))
    statistics_case("negative eigenvalues", lambda m, s: change(mu=m, sigma=negative(s)))
    statistics_case("sigma not symmetric", lambda m, s: change(mu=m, sigma=poked(s, (0, 1), s.max() * 9)))
    statistics_case("of another dimension", lambda m, s: change(mu=m[:-1], sigma=s[:-1, :-1]))
    statistics_case("mu and sigma do not fit", lambda m, s: change(mu=m[:-1], sigma=s))
    statistics_case("mu of shape (1, d)", lambda m, s: change(mu=m[None], sigma=s))
    statistics_case("sigma is a vector of variances", lambda m, s: change(mu=m, sigma=np.diag(s)))
    statistics_case("sigma missing", lambda m, s: change(mu=m))
    statistics_case("sigma all zeros", lambda m, s: change(mu=m, sigma=np.zeros_like(s)))
    statistics_case("complex sigma", lambda m, s: change(mu=m, sigma=s + 0.1j * s))
    statistics_case("pickled object", lambda m, s: packed("zip", {"mu.npy": objects.getvalue(), "sigma.npy": npy(s)}))
    statistics_case("text in mu", lambda m, s: change(mu=m.astype(str), sigma=s))
    statistics_case("empty arrays", lambda m, s: change(mu=m[:0], sigma=s[:0, :0]))
    statistics_case("cut", lambda m, s: change(mu=m, sigma=s)[:-3000])
    statistics_case("HTML called .npz", lambda m, s: b"<html>not found</html>" * 9)


for build in (broken, codings, sizes, specials, names, folders, archives, array_files, statistics_files):
    build()


# -- the tools ---------------------------------------------------------------------------------------------------------------------


Score = Callable[[str, str, tuple[str, ...]], tuple[float, str]]
"""(samples, reference, more flags) -> the number and what was said beside it."""


def genbench_tool(root: Path) -> Score:
    """The command line, in this process; an error that it explains is raised as Explained."""
    from genbench import cli

    def score(samples: str, reference: str, options: tuple[str, ...]) -> tuple[float, str]:
        out, err = io.StringIO(), io.StringIO()
        flags = ["--metrics", "fid", "--extractor", "random", "--device", "cpu", "--no-cache", "--quiet", "--json"]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run(["eval", samples, "--reference", reference, *flags, *options])
        if not out.getvalue():
            raise Explained(f"exit {code}: {err.getvalue().removeprefix('genbench: ').strip()}")
        record = json.loads(out.getvalue())
        found = {r["quantity"]: r["value"] for r in record["results"]}
        if "fid" not in found:
            raise Explained(f"exit {code}, no number: {'; '.join(s['reason'] for s in record['skipped'])}")
        said = [*record["warnings"], *(f"left out {item}: {why}" for item, why in record["subject"]["skipped"])]
        return found["fid"], "\n".join(said)

    return score


class Explained(Exception):
    """An error that a tool explains in a message of its own, without a traceback."""


def remembered(forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A network's forward pass, each image alone and once: nearly all inputs have 24 images in common."""
    import torch

    known: dict[str, Any] = {}

    def call(batch: Any) -> Any:
        parts = []
        for x in batch:
            key = hashlib.sha256(f"{x.dtype}{x.shape}".encode() + x.numpy().tobytes()).hexdigest()
            if key not in known:
                known[key] = forward(x[None])
            parts.append(known[key])
        return type(parts[0])(torch.cat(same) for same in zip(*parts, strict=True))

    return call


def pytorch_fid_tool(root: Path) -> Score:
    """calculate_fid_given_paths at 64 features; the network is built once, and the reference is a statistics file."""
    from pytorch_fid import fid_score
    from pytorch_fid.inception import InceptionV3

    net = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[64]])
    net.forward = remembered(net.forward)
    fid_score.InceptionV3 = type("Warm", (), {"BLOCK_INDEX_BY_DIM": InceptionV3.BLOCK_INDEX_BY_DIM, "__new__": lambda cls, blocks: net})
    saved = root / "pytorch-fid.npz"

    def score(samples: str, reference: str, options: tuple[str, ...]) -> tuple[float, str]:
        if Path(reference).is_dir():
            if not saved.is_file():
                fid_score.save_fid_stats([reference, str(saved)], 50, "cpu", 64, 0)
            reference = str(saved)
        return float(fid_score.calculate_fid_given_paths([samples, reference], 50, "cpu", 64, 0)), ""

    return score


def torch_fidelity_tool(root: Path) -> Score:
    """calculate_metrics at 64 features; the network is built once and the reference cached."""
    import functools

    import torch_fidelity
    from torch_fidelity import metrics

    build = metrics.create_feature_extractor

    @functools.cache
    def warm(name: str, layers: tuple[str, ...], path: str) -> Any:
        net = build(name, list(layers), cuda=False, verbose=False, feature_extractor_weights_path=path)
        net.forward = remembered(net.forward)
        return net

    metrics.create_feature_extractor = lambda name, layers, cuda=True, **kw: warm(name, tuple(layers), kw["feature_extractor_weights_path"])
    weights = str(next((root / "torch").rglob("*.pth")))

    def score(samples: str, reference: str, options: tuple[str, ...]) -> tuple[float, str]:
        found = torch_fidelity.calculate_metrics(
            input1=samples, input2=reference, cuda=False, fid=True, feature_layer_fid="64", feature_extractor_weights_path=weights,
            cache=True, cache_root=str(root / "fidelity"), input2_cache_name="reference", save_cpu_ram=True,
        )  # fmt: skip
        return float(found["frechet_inception_distance"]), ""

    return score


def clean_fid_tool(root: Path) -> Score:
    """compute_fid between two folders, its own network cut at 64 features handed to it."""
    import torch
    from cleanfid import fid
    from cleanfid.inception_pytorch import InceptionV3

    net = InceptionV3(output_blocks=[0], resize_input=False).eval()
    net.forward = remembered(net.forward)

    def features(x: torch.Tensor) -> torch.Tensor:
        return net(x / 255)[0].mean(dim=(2, 3))

    def score(samples: str, reference: str, options: tuple[str, ...]) -> tuple[float, str]:
        device = torch.device("cpu")
        return float(fid.compute_fid(samples, reference, num_workers=0, device=device, custom_feat_extractor=features)), ""

    return score


MAKERS: dict[str, Callable[[Path], Score]] = {
    "genbench": genbench_tool,
    "pytorch-fid": pytorch_fid_tool,
    "torch-fidelity": torch_fidelity_tool,
    "clean-fid": clean_fid_tool,
}


def serve(tool: str, root: Path, pipe: Connection) -> None:
    """A worker: answers (samples, reference, flags) with what the tool does."""
    import resource

    import torch

    os.environ |= {"TORCH_HOME": str(root / "torch"), "GENBENCH_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"}
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    log = root / f"{tool}.log"
    handle = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    score = MAKERS[tool](root)
    pipe.send("ready")
    while True:
        samples, reference, options = pipe.recv()
        os.truncate(log, 0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                value, said = score(samples, reference, options)
                answer: tuple[str, Any, str] = ("number", value, said)
            except Explained as e:
                answer = ("explained", None, str(e))
            except KeyboardInterrupt:
                return
            except BaseException as e:  # whatever ends the tool, SystemExit of a hostile pickle included, is the finding
                answer = ("traceback", None, f"{type(e).__name__}: {e}")
        sys.stdout.flush()
        sys.stderr.flush()
        ours = (DeprecationWarning, FutureWarning, PendingDeprecationWarning, ResourceWarning, ImportWarning)  # they are not for users
        heard = [str(w.message) for w in caught if not issubclass(w.category, ours)]
        heard += [line for line in log.read_text(errors="replace").splitlines() if re.search("warn|lossy|skip|ignor", line, re.I)]
        if answer[0] == "number" and tool != "genbench":
            answer = (*answer[:2], "\n".join([answer[2], *heard]).strip())
        pipe.send(answer)


class Worker:
    """A tool in a process of its own.

    Args:
        tool: one of TOOLS.
        root: folder for weights, caches and logs.
    """

    def __init__(self, tool: str, root: Path) -> None:
        self.tool, self.root = tool, root
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._pipe, other = self._context.Pipe()
        self._process = self._context.Process(target=serve, args=(self.tool, self.root, other), daemon=True)
        self._process.start()
        other.close()
        if not self._pipe.poll(180) or self._pipe.recv() != "ready":
            raise RuntimeError(f"{self.tool} did not start")

    def ask(self, samples: Path, reference: Path, options: tuple[str, ...] = ()) -> tuple[str, float | None, str, float]:
        """(number, explained, traceback or hang; the value; what was said; seconds)."""
        started = time.perf_counter()
        self._pipe.send((str(samples), str(reference), options))
        try:
            found = self._pipe.recv() if self._pipe.poll(LIMIT) else ("hang", None, f"no end after {LIMIT:.0f} s")
        except EOFError:
            found = ("traceback", None, "the process died")
        seconds = time.perf_counter() - started
        if found[0] == "hang" or not self._process.is_alive():
            self.close()
            self._start()
        return (*found, seconds)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


# -- the outcome -------------------------------------------------------------------------------------------------------------------


def outcome(kind: str, value: float | None, said: str, needle: str, clean: float | None, base: float, base_said: str) -> str:
    """Which of OUTCOMES an answer is.

    Args:
        kind: what the worker answered.
        value: the number.
        said: what stood beside it.
        needle: how an error must name the input.
        clean: the tool's number of what the input means.
        base: the tool's number of the 24 good images.
        base_said: what the tool says beside the clean number.
    """
    if kind == "hang":
        return "hang"
    if kind in ("explained", "traceback"):
        named = any(word in said or word.encode("unicode_escape").decode() in said for word in needle.split("|") if word)
        return "clear error" if named or (kind == "explained" and ", no number: " in said) else "bare traceback"
    assert value is not None
    more = any(line not in base_said for line in said.splitlines() if line)
    if clean is not None and abs(value - clean) <= SAME * abs(clean):
        return "number equal"
    if more and np.isfinite(value):
        return "number, said"
    return "dropped without a word" if abs(value - base) <= SAME * abs(base) else "moved without a word"


def own_statistics(tool: str, folder: Path, worker: Worker) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the reference in a tool's own features."""
    if tool == "genbench":
        from genbench import registry

        network = registry.module("extractors", "random").load(shape=(3, 32, 32), device="cpu")
        rows = network(np.stack(REFERENCE).transpose(0, 3, 1, 2).copy()).features.astype(np.float64)
    else:
        os.environ["TORCH_HOME"] = str(worker.root / "torch")
        from pytorch_fid import fid_score
        from pytorch_fid.inception import InceptionV3

        files = sorted(folder.glob("*.png"))
        rows = fid_score.get_activations(files, InceptionV3([0]), 50, 64, "cpu", 0)
    return rows.mean(axis=0), np.cov(rows, rowvar=False)


def measure(tools: Sequence[str], only: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the CSV."""
    cases = [c for c in CASES if not only or any(word in f"{c.group} {c.about}" for word in only)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="robust") as temporary:
        root = Path(temporary)
        from speed import CHECKPOINT, random_weights

        random_weights(root / CHECKPOINT, 0.1)
        reference = root / "reference"
        write(reference, REFERENCE)
        for tool in tools:
            worker = Worker(tool, root)
            clean: dict[str, tuple[float, str]] = {}

            def number_of(images: Rows, clean: dict[str, tuple[float, str]] = clean, worker: Worker = worker) -> tuple[float, str]:
                key = hashlib.sha256(b"".join(str(x.shape).encode() + x.tobytes() for x in images)).hexdigest()[:16]
                if key not in clean:
                    write(root / worker.tool / key, images)
                    kind, value, said, _ = worker.ask(root / worker.tool / key, reference)
                    if kind != "number" or value is None:
                        raise RuntimeError(f"{worker.tool} cannot score plain images: {said}")
                    clean[key] = value, said
                return clean[key]

            base, base_said = number_of(BASE)
            moments = own_statistics(tool, reference, worker) if tool in ("genbench", "pytorch-fid") else None
            for i, case in enumerate(cases):
                if tool != "genbench" and tool not in case.peers:
                    continue
                folder = root / f"{tool}{i}"
                folder.mkdir()
                samples, ref, needle = root / tool / next(iter(clean)), reference, "x.npz|the reference has"
                if case.statistics is not None:
                    assert moments is not None
                    ref = folder / "x.npz"
                    ref.write_bytes(case.statistics(*moments))
                else:
                    assert case.make is not None
                    samples, needle = case.make(folder)
                target, target_said = (None, base_said) if case.means is None else number_of(case.means)
                kind, value, said, seconds = worker.ask(samples, ref, case.options)
                how = outcome(kind, value, said, needle, target, base, base_said + target_said)
                skip = ""
                if tool == "genbench" and how == "clear error":
                    again = worker.ask(samples, ref, (*case.options, "--on-bad", "skip"))
                    good = again[1] is not None and abs(again[1] - base) <= SAME * base
                    skip = "error" if again[1] is None else f"number of {'the good ones' if good else 'the rest'}"
                row = {"group": case.group, "input": case.about, "tool": tool, "outcome": how, "skip": skip, "seconds": f"{seconds:.1f}"}
                row |= {"clean": "" if target is None else f"{target:.9g}", "value": "" if value is None else f"{value:.9g}"}
                row["said"] = said.replace(str(folder), "").replace(str(root), "")[:400]
                rows.append(row)
                print(
                    f"{tool:15s} {case.about[:60]:60s} {how:24s} {row['clean']:>12s} {row['value']:>12s} {skip} {row['said'][:100]!r}",
                    flush=True,
                )
                with contextlib.suppress(OSError):
                    shutil.rmtree(folder)
            worker.close()
    return rows


# -- the report --------------------------------------------------------------------------------------------------------------------


def cell(text: object) -> str:
    """A cell of a markdown table that no input's text can leave."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))
    return safe.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;").replace("`", "'").replace("[", "\\[")


def brief(row: dict[str, str]) -> str:
    """One tool's answer to one input."""
    how = row["outcome"]
    if how in ("moved without a word", "dropped without a word"):
        right = f"{float(row['clean']):.5g}" if row["clean"] else "no right number"
        return f"**{how}**: {right} → {float(row['value']):.5g}"
    if how == "number, said":
        return f"{float(row['value']):.4g}, and says: {cell(row['said'].splitlines()[0][:90])}"
    if how == "bare traceback":
        return f"traceback: {cell((row['said'].splitlines() or [''])[0][:60])}"
    return "**hang**" if how == "hang" else how


def own_words(row: dict[str, str]) -> str:
    """What genbench says."""
    how, said = row["outcome"], row["said"].splitlines()
    if how == "clear error":
        text = next((line.strip() for line in said if line.startswith("  ")), said[0] if said else "")
        return cell(text.removeprefix("exit 2: ").removeprefix("exit 3: ").lstrip("/")[:170])
    heard = [line.removeprefix("samples: ") for line in said if how == "number, said" or line.startswith(("samples: ", "left out "))]
    return how + (f"; {cell('; '.join(heard)[:150])}" if heard else "")


def markdown(rows: list[dict[str, str]], fuzz: list[dict[str, str]], faults: list[dict[str, str]]) -> str:
    """The report."""
    by = {(r["group"], r["input"], r["tool"]): r for r in rows}
    inputs = list(dict.fromkeys((r["group"], r["input"]) for r in rows))
    text = [
        "# Bad and odd input: what genbench and its peers do",
        "",
        "Made by `python benchmarks/robustness.py`; see there how. 24 good 32×32 images and one bad thing, or a container, an array",
        "file or a statistics file. An input that has a right answer is compared with the same pictures as plain 8-bit PNG, scored by",
        "the same tool.",
        "",
        "- *number equal*: that of the plain pictures.",
        "- *number, said*: another number, and a warning that says why.",
        "- *clear error*: the message names the file; in the peers' case a traceback does.",
        f"- *hang*: no end within {LIMIT:.0f} s.",
        "- *moved*, *dropped without a word*: another number (or one where there is no right one), or that of the other 24 files.",
        "",
        "| outcome | " + " | ".join(TOOLS) + " |",
        "|---|" + "---:|" * len(TOOLS),
    ]
    counted = {tool: Counter(r["outcome"] for r in rows if r["tool"] == tool) for tool in TOOLS}
    text += [f"| {how} | " + " | ".join(str(counted[tool][how]) for tool in TOOLS) + " |" for how in OUTCOMES]
    text += ["| inputs | " + " | ".join(str(counted[tool].total()) for tool in TOOLS) + " |"]
    if fuzz:
        total = {k: sum(int(r[k]) for r in fuzz) for k in ("files", "refused", "same", "part", "other", "fault")}
        text += [
            "",
            "## Damaged files",
            "",
            f"`python benchmarks/fuzz.py`: {total['files']:,} files with seeded damage (bits turned, pieces cut, inserted, removed and",
            "repeated, blanked blocks, extreme header fields, other numbers and JSON values).",
            f"{total['refused']:,} were refused by an error that names them, {total['same']:,} read the right data all the same,",
            f"{total['other']:,} read other data in a format without a checksum, and {total['fault']:,} did anything else: another",
            "exception, other data in a format with a checksum, items lost without a word, more than 10 s.",
            "",
            "| kind | files | refused | same | part, said | other (no checksum) | fault |",
            "|---|---:|---:|---:|---:|---:|---:|",
            *(f"| {r['kind']} | {r['files']} | {r['refused']} | {r['same']} | {r['part']} | {r['other']} | {r['fault']} |" for r in fuzz),
        ]
    if faults:
        counts = [c for c in faults[0] if all(r[c].isdigit() for r in faults)]
        text += ["", "## Faults while it runs", "", "| kind | " + " | ".join(c.replace("_", " ") for c in counts) + " |"]
        text += ["|---|" + "---:|" * len(counts)]
        for kind in dict.fromkeys(r["kind"] for r in faults):
            sums = [sum(int(r[c]) for r in faults if r["kind"] == kind) for c in counts]
            text.append(f"| {cell(kind)} | " + " | ".join(f"{x:,}" for x in sums) + " |")
    for group in dict.fromkeys(g for g, _ in inputs):
        own = any((g, i, p) in by for g, i in inputs if g == group for p in PEERS)
        shown = PEERS if own else ()
        text += [
            "",
            f"## {group[0].upper()}{group[1:]}",
            "",
            "| input | genbench | with --on-bad skip | " + "".join(f"{p} | " for p in shown),
        ]
        text += ["|---|---|---|" + "---|" * len(shown)]
        for g, name in inputs:
            if g == group:
                mine = by[g, name, "genbench"]
                peers = "".join(f"{brief(by[g, name, p]) if (g, name, p) in by else '–'} | " for p in shown)
                text.append(f"| {cell(name)} | {own_words(mine)} | {mine['skip'] or '–'} | {peers}".rstrip())
    return "\n".join(line.rstrip() for line in text) + "\n"


def table(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows; none where there is no file."""
    return list(csv.DictReader(io.StringIO(path.read_text(), newline=""))) if path.is_file() else []


def main() -> None:
    """Measure and write, or only write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD")
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    path = args.out / "robustness.csv"
    if not args.render:
        rows = measure(args.tools, args.only)
        if args.only:
            return
        rows += [r for r in table(path) if r["tool"] not in args.tools]
        with path.open("w", newline="", errors="backslashreplace") as f:
            writer = csv.DictWriter(f, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    (args.out / "robustness.md").write_text(markdown(table(path), table(args.out / "fuzz.csv"), table(args.out / "faults.csv")))


if __name__ == "__main__":
    main()
