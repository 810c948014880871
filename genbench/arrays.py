"""Arrays as samples: rows by number from array files, tensors and functions; values and layouts made uint8 (n, c, h, w) or float64 (n, d).

A file is mapped, or streamed where it is compressed; what a function makes is made again when it is read again, within a bounded cache.
"""

import functools
import gzip
import hashlib
import struct
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, ClassVar, NamedTuple, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from genbench.archives import some, zip_directory
from genbench.errors import DataError, UsageError
from genbench.images import shown

CACHE_BYTES = 256 * 2**20
"""Decoded or generated samples kept in memory; those of a larger set are made again when they are read again."""
PASS_BYTES = 2**24
"""Bytes of one step of a pass over a whole set."""
BLOCK = 2048
"""Samples that one call of a generator function is asked for; its seed depends on (seed, block number) alone."""
DIM = "no pixel is above 1 of 255; if 1 means white, multiply the images by 255"
"""The warning for black images and for binary ones saved as 0 and 1."""
HEADER_BYTES = 2**16
"""Bytes of the header of an array; NumPy's own limit is 10,000, but it reads first."""
LISTED = 20
"""Bad items that an error names before it counts the rest."""


@functools.cache
def digest_start(kind: str, shape: tuple[int, ...]) -> "hashlib.blake2b":
    """The state of a content digest before the bytes: copy it, update it with them."""
    return hashlib.blake2b(f"{kind}{shape}".encode(), digest_size=16)


def digests_of(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """Content digests, (n, 16): blake2b over type, shape and bytes of each row."""
    rows = np.ascontiguousarray(rows)
    start = digest_start(rows.dtype.name, rows.shape[1:])
    flat = rows.reshape(len(rows), -1).view(np.uint8) if rows.size else np.empty((len(rows), 0), np.uint8)
    out = bytearray()
    for row in flat:
        h = start.copy()
        h.update(row.data)
        out += h.digest()
    return np.frombuffer(bytes(out), np.uint8).reshape(len(rows), 16)


class Names(Sequence[str]):
    """Names of rows that have none: "row 17"; the index after `picked`."""

    def __init__(self, n: int, word: str = "row", picked: NDArray[np.int64] | None = None) -> None:
        self._n, self._word, self._picked = n, word, picked

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(self._n))]
        if not -self._n <= i < self._n:
            raise IndexError(i)
        return f"{self._word} {i % self._n}"


# -- files -------------------------------------------------------------------------------------------------------------------------


