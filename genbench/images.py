"""One encoded image -> uint8 pixels (c, h, w); every conversion is exact, and said.

Content decides what a file is, never its name. PNG has a path of its own: all checksums are verified (Pillow skips those of the pixel
data), and plain 8-bit pictures go straight to Pillow's decoder, which is twice as fast for small ones.
"""

import codecs
import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 64_000_000
"""Pixels of one image; a decompression bomb of a few kilobytes can ask for 10^9."""
MAX_BYTES = 512 * 2**20
"""Bytes of one encoded image, or of one member of an archive."""

SUFFIXES = {
    ".png": "PNG",
    ".apng": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".bmp": "BMP",
    ".dib": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
    ".avif": "AVIF",
}
"""File name ending (lower case) -> format."""

WRITE_AGAIN = "write it again, or remove it"


class BadItem(ValueError):
    """One sample that cannot be read.

    Args:
        cause: what is wrong with it.
        mend: what to do.
    """

    def __init__(self, cause: str, mend: str = WRITE_AGAIN) -> None:
        super().__init__(f"{cause}; {mend}")
        self.cause, self.mend = cause, mend


class Decoded(NamedTuple):
    """A decoded image: `pixels` uint8 (c, h, w) with c = 1 (grey) or 3; `how` lists the conversions."""

    pixels: NDArray[np.uint8]
    how: tuple[str, ...]
    format: str
    lossy: bool


def shown(name: str | bytes) -> str:
    """A name that is safe to print and to store: control characters and bytes that are not UTF-8 are escaped."""
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else ascii(c)[1:-1] for c in text)


