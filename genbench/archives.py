"""Files that hold samples: folders, zip and tar archives of images; npy, npz, safetensors and idx files of arrays.

Archives are streams here: nothing is ever unpacked by name. What is listed is opened only if it is a regular file, so a FIFO or a device
cannot hang a run. Array files give rows by number without being held in memory.
"""

import bz2
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from genbench.errors import DataError
from genbench.images import MAX_BYTES, SUFFIXES, BadItem, is_archive, shown, sniff

MAX_RATIO = 200
"""Decompressed : compressed bytes from which a large member or stream is taken for a bomb (deflate reaches 1032)."""
BOMB_BYTES = 16 * 2**20
"""Members below this size are no bomb, whatever their ratio: a blank bitmap compresses well."""
BOMB_STREAM_BYTES = 2**30
"""The same for a whole compressed tar."""
HEADER_BYTES = 2**24
"""Bytes of one header of a tar archive, long names included."""

_LITTER = {b".ds_store", b"thumbs.db", b"ehthumbs.db", b"desktop.ini", b".directory", b".localized", b"icon\r"}
_LITTER_FOLDERS = {b"__macosx", b".ipynb_checkpoints", b".git", b".trashes", b".spotlight-v100", b".fseventsd", b"@eadir", b"$recycle.bin"}
_ARCHIVES = (b".zip", b".tar", b".tgz", b".gz", b".bz2", b".xz", b".zst", b".7z", b".rar")
# Endings that are surely no image: not opened to look.
_OTHERS = {
    b".txt",
    b".json",
    b".jsonl",
    b".csv",
    b".tsv",
    b".cls",
    b".md",
    b".yaml",
    b".yml",
    b".toml",
    b".log",
    b".html",
    b".htm",
    b".xml",
    b".py",
    b".npy",
    b".npz",
    b".pt",
    b".pth",
    b".pkl",
    b".ckpt",
    b".safetensors",
    b".parquet",
    b".caption",
    b".mp4",
    b".pdf",
    b".svg",
}
FORMATS = {s.encode(): f for s, f in SUFFIXES.items()}
"""File name ending (lower case) -> image format."""


class Member(NamedTuple):
    """One image file: its name to show, the raw name it is sorted by, and where its bytes are."""

    name: str
    key: bytes
    where: Any


@dataclass
class Listing:
    """What was found beside the images.

    Args:
        bad: (name, cause, mend) of what should be an image and cannot be read.
        litter: files that operating systems leave behind.
        others: other files that are no images.
        specials: links, FIFOs and devices in tar archives.
        odd_labels: .cls members without a number.
        notes: warnings.
        labels: sample key -> class, from .cls members.
    """

    bad: list[tuple[str, str, str]] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    specials: list[str] = field(default_factory=list)
    odd_labels: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    labels: dict[bytes, int] = field(default_factory=dict)


def suffix_of(name: bytes) -> bytes:
    """A name's ending in lower case, from its last dot on."""
    dot = name.rfind(b".")
    return name[dot:].lower() if dot > name.rfind(b"/") else b""


def has_image_suffix(name: bytes) -> bool:
    """Whether a file's name says that it is an image."""
    return suffix_of(name) in FORMATS


def _is_litter(name: bytes) -> bool:
    *folders, last = name.lower().split(b"/")
    return last in _LITTER or last.startswith(b"._") or not _LITTER_FOLDERS.isdisjoint(folders)


def sample_key(name: bytes) -> bytes:
    """A WebDataset member's key: its name up to the first dot of the last component."""
    folder, slash, last = name.rpartition(b"/")
    return folder + slash + last.split(b".", 1)[0]


