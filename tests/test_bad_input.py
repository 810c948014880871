"""Every bad file of the reliability list: an error that names file, cause and mend, or a conversion that is exact and listed."""

import gzip
import io
import os
import signal
import socket
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genbench import archives, images
from genbench.errors import DataError, UsageError
from genbench.images import BadItem, decode
from genbench.samples import ArraySamples, open_samples

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (8, 6), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _never_hangs() -> Iterator[None]:
    """A test that waits on something is stopped after a minute."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return
    signal.alarm(60)
    yield
    signal.alarm(0)


def encode(x: np.ndarray | Image.Image, kind: str = "png", **options: object) -> bytes:
    out = io.BytesIO()
    (x if isinstance(x, Image.Image) else Image.fromarray(x)).save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def make_png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes, interlace: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def insert_chunk(png: bytes, made: bytes) -> bytes:
    """Put a block behind the header."""
    return png[:33] + made + png[33:]


def planes(x: np.ndarray) -> np.ndarray:
    return x[None] if x.ndim == 2 else x.transpose(2, 0, 1)


def over_white(x: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    a = alpha.astype(float) / 255
    a = a if x.ndim == 2 else a[..., None]
    return planes(np.floor(x * a + 255 * (1 - a) + 0.5 - 1e-9).astype(np.uint8))


def folder(tmp_path: Path, files: dict[str, bytes], good: int = 3) -> Path:
    root = tmp_path / "set"
    root.mkdir(exist_ok=True)
    for i in range(good):
        (root / f"good{i}.png").write_bytes(encode(np.full((8, 6, 3), i, np.uint8)))
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


# -- files that cannot be read -----------------------------------------------------------------------------------------------------

PNG = encode(COLOUR)
JPEG = encode(COLOUR, "jpeg", quality=95)
BROKEN: dict[str, tuple[bytes, str]] = {
    "truncated.png": (PNG[: len(PNG) // 2], "truncated PNG"),
    "no_end.png": (PNG[:-12], "truncated PNG"),
    "cut_in_end.png": (PNG[:-3], "truncated PNG"),
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "truncated JPEG"),
    "almost.jpg": (JPEG[:-2], "truncated JPEG"),
    "head.jpg": (JPEG[:40], "truncated JPEG"),
    "truncated.gif": (encode(GREY, "gif")[:-20], "truncated or damaged GIF"),
    "truncated.bmp": (encode(COLOUR, "bmp")[:-20], "truncated or damaged BMP"),
    "truncated.webp": (encode(COLOUR, "webp", lossless=True)[:-20], "truncated WebP"),
    "truncated.tif": (encode(COLOUR, "tiff")[:60], "damaged TIFF"),
    "truncated.avif": (encode(COLOUR, "avif")[:-40], "truncated or damaged AVIF"),
    "empty.png": (b"", r"empty \(0 bytes\)"),
    "text.png": (b"not an image at all\n", "is text"),
    "page.png": (b"<!DOCTYPE html><html><body>404</body></html>", "HTML page"),
    "lfs.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs"),
    "zeros.png": (bytes(4096), "zeros"),
    "document.jpg": (b"%PDF-1.7 ...........", "PDF"),
    "packed.png": (gzip.compress(PNG), "an archive"),
    "noise.png": (bytes(range(128, 256)), "not in a known image format"),
    "crc_header.png": (PNG[:29] + b"\0\0\0\0" + PNG[33:], "wrong checksum of block IHDR"),
    "crc_pixels.png": (PNG[:-18] + bytes([PNG[-18] ^ 1]) + PNG[-17:], "wrong checksum of block IDAT"),
    "few_rows.png": (make_png(6, 8, 8, 2, (b"\0" + bytes(18)) * 4), "pixel data end early"),
    "few_interlaced.png": (make_png(6, 8, 8, 2, (b"\0" + bytes([9] * 18)) * 4, interlace=1), "pixel data end early"),
    "few_rows_grey.png": (make_png(6, 8, 8, 0, (b"\0" + bytes([9] * 6)) * 7), "pixel data end early"),
    "no_pixels.png": (PNG[:33] + chunk(b"IEND", b""), "no pixel data"),
    "bad_depth.png": (make_png(6, 8, 3, 0, bytes(100)), "bit depth 3"),
    "no_palette.png": (make_png(6, 8, 8, 3, (b"\0" + bytes(6)) * 8), "the palette has 0"),
    "no_size.png": (make_png(0, 8, 8, 0, b"\0"), "0×8"),
    "float.tif": (encode(Image.fromarray(GREY.astype(np.float32) / 255), "tiff"), "32-bit float.*8 bits per channel"),
    "integer.tif": (encode(Image.fromarray(GREY.astype(np.int32)), "tiff"), "32-bit integer.*8 bits per channel"),
    "lab.tif": (encode(Image.new("LAB", (6, 8)), "tiff"), "colour mode LAB; save it as RGB"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_cause_and_mend(tmp_path: Path, name: str) -> None:
    data, cause = BROKEN[name]
    root = folder(tmp_path, {name: data})
    with pytest.raises(DataError, match=rf"(?s)1 of 4 cannot.*{name}: .*{cause}.*--on-bad skip"):
        open_samples(root)
    kept = open_samples(root, on_bad="skip")
    assert len(kept) == 3
    ((item, why),) = kept.skipped
    assert item == name
    assert why


@pytest.mark.parametrize("container", ["zip", "tar", "tar.gz"])
def test_all_bad_files_are_listed_at_once_in_every_container(tmp_path: Path, container: str) -> None:
    files = {n: d for n, (d, _) in BROKEN.items()} | {f"good{i}.png": PNG for i in range(2)}
    path = pack(tmp_path / f"x.{container}", files)
    with pytest.raises(DataError, match=rf"{len(BROKEN)} of {len(files)} cannot") as e:
        open_samples(path)
    assert str(e.value).count("\n  ") == 21, "twenty are named, the rest is counted"
    assert f"and {len(BROKEN) - 20} more" in str(e.value)
    kept = open_samples(path, on_bad="skip")
    assert len(kept) == 2
    assert sorted(n for n, _ in kept.skipped) == sorted(BROKEN)


def pack(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
            for name, data in files.items():
                z.writestr(name, data)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as t:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            t.addfile(member, io.BytesIO(data))
    return path


def test_nothing_good_left_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no good one is left"):
        open_samples(folder(tmp_path, {"a.png": b""}, good=0), on_bad="skip")


# -- conversions -------------------------------------------------------------------------------------------------------------------


def alpha_image(mode: str, opaque: bool = False) -> tuple[np.ndarray, np.ndarray, bytes]:
    base = COLOUR if mode == "RGBA" else GREY
    alpha = np.full((8, 6), 255, np.uint8) if opaque else RNG.integers(0, 256, (8, 6), dtype=np.uint8)
    return base, alpha, encode(Image.fromarray(np.dstack([base, alpha]), mode))


def wide(channels: int) -> np.ndarray:
    x = RNG.integers(0, 65536, (8, 6, channels), dtype=np.uint16)
    x.flat[:6] = [0, 128, 129, 65407, 65406, 65535]  # both sides of the steps 0|1 and 254|255
    return x


def wide_png(x: np.ndarray, colour: int, *extra: bytes) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in x)
    return make_png(6, 8, 16, colour, rows, *extra)


def narrow(x: np.ndarray) -> np.ndarray:
    return np.rint(x / 257).astype(np.uint8)


def rotated(x: np.ndarray, kind: str, turn: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    return encode(x, kind, exif=exif, **({"quality": 100, "subsampling": 0} if kind == "jpeg" else {}))


def animation(kind: str) -> bytes:
    frames = [Image.fromarray(np.full((8, 6), v, np.uint8)) for v in (0, 90, 180)]
    if kind != "gif":
        frames = [f.convert("RGB") for f in frames]
    out = io.BytesIO()
    options = {"lossless": True} if kind == "webp" else {}
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=50, **options)
    return out.getvalue()


RGBA, LA, OPAQUE = alpha_image("RGBA"), alpha_image("LA"), alpha_image("RGBA", opaque=True)
W1, W2, W3, W4 = wide(1), wide(2), wide(3), wide(4)
INDEX = RNG.integers(0, 4, (8, 6), dtype=np.uint8)
TABLE = np.array([[10, 20, 30], [200, 100, 50], [0, 0, 0], [255, 255, 255]], np.uint8)
PALETTE = chunk(b"PLTE", TABLE.tobytes())
ROWS = b"".join(b"\0" + row.tobytes() for row in INDEX)
TABLE_ALPHA = np.array([255, 128, 0, 255], np.uint8)
BITS = (RNG.random((8, 6)) < 0.5).astype(np.uint8)
BIT_ROWS = b"".join(b"\0" + np.packbits(row).tobytes() for row in BITS)
KEYED = np.array(COLOUR)
KEYED[0, :3] = (1, 2, 3)
COLOUR_ROWS = b"".join(b"\0" + row.tobytes() for row in KEYED)
CMYK = Image.fromarray(RNG.integers(0, 256, (8, 6, 4), dtype=np.uint8), "CMYK")
CONVERTED: dict[str, tuple[bytes, np.ndarray, str]] = {
    "rgba.png": (RGBA[2], over_white(*RGBA[:2]), "transparency over white"),
    "opaque.png": (OPAQUE[2], planes(COLOUR), "opaque alpha dropped"),
    "grey_alpha.png": (LA[2], over_white(*LA[:2]), "transparency over white"),
    "rgba.webp": (
        encode(Image.fromarray(np.dstack(RGBA[:2]), "RGBA"), "webp", lossless=True, exact=True),
        over_white(*RGBA[:2]),
        "over white",
    ),
    "rgba.tif": (encode(Image.fromarray(np.dstack(RGBA[:2]), "RGBA"), "tiff"), over_white(*RGBA[:2]), "transparency over white"),
    "palette.png": (make_png(6, 8, 8, 3, ROWS, PALETTE), planes(TABLE[INDEX]), "palette to colours"),
    "palette_alpha.png": (
        make_png(6, 8, 8, 3, ROWS, PALETTE, chunk(b"tRNS", TABLE_ALPHA.tobytes())),
        over_white(TABLE[INDEX], TABLE_ALPHA[INDEX]),
        "palette to colours, transparency over white",
    ),
    "palette.gif": (
        encode(Image.fromarray(COLOUR).quantize(16), "gif"),
        planes(np.asarray(Image.fromarray(COLOUR).quantize(16).convert("RGB"))),
        "palette to colours",
    ),
    "grey.gif": (encode(GREY, "gif"), planes(GREY), "palette to grey"),
    "key.png": (
        make_png(6, 8, 8, 2, COLOUR_ROWS, chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))),
        planes(np.where((KEYED == (1, 2, 3)).all(-1, keepdims=True), 255, KEYED).astype(np.uint8)),
        "transparency over white",
    ),
    "grey16.png": (wide_png(W1, 0), planes(narrow(W1)), "16-bit grey to 8 bits"),
    "grey16_alpha.png": (wide_png(W2, 4), over_white(narrow(W2)[..., 0], narrow(W2)[..., 1]), "16-bit channels to 8 bits, transparency"),
    "rgb16.png": (wide_png(W3, 2), planes(narrow(W3)), "16-bit channels to 8 bits"),
    "rgba16.png": (wide_png(W4, 6), over_white(narrow(W4)[..., :3], narrow(W4)[..., 3]), "16-bit channels to 8 bits, transparency"),
    "grey16.tif": (encode(Image.fromarray(W1[..., 0]), "tiff"), planes(narrow(W1)), "16-bit grey to 8 bits"),
    "one_bit.png": (make_png(6, 8, 1, 0, BIT_ROWS), BITS[None] * np.uint8(255), "1-bit to 0 and 255"),
    "one_bit.tif": (encode(Image.fromarray(BITS.astype(bool)), "tiff"), BITS[None] * np.uint8(255), "1-bit to 0 and 255"),
    "one_bit.bmp": (encode(Image.fromarray(BITS.astype(bool)), "bmp"), BITS[None] * np.uint8(255), "1-bit to 0 and 255"),
    "cmyk.tif": (encode(CMYK, "tiff"), planes(np.asarray(CMYK.convert("RGB"))), "CMYK to RGB"),
    "rotated.jpg": (rotated(np.full((8, 6), 77, np.uint8), "jpeg", 6), np.full((1, 6, 8), 77, np.uint8), "EXIF rotation applied"),
    "rotated.png": (rotated(COLOUR, "png", 6), planes(np.rot90(COLOUR, -1)), "EXIF rotation applied"),
    "mirrored.png": (rotated(COLOUR, "png", 2), planes(COLOUR[:, ::-1]), "EXIF rotation applied"),
    "rotated.tif": (rotated(COLOUR, "tiff", 8), planes(np.rot90(COLOUR)), "EXIF rotation applied"),
    "rotated.webp": (
        encode(
            Image.fromarray(COLOUR), "webp", lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"
        ),
        planes(np.rot90(COLOUR, 2)),
        "EXIF rotation applied",
    ),
    "moving.gif": (animation("gif"), np.zeros((1, 8, 6), np.uint8), "animation: first frame"),
    "moving.webp": (animation("webp"), np.zeros((3, 8, 6), np.uint8), "animation: first frame"),
    "moving.png": (animation("png"), np.zeros((3, 8, 6), np.uint8), "animation: first frame"),
    "pages.tif": (animation("tiff"), np.zeros((3, 8, 6), np.uint8), "several pages: first one"),
    "junk.jpg": (encode(np.full((8, 6), 77, np.uint8), "jpeg") + b"<script>" * 40, np.full((1, 8, 6), 77, np.uint8), "bytes after the end"),
    "junk.png": (PNG + b"\0" * 50, planes(COLOUR), "bytes after the end"),
    "lies.jpg": (PNG, planes(COLOUR), "JPEG by name, PNG by content"),
    "lies.png": (encode(COLOUR, "bmp"), planes(COLOUR), "PNG by name, BMP by content"),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_a_conversion_is_exact_and_listed(tmp_path: Path, name: str) -> None:
    data, pixels, what = CONVERTED[name]
    samples = open_samples(folder(tmp_path, {name: data}, good=0))
    assert samples.shape == pixels.shape
    assert np.array_equal(samples.read(0, 1)[0], pixels)
    ((item, said),) = samples.converted
    assert item == name
    assert what in said
    assert any("converted:" in w and what.split(",")[0] in w for w in samples.warnings)


PLAIN: dict[str, tuple[bytes, np.ndarray]] = {
    "x.png": (PNG, planes(COLOUR)),
    "grey.png": (encode(GREY), planes(GREY)),
    "two_bits.png": (make_png(4, 1, 2, 0, b"\0\x1b"), np.array([[[0, 85, 170, 255]]], np.uint8)),
    "four_bits.png": (make_png(2, 1, 4, 0, b"\0\x5f"), np.array([[[85, 255]]], np.uint8)),
    "x.bmp": (encode(COLOUR, "bmp"), planes(COLOUR)),
    "x.tiff": (encode(COLOUR, "tiff", compression="tiff_lzw"), planes(COLOUR)),
    "x.webp": (encode(COLOUR, "webp", lossless=True), planes(COLOUR)),
    "X.PNG": (PNG, planes(COLOUR)),
    "x.JpEg": (encode(np.full((8, 6), 77, np.uint8), "jpeg"), np.full((1, 8, 6), 77, np.uint8)),
    "one_pixel.png": (encode(np.array([[[1, 2, 3]]], np.uint8)), np.array([[[1]], [[2]], [[3]]], np.uint8)),
    "text_block.png": (insert_chunk(PNG, chunk(b"tEXt", b"parameters\0" + b"a prompt " * 99)), planes(COLOUR)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_file_is_read_without_a_word(tmp_path: Path, name: str) -> None:
    data, pixels = PLAIN[name]
    samples = open_samples(folder(tmp_path, {name: data}, good=0))
    assert np.array_equal(samples.read(0, 1)[0], pixels)
    assert samples.converted == []
    assert [w for w in samples.warnings if "lossy" not in w] == []


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
@pytest.mark.parametrize("interlace", [False, True])
def test_png_equals_pillow_for_every_filter(colour: int, interlace: bool) -> None:
    mode = {0: "L", 2: "RGB", 4: "LA", 6: "RGBA"}[colour]
    smooth = np.add.outer(np.arange(40), np.arange(30)) * 3  # makes the encoder use all filters
    x = np.dstack([smooth + 9 * c + RNG.integers(0, 5, smooth.shape) for c in range(len(mode))]).astype(np.uint8)
    if colour in (4, 6):
        x[..., -1] = 255
    data = encode(Image.fromarray(x.squeeze(), mode))
    if interlace:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        rows = b"".join(b"\0" + row.tobytes() for a, b, c, d in passes for row in x[a::c, b::d])
        data = make_png(30, 40, 8, colour, rows, interlace=1)
    keep = {"L": 1, "RGB": 3, "LA": 1, "RGBA": 3}[mode]
    assert np.array_equal(decode(data).pixels, planes(x[..., :keep]))


def test_a_lossy_coding_is_said(tmp_path: Path) -> None:
    samples = open_samples(folder(tmp_path, {"a.jpg": encode(COLOUR, "jpeg"), "b.webp": encode(COLOUR, "webp", quality=80)}, good=2))
    assert any("2 of 4 images are lossy-coded (JPEG, WEBP)" in w for w in samples.warnings)


def test_grey_among_colours_becomes_colour_counted_and_with_the_colours_digest(tmp_path: Path) -> None:
    samples = open_samples(folder(tmp_path, {"grey.png": encode(GREY)}))
    assert samples.shape == (3, 8, 6)
    assert samples.converted == [("grey.png", "grey to RGB")]
    same = open_samples(folder(tmp_path, {"grey.png": encode(np.dstack([GREY] * 3))}))
    assert samples.fingerprint() == same.fingerprint()


# -- bombs -------------------------------------------------------------------------------------------------------------------------


def bomb(side: int) -> bytes:
    packer = zlib.compressobj(9)
    row = bytes(2**16)
    body = b"".join(packer.compress(row) for _ in range(side * side // 8 // 2**16 + 1)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


HUGE_WEBP = (
    b"RIFF" + struct.pack("<I", 1000) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4 + (16382).to_bytes(3, "little") * 2 + bytes(978)
)
HUGE_BMP = encode(COLOUR, "bmp")[:18] + struct.pack("<ii", 20_000, 20_000) + encode(COLOUR, "bmp")[26:]
HUGE_GIF = b"GIF89a" + struct.pack("<HH", 65535, 65535) + encode(GREY, "gif")[10:]
BOMBS = {"100Mpx.png": bomb(10_000), "400Mpx.png": bomb(20_000), "huge.webp": HUGE_WEBP, "huge.bmp": HUGE_BMP, "huge.gif": HUGE_GIF}


@pytest.mark.parametrize("name", BOMBS)
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name}: .*64 Mpx .*; resize it, or remove it"):
        open_samples(folder(tmp_path, {name: BOMBS[name]}))


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_bomb_in_a_text_block_takes_no_memory(tmp_path: Path, kind: bytes) -> None:
    import tracemalloc

    body = (b"comment\0\0" if kind == b"zTXt" else b"profile\0\0") + zlib.compress(bytes(200 * 2**20), 9)
    data = insert_chunk(encode(COLOUR), chunk(kind, body))
    tracemalloc.start()
    try:
        pixels = decode(data).pixels
    except BadItem as e:
        assert "PNG" in str(e)  # noqa: PT017
    else:
        assert np.array_equal(pixels, planes(COLOUR))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"good.png": PNG, "bomb.bmp": b"BM" + bytes(40 * 2**20)})
    with pytest.raises(DataError, match=r"bomb\.bmp: unpacks from .* bomb"):
        open_samples(path)


def test_zip_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a.png": PNG, "b.png": PNG})
    data = bytearray(path.read_bytes())
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<I", 0)  # the second member's header is now the first one's
    path.write_bytes(data)
    with pytest.raises(DataError, match="overlaps another member"):
        open_samples(path)


def test_a_tar_bomb_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "BOMB_STREAM_BYTES", 2**22)
    path = pack(tmp_path / "x.tar.gz", {"a.png": PNG, "big.bin": bytes(2**26), "z.png": PNG})
    with pytest.raises(DataError, match="bomb"):
        open_samples(path)


def test_a_bomb_in_a_tar_header_takes_no_memory(tmp_path: Path) -> None:
    import tracemalloc

    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 2**28
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = packer.compress(name.tobuf(tarfile.GNU_FORMAT)) + b"".join(packer.compress(bytes(2**20)) for _ in range(256)) + packer.flush()
    (tmp_path / "x.tar.gz").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(DataError, match="a block of 268,435,456 bytes"):
        open_samples(tmp_path / "x.tar.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 2**20


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives.read_file, "__defaults__", (1000, None))
    with pytest.raises(DataError, match=r"big\.png: 2,000 bytes, the limit is 1,000"):
        open_samples(folder(tmp_path, {"big.png": bytes(2000)}))


# -- what is no regular file -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_a_fifo_is_named_and_never_waited_on(tmp_path: Path, name: str) -> None:
    root = folder(tmp_path, {})
    os.mkfifo(root / name)
    with pytest.raises(DataError, match=rf"{name}: a FIFO, expected a regular file; remove it"):
        open_samples(root)
    assert len(open_samples(root, on_bad="skip")) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_of_another_name_is_left_alone_and_one_as_the_source_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path, {})
    os.mkfifo(root / "pipe")
    samples = open_samples(root)
    assert any("pipe (a FIFO)" in w for w in samples.warnings)
    with pytest.raises(DataError, match="FIFO"):
        open_samples(root / "pipe")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_file_that_becomes_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(BadItem, match="FIFO"):
        archives.read_file(tmp_path / "x.png")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs sockets")
def test_a_socket_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path, {})
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(os.path.relpath(root / "x.png"))  # the path of a socket is short
        with pytest.raises(DataError, match=r"x\.png: a socket"):
            open_samples(root)


def test_links_that_lead_nowhere_or_round_are_named(tmp_path: Path) -> None:
    root = folder(tmp_path, {})
    (root / "dangling.png").symlink_to("nowhere.png")
    (root / "self.png").symlink_to("self.png")
    (root / "up").symlink_to(root, target_is_directory=True)
    with pytest.raises(DataError) as e:
        open_samples(root)
    for part in (
        "dangling.png: a dangling symbolic link",
        "self.png: a symbolic link that leads to itself",
        "up: a symbolic link back",
        "remove the link",
    ):
        assert part in str(e.value)
    assert len(open_samples(root, on_bad="skip")) == 3


def test_links_to_images_and_folders_are_followed(tmp_path: Path) -> None:
    root = folder(tmp_path, {"sub/a.png": PNG})
    (root / "link.png").symlink_to("good0.png")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.png").write_bytes(PNG)
    (root / "far").symlink_to(tmp_path / "other", target_is_directory=True)
    assert list(open_samples(root).names) == ["far/b.png", "good0.png", "good1.png", "good2.png", "link.png", "sub/a.png"]


def test_a_folder_named_like_an_image_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path, {})
    (root / "x.png").mkdir()
    with pytest.raises(DataError, match=r"x\.png: a folder, expected an image; rename or remove"):
        open_samples(root)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path, {"secret.png": PNG})
    real = os.open

    def refuse(path: bytes, flags: int) -> int:
        if path.endswith(b"secret.png"):
            raise PermissionError(13, "Permission denied")
        return real(path, flags)

    monkeypatch.setattr(archives.os, "open", refuse)
    with pytest.raises(DataError, match=r"secret\.png: cannot be opened \(Permission denied\); .*chmod u\+r"):
        open_samples(root)


# -- folders -----------------------------------------------------------------------------------------------------------------------


def test_empty_absent_and_odd_sources_say_what_to_pass(tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "one.png").write_bytes(PNG)
    (tmp_path / "zero").write_bytes(b"")
    cases: list[tuple[object, type[Exception], str]] = [
        (tmp_path / "void", DataError, "expected images .* found nothing; put the samples"),
        (tmp_path / "absent", DataError, "no such file or folder"),
        (str(tmp_path / "absent"), DataError, "no such file or folder"),
        ("mnits", UsageError, "neither a path nor a dataset.*did you mean 'mnist'"),
        (tmp_path / "notes.txt", DataError, "the file is text; pass one of these"),
        (tmp_path / "one.png", DataError, "one image; pass the folder"),
        (tmp_path / "zero", DataError, "empty"),
        (3.5, UsageError, "found float"),
        (None, UsageError, "found NoneType"),
    ]
    for source, kind, match in cases:
        with pytest.raises(kind, match=match):
            open_samples(source)


def test_a_folder_of_archives_says_to_pass_one(tmp_path: Path) -> None:
    pack(tmp_path / "x.zip", {"a.png": PNG})
    with pytest.raises(DataError, match=r"pass that: x\.zip"):
        open_samples(tmp_path)


def test_litter_is_ignored_and_listed_and_other_files_are_warned_of(tmp_path: Path) -> None:
    litter = [
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "._x.png",
        "sub/._y.jpg",
        "__MACOSX/good0.png",
        ".ipynb_checkpoints/good0-checkpoint.png",
    ]
    files = dict.fromkeys(litter, b"\x00\x05\x16\x07") | {"notes.txt": b"hi", "labels.csv": b"a,b", "sub/z.png": PNG}
    samples = open_samples(folder(tmp_path, files))
    assert len(samples) == 4
    listed = {n.rstrip("/") for n in samples.info["ignored"]}
    assert {".DS_Store", "Thumbs.db", "desktop.ini", "._x.png", "sub/._y.jpg", "__MACOSX", ".ipynb_checkpoints"} == listed
    assert [w for w in samples.warnings if "2 other files are no images" in w and "labels.csv, notes.txt" in w]
    path = pack(tmp_path / "x.zip", files)
    assert len(open_samples(path)) == 1


def test_mixed_sizes_list_the_minority(tmp_path: Path) -> None:
    odd = {"thin.png": encode(COLOUR[:, :5]), "tiny.png": encode(COLOUR[:1, :1]), "turned.png": encode(COLOUR.transpose(1, 0, 2))}
    root = folder(tmp_path, odd, good=5)
    with pytest.raises(DataError) as e:
        open_samples(root)
    for line in ("thin.png: 5×8 pixels, the other 5 images are 6×8", "tiny.png: 1×1", "turned.png: 8×6", "resize it, or remove it"):
        assert line in str(e.value)
    kept = open_samples(root, on_bad="skip")
    assert len(kept) == 5
    assert len(kept.skipped) == 3


def test_no_common_size_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    root = folder(tmp_path, {f"{i}.png": encode(np.zeros((i + 1, 4), np.uint8)) for i in range(5)}, good=0)
    with pytest.raises(DataError, match="5 sizes"):
        open_samples(root, on_bad="skip")


STRANGE = [
    "with space.png",
    "ünïcødé-日本.png",
    "new\nline.png",
    "quo\"te's.png",
    "-dash.png",
    "=cmd.png",
    "<b>html.png",
    "tab\t.png",
    "esc\x1b[31m.png",
    "brackets[0].png",
    "star*.png",
    "percent%s{0}.png",
]


def test_strange_names_work_and_are_escaped(tmp_path: Path) -> None:
    root = tmp_path / "out [a-z] {1,2} *"
    root.mkdir()
    for name in STRANGE:
        (root / name).write_bytes(PNG)
    raw = os.fsencode(root) + b"/bad\xff\xfe.png"
    try:
        with open(raw, "wb") as f:
            f.write(PNG)
        extra = 1
    except OSError:  # a file system that takes UTF-8 only
        extra = 0
    samples = open_samples(str(root))
    assert len(samples) == len(STRANGE) + extra
    assert all(n.isprintable() for n in samples.names)
    assert "new\\nline.png" in samples.names
    assert extra == 0 or "bad\\xff\\xfe.png" in samples.names
    (root / "new\nbad.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"new\\nbad\.png: "):
        open_samples(str(root))
    assert open_samples(root, on_bad="skip").skipped == [("new\\nbad.png", "expected an image, the file is empty (0 bytes)")]


def test_files_without_an_image_ending_are_read_by_content(tmp_path: Path) -> None:
    samples = open_samples(folder(tmp_path, {"0001": PNG, "0002.dat": JPEG, "0003": b"none"}))
    assert len(samples) == 5
    assert any("2 images have no image ending" in w for w in samples.warnings)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_images_can_be_opened(tmp_path: Path, n: int) -> None:
    assert len(open_samples(folder(tmp_path, {}, good=n))) == n


def test_equal_and_black_images_can_be_opened(tmp_path: Path) -> None:
    samples = open_samples(folder(tmp_path, {f"{i}.png": encode(np.zeros((8, 6, 3), np.uint8)) for i in range(4)}, good=0))
    assert not samples.read(0, 4).any()
    assert len({d.tobytes() for d in samples.digests()}) == 1


# -- archives ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_archive_is_an_error(tmp_path: Path, share: float) -> None:
    files = {f"{i}.png": encode(RNG.integers(0, 256, (20, 20, 3), dtype=np.uint8)) for i in range(9)}
    for name in ("x.zip", "x.tar", "x.tar.gz"):
        path = pack(tmp_path / name, files)
        data = path.read_bytes()
        size = len(data) if name != "x.tar" else sum(512 + -(-len(d) // 512) * 512 for d in files.values())
        path.write_bytes(data[: int(size * share)])
        with pytest.raises(DataError, match="truncated|damaged"):
            open_samples(path)
        if name != "x.zip":
            kept = open_samples(path, on_bad="skip")
            assert 0 < len(kept) < 9
            assert any(n == name for n, _ in kept.skipped)


def test_a_tar_without_its_end_mark_is_warned_of_and_damage_inside_is_an_error(tmp_path: Path) -> None:
    files = {f"{i}.png": PNG for i in range(4)}
    path = pack(tmp_path / "x.tar", files)
    data = path.read_bytes()
    step = 512 + -(-len(PNG) // 512) * 512
    path.write_bytes(data[: 4 * step])
    assert any("no end mark" in w for w in open_samples(path).warnings)
    for name in ("x.tar", "x.tar.gz"):
        broken = data[: 2 * step] + b"?" * 512 + data[2 * step + 512 :]
        (tmp_path / name).write_bytes(gzip.compress(broken) if name.endswith("gz") else broken)
        with pytest.raises(DataError, match="members behind that are missing"):
            open_samples(tmp_path / name)


def test_damage_in_a_zip_member_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("a.bmp", encode(COLOUR, "bmp"))
        z.writestr("b.bmp", encode(COLOUR, "bmp"))
    data = bytearray(path.read_bytes())
    data[200] ^= 1  # a pixel of a.bmp, which has no checksum of its own
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.bmp: damaged in the zip archive \(wrong size or checksum\); pack it again"):
        open_samples(path)


def test_an_encrypted_zip_is_named(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a.png": PNG})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png: encrypted; unpack it"):
        open_samples(path)


@pytest.mark.parametrize("container", ["x.zip", "x.tar", "x.tar.gz"])
def test_an_archive_inside_an_archive_is_named(tmp_path: Path, container: str) -> None:
    inner = pack(tmp_path / "inner.zip", {"a.png": PNG}).read_bytes()
    path = pack(tmp_path / container, {"a.png": PNG, "inner.zip": inner, "noname": inner})
    with pytest.raises(DataError, match=r"(?s)2 of 3.*inner\.zip: an archive inside an archive; unpack it.*noname: an archive"):
        open_samples(path)


@pytest.mark.parametrize("container", ["x.zip", "x.tar", "x.tar.gz"])
def test_nothing_is_unpacked_by_name(tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    monkeypatch.chdir(inside)
    files = {"../outside.png": PNG, "/tmp/genbench-absolute.png": PNG, "a/../../b.png": PNG, "plain.png": PNG}
    samples = open_samples(pack(inside / container, files))
    assert len(samples) == 4
    assert any("3 members have an absolute name or one with '..'" in w for w in samples.warnings)
    assert {p.name for p in tmp_path.rglob("*")} == {"in", container}
    assert not Path("/tmp/genbench-absolute.png").exists()


def test_devices_and_links_in_a_tar_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    kinds = {"zero": tarfile.CHRTYPE, "disk": tarfile.BLKTYPE, "pipe": tarfile.FIFOTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
    with tarfile.open(path, "w") as t:
        for name, data in {"a.png": PNG, "b.png": PNG}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            t.addfile(member, io.BytesIO(data))
        for name, kind in kinds.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.png"
            t.addfile(member)
    samples = open_samples(path)
    assert len(samples) == 2
    assert (
        "5 members are links, FIFOs or devices and were not read (disk (a device), hard (a link), link (a link), ... 2 more)"
        in samples.warnings
    )
    with tarfile.open(path, "a") as t:
        member = tarfile.TarInfo("x.png")
        member.type = tarfile.CHRTYPE
        t.addfile(member)
    with pytest.raises(DataError, match=r"x\.png: a device in a tar archive"):
        open_samples(path)


def test_names_that_occur_twice_are_said_and_both_count(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as t:
        for data in (PNG, encode(255 - COLOUR)):
            member = tarfile.TarInfo("a.png")
            member.size = len(data)
            t.addfile(member, io.BytesIO(data))
    samples = open_samples(path)
    assert len(samples) == 2
    assert any("more than once" in w for w in samples.warnings)


# -- array files and arrays --------------------------------------------------------------------------------------------------------


class Pickled:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[Callable[[int], object], tuple[int]]:
        return sys.exit, (66,)


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


X = RNG.integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)


def test_pickled_objects_are_refused_and_never_run(tmp_path: Path) -> None:
    objects = np.array([Pickled()], dtype=object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "x.npz", images=objects)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(DataError, match="pickled objects run code.*; save it as uint8"):
            open_samples(tmp_path / name)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"pictures": X}, "expected one array called arr_0, images or samples, found pictures"),
        ({}, "found none"),
        ({"images": X, "samples": X}, "only one of"),
        ({"mu": np.zeros(3), "sigma": np.eye(3)}, "statistics file.*--reference"),
        ({"images": X[..., :2]}, "expected 1 or 3 channels"),
        ({"images": X[0, 0, 0]}, "expected vectors"),
        ({"images": X[None]}, "expected vectors"),
        ({"images": X[:0]}, "empty array"),
        ({"images": X[:, :0]}, "empty array"),
        ({"images": X.astype(complex)}, "expected numbers"),
        ({"images": X.astype(str)}, "expected numbers"),
        ({"images": np.where(X[2, 1, 1] == X, np.nan, X / 255.0)}, "rows have NaN or infinity: row"),
        ({"images": X.astype(np.int64) - 1}, "int64 images with values from -1"),
        ({"images": X * 1.5}, "no known range; pass value_range"),
        ({"images": X / 255.0 * 2 - 1.5}, "no known range; pass value_range"),
        ({"images": RNG.integers(0, 9, (5, 3, 8, 3), dtype=np.uint8)}, "ambiguous.*layout='nchw'"),
        ({"images": RNG.integers(0, 9, (5, 8, 8, 4), dtype=np.uint8)}, "drop the alpha channel"),
    ],
)
def test_a_bad_npz_is_named_with_the_mend(tmp_path: Path, arrays: dict[str, np.ndarray], match: str) -> None:
    path = saved(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=rf"x\.npz.*{match}"):
        open_samples(path)


@pytest.mark.parametrize("name", ["x.npy", "stored.npz", "packed.npz", "x.safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.98])
def test_a_truncated_array_file_is_an_error(tmp_path: Path, name: str, share: float) -> None:
    from safetensors.numpy import save_file

    x = RNG.integers(0, 256, (50, 3, 16, 16), dtype=np.uint8)
    path = tmp_path / name
    if name == "x.npy":
        np.save(path, x)
    elif name == "x.safetensors":
        save_file({"images": x}, path)
    else:
        (np.savez if name == "stored.npz" else np.savez_compressed)(path, images=x)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=f"{name}.*(truncated|damaged|not|is )"):
        open_samples(path)


def test_a_file_that_only_claims_to_be_an_array_is_an_error(tmp_path: Path) -> None:
    for name in ("x.npy", "x.npz", "x.safetensors"):
        (tmp_path / name).write_bytes(b"<html>not found</html>" * 30)
        with pytest.raises(DataError, match=name):
            open_samples(tmp_path / name)


def test_damage_inside_a_compressed_npz_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, images=RNG.integers(0, 256, (2000, 3, 16, 16), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged array images"):
        open_samples(path).digests()


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (X / 255.0, "taken as 0 to 1"),
        ((X / 255.0).astype(np.float32), "taken as 0 to 1"),
        ((X / 127.5 - 1).astype(np.float32), "taken as −1 to 1"),
        (X.astype(np.float32), "taken as bytes"),
        (X.astype(np.int64), "taken as bytes"),
        (X.astype(np.int16), "taken as bytes"),
    ],
)
def test_other_types_become_the_same_bytes_and_it_is_said(x: np.ndarray, said: str) -> None:
    samples = open_samples(x)
    assert samples.fingerprint() == open_samples(X).fingerprint()
    assert [w for w in samples.warnings if said in w]


def test_a_given_range_is_used_without_a_word_and_checked() -> None:
    samples = open_samples(X / 51.0, value_range=(0, 5))
    assert samples.fingerprint() == open_samples(X).fingerprint()
    assert samples.warnings == []
    with pytest.raises(DataError, match=r"outside value_range=\(0, 1\)"):
        open_samples(X / 51.0, value_range=(0, 1))
    with pytest.raises(UsageError, match="low < high"):
        open_samples(X / 51.0, value_range=(1, 1))


def test_boolean_images_are_black_and_white() -> None:
    samples = open_samples(X > 127)
    assert set(np.unique(samples.read(0, 5))) == {0, 255}
    assert "boolean" in samples.warnings[0]


def test_nan_in_vectors_names_all_rows() -> None:
    x = RNG.normal(size=(40, 3))
    x[[7, 31], 1] = np.nan, np.inf
    with pytest.raises(DataError, match="2 of 40 rows have NaN or infinity: row 7, row 31; mend"):
        open_samples(x)


def test_a_single_image_asks_for_a_batch() -> None:
    with pytest.raises(DataError, match=r"looks like one colour image; pass x\[None\]"):
        open_samples(X[0])
    with pytest.raises(UsageError, match="layout"):
        open_samples(X, layout="hwc")


def test_a_generator_function_is_checked() -> None:
    with pytest.raises(UsageError, match="say how many"):
        open_samples(lambda n, seed: np.zeros((n, 2)))
    with pytest.raises(DataError, match="asked for 10 samples, expected .* found shape \\(9, 2\\)"):
        open_samples(lambda n, seed: np.zeros((n - 1, 2)), n=10)
    with pytest.raises(DataError, match="expected numbers"):
        open_samples(lambda n, seed: np.array([["a", "b"]] * n), n=10)
    state = np.random.default_rng(0)
    unseeded = open_samples(lambda n, seed: state.normal(size=(n, 2)), n=3000)
    unseeded._rows._kept.clear()  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="gave other samples the second time; draw from a generator"):
        unseeded.read(0, 10)


def test_a_dataset_with_bad_items_lists_them() -> None:
    class Items:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int) -> object:
            return ["text", np.zeros((3, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8), np.zeros((3, 9, 8), np.uint8)][i]

    with pytest.raises(DataError, match=r"(?s)item 0: expected an image.*item 3: 3×9×8 uint8, most items are 3×8×8 uint8"):
        open_samples(Items())
    kept = open_samples(Items(), on_bad="skip")
    assert len(kept) == 2
    assert [n for n, _ in kept.skipped] == ["item 0", "item 3"]


def test_a_dataset_without_length_or_items_says_so() -> None:
    class Endless:
        def __getitem__(self, i: int) -> object:
            return i

    with pytest.raises(DataError, match="without a length"):
        open_samples(Endless())
    with pytest.raises(DataError, match="empty Dataset"):
        open_samples([])


# -- changes during a run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [encode(255 - COLOUR), b"", encode(COLOUR[:4])])
def test_a_file_that_changes_during_the_run_is_noticed(tmp_path: Path, change: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genbench.arrays.CACHE_BYTES", 10)
    root = folder(tmp_path, {"x.png": PNG})
    samples = open_samples(root)
    (root / "x.png").write_bytes(change)
    assert len(samples.read(0, 3)) == 3
    with pytest.raises(DataError, match=r"x\.png.*changed since"):
        samples.read(0, 4)


def test_a_file_that_disappears_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genbench.arrays.CACHE_BYTES", 10)
    samples = open_samples(folder(tmp_path, {"x.png": PNG}))
    (tmp_path / "set" / "x.png").unlink()
    with pytest.raises(DataError, match=r"x\.png: cannot be opened"):
        samples.read(0, 4)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.safetensors"])
def test_an_array_file_that_changes_is_noticed(tmp_path: Path, name: str) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / name

    def write(x: np.ndarray) -> None:
        save_file({"images": x}, path) if name == "x.safetensors" else np.save(path, x) if name == "x.npy" else np.savez(path, images=x)

    write(X)
    samples = open_samples(path)
    assert np.array_equal(samples.read(0, 5), planes4(X))
    write(np.concatenate([X, X]))
    with pytest.raises(DataError, match="changed since it was opened"):
        samples.read(0, 5)


def planes4(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_an_archive_that_disappears_is_noticed(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genbench.arrays.CACHE_BYTES", 10)
    path = pack(tmp_path / name, {"a.png": PNG, "b.png": PNG})
    samples = open_samples(path)
    path.unlink()
    with pytest.raises(DataError, match=rf"{name}: (cannot be opened|changed since)"):
        samples.read(0, 2)


def test_binary_images_saved_as_zero_and_one_are_warned_of(tmp_path: Path) -> None:
    x = (X > 127).astype(np.uint8)
    files = {f"{i}.png": encode(image) for i, image in enumerate(x)}
    for source in (x, folder(tmp_path, files, good=0)):
        assert [w for w in open_samples(source).warnings if "no pixel is above 1" in w]
    assert not open_samples(X).warnings


def test_a_table_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3, dtype=[("a", "f4"), ("b", "f4")]))
    with pytest.raises(DataError, match="a table with the columns a, b"):
        open_samples(tmp_path / "x.npy")


def test_random_bytes_never_raise_anything_but_a_data_error() -> None:
    rng = np.random.default_rng(5)
    good = [
        PNG,
        JPEG,
        encode(GREY, "gif"),
        encode(COLOUR, "bmp"),
        encode(COLOUR, "webp"),
        encode(COLOUR, "tiff"),
        encode(COLOUR, "avif"),
        RGBA[2],
    ]
    with images.quiet():
        for turn in range(1500):
            data = bytearray(good[turn % len(good)])
            for _ in range(rng.integers(1, 6)):
                data[rng.integers(len(data))] = rng.integers(256)
            if turn % 3 == 0:
                data = data[: rng.integers(len(data))]
            try:
                pixels = decode(bytes(data)).pixels
            except BadItem:
                continue
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3


def test_arrays_of_every_shape_either_open_or_say_why() -> None:
    for shape in [(2, 1, 1, 1), (2, 3), (2, 5, 5), (2, 1, 5, 5), (2, 5, 5, 1), (1, 1, 1)]:
        assert len(ArraySamples(np.zeros(shape, np.uint8))) == shape[0]


# -- what only damage and odd sets of whole runs showed ------------------------------------------------------------------------------


def test_damage_inside_a_stored_npz_is_found_when_it_is_opened(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npz", images=RNG.integers(0, 256, (40, 8, 6, 3), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"array images: damaged \(wrong checksum\)"):
        open_samples(path)


@pytest.mark.parametrize("name", ["x.npy", "stored.npz", "packed.npz"])
def test_bytes_behind_an_array_are_no_footnote(tmp_path: Path, name: str) -> None:
    out = io.BytesIO()
    np.save(out, X)
    np.save(out, X)
    if name == "x.npy":
        (tmp_path / name).write_bytes(out.getvalue())
    else:
        method = zipfile.ZIP_STORED if name == "stored.npz" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(tmp_path / name, "w", method) as z:
            z.writestr("images.npy", out.getvalue())
    with pytest.raises(DataError, match="more than one array, expected 720 bytes .*; save one array a file"):
        open_samples(tmp_path / name)


def test_joined_tars_are_not_read_by_half(tmp_path: Path) -> None:
    both = b"".join(pack(tmp_path / f"{name}.tar", {f"{name}.png": PNG}).read_bytes() for name in "ab")
    (tmp_path / "x.tar").write_bytes(both)
    with pytest.raises(DataError, match=r"x\.tar: .*the file goes on: a blanked block, or archives that were joined"):
        open_samples(tmp_path / "x.tar")


def test_a_wrong_checksum_at_the_end_of_a_compressed_tar_is_found(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.tar.gz", {"a.png": PNG})
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.tar\.gz: truncated or damaged tar archive \(CRC check failed"):
        open_samples(path)


def test_copies_are_said_in_the_record() -> None:
    import genbench

    x = RNG.integers(0, 256, (200, 3, 6, 6), dtype=np.uint8)
    settings = {"metrics": ["fid"], "extractor": "pixels", "cache": None, "device": "cpu"}
    for copies, said in ((0, False), (2, False), (3, True), (199, True)):
        gen = np.concatenate([x[: 200 - copies], x[:1].repeat(copies, 0)])
        warnings = genbench.evaluate(gen, x, **settings).record["warnings"]
        assert any(f"samples: {copies} of 200 samples are exact copies" in w for w in warnings) == said
        assert not any(w.startswith("reference: ") for w in warnings)


def test_bytes_stay_bytes_beside_floats_of_another_range() -> None:
    assert open_samples(X, value_range=(-1, 1)).fingerprint() == open_samples(X).fingerprint()


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, "with d >= 1"),
        ({"mu": np.zeros(2), "sigma": np.zeros((2, 2))}, "sigma is zero"),
        ({"mu": np.zeros(2), "sigma": np.eye(2) + 0.1j}, "sigma is an array of real numbers, found complex128"),
        ({"mu": np.array(["0", "1"]), "sigma": np.eye(2)}, "mu is an array of real numbers"),
        ({"mu": np.zeros(2), "sigma": np.eye(2) > 0}, "sigma is an array of real numbers, found bool"),
    ],
)
def test_a_statistics_file_of_no_covariance_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], match: str) -> None:
    from genbench.statistics import Moments

    with pytest.raises(DataError, match=rf"x\.npz: .*{match}"):
        Moments.load(saved(tmp_path / "x.npz", **arrays))


@pytest.mark.parametrize(
    "break_it", [lambda d: d[: len(d) // 2], lambda d: d[:-4], lambda d: d[:60] + b"\xff" + d[61:], lambda d: b"PK" + d[2:40]]
)
def test_a_damaged_statistics_file_is_refused(tmp_path: Path, break_it: Callable[[bytes], bytes]) -> None:
    import genbench

    path = saved(tmp_path / "x.npz", mu=np.zeros(3), sigma=np.eye(3))
    path.write_bytes(break_it(path.read_bytes()))
    with pytest.raises(DataError, match=r"x\.npz: "):
        genbench.evaluate(RNG.normal(size=(9, 3)), path, metrics=["fid"], extractor="identity", cache=None)


def test_a_statistics_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    from genbench.statistics import Moments

    with zipfile.ZipFile(tmp_path / "x.npz", "w") as z:
        z.writestr("mu.npy", b"0 0 0")
        z.writestr("sigma.npy", b"1 0 0")
    with pytest.raises(DataError, match="mu is an array of real numbers, found no array"):
        Moments.load(tmp_path / "x.npz")