def sniff(head: bytes) -> str | None:
    """The image format that the first bytes (at least 16) show; None where they show none."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0":
        return "BMP"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    return None


def is_archive(head: bytes) -> bool:
    """Whether the first bytes are those of a zip, gzip, bzip2, xz, zstandard, 7z or rar file."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"(\xb5/\xfd", b"7z\xbc\xaf", b"Rar!"))


def looks_like(head: bytes) -> str:
    """What a file that is no image seems to be, for messages."""
    if not head:
        return "empty (0 bytes)"
    if is_archive(head):
        return "an archive"
    if head.startswith(b"%PDF"):
        return "a PDF"
    if head.startswith((b"\x93NUMPY", b"\x80\x04", b"\x80\x05")):
        return "an array file"
    start = head[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<body")):
        return "an HTML page (a failed download?)"
    if start.startswith((b"<svg", b"<?xml")):
        return "an XML or SVG document"
    if head.startswith((b"version https://git-lfs", b"version http://git-media")):
        return "a git-lfs pointer (fetch the real file with git lfs pull)"
    if not head[:512].strip(b"\0"):
        return "zeros (an interrupted copy?)"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "not in a known image format"
    return "text" if all(c.isprintable() or c in "\t\n\r\f" for c in text) else "not in a known image format"


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_context: Any = None


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's own warnings (size, EXIF, palettes) while images are decoded: what matters is an error or is listed.

    Python's warning filters belong to the whole process, so threads share one switch: the first in turns it, the last out turns it back.
    """
    global _quiet_depth, _quiet_context
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_context = warnings.catch_warnings()
            _quiet_context.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_context.__exit__(None, None, None)


def decode(data: bytes) -> Decoded:
    """Decode one image file.

    Args:
        data: the whole file.

    Returns:
        Pixels (c, h, w) uint8, c = 1 where the file is grey, else 3, and what was converted.

    Raises:
        BadItem: truncated, damaged, too large, or no image.
    """
    found = sniff(data[:32])
    if found is None:
        raise BadItem(f"expected an image, the file is {looks_like(data[:1024])}", WRITE_AGAIN)
    if len(data) > MAX_BYTES:
        raise BadItem(f"{len(data):,} bytes, the limit is {MAX_BYTES:,}", "resize it, or remove it")
    if found == "PNG":
        return _png(data)
    if found == "JPEG":
        return _jpeg(data)
    if found == "WEBP":
        return _webp(data)
    pixels, how = _pillow(data, found)
    return Decoded(pixels, how, found, found == "AVIF")


def check_size(width: int, height: int) -> None:
    """Refuse an image without pixels, and a decompression bomb."""
    if width <= 0 or height <= 0:
        raise BadItem(f"its header says {width}×{height} pixels")
    if width * height > MAX_PIXELS:
        raise BadItem(
            f"{width}×{height} = {width * height / 1e6:,.0f} Mpx, the limit is {MAX_PIXELS / 1e6:,.0f} Mpx (a decompression bomb?)",
            "resize it, or remove it",
        )


# -- PNG ---------------------------------------------------------------------------------------------------------------------------

# (bit depth, colour type) -> (Pillow mode, raw mode); the PNG specification's table 11.1 up to 8 bits.
_PNG_MODES = {
    (1, 0): ("1", "1"),
    (2, 0): ("L", "L;2"),
    (4, 0): ("L", "L;4"),
    (8, 0): ("L", "L"),
    (8, 2): ("RGB", "RGB"),
    (1, 3): ("P", "P;1"),
    (2, 3): ("P", "P;2"),
    (4, 3): ("P", "P;4"),
    (8, 3): ("P", "P"),
    (8, 4): ("LA", "LA"),
    (8, 6): ("RGBA", "RGBA"),
}


class _Png(NamedTuple):
    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool
    idat: list[memoryview]
    palette: memoryview | None
    transparency: memoryview | None
    frames: int
    rotated: bool
    junk: int


def _walk_png(data: bytes) -> _Png:
    view, at, crc32 = memoryview(data), 8, zlib.crc32
    header: tuple[int, ...] | None = None
    idat: list[memoryview] = []
    palette = transparency = None
    frames, rotated = 1, False
    while True:
        if at + 12 > len(data):
            raise BadItem("truncated PNG (its end is missing)")
        size = int.from_bytes(view[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if not kind.isalpha():
            raise BadItem(f"damaged PNG (no valid block at byte {at})")
        end = at + 8 + size
        if end + 4 > len(data):
            raise BadItem(f"truncated PNG (block {kind.decode()} needs {end + 4 - len(data):,} bytes more)")
        if crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise BadItem(f"damaged PNG (wrong checksum of block {kind.decode()})")
        body = view[at + 8 : end]
        at = end + 4
        if header is None:
            if kind != b"IHDR" or size != 13:
                raise BadItem("damaged PNG (it does not begin with a header)")
            header = struct.unpack(">IIBBBBB", body)
            check_size(header[0], header[1])
        elif kind == b"IDAT":
            idat.append(body)
        elif kind == b"IEND":
            break
        elif kind == b"PLTE":
            palette = body
        elif kind == b"tRNS":
            transparency = body
        elif kind == b"acTL" and size == 8:
            frames = int.from_bytes(body[:4], "big")
        elif kind == b"eXIf":
            rotated = True
    if not idat:
        raise BadItem("damaged PNG (no pixel data)")
    return _Png(header[0], header[1], header[2], header[3], bool(header[6]), idat, palette, transparency, frames, rotated, len(data) - at)


def _png(data: bytes) -> Decoded:
    png = _walk_png(data)
    how: list[str] = []
    if png.frames > 1:
        how.append("animation: first frame")
    if png.junk:
        how.append("bytes after the end of the image ignored")
    if png.interlaced or png.rotated:  # rare, left to Pillow
        _check_length(png)
        if png.depth == 16 and png.colour in (2, 4, 6):
            how.append("16-bit channels to 8 bits (high byte)")
        pixels, more = _pillow(data, "PNG", animated=False)
    elif png.depth == 16:
        pixels, more = _png16(png)
    else:
        pixels, more = _png8(png)
    return Decoded(pixels, (*how, *more), "PNG", False)


def _png8(png: _Png) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    modes = _PNG_MODES.get((png.depth, png.colour))
    if modes is None:
        raise BadItem(f"damaged PNG (bit depth {png.depth} with colour type {png.colour})")
    x = _unfilter(png, *modes)
    if png.colour == 3:
        return _palette(x, png)
    how: tuple[str, ...] = ()
    if modes[0] == "1":
        x, how = x * np.uint8(255), ("1-bit to 0 and 255",)
    if png.colour in (4, 6):
        return _over_white(x[..., :-1], x[..., -1])
    if png.transparency is not None:
        x = x.reshape(*x.shape[:2], -1)
        return _with_key(x, x, _key(png) * (255 // (2**png.depth - 1)), how)
    return (x[None] if x.ndim == 2 else _planes(x)), how


def _key(png: _Png) -> NDArray[np.uint16]:
    """The one colour that a tRNS block of a grey or RGB file makes transparent."""
    channels = 1 if png.colour == 0 else 3
    if png.transparency is None or len(png.transparency) != 2 * channels:
        raise BadItem("damaged PNG (transparency block)")
    return np.frombuffer(png.transparency, ">u2").astype(np.uint16)


def _with_key(
    x: NDArray[np.uint8], compared: NDArray[Any], key: NDArray[np.uint16], how: tuple[str, ...]
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    pixels, more = _over_white(x, np.where((compared == key).all(axis=-1), 0, 255).astype(np.uint8), says_opaque=False)
    return pixels, (*how, *more)


def _unfilter(png: _Png, mode: str, raw: str) -> NDArray[Any]:
    from PIL import Image

    data = png.idat[0] if len(png.idat) == 1 else b"".join(png.idat)
    try:
        x = np.asarray(Image.frombytes(mode, (png.width, png.height), data, "zip", raw, 0))
    except (ValueError, OSError) as e:
        raise BadItem(f"damaged PNG (its pixel data end early: {e})") from e
    if not x[-1].any():
        _check_length(png)
    return x


# The start and step of the seven passes: PNG specification, section 8.2.
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def _check_length(png: _Png) -> None:
    """Refuse pixel data with rows missing: Pillow leaves these black without a word."""
    bits = png.depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(png.colour, 1)
    passes = _ADAM7 if png.interlaced else ((0, 0, 1, 1),)
    wanted = 0
    for top, left, down, across in passes:
        rows, columns = -(-(png.height - top) // down), -(-(png.width - left) // across)
        wanted += rows * (1 + -(-columns * bits // 8)) if rows > 0 and columns > 0 else 0
    inflate, found = zlib.decompressobj(), 0
    try:
        for part in png.idat:
            while part and found < wanted:
                found += len(inflate.decompress(part, 2**20))
                part = memoryview(inflate.unconsumed_tail)
        found += len(inflate.decompress(b"", 2**20))  # what the limit held back; flush() has no limit
    except zlib.error as e:
        raise BadItem(f"damaged PNG ({e})") from e
    if found < wanted:
        raise BadItem(f"damaged PNG (its pixel data end early: {found:,} of {wanted:,} bytes)")


def _png16(png: _Png) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """16 bits per channel: Pillow keeps one byte of two, so the picture is unpacked once for each byte."""
    if png.colour == 0:
        wide = _unfilter(png, "I;16", "I;16B").astype(np.uint16)[..., None]
    elif png.colour == 4:  # grey + alpha is four bytes a pixel, as RGBA is
        b = _unfilter(png, "RGBA", "RGBA")
        wide = _words(b[..., 0::2], b[..., 1::2])
    else:
        mode = "RGB" if png.colour == 2 else "RGBA"
        if png.colour not in (2, 6):
            raise BadItem(f"damaged PNG (bit depth 16 with colour type {png.colour})")
        wide = _words(*(_unfilter(png, mode, f"{mode};16{order}") for order in "BL"))
    narrow = from_16_bits(wide)
    how = ("16-bit grey to 8 bits" if png.colour == 0 else "16-bit channels to 8 bits",)
    if png.colour in (0, 2):
        return (_planes(narrow), how) if png.transparency is None else _with_key(narrow, wide, _key(png), how)
    pixels, more = _over_white(narrow[..., :-1], narrow[..., -1])
    return pixels, (*how, *more)


def _words(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return np.left_shift(high, 8, dtype=np.uint16) | low


# -- JPEG, WebP --------------------------------------------------------------------------------------------------------------------

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)


def _jpeg_end(data: bytes) -> int:
    """Where the first picture of a JPEG file ends (after its end mark)."""
    at, scans = 2, 0
    while True:
        match = _MARKER.search(data, at) if scans else None
        if match is not None:
            at = match.start()
        elif scans or at + 4 > len(data):
            raise BadItem("truncated JPEG (its end is missing)")
        if data[at] != 0xFF:
            raise BadItem(f"damaged JPEG (no valid segment at byte {at})")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0xD9:
            if not scans:
                raise BadItem("damaged JPEG (no pixel data)")
            return at + 2
        elif marker in (0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            at += 2
        else:
            size = int.from_bytes(data[at + 2 : at + 4], "big")
            if at + 2 + size > len(data) or size < 2:
                raise BadItem("truncated JPEG (its end is missing)")
            scans += marker == 0xDA
            at += 2 + size


def _jpeg(data: bytes) -> Decoded:
    end = _jpeg_end(data)
    pixels, how = _pillow(data[:end] if end < len(data) else data, "JPEG")
    if end < len(data):
        how = ("bytes after the end of the image ignored", *how)
    return Decoded(pixels, how, "JPEG", True)


def _webp(data: bytes) -> Decoded:
    size = int.from_bytes(data[4:8], "little") + 8
    if size > len(data):
        raise BadItem(f"truncated WebP ({size - len(data):,} bytes are missing)")
    lossy, at = False, 12
    while at + 8 <= min(size, len(data)):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 24]
        if kind == b"VP8X" and len(body) >= 10:
            check_size(int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1)
        elif kind == b"VP8 ":
            lossy = True
            if len(body) >= 10:
                check_size(int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF)
        elif kind == b"VP8L" and len(body) >= 5:
            bits = int.from_bytes(body[1:5], "little")
            check_size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        elif kind == b"ANMF":  # a frame: 16 bytes of its own, then blocks as above
            length = 16
        at += 8 + length + (length & 1)
    pixels, how = _pillow(data, "WEBP")
    if size < len(data):
        how = ("bytes after the end of the image ignored", *how)
    return Decoded(pixels, how, "WEBP", lossy)


# -- everything else, through Pillow -------------------------------------------------------------------------------------------------


def _pillow(data: bytes, kind: str, animated: bool = True) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    from PIL import Image, UnidentifiedImageError, features

    if kind == "AVIF" and not features.check("avif"):
        raise BadItem("this Pillow cannot read AVIF", "install Pillow's own wheel (pip install --upgrade pillow), or save as PNG")
    # What Pillow's readers raise on damaged files.
    damage = (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        OverflowError,
        ZeroDivisionError,
        RuntimeError,
        zlib.error,
        MemoryError,
        Image.DecompressionBombError,
        Warning,
    )
    try:
        im = Image.open(io.BytesIO(data), formats=(kind,))
        check_size(*im.size)
        how = []
        if animated and getattr(im, "is_animated", False):
            how.append("several pages: first one" if kind == "TIFF" else "animation: first frame")
        pixels, more = from_pil(im)
    except BadItem:
        raise
    except Image.DecompressionBombError as e:
        raise BadItem(
            f"more pixels than the limit of {MAX_PIXELS / 1e6:,.0f} Mpx (a decompression bomb?)", "resize it, or remove it"
        ) from e
    except UnidentifiedImageError as e:
        raise BadItem(f"damaged {kind} (its header cannot be read)") from e
    except damage as e:
        raise BadItem(f"truncated or damaged {kind} ({shown(str(e)) or type(e).__name__})") from e
    return pixels, (*how, *more)


def from_pil(im: Any) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Pixels (c, h, w) of an opened Pillow image, and what was converted.

    Raises:
        BadItem: pixels without a fixed 8- or 16-bit range.
    """
    how: list[str] = []
    turned = 1
    if im.format == "TIFF" and hasattr(im, "tag_v2"):
        turned = im.tag_v2.get(0x0112, 1)
        _check_tiff(im)
        if any(bits > 8 for bits in _bits(im)) and im.mode in ("RGB", "RGBA", "RGBX", "CMYK", "LA"):
            how.append("16-bit channels to 8 bits (high byte)")
    im.load()
    if im.format != "TIFF" and ("exif" in im.info or "xmp" in im.info):
        from PIL import ImageOps

        turned = im.getexif().get(0x0112, 1)
        if turned in range(2, 9):
            im = ImageOps.exif_transpose(im)
    if turned in range(2, 9):
        how.append("EXIF rotation applied")
    pixels, more = _pixels(im)
    return pixels, (*how, *more)


def _bits(im: Any) -> tuple[int, ...]:
    bits = im.tag_v2.get(258, (1,))
    return tuple(bits) if isinstance(bits, tuple) else (bits,)


def _check_tiff(im: Any) -> None:
    if im.mode.startswith("I;16") and _bits(im)[0] != 16:
        raise BadItem(f"{_bits(im)[0]}-bit TIFF, expected 1, 8 or 16 bits", "save it with 8 bits per channel")


def _pixels(im: Any) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    mode = im.mode
    keyed = "transparency" in im.info
    if mode == "RGB" and not keyed:
        return _planes(np.asarray(im)), ()
    if mode == "L" and not keyed:
        return np.asarray(im)[None], ()
    if mode == "1" and not keyed:
        return np.asarray(im.convert("L"))[None], ("1-bit to 0 and 255",)
    if mode.startswith("I;16"):
        wide = np.asarray(im).astype(np.uint16)
        if getattr(im, "tag_v2", {}).get(262) == 0:  # TIFF's WhiteIsZero, which Pillow turns round for 8 bits only
            wide = 65535 - wide
        pixels, how = from_16_bits(wide), ("16-bit grey to 8 bits",)
        key = im.info.get("transparency")
        if isinstance(key, int) and (wide == key).any():
            return np.where(wide == key, 255, pixels).astype(np.uint8)[None], (*how, "transparency over white")
        return pixels[None], how
    if mode in ("F", "I"):
        what = "32-bit float" if mode == "F" else "32-bit integer"
        raise BadItem(f"{what} pixels, which have no fixed range", "save it with 8 bits per channel (scale it to 0..255 first)")
    if mode in ("P", "PA"):
        return _coloured(np.asarray(im.convert("RGBA")))
    if mode in ("LA", "La", "L", "1"):
        both = np.asarray(im if mode == "LA" else im.convert("LA"))
        return _over_white(both[..., :1], both[..., 1])
    if mode in ("RGBA", "RGBa", "RGB"):
        both = np.asarray(im if mode == "RGBA" else im.convert("RGBA"))
        return _over_white(both[..., :3], both[..., 3])
    if mode == "RGBX":
        return _planes(np.asarray(im)[..., :3]), ()
    if mode in ("CMYK", "YCbCr"):
        return _planes(np.asarray(im.convert("RGB"))), (f"{mode} to RGB",)
    raise BadItem(f"colour mode {mode}", "save it as RGB or grey")


def _planes(x: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(x.transpose(2, 0, 1))


def _palette(index: NDArray[np.uint8], png: _Png) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    used = 0 if png.palette is None else min(len(png.palette) // 3, 256)
    if used <= np.max(index):
        raise BadItem(f"damaged PNG (a pixel uses colour {np.max(index)}, the palette has {used})")
    table = np.full((256, 4), 255, np.uint8)
    assert png.palette is not None
    table[:used, :3] = np.frombuffer(png.palette, np.uint8)[: 3 * used].reshape(used, 3)
    if png.transparency is not None:
        alpha = np.frombuffer(png.transparency, np.uint8)[:256]
        table[: len(alpha), 3] = alpha
    return _coloured(table[index])


def _coloured(x: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """The looked-up colours (h, w, 4) of a palette image, as one channel where all are grey."""
    pixels, how = _over_white(x[..., :3], x[..., 3], says_opaque=False)
    if (pixels[0] == pixels[1]).all() and (pixels[1] == pixels[2]).all():
        return pixels[:1].copy(), ("palette to grey", *how)
    return pixels, ("palette to colours", *how)


def _over_white(x: NDArray[np.uint8], alpha: NDArray[np.uint8], says_opaque: bool = True) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """x (h, w, c) with alpha (h, w) over white: round((x·a + 255·(255 − a)) / 255)."""
    if (alpha == 255).all():
        return _planes(x), ("opaque alpha dropped",) if says_opaque else ()
    a = alpha[..., None].astype(np.uint16)
    # 65025 is the largest sum, so 16 bits hold it with the half that rounds.
    return _planes(((x * a + 255 * (255 - a) + 127) // 255).astype(np.uint8)), ("transparency over white",)


def from_16_bits(x: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """round(x / 257), exact: 257 is odd, so there are no ties."""
    return ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)