class Container(ABC):
    """A folder or an archive of image files.

    Args:
        path: where it is.
        prefix: put before the members' names where there are several containers.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        self.path, self.prefix = path, prefix
        self._raw_prefix = prefix.encode("utf-8", "surrogateescape")

    def _member(self, key: bytes, where: Any) -> Member:
        return Member(self.prefix + shown(key), self._raw_prefix + key, where)

    def _bad(self, listing: Listing, key: bytes, cause: str, mend: str = "write it again, or remove it") -> None:
        listing.bad.append((self.prefix + shown(key), cause, mend))

    @abstractmethod
    def entries(self, listing: Listing) -> Iterator[tuple[Member, bytes | None]]:
        """Every image file, with its bytes where they come by the way (a compressed tar); the rest goes into `listing`."""

    @abstractmethod
    def fetch(self, members: list[Member]) -> Iterator[tuple[int, bytes | None]]:
        """Members by place in the list, in whatever order is cheap, with their bytes where they come by the way."""

    @abstractmethod
    def handle(self) -> AbstractContextManager[Any]:
        """What `read` needs open."""

    @abstractmethod
    def read(self, handle: Any, member: Member) -> bytes:
        """A member's bytes."""

    def _sort_out(self, key: bytes, listing: Listing, head: Any) -> bool:
        """Whether a regular file is taken for an image; `head` gives its first bytes where the name does not tell."""
        if _is_litter(key):
            listing.litter.append(self.prefix + shown(key))
            return False
        suffix = suffix_of(key)
        if suffix in FORMATS:
            return True
        start = b"" if suffix in _OTHERS else head()
        if sniff(start) is not None:
            return True
        if self._nested_is_bad and (suffix in _ARCHIVES or is_archive(start)):
            self._bad(listing, key, "an archive inside an archive", "unpack it, or pass it on its own")
        else:
            listing.others.append(self.prefix + shown(key))
        return False

    _nested_is_bad = True


# -- folders -----------------------------------------------------------------------------------------------------------------------


def read_file(path: bytes | Path, limit: int = MAX_BYTES, first: int | None = None) -> bytes:
    """The bytes of a regular file (or the first ones), never waiting on anything else.

    Raises:
        BadItem: it cannot be read, is no regular file, or is larger than the limit.
    """
    try:
        # Should a FIFO take the file's place after it was listed, this flag keeps the open from waiting.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as e:
        raise BadItem(f"cannot be opened ({e.strerror})", _mend_open(e)) from e
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise BadItem(f"{_special(found.st_mode)}, expected a regular file", "remove it")
        if first is None and found.st_size > limit:
            raise BadItem(f"{found.st_size:,} bytes, the limit is {limit:,}", "resize it, or remove it")
        data = os.read(handle, found.st_size + 1 if first is None else first)
        if first is None and len(data) < found.st_size:  # the system gave less at once
            parts = [data]
            while part := os.read(handle, 2**24):
                parts.append(part)
            data = b"".join(parts)
    except OSError as e:
        raise BadItem(f"cannot be read ({e.strerror})", "check the disk, or remove it") from e
    finally:
        os.close(handle)
    return data


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as e:
        raise DataError(f"{shown(str(path))}: cannot be opened ({e.strerror}); {_mend_open(e)}") from e


def _mend_open(e: OSError) -> str:
    if isinstance(e, PermissionError):
        return "give yourself permission to read it (chmod u+r), or remove it"
    return "put the file back, or remove the link" if isinstance(e, FileNotFoundError) else "remove it"


def _special(mode: int) -> str:
    kinds = (
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISDIR, "a folder"),
    )
    return next((name for test, name in kinds if test(mode)), "a special file")


