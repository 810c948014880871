"""Files that are whole or not there at all."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: what a killed process leaves stays there
    fcntl = None  # type: ignore[assignment]

_START, _END = ".genbench-", ".part"


def listed(folder: Path, suffix: str) -> list[Path]:
    """The files with an ending, sorted; none where there is no such folder. Unlike glob, it does not take an unreadable one for empty.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.endswith(suffix))
    except FileNotFoundError:
        return []


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; see `replacing`. A pipe or a device is written to as it is."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with replacing(path) as f:
        f.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well: fsync, rename, fsync of the folder.

    An error leaves the old file and no new one. What a killed process leaves is a hidden file that nobody reads; the next writer in that
    folder removes it.

    Args:
        path: the file; its folder is made where it does not exist, and a link is followed.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    f = _temporary(path.parent)
    try:
        with f:
            yield f
            f.flush()
            os.fsync(f.fileno())
            if fcntl is None:
                f.close()  # Windows renames no open file
            os.replace(f.name, path)  # still locked elsewhere, so that no sweep comes between
    except BaseException:
        _remove(f.name)
        raise
    _sync(path.parent)


def _temporary(folder: Path) -> BinaryIO:
    """A new file with the mode that the umask gives, locked for as long as it is open, so that nobody takes it for a left one."""
    while True:
        f = open(folder / f"{_START}{secrets.token_hex(8)}{_END}", "xb")  # noqa: SIM115 closed by the caller
        try:
            if _locked(f.fileno()) and os.fstat(f.fileno()).st_nlink:
                return f
        except BaseException:
            f.close()
            _remove(f.name)
            raise
        f.close()  # another process has just taken it for a left one
        _remove(f.name)


def _remove(name: str) -> None:
    with contextlib.suppress(OSError):  # the error that brought us here is the one to tell
        os.unlink(name)


def _locked(handle: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: `sweep` finds none there either, and leaves all files alone
        return True
    return True


def sweep(folder: Path) -> None:
    """Remove temporary files whose writer is dead. What cannot be removed is in nobody's way."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_START) and entry.name.endswith(_END):
                with contextlib.suppress(OSError), open(entry.path, "rb") as f:
                    fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)


def _sync(folder: Path) -> None:
    """Make a rename outlive a power cut, where the system can."""
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise
