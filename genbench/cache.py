"""Content-addressed shards of features on disk.

The key is everything that can change the bits: the samples' digests, the extractor with its weights and preprocessing, the
shard's bounds, the forward batch and the format's version. A folder's name is never part of it. A shard carries the digest of its key
and arrays; whatever is wrong with the folder or a file in it costs time and no number.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.files import sweep, write_atomic

FORMAT = 2


def cache_root() -> Path:
    """The cache folder: GENBENCH_CACHE, else the user's cache folder."""
    if os.environ.get("GENBENCH_CACHE"):
        return Path(os.environ["GENBENCH_CACHE"])
    from platformdirs import user_cache_path

    return user_cache_path("genbench")


def key(**parts: Any) -> str:
    """The sha256 of the parts' canonical JSON."""
    return hashlib.sha256(json.dumps({"format": FORMAT} | parts, sort_keys=True).encode()).hexdigest()


def _digest(k: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    h = hashlib.sha256(k.encode())
    for name in sorted(arrays):
        a = np.ascontiguousarray(arrays[name])
        h.update(f"{name}{a.dtype.str}{a.shape}".encode())
        h.update(a.tobytes())
    return h.hexdigest()


class Cache:
    """Shards of arrays by key, each verified by its digest when it is read.

    Args:
        root: the cache folder; None for no cache.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._damaged = 0
        self._broken: str | None = None

    def _path(self, k: str) -> Path:
        assert self.root is not None
        return self.root / "features" / k[:2] / f"{k}.safetensors"

    def get(self, k: str) -> dict[str, NDArray[Any]] | None:
        """The arrays of a key; None where there are none, or none that are whole (said once on stderr)."""
        if self.root is None:
            return None
        found = _read(self._path(k), k)
        if not isinstance(found, str):
            if found is not None:
                sweep(self._path(k).parent)  # another process may have died over the same shard
            return found
        self._damaged += 1
        if self._damaged == 1:
            print(
                f"genbench: cache file {self._path(k)}: {found}; computed again, and so is every such one (genbench cache verify lists "
                "them)",
                file=sys.stderr,
            )
        return None

    def put(self, k: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store the arrays; a cache that cannot be written is said once on stderr and the run goes on without it."""
        if self.root is None or self._broken:
            return
        from safetensors.numpy import save

        contiguous = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
        digest = np.frombuffer(bytes.fromhex(_digest(k, contiguous)), np.uint8)
        try:
            write_atomic(self._path(k), save(contiguous | {"sha256": digest}))
        except OSError as e:
            self._broken = e.strerror or str(e)
            print(
                f"genbench: cannot write the cache {self.root} ({self._broken}); going on without it. Set GENBENCH_CACHE to a "
                "writable folder with free space",
                file=sys.stderr,
            )

    def faults(self) -> list[str]:
        """What was wrong with the cache so far; no number depends on it."""
        found = [f"{self._damaged:,} damaged cache files were computed again"] if self._damaged else []
        return found + ([f"the cache could not be written ({self._broken})"] if self._broken else [])

    def entries(self) -> Iterator[Path]:
        """The files of all stored shards."""
        if self.root is not None:
            yield from sorted((self.root / "features").glob("??/*.safetensors"))

    def verify(self) -> Iterator[tuple[Path, str]]:
        """Every damaged file with what is wrong with it."""
        for path in self.entries():
            found = _read(path, path.stem)
            if isinstance(found, str):
                yield path, found

    def clear(self) -> tuple[int, int]:
        """Delete all stored shards, and what a killed process left of others; returns the shards' number and the bytes freed."""
        shards = freed = 0
        if self.root is not None:
            for path in (self.root / "features").glob("??/*"):
                with contextlib.suppress(FileNotFoundError):  # another process was quicker
                    size = path.stat().st_size
                    path.unlink()
                    shards += path.suffix == ".safetensors"
                    freed += size
        return shards, freed


def _read(path: Path, k: str) -> dict[str, NDArray[Any]] | str | None:
    """The arrays of a shard, None where there is no file, or what is wrong with it."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = dict(load(path.read_bytes()))
        wanted = bytes(arrays.pop("sha256")).hex()
    except FileNotFoundError:
        return None
    except OSError as e:
        return f"it cannot be read ({e.strerror or e})"
    except (SafetensorError, KeyError, ValueError, TypeError) as e:
        return f"it is damaged or no shard ({e})"
    return arrays if _digest(k, arrays) == wanted else "it is damaged, or the shard of another key: its digest does not match"