class Folder(Container):
    """A folder, nested folders included."""

    _nested_is_bad = False

    def entries(self, listing: Listing) -> Iterator[tuple[Member, bytes | None]]:
        root = os.fsencode(self.path)
        found: list[Member] = []
        top = os.stat(root)
        waiting: list[tuple[bytes, tuple[tuple[int, int], ...]]] = [(b"", ((top.st_dev, top.st_ino),))]
        while waiting:
            relative, above = waiting.pop()
            folder = os.path.join(root, relative) if relative else root
            try:
                with os.scandir(folder) as scan:
                    children = list(scan)
            except OSError as e:
                self._bad(
                    listing,
                    relative + b"/",
                    f"the folder cannot be read ({e.strerror})",
                    "give yourself permission to read it (chmod u+rx)",
                )
                continue
            for child in children:
                key = relative + b"/" + child.name if relative else child.name
                if child.is_file(follow_symlinks=False):
                    # The usual case first; litter's folders were not entered.
                    plain = suffix_of(child.name) in FORMATS and not child.name.startswith(b"._")
                    if plain or self._sort_out(key, listing, lambda p=child.path: _head(p)):
                        found.append(self._member(key, child.path))
                    continue
                self._special_entry(child, key, above, listing, found, waiting)
        found.sort(key=lambda m: m.key)
        for m in found:
            yield m, None

    def _special_entry(
        self,
        child: "os.DirEntry[bytes]",
        key: bytes,
        above: tuple[tuple[int, int], ...],
        listing: Listing,
        found: list[Member],
        waiting: list[tuple[bytes, tuple[tuple[int, int], ...]]],
    ) -> None:
        """Folders, links and what is neither."""
        if _is_litter(key) or _is_litter(key + b"/x"):
            listing.litter.append(self.prefix + shown(key))
            return
        try:
            status = os.stat(child.path)
        except OSError as e:
            import errno

            loop = e.errno == errno.ELOOP
            self._bad(
                listing,
                key,
                "a symbolic link that leads to itself" if loop else f"a dangling symbolic link ({e.strerror})",
                "remove the link",
            )
            return
        if stat.S_ISREG(status.st_mode):
            if self._sort_out(key, listing, lambda: _head(child.path)):
                found.append(self._member(key, child.path))
        elif not stat.S_ISDIR(status.st_mode):
            if has_image_suffix(key):
                self._bad(listing, key, f"{_special(status.st_mode)}, expected a regular file", "remove it")
            else:
                listing.others.append(f"{shown(key)} ({_special(status.st_mode)})")
        elif has_image_suffix(key):
            self._bad(listing, key, "a folder, expected an image", "rename or remove the folder")
        elif (status.st_dev, status.st_ino) in above:
            self._bad(listing, key, "a symbolic link back to a folder above it (a loop)", "remove the link")
        else:
            waiting.append((key, (*above, (status.st_dev, status.st_ino))))

    def fetch(self, members: list[Member]) -> Iterator[tuple[int, bytes | None]]:
        for i in range(len(members)):
            yield i, None

    def handle(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def read(self, handle: Any, member: Member) -> bytes:
        return read_file(member.where)


def _head(path: bytes) -> bytes:
    try:
        return read_file(path, first=1024)
    except BadItem:  # unreadable and not named like an image: listed among the other files
        return b""


# -- zip ---------------------------------------------------------------------------------------------------------------------------


class _InZip(NamedTuple):
    offset: int
    packed: int
    size: int
    method: int
    crc: int


class Zip(Container):
    """A zip archive, read member by member through its directory."""

    def entries(self, listing: Listing) -> Iterator[tuple[Member, bytes | None]]:
        found: list[Member] = []
        infos, ends = zip_directory(self.path)
        with self.handle() as handle:
            for info in infos:
                key = _plain(info.filename)
                cause = self._cause(info, ends)
                if info.is_dir():
                    if has_image_suffix(key.rstrip(b"/")):
                        self._bad(listing, key, "a folder, expected an image", "rename or remove the folder")
                    elif info.file_size:
                        self._bad(listing, key, f"a folder by name, yet of {info.file_size:,} bytes", "pack the archive again")
                    continue
                member = self._member(key, _InZip(info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC))
                if cause is not None:
                    if _is_litter(key):
                        listing.litter.append(member.name)
                    elif has_image_suffix(key) or "limit" in cause[0]:
                        listing.bad.append((member.name, *cause))
                    else:
                        listing.others.append(f"{member.name} ({cause[0]})")
                    continue
                if suffix_of(key) == b".cls":
                    _label(listing, self._raw_prefix + key, self.read(handle, member))
                elif self._sort_out(key, listing, lambda m=member: self._head(handle, m)):
                    found.append(member)
        _note_names(listing, [m.key for m in found], [m.name for m in found])
        found.sort(key=lambda m: m.key)
        for m in found:
            yield m, None

    @staticmethod
    def _cause(info: zipfile.ZipInfo, ends: dict[int, int]) -> tuple[str, str] | None:
        if info.flag_bits & 1:
            return "encrypted", "unpack it and pack it again without a password"
        if info.external_attr >> 16 and stat.S_ISLNK(info.external_attr >> 16):
            return "a symbolic link, expected an image", "pack the file that it leads to"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"compression method {info.compress_type}", "pack it again, stored or deflated (zip -0 or zip -6)"
        if info.header_offset + 30 + info.compress_size > ends[info.header_offset]:
            return "it overlaps another member; no such bytes are read (limit: each byte belongs to one member)", "pack the archive again"
        if info.file_size > MAX_BYTES:
            return f"{info.file_size:,} bytes unpacked, the limit is {MAX_BYTES:,}", "remove it"
        if info.file_size > BOMB_BYTES and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            return (
                f"unpacks from {info.compress_size:,} to {info.file_size:,} bytes, the limit is {MAX_RATIO} : 1 (a decompression bomb?)",
                "remove it",
            )
        return None

    def fetch(self, members: list[Member]) -> Iterator[tuple[int, bytes | None]]:
        for i in range(len(members)):
            yield i, None

    def handle(self) -> AbstractContextManager[Any]:
        return _opened(self.path)

    def read(self, handle: BinaryIO, member: Member) -> bytes:
        at: _InZip = member.where
        data = self._unpack(handle, at, at.size)
        if len(data) != at.size or zlib.crc32(data) != at.crc:
            raise BadItem("damaged in the zip archive (wrong size or checksum)", "pack it again, or copy the archive again")
        return data

    def _head(self, handle: BinaryIO, member: Member) -> bytes:
        try:
            return self._unpack(handle, member.where, 1024)
        except BadItem:
            return b""

    @staticmethod
    def _unpack(handle: BinaryIO, at: _InZip, limit: int) -> bytes:
        handle.seek(at.offset)
        header = handle.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise BadItem("damaged in the zip archive (no header where its directory says)", "pack the archive again")
        handle.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
        if at.method == zipfile.ZIP_STORED:
            return handle.read(min(at.packed, limit))
        try:
            return zlib.decompressobj(-15).decompress(handle.read(at.packed if limit >= at.size else min(at.packed, 4096)), limit + 1)
        except zlib.error as e:
            raise BadItem(f"damaged in the zip archive ({e})", "pack it again, or copy the archive again") from e


def zip_directory(path: Path) -> tuple[list[zipfile.ZipInfo], dict[int, int]]:
    """A zip file's directory, and for each member's header offset where the next member (or the directory) begins.

    Raises:
        DataError: it has no readable directory.
    """
    try:
        with zipfile.ZipFile(path) as z:
            infos, end = z.infolist(), z.start_dir
        with open(path, "rb") as f:  # a wrong length in the directory swallows the entries behind it
            f.seek(max(0, os.path.getsize(path) - 2**16 - 22))
            mark = f.read().rpartition(b"PK\x05\x06")[2]
        count = int.from_bytes(mark[6:8], "little")
        if count != 0xFFFF and (len(infos) - count) % 2**16:
            raise zipfile.BadZipFile(f"its directory has {len(infos):,} entries, its end says {count:,}")
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, UnicodeDecodeError) as e:
        raise DataError(f"{shown(str(path))}: truncated or damaged zip file ({shown(str(e))}); copy it again, or pack it again") from e
    offsets = sorted({i.header_offset for i in infos})
    ends = dict(zip(offsets, [*offsets, end][1:], strict=True))
    seen: set[int] = set()
    for i in infos:
        if i.header_offset in seen:  # two names for the same bytes
            ends[i.header_offset] = i.header_offset
        seen.add(i.header_offset)
    return infos, ends