class Rows(Protocol):
    """Rows of an array that need not be in memory: shape, dtype, and slices of the first axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)."""
        ...

    @property
    def dtype(self) -> Any:
        """NumPy's type of the elements."""
        ...

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Rows start ... stop − 1."""
        ...


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    size: int


def _npy_header(f: Any, what: str) -> _Header:
    try:
        version = np.lib.format.read_magic(f)
        at = f.tell()
        if version != (1, 0) and (length := int.from_bytes(f.read(4), "little")) > HEADER_BYTES:  # NumPy would make room for all of it
            raise ValueError(f"a header of {length:,} bytes")
        f.seek(at)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(f) if version == (1, 0) else np.lib.format.read_array_header_2_0(f)
    except (ValueError, EOFError, OSError, TypeError, SyntaxError, TokenError) as e:  # TokenError: NumPy's repair of old headers
        raise DataError(f"{what}: truncated or damaged array ({shown(str(e))}); save it again with np.save or np.savez") from e
    if dtype.names:
        raise DataError(
            f"{what}: expected one array of numbers, found a table with the columns {', '.join(dtype.names)}; save the columns' values"
        )
    if dtype.hasobject:
        raise DataError(
            f"{what}: expected numbers, found an array of type {dtype} (pickled objects run code when they are read, so they are "
            "refused); save it as uint8 or float32"
        )
    if any(size < 0 for size in shape):
        raise DataError(f"{what}: damaged array (its header says shape {shape}); save it again with np.save or np.savez")
    return _Header(tuple(shape), fortran, dtype, f.tell())


def _check_bytes(header: _Header, available: int, what: str) -> int:
    """The bytes of the array, if that is what the file has: fewer are a truncated one, more are another array or a damaged shape."""
    needed = header.dtype.itemsize * int(np.prod(header.shape, dtype=object))
    if available != needed:
        cause, mend = (
            ("truncated array", "copy or save it again") if available < needed else ("more than one array", "save one array a file")
        )
        raise DataError(f"{what}: {cause}, expected {needed:,} bytes for shape {header.shape}, found {available:,}; {mend}")
    return needed


def _map(path: Path, header: _Header, offset: int, available: int, what: str) -> NDArray[Any]:
    if _check_bytes(header, available, what) == 0:
        return np.empty(header.shape, header.dtype)
    return np.memmap(path, header.dtype, "r", offset, header.shape, "F" if header.fortran else "C")


def open_npy(path: Path) -> NDArray[Any]:
    """The array of a .npy file, mapped and not read."""
    with open(path, "rb") as f:
        header = _npy_header(f, shown(str(path)))
    return _map(path, header, header.size, path.stat().st_size - header.size, shown(str(path)))


class ZipRows:
    """Rows of an array in a compressed .npz file: decompressed in sequence, from the beginning again when an earlier row is asked for."""

    def __init__(self, path: Path, info: zipfile.ZipInfo, header: _Header) -> None:
        self.shape, self.dtype = header.shape, header.dtype
        self._path, self._info, self._skip = path, info, header.size
        self._row = header.dtype.itemsize * int(np.prod(header.shape[1:]))
        self._lock = threading.Lock()
        self._file: Any = None
        self._at = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        with self._lock:
            try:
                if self._file is None or start < self._at:
                    self._begin()
                while self._at < start:
                    step = min(start - self._at, max(1, 2**21 // max(self._row, 1)))
                    self._read(step)
                data = self._read(stop - start)
            except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as e:
                raise DataError(
                    f"{shown(str(self._path))}: truncated or damaged array {shown(self._info.filename)} ({e}); save it again"
                ) from e
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    def _begin(self) -> None:
        if self._file is not None:
            self._file.close()
        with zipfile.ZipFile(self._path) as z:
            self._file = z.open(self._info)  # keeps the archive's file open by itself
        self._file.read(self._skip)
        self._at = 0

    def _read(self, count: int) -> bytes:
        data: bytes = self._file.read(count * self._row)
        if len(data) < count * self._row:
            raise EOFError("the data end early")
        self._at += count
        return data


def open_npz(path: Path) -> dict[str, Rows]:
    """The arrays of a .npz file by name: stored ones mapped, compressed ones streamed."""
    what = shown(str(path))
    infos, ends = zip_directory(path)
    found: dict[str, Rows] = {}
    with zipfile.ZipFile(path) as z, open(path, "rb") as raw:
        for info in infos:
            name = info.filename.removesuffix(".npy")
            label = f"{what}, array {shown(name)}"
            if info.flag_bits & 1:
                raise DataError(f"{label}: encrypted; save it again without a password")
            if info.header_offset + 30 + info.compress_size > ends[info.header_offset]:
                raise DataError(f"{label}: truncated, or it overlaps another one; save the file again")
            try:
                with z.open(info) as f:
                    header = _npy_header(f, label)
            except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as e:
                raise DataError(f"{label}: truncated or damaged ({shown(str(e))}); save it again") from e
            if info.compress_type == zipfile.ZIP_STORED:
                raw.seek(info.header_offset + 26)
                start = info.header_offset + 30 + sum(struct.unpack("<HH", raw.read(4)))
                _check_sum(raw, start, info, label)
                found[name] = _map(path, header, start + header.size, info.file_size - header.size, label)
            elif header.fortran and len(header.shape) > 1:
                raise DataError(f"{label}: compressed in Fortran order, which cannot be read row by row; save np.ascontiguousarray(x)")
            else:
                _check_bytes(header, info.file_size - header.size, label)
                found[name] = ZipRows(path, info, header)
    return found


def _check_sum(raw: BinaryIO, start: int, info: zipfile.ZipInfo, label: str) -> None:
    """Refuse a stored array whose bytes are not those that were written: a mapped one would be read without its checksum."""
    raw.seek(start)
    left, found = info.file_size, 0
    while left > 0 and (part := raw.read(min(left, 2**19))):
        found, left = zlib.crc32(part, found), left - len(part)
    if found != info.CRC:
        raise DataError(f"{label}: damaged (wrong checksum); copy or save the file again")


class TensorRows:
    """Rows of a tensor in a safetensors file."""

    _TYPES: ClassVar[dict[str, str]] = {
        "U8": "u1",
        "I8": "i1",
        "I16": "<i2",
        "U16": "<u2",
        "I32": "<i4",
        "U32": "<u4",
        "I64": "<i8",
        "U64": "<u8",
        "F16": "<f2",
        "F32": "<f4",
        "F64": "<f8",
        "BOOL": "?",
    }

    def __init__(self, path: Path, name: str, kind: str, shape: tuple[int, ...], offset: int) -> None:
        self.shape = shape
        self.dtype = np.dtype("<f4" if kind == "BF16" else self._TYPES[kind])
        self._bfloat = kind == "BF16"
        stored = np.dtype("<u2") if self._bfloat else self.dtype
        empty = 0 in shape
        self._array = np.empty(shape, stored) if empty else np.memmap(path, stored, "r", offset, shape)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        part = self._array[rows]
        # bfloat16 is the upper half of a float32.
        return (part.astype("<u4") << 16).view("<f4") if self._bfloat else np.asarray(part)


def open_safetensors(path: Path) -> dict[str, Rows]:
    """The tensors of a safetensors file by name, mapped and not read."""
    import json

    from safetensors import SafetensorError, safe_open

    what = shown(str(path))
    try:
        with safe_open(path, framework="np"):  # checks the header, bounds and overlaps
            pass
        with open(path, "rb") as f:
            size = int.from_bytes(f.read(8), "little")
            header = json.loads(f.read(size))
    except (SafetensorError, OSError, ValueError) as e:
        raise DataError(f"{what}: truncated or damaged safetensors file ({shown(str(e))}); save it again") from e
    found: dict[str, Rows] = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        if info["dtype"] != "BF16" and info["dtype"] not in TensorRows._TYPES:
            raise DataError(f"{what}, tensor {shown(name)}: type {info['dtype']}; save it as uint8 or float32")
        found[name] = TensorRows(path, name, info["dtype"], tuple(info["shape"]), 8 + size + info["data_offsets"][0])
    return found


# The third byte of an idx file's magic number: yann.lecun.com/exdb/mnist.
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def open_idx(path: Path) -> NDArray[Any]:
    """The array of an idx file (MNIST's format), mapped and not read; a .gz one is unpacked in memory."""
    what = shown(str(path))
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as f:
            magic = f.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES:
                raise DataError(f"{what}: not an idx file; download it again")
            shape = struct.unpack(f">{magic[3]}I", f.read(4 * magic[3]))
            data = f.read() if packed else b""
    except (OSError, EOFError, zlib.error, struct.error) as e:
        raise DataError(f"{what}: truncated or damaged ({shown(str(e))}); download it again") from e
    header = _Header(shape, False, np.dtype(_IDX_TYPES[magic[2]]), 4 + 4 * len(shape))
    if not packed:
        return _map(path, header, header.size, path.stat().st_size - header.size, what)
    if len(data) != header.dtype.itemsize * int(np.prod(shape)):
        raise DataError(f"{what}: expected shape {shape}, found {len(data):,} bytes; download it again")
    return np.frombuffer(data, header.dtype).reshape(shape)


# -- values and layouts ------------------------------------------------------------------------------------------------------------


def _from_nhwc(x: NDArray[Any]) -> NDArray[Any]:
    return x.transpose(0, 3, 1, 2)


def _from_nhw(x: NDArray[Any]) -> NDArray[Any]:
    return x[:, None]


def _as_is(x: NDArray[Any]) -> NDArray[Any]:
    return x


def arrangement(rows: Any, layout: str | None, what: str) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
    """How rows become (n, c, h, w); None for vectors."""
    shape = tuple(rows.shape)
    if layout not in (None, "nchw", "nhwc"):
        raise UsageError(f"layout is 'nchw' or 'nhwc', found {layout!r}")
    if len(shape) not in (2, 3, 4):
        mend = "pass x[None] for one image" if len(shape) == 1 else "reshape it"
        raise DataError(f"{what}: expected vectors (n, d) or images (n, c, h, w), (n, h, w, c) or (n, h, w), found shape {shape}; {mend}")
    if 0 in shape:
        raise DataError(f"{what}: an empty array of shape {shape}; there is nothing to score")
    if len(shape) == 2:
        return None
    if len(shape) == 3:
        if shape[2] in (3, 4) and min(shape[:2]) > 4:
            raise DataError(
                f"{what}: shape {shape} looks like one colour image; pass x[None], or x[..., None] if these are {shape[0]} grey images"
            )
        return _from_nhw
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if layout is None:
        same = shape[1:] == (1, 1, 1)
        if first and last and not same:
            raise DataError(f"{what}: shape {shape} is ambiguous, channels may come first or last; pass layout='nchw' or layout='nhwc'")
        layout = "nhwc" if last and not first else "nchw"
    channels = shape[1] if layout == "nchw" else shape[3]
    if channels not in (1, 3):
        mend = "drop the alpha channel, or put it over a background" if 4 in (shape[1], shape[3]) else "save grey or RGB images"
        raise DataError(f"{what}: expected 1 or 3 channels, found shape {shape}; {mend}")
    return _as_is if layout == "nchw" else _from_nhwc


class _Scaled:
    """Values low ... high to bytes 0 ... 255, a half rounded up as torchvision's save_image does."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, x: NDArray[Any]) -> NDArray[np.uint8]:
        scaled = (x.astype(np.float64) - self.low) * (255.0 / (self.high - self.low))
        return np.clip(np.floor(scaled + 0.5), 0, 255).astype(np.uint8)


def _to_bytes(x: NDArray[Any]) -> NDArray[np.uint8]:
    return x.astype(np.uint8)


def _to_doubles(x: NDArray[Any]) -> NDArray[np.float64]:
    return x.astype(np.float64)


_Conversion = tuple[Callable[[NDArray[Any]], NDArray[Any]], list[str]]


def conversion(
    rows: Any, value_range: tuple[float, float] | None, what: str, *, images: bool, names: Sequence[str] | None = None
) -> _Conversion:
    """How values become uint8 (images) or float64 (vectors), and what must be said about it."""
    dtype = np.dtype(rows.dtype)
    if dtype.kind not in "buif":
        raise DataError(f"{what}: expected numbers, found type {dtype}; save it as uint8 or float32")
    if value_range is not None:
        value_range = _checked_range(value_range)
    if images and dtype == np.uint8:  # bytes are bytes, whatever range the other side's floats have
        return _as_is, [DIM] if _is_dim(rows) else []
    if images and dtype.kind == "b":
        return _Scaled(0, 1), ["images are boolean; False became 0 and True 255"]
    if not images and dtype.kind != "f":
        return _to_doubles, []
    low, high, whole = _extent(rows, what, names)
    if not images:
        return _to_doubles, []
    slack = 1e-6  # rounding of float32 arithmetic
    span = f"values from {low:.4g} to {high:.4g}"
    if value_range is not None:
        a, b = value_range
        if low < a - slack * (b - a) or high > b + slack * (b - a):
            raise DataError(f"{what}: {span}, outside value_range=({a:g}, {b:g}); clip them, or pass the true range")
        return _Scaled(a, b), []
    sure = "pass value_range=(low, high) to say so yourself"
    if dtype.kind in "iu":
        if low >= 0 and high <= 255:
            note = "; if 1 means white, pass value_range=(0, 1)" if high <= 1 else ""
            return _to_bytes, [f"images are {dtype.name} with {span}; taken as bytes{note}"]
        raise DataError(f"{what}: {dtype.name} images with {span}, expected 0 to 255; pass value_range=(low, high), or save uint8")
    if low >= 0 and high <= 1 + slack:
        return _Scaled(0, 1), [f"images are {dtype.name} with {span}; taken as 0 to 1 and scaled to 0 to 255 ({sure})"]
    if -1 - slack <= low < 0 and high <= 1 + slack:
        return _Scaled(-1, 1), [f"images are {dtype.name} with {span}; taken as −1 to 1 and scaled to 0 to 255 ({sure})"]
    if whole and low >= 0 and high <= 255:
        return _to_bytes, [f"images are {dtype.name} with whole {span}; taken as bytes ({sure})"]
    raise DataError(f"{what}: {dtype.name} images with {span}, which is no known range; pass value_range=(low, high), or save uint8")


def _is_dim(rows: Any) -> bool:
    """Whether no value is above 1; ends at the first one that is."""
    step = max(1, 2**16 // max(1, int(np.prod(rows.shape[1:]))))
    return not any(np.any(rows[a : a + step] > 1) for a in range(0, rows.shape[0], step))


def _checked_range(value_range: Sequence[float]) -> tuple[float, float]:
    if len(value_range) != 2 or not all(np.isfinite(value_range)) or not value_range[0] < value_range[1]:
        raise UsageError(f"value_range is (low, high) with low < high, found {value_range!r}")
    return float(value_range[0]), float(value_range[1])


def _extent(rows: Any, what: str, names: Sequence[str] | None) -> tuple[float, float, bool]:
    """Smallest and largest value, and whether all are whole; one pass over the rows.

    Raises:
        DataError: NaN or infinity; names the rows.
    """
    n = rows.shape[0]
    step = max(1, PASS_BYTES // max(1, int(np.prod(rows.shape[1:])) * np.dtype(rows.dtype).itemsize))
    low, high, whole, bad = np.inf, -np.inf, True, []
    for a in range(0, n, step):
        block = np.asarray(rows[a : min(a + step, n)])
        flat = block.reshape(len(block), -1)
        if block.dtype.kind == "f":
            finite = np.isfinite(flat)
            if not finite.all():
                bad += (np.flatnonzero(~finite.all(axis=1)) + a).tolist()
                continue
            whole = whole and bool((flat == np.rint(flat)).all())
        low, high = min(low, float(flat.min())), max(high, float(flat.max()))
    if bad:
        word = names if names is not None else Names(n)
        raise DataError(
            f"{what}: {len(bad):,} of {n:,} rows have NaN or infinity: {some([word[i] for i in bad], LISTED)}; mend the generator, or "
            "leave them out"
        )
    return low, high, whole


def as_rows(x: Any, *, value_range: tuple[float, float] | None = None, layout: str | None = None) -> NDArray[Any]:
    """A batch in memory as uint8 (n, c, h, w) or float64 (n, d).

    Args:
        x: array or tensor: images (n, c, h, w), (n, h, w, c), (n, h, w), or vectors (n, d).
        value_range: (low, high) of images that are no bytes; one batch cannot tell it.
        layout: "nchw" or "nhwc" where the shape does not tell.

    Raises:
        DataError: float images without value_range, values that are not finite or outside the range, or no such shape.
    """
    rows = np.asarray(tensor_rows(x) if is_tensor(x) else x)
    if len(rows) == 0 and rows.ndim > 1:
        return np.empty((0, *rows.shape[1:]), np.float64 if rows.ndim == 2 else np.uint8)
    if rows.ndim in (3, 4) and rows.dtype.kind == "f" and value_range is None:
        raise DataError(
            f"batch: {rows.dtype.name} images, whose range one batch cannot tell; pass value_range=(0, 1) or (-1, 1), or uint8 images"
        )
    arranged = arrangement(rows, layout, "batch")
    values, _ = conversion(rows, value_range if rows.dtype != np.uint8 else None, "batch", images=arranged is not None)
    converted = values(rows)
    return np.ascontiguousarray(converted if arranged is None else arranged(converted))


# -- rows that are made when they are read -------------------------------------------------------------------------------------------


class Drawn:
    """Rows that a function makes block by block; at most CACHE_BYTES of them are kept.

    Args:
        draw: called with (first row, count).
        n: number of rows.
        what: for messages.
        block: rows per call.
    """

    def __init__(self, draw: Callable[[int, int], Any], n: int, what: str, block: int = BLOCK) -> None:
        self._draw, self._n, self._what, self._block = draw, n, what, block
        self._kept: dict[int, NDArray[Any]] = {}
        self._known: dict[int, bytes] = {}
        self._lock = threading.RLock()
        first = self._get(0)
        self.shape, self.dtype = (n, *first.shape[1:]), first.dtype

    def _get(self, i: int) -> NDArray[Any]:
        if i in self._kept:
            return self._kept[i]
        start = i * self._block
        count = min(self._block, self._n - start)
        found = self._draw(start, count)
        rows = np.asarray(tensor_rows(found) if is_tensor(found) else found)
        expected = (count, *self.shape[1:]) if i else (count, *rows.shape[1:])
        if rows.ndim < 2 or rows.shape != expected or (i and rows.dtype != self.dtype):
            wanted = f"shape {expected if rows.ndim > 1 else (count, '...')}" + (f" and type {self.dtype}" if i else "")
            raise DataError(
                f"{self._what}: asked for {count} samples, expected an array of {wanted}, "
                f"found shape {rows.shape} of type {rows.dtype}; return (n, d) vectors or (n, c, h, w) images, as many as asked for"
            )
        rows = np.ascontiguousarray(rows)
        if rows.dtype.kind in "buif":
            digest = hashlib.blake2b(rows.tobytes(), digest_size=16).digest()
            if self._known.setdefault(i, digest) != digest:
                raise DataError(
                    f"{self._what}: the same call gave other samples the second time; draw from a generator made of the seed alone, e.g. "
                    "np.random.default_rng(seed) or torch.Generator().manual_seed(seed)"
                )
        self._kept[i] = rows
        while len(self._kept) > 1 and sum(r.nbytes for r in self._kept.values()) > CACHE_BYTES:
            del self._kept[next(iter(self._kept))]
        return rows

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(self._n)
        if stop <= start:
            return np.empty((0, *self.shape[1:]), self.dtype)
        b = self._block
        with self._lock:
            parts = [self._get(i)[max(0, start - i * b) : stop - i * b] for i in range(start // b, (stop - 1) // b + 1)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


def is_tensor(x: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


class _DeviceRows:
    """Rows of a tensor on another device, or of a type that NumPy does not have."""

    def __init__(self, x: Any) -> None:
        self._x = x
        self.shape, self.dtype = tuple(x.shape), self[0:0].dtype

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        part = self._x[rows].detach().cpu()
        return np.asarray((part.float() if str(part.dtype) == "torch.bfloat16" else part).numpy())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[0 : self.shape[0]], dtype)


def tensor_rows(x: Any) -> Any:
    if x.dim() == 0:
        raise DataError("expected a tensor of samples, found one number; pass (n, d) vectors or (n, c, h, w) images")
    if x.is_sparse or x.is_complex() or x.is_quantized:
        raise DataError("expected a dense tensor of real numbers; convert it first")
    return x.detach().numpy() if str(x.device) == "cpu" and str(x.dtype) != "torch.bfloat16" else _DeviceRows(x)