def _plain(name: str) -> bytes:
    raw = name.encode("utf-8", "surrogateescape")
    while raw.startswith(b"./"):
        raw = raw[2:]
    return raw


def _label(listing: Listing, key: bytes, data: bytes) -> None:
    if re.fullmatch(rb"\s*-?\d{1,18}\s*", data):
        listing.labels[sample_key(key)] = int(data)
    else:
        listing.odd_labels.append(f"{shown(key)}: {shown(data[:40])!r}")


def _note_names(listing: Listing, keys: list[bytes], names: list[str]) -> None:
    outside = [
        n
        for k, n in zip(keys, names, strict=True)
        if k.startswith((b"/", b"\\")) or re.match(rb"[A-Za-z]:", k) or b".." in re.split(rb"[/\\]", k)
    ]
    if outside:
        listing.notes.append(
            f"{len(outside)} members have an absolute name or one with '..' ({some(outside)}); they were read as streams, nothing "
            "was unpacked"
        )
    if len(set(keys)) < len(keys):
        seen: set[bytes] = set()
        twice = [n for k, n in zip(keys, names, strict=True) if k in seen or seen.add(k)]  # type: ignore[func-returns-value]
        listing.notes.append(f"{len(twice)} names occur more than once in the archive ({some(twice)}); all of them count")


def some(names: list[str], count: int = 3) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:count]) + (f", ... {len(names) - count:,} more" if len(names) > count else "")


# -- tar ---------------------------------------------------------------------------------------------------------------------------

_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ\0": lzma.LZMAFile}
_STREAM_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, ValueError, struct.error, OverflowError)


class _Stream:
    """A tar file's bytes, decompressed; forward is cheap, backward begins again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.compressed = False
        self._open()

    def _open(self) -> None:
        self._raw = open(self._path, "rb")  # noqa: SIM115 closed by close()
        head = self._raw.read(6)
        self._raw.seek(0)
        opener = next((o for magic, o in _OPENERS.items() if head.startswith(magic)), None)
        self.compressed = opener is not None
        self._file: Any = self._raw if opener is None else opener(fileobj=self._raw) if opener is gzip.GzipFile else opener(self._raw)
        self._at = 0
        self.last = b""

    def close(self) -> None:
        self._file.close()
        self._raw.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> int:
        if not self.compressed:
            self._raw.seek(to)
            self._at = to
            return to
        if to < self._at:
            self.close()
            self._open()
        while self._at < to:
            if not self.read(min(2**20, to - self._at)):
                break
        return self._at

    def read(self, size: int, limit: int = HEADER_BYTES) -> bytes:
        """The next bytes; the limit is for tarfile, which reads extended headers whole."""
        if not 0 <= size <= limit:
            raise tarfile.ReadError(f"a block of {size:,} bytes, the limit is {limit:,}")
        self.last = self._file.read(size)
        self._at += len(self.last)
        if self.compressed and self._at > BOMB_STREAM_BYTES and self._at > MAX_RATIO * max(self._raw.tell(), 1):
            raise tarfile.ReadError(
                f"{self._at:,} bytes from {self._raw.tell():,} compressed, the limit is {MAX_RATIO} : 1 (a decompression bomb?)"
            )
        return self.last


class Tar(Container):
    """A tar archive, plain (read by offset) or compressed (read in sequence); WebDataset shards are such."""

    def __init__(self, path: Path, prefix: str = "") -> None:
        super().__init__(path, prefix)
        with _Stream(path) as s:
            self._compressed = s.compressed
        self._end = ""
        self._lock = threading.Lock()
        self._reading: _Stream | None = None  # stays open between reads: what follows is then cheap

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None, "_reading": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}

    def entries(self, listing: Listing) -> Iterator[tuple[Member, bytes | None]]:
        with _Stream(self.path) as stream:
            found: list[Member] = []
            for member, info in self._walk(stream, listing):
                key = _plain(info.name)
                # A stream has no way back: a member that may be an image is taken whole at once.
                data = self._take(stream, member) if self._compressed and suffix_of(key) not in _OTHERS and not _is_litter(key) else None
                if data is not None and len(data) < info.size:
                    continue  # cut off: the archive's end says so
                if suffix_of(key) == b".cls":
                    _label(listing, self._raw_prefix + key, self._take(stream, member))
                elif self._sort_out(key, listing, lambda m=member, d=data: self._take(stream, m, 1024) if d is None else d[:1024]):
                    found.append(member)
                    if self._compressed:
                        yield member, data
            self._check_end(stream, listing)
        _note_names(listing, [m.key for m in found], [m.name for m in found])
        if not self._compressed:
            found.sort(key=lambda m: m.key)
            for m in found:
                yield m, None

    def _walk(self, stream: _Stream, listing: Listing) -> Iterator[tuple[Member, tarfile.TarInfo]]:
        """The regular members; whatever else there is goes into the listing."""
        try:
            tar = tarfile.TarFile(fileobj=stream, mode="r", errorlevel=2)  # type: ignore[arg-type]
        except _STREAM_ERRORS as e:
            raise DataError(f"{shown(str(self.path))}: not a readable tar file ({shown(str(e))}); copy it again, or pack it again") from e
        size = None if self._compressed else os.path.getsize(self.path)
        while True:
            try:
                info = tar.next()
            except _STREAM_ERRORS as e:
                self._end = shown(str(e))
                return
            if info is None:
                return
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep one object per member
            key = _plain(info.name)
            member = self._member(key, (info.offset_data, info.size))
            if info.isdir():
                if has_image_suffix(key.rstrip(b"/")):
                    self._bad(listing, key, "a folder, expected an image", "rename or remove the folder")
            elif not info.isreg() or info.sparse is not None:
                what = (
                    "a sparse file"
                    if info.isreg()
                    else "a link"
                    if info.issym() or info.islnk()
                    else "a FIFO"
                    if info.isfifo()
                    else "a device"
                )
                if has_image_suffix(key) and not _is_litter(key):
                    self._bad(listing, key, f"{what} in a tar archive, expected a regular file", "pack the image itself")
                else:
                    listing.specials.append(f"{member.name} ({what})")
            elif info.size > MAX_BYTES and has_image_suffix(key):
                self._bad(listing, key, f"{info.size:,} bytes, the limit is {MAX_BYTES:,}", "remove it")
            elif size is not None and info.offset_data + info.size > size:
                self._end = f"the archive ends inside {member.name}"
                return
            else:
                yield member, info

    def _check_end(self, stream: _Stream, listing: Listing) -> None:
        name = f"{self.prefix}{shown(self.path.name)}"
        mend = "copy the archive again, or pack it again"
        last, at = stream.last, stream.tell()
        if not self._end and not last.strip(b"\0"):
            self._end = self._behind(stream)
        if self._end:
            listing.bad.append((name, f"truncated or damaged tar archive ({self._end}): the members behind that are missing", mend))
        elif last.strip(b"\0"):
            listing.bad.append(
                (name, f"damaged tar archive (no valid header before byte {at:,}): the members behind that are missing", mend)
            )
        elif len(last) < tarfile.BLOCKSIZE:
            listing.notes.append(f"{name} has no end mark; if its writing was interrupted, members are missing")

    @staticmethod
    def _behind(stream: _Stream) -> str:
        """What is wrong behind the end mark, where there are only zeros in a whole archive: one blanked header looks like an end mark."""
        at = stream.tell()
        try:
            while part := stream.read(2**20):
                if part.strip(b"\0"):
                    return f"an end mark before byte {at:,}, but the file goes on: a blanked block, or archives that were joined"
        except _STREAM_ERRORS as e:
            return shown(str(e))
        return ""

    def _take(self, stream: _Stream, member: Member, first: int | None = None) -> bytes:
        offset, size = member.where
        at, last = stream.tell(), stream.last
        try:
            stream.seek(offset)
            data = stream.read(size if first is None else min(size, first), MAX_BYTES)
        except _STREAM_ERRORS:
            return b""  # tarfile meets the same fault at its next step, and the listing then has it
        finally:
            if not self._compressed:
                stream.seek(at)
            stream.last = last
        return data

    def fetch(self, members: list[Member]) -> Iterator[tuple[int, bytes | None]]:
        if not self._compressed:
            for i in range(len(members)):
                yield i, None
            return
        with self._lock:
            for i in sorted(range(len(members)), key=lambda i: members[i].where):
                offset, size = members[i].where
                try:
                    if self._reading is None:
                        self._reading = _Stream(self.path)
                    self._reading.seek(offset)
                    data = self._reading.read(size, MAX_BYTES)
                except _STREAM_ERRORS as e:
                    raise DataError(f"{shown(str(self.path))}: changed since it was opened ({shown(str(e))}); run again") from e
                yield i, data

    def handle(self) -> AbstractContextManager[Any]:
        return _opened(self.path)

    def read(self, handle: BinaryIO, member: Member) -> bytes:
        offset, size = member.where
        handle.seek(offset)
        data = handle.read(size)
        if len(data) < size:
            raise BadItem("truncated (the tar archive ends inside it)", "copy the archive again")
        return data


def is_tar(head: bytes) -> bool:
    """Whether a file's first 512 bytes are a tar header: the sum of its bytes is written in it."""
    if len(head) < tarfile.BLOCKSIZE:
        return False
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def unpacked_head(path: Path, size: int = tarfile.BLOCKSIZE) -> bytes:
    """The first bytes of a compressed file, decompressed; empty where it is damaged before them."""
    with _Stream(path) as s:
        try:
            return s.read(size)
        except _STREAM_ERRORS:
            return b""
