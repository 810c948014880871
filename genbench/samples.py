"""Samples: an ordered, finite, re-readable set of images or vectors, whatever it is kept in.

`open_samples` makes one of a folder, an archive, an array file, an array, a Dataset, a generator function, a trained baseline or a dataset
split. Order is by full name, bytewise; the fingerprint depends on decoded content alone, so the same images have the same fingerprint in
every container.
"""

import hashlib
import inspect
import os
import re
import stat
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genbench import adapters, archives, arrays
from genbench.archives import Container, Listing, Member, some
from genbench.arrays import BLOCK, LISTED, PASS_BYTES, Drawn, Names, Rows, arrangement, conversion, is_tensor, tensor_rows
from genbench.arrays import as_rows as as_rows
from genbench.arrays import digests_of as digests_of
from genbench.errors import DataError, MissingError, UsageError, near_miss
from genbench.images import BadItem, decode, from_pil, looks_like, quiet, shown, sniff

_BATCH = 64
_BATCH_BYTES = 2**23


def data_root() -> Path:
    """Where datasets are: GENBENCH_DATA, else the folder `data` in the cache folder."""
    if os.environ.get("GENBENCH_DATA"):
        return Path(os.environ["GENBENCH_DATA"])
    if os.environ.get("GENBENCH_CACHE"):
        return Path(os.environ["GENBENCH_CACHE"]) / "data"
    from platformdirs import user_cache_path

    return user_cache_path("genbench") / "data"


class Samples(ABC):
    """An ordered, finite, re-readable set.

    Args:
        name: what the user wrote.
        shape: of one sample: (c, h, w) for uint8 images, (d,) for float64 vectors.
        kind: "samples", "dataset" or "baseline".
        labels: (n,) class numbers; None where there are none.
        names: of the items; None for "row 0", "row 1", ...
        converted: (item, what was done to it).
        skipped: (item, why it was left out).
        warnings: what a reader of the results must know.
        info: more provenance for the record.

    Attributes:
        model: the model that drew them, where there is one: the likelihood metrics ask it.
    """

    model: Any = None

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        kind: str = "samples",
        labels: NDArray[np.int64] | None = None,
        names: Sequence[str] | None = None,
        converted: Iterable[tuple[str, str]] = (),
        skipped: Iterable[tuple[str, str]] = (),
        warnings: Iterable[str] = (),
        info: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.shape, self.kind, self.labels = name, tuple(int(s) for s in shape), kind, labels
        self._names = names
        self.converted, self.skipped, self.warnings = list(converted), list(skipped), list(warnings)
        self.info: dict[str, Any] = dict(info or {})
        self._digests: NDArray[np.uint8] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Samples start ... stop − 1: uint8 (n, c, h, w) or float64 (n, d)."""

    def take(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """Samples by number, in the order asked for."""
        index = np.asarray(index, np.int64)
        if not len(index):
            return np.empty((0, *self.shape), self.dtype)
        cuts = np.flatnonzero(np.diff(index) != 1) + 1
        return np.concatenate([self.read(int(run[0]), int(run[-1]) + 1) for run in np.split(index, cuts)])

    @property
    def dtype(self) -> Any:
        """uint8 for images, float64 for vectors."""
        return np.uint8 if len(self.shape) == 3 else np.float64

    @property
    def names(self) -> Sequence[str]:
        """Names of the items, safe to print."""
        return self._names if self._names is not None else Names(len(self), "image" if len(self.shape) == 3 else "row")

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Bounds of consecutive blocks of a few megabytes."""
        step = max(1, PASS_BYTES // max(1, int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize))
        return ((a, min(a + step, len(self))) for a in range(0, len(self), step))

    def digests(self) -> NDArray[np.uint8]:
        """Content digest of every sample, (n, 16); the same in every container."""
        if self._digests is None:
            parts = [digests_of(self.read(a, b)) for a, b in self.blocks()]
            self._digests = np.concatenate(parts) if parts else np.empty((0, 16), np.uint8)
        return self._digests

    def fingerprint(self) -> str:
        """The sha256 over shape, type and all digests in order, hex."""
        return hashlib.sha256(f"{np.dtype(self.dtype).name}{self.shape}".encode() + self.digests().tobytes()).hexdigest()

    def copies(self) -> list[str]:
        """The warning that more than 1 % of the samples occur before in the set, byte for byte; else nothing."""
        n = len(self)
        count = n - len(np.unique(self.digests(), axis=0))
        share = f"{count:,} of {n:,} samples are exact copies of others in the set"
        return [f"{share}: n counts them as if they were independent, and intervals are too short"] if count > n / 100 else []

    def _bounds(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start} to {stop} of {len(self)}")


class Subset(Samples):
    """Chosen samples of a set.

    Args:
        base: the set.
        index: (n,) which ones, in order.
    """

    def __init__(self, base: Samples, index: NDArray[np.int64]) -> None:
        names = base.names
        super().__init__(
            base.name,
            base.shape,
            kind=base.kind,
            labels=None if base.labels is None else base.labels[index],
            names=[names[i] for i in index.tolist()],
            skipped=base.skipped,
            warnings=base.warnings,
            info=base.info,
        )
        kept = set(self.names)
        self.converted = [c for c in base.converted if c[0] in kept]
        self._base, self._index = base, index
        if base._digests is not None:
            self._digests = base._digests[index]

    def __len__(self) -> int:
        return len(self._index)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        self._bounds(start, stop)
        return self._base.take(self._index[start:stop])

    def take(self, index: NDArray[np.int64]) -> NDArray[Any]:
        return self._base.take(self._index[index])


def subset(samples: Samples, n: int, seed: int) -> Samples:
    """A seeded subset: the first n of a permutation, in ascending order; the whole set where n is its size.

    Args:
        samples: the set.
        n: 1 ... len(samples).
        seed: of the permutation.

    Raises:
        DataError: the set has fewer.
    """
    if n == len(samples):
        return samples
    if n < 1:
        raise UsageError(f"n must be at least 1, found {n}")
    if n > len(samples):
        raise DataError(
            f"{samples.name}: {n:,} samples were asked for, it has {len(samples):,}; add {n - len(samples):,}, or ask for n = "
            f"{len(samples)} (a result with another n is not comparable with a leaderboard's)"
        )
    order = np.random.default_rng(_seeds(seed, "subset")).permutation(len(samples))
    return Subset(samples, np.sort(order[:n]))


def _seeds(seed: int, *key: str | int) -> np.random.SeedSequence:
    """Independent streams per (seed, key...); text keys count by their content."""
    words = [int.from_bytes(hashlib.sha256(k.encode()).digest()[:4], "big") if isinstance(k, str) else k for k in key]
    return np.random.SeedSequence(seed, spawn_key=tuple(words))


# -- arrays ------------------------------------------------------------------------------------------------------------------------


class ArraySamples(Samples):
    """Rows of an array that is in memory, mapped from a file, or made when it is read.

    Args:
        rows: (n, c, h, w), (n, h, w, c) or (n, h, w) images, or (n, d) vectors.
        value_range: (low, high) that becomes 0 and 255, for images that are no bytes; guessed and said where None.
        layout: "nchw" or "nhwc" where the shape does not tell.
        path: the file that the rows are mapped from.
        others: as for Samples.

    Raises:
        DataError: no such shape, values that are not finite or in no known range.
    """

    def __init__(
        self,
        rows: Rows | NDArray[Any],
        *,
        name: str = "array",
        kind: str = "samples",
        labels: NDArray[np.int64] | None = None,
        names: Sequence[str] | None = None,
        value_range: tuple[float, float] | None = None,
        layout: str | None = None,
        converted: Iterable[tuple[str, str]] = (),
        warnings: Iterable[str] = (),
        info: dict[str, Any] | None = None,
        path: Path | None = None,
    ) -> None:
        self._rows: Any = rows
        self._path, self._stamp = path, None if path is None else _stamp(path)
        arranged = arrangement(rows, layout, name)
        self._values, said = conversion(rows, value_range, name, images=arranged is not None, names=names)
        self._arranged = arranged
        probe = self._convert(np.empty((0, *rows.shape[1:]), rows.dtype))
        super().__init__(
            name, probe.shape[1:], kind=kind, labels=labels, names=names, converted=converted, warnings=[*said, *warnings], info=info
        )

    def _convert(self, block: NDArray[Any]) -> NDArray[Any]:
        block = self._values(np.asarray(block))
        return np.ascontiguousarray(block if self._arranged is None else self._arranged(block))

    def __len__(self) -> int:
        return int(self._rows.shape[0])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        self._bounds(start, stop)
        self._unchanged()
        part = self._convert(self._rows[start:stop])
        return part.copy() if np.may_share_memory(part, self._rows) else part

    def take(self, index: NDArray[np.int64]) -> NDArray[Any]:
        self._unchanged()
        return self._convert(self._rows[np.asarray(index)]) if isinstance(self._rows, np.ndarray) else super().take(index)

    def _unchanged(self) -> None:
        """Refuse a file that was written to: its mapped rows are no longer those of the fingerprint."""
        if self._path is not None and _stamp(self._path) != self._stamp:
            raise DataError(f"{shown(str(self._path))}: changed since it was opened; run again when nothing writes there")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _from_function(f: Callable[[int, int], Any], n: int | None, seed: int, name: str, value_range: Any, layout: str | None) -> Samples:
    if n is None:
        raise UsageError(f"{name} makes as many samples as it is asked for; say how many: n=10000 (-n 10000)")
    if n < 1:
        raise UsageError(f"n must be at least 1, found {n}")

    def draw(start: int, count: int) -> Any:
        own = int(_seeds(seed, start // BLOCK).generate_state(1, np.uint32)[0] >> 1)  # 31 bits: every library's seed takes them
        return f(count, own)

    return ArraySamples(
        Drawn(draw, n, name), name=name, value_range=value_range, layout=layout, info={"generated": {"seed": seed, "block": BLOCK}}
    )


def _from_model(model: Any, n: int | None, seed: int, name: str, value_range: Any, layout: str | None) -> Samples:
    if n is None:
        raise UsageError(f"{name} makes as many samples as it is asked for; say how many: n=10000 (-n 10000)")
    if n < 1:
        raise UsageError(f"n must be at least 1, found {n}")
    if "start" in inspect.signature(model.sample).parameters:
        # A model whose draws depend on n is asked once for all.
        block = BLOCK if getattr(model, "PREFIX", True) else n
        rows = Drawn(lambda start, count: model.sample(count, seed=seed, start=start), n, name, block)
    else:
        rows = Drawn(
            lambda start, count: model.sample(count, seed=int(_seeds(seed, start // BLOCK).generate_state(1, np.uint32)[0] >> 1)), n, name
        )
    made = ArraySamples(rows, name=name, kind="baseline", labels=_drawn_for(model, n, seed, name), value_range=value_range, layout=layout)
    made.model = model
    provenance = getattr(model, "provenance", None)
    if provenance:
        made.info["baseline"] = dict(provenance) | {"sample_seed": seed}
    made.warnings += [str(note) for note in getattr(model, "notes", ())]
    return made


def _drawn_for(model: Any, n: int, seed: int, name: str) -> NDArray[np.int64] | None:
    """The classes that a conditional model draws its samples for."""
    found = model.sample_labels(n, seed=seed) if hasattr(model, "sample_labels") else None
    if found is None:
        return None
    labels = np.asarray(found)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{name}: expected {n} whole numbers of sample_labels, found {labels.dtype} {labels.shape}; mend the model, or return None"
        )
    return labels.astype(np.int64)


def _from_items(items: Any, name: str, on_bad: str, value_range: Any, layout: str | None) -> Samples:
    """A torch Dataset, or anything with a length and numbered items; read in order by one thread, as it may not be safe for more."""
    try:
        n = len(items)
    except TypeError as e:
        raise DataError(f"{name}: a Dataset without a length; collect its items into an array, or pass a map-style Dataset") from e
    if n == 0:
        raise DataError(f"{name}: an empty Dataset; there is nothing to score")
    bad: list[tuple[str, str, str]] = []
    seen: dict[int, _Item] = {}
    digests: dict[int, bytes] = {}
    room: int = arrays.CACHE_BYTES
    with quiet():
        for i in range(n):
            try:
                item = _item(items[i])
            except BadItem as e:
                bad.append((f"item {i}", e.cause, e.mend))
                continue
            digests[i] = _item_digest(item.array)
            room -= item.array.nbytes
            if room >= 0:
                seen[i] = item
                continue
            if len(held := [j for j in seen if seen[j].array.size]):  # the cache is full: what the arrays look like is kept
                seen |= {j: seen[j]._replace(array=np.empty(0, seen[j].array.dtype)) for j in held}
            seen[i] = item._replace(array=np.empty(0, item.array.dtype))
    looks = {i: (x.shape[1:], "picture") if x.picture else (x.shape, x.array.dtype.name) for i, x in seen.items()}
    usual = Counter(looks.values()).most_common(1)[0][0] if looks else None
    bad += [
        (f"item {i}", f"{_described(x)}, most items are {_described(usual)}", "make all items alike")
        for i, x in looks.items()
        if x != usual
    ]
    kept = [i for i, x in looks.items() if x == usual]
    skipped = _report_bad(name, sorted(bad), n, on_bad, len(kept))
    pictures = seen[kept[0]].picture
    channels = max(seen[i].shape[0] for i in kept)
    widened = {i for i in kept if pictures and seen[i].shape[0] < channels}
    how = [(f"item {i}", done) for i in kept for done in (*seen[i].how, *(("grey to RGB",) if i in widened else ()))]

    def one(i: int) -> NDArray[Any]:
        array = seen[i].array
        if room < 0:
            array = _item(items[i]).array
            if _item_digest(array) != digests[i]:
                raise DataError(f"{name}: item {i} is another one than when it was opened; switch random augmentation off")
        return np.repeat(array, 3, 0) if i in widened else array

    def draw(start: int, count: int) -> NDArray[Any]:
        with quiet():
            return np.stack([one(i) for i in kept[start : start + count]])

    labels = [x for i in kept if (x := seen[i].label) is not None]
    made = ArraySamples(
        Drawn(draw, len(kept), name, 256) if room < 0 else draw(0, len(kept)),
        name=name,
        labels=np.array(labels, np.int64) if len(labels) == len(kept) else None,
        names=[f"item {i}" for i in kept],
        value_range=None if pictures else value_range,
        layout="nchw" if pictures else layout,
        converted=how,
    )
    made.skipped = skipped
    made.warnings += _said_conversions(how, len(kept))
    return made


class _Item(NamedTuple):
    """An item of a Dataset: its array (or an empty one in its place), shape, conversions, label, and whether it was a Pillow image."""

    array: NDArray[Any]
    shape: tuple[int, ...]
    how: tuple[str, ...]
    label: int | None
    picture: bool


def _item_digest(x: NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(x).tobytes(), digest_size=16).digest()


def _described(look: Any) -> str:
    shape, kind = look
    return f"{'×'.join(str(s) for s in shape)} {'pixels' if kind == 'picture' else kind}"


def _item(item: Any) -> _Item:
    label = None
    if isinstance(item, tuple | list) and item:
        label = _label(item[1]) if len(item) > 1 else None
        item = item[0]
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(item, pil.Image):
        pixels, how = from_pil(item)
        return _Item(pixels, pixels.shape, how, label, True)
    if is_tensor(item) and item.dim() > 0:
        item = np.asarray(tensor_rows(item))
    if isinstance(item, np.ndarray) and item.ndim > 0:
        return _Item(item, item.shape, (), label, False)
    raise BadItem(
        f"expected an image, or (image, label), with a Pillow image, a tensor or an array, found {type(item).__name__}",
        "wrap the Dataset so that its items are such",
    )


def _label(x: Any) -> int | None:
    whole = isinstance(x, int | np.integer) or (is_tensor(x) and x.dim() == 0 and not x.is_floating_point())
    return int(x) if whole else None


# -- image files -------------------------------------------------------------------------------------------------------------------


def _threads(workers: int | None) -> int:
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be at least 1, found {workers}")
    return workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


_Unit = tuple[int, Member, bytes | None]  # number, member, its bytes where they came by the way
_Batch = tuple[Container, list[_Unit]]


def _batches(container: Container, units: Iterator[_Unit]) -> Iterator[_Batch]:
    batch: list[_Unit] = []
    size = 0
    for unit in units:
        batch.append(unit)
        size += len(unit[2] or b"")
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield container, batch
            batch, size = [], 0
    if batch:
        yield container, batch


def _spread(fn: Callable[[_Batch], Any], batches: Iterator[_Batch], workers: int) -> Iterator[Any]:
    """fn of every batch, in order, in threads, with a bounded number under way."""
    with quiet():
        if workers == 1:
            yield from map(fn, batches)
            return
        with ThreadPoolExecutor(workers) as pool:
            waiting: list[Future[Any]] = []
            for batch in batches:
                waiting.append(pool.submit(fn, batch))
                if len(waiting) >= 2 * workers + 1:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()


class FileSamples(Samples):
    """Image files in folders and archives.

    Opening decodes every file once, in threads: all bad files are found at once, and shape, count, conversions and digests are known.

    Args:
        containers: where the files are.
        name: what the user wrote.
        on_bad: "error" lists all bad files and stops; "skip" leaves them out, counted and listed.
        workers: threads; None for all cores.
        kind: "samples" or "dataset".

    Raises:
        DataError: no images, bad ones, or images of several sizes.
    """

    def __init__(
        self, containers: Sequence[Container], *, name: str, on_bad: str = "error", workers: int | None = None, kind: str = "samples"
    ) -> None:
        self._workers = _threads(workers)
        self._containers = list(containers)
        scan = _Scan(self._containers, self._workers)
        listing, sizes = scan.listing, Counter(scan.sizes)
        bad = list(listing.bad)
        count = len(scan.members) + len(bad)
        if not count:
            raise DataError(_nothing(name, self._containers, listing))
        usual = max(sizes, key=lambda s: (sizes[s], s), default=None)
        kept = [i for i in sorted(range(len(scan.members)), key=lambda i: scan.members[i].key) if scan.sizes[i] == usual]
        if usual is not None and len(sizes) > 1:
            if on_bad == "skip" and 2 * len(kept) < len(scan.members):
                raise DataError(
                    f"{name}: images of {len(sizes)} sizes, the most common ({usual[1]}×{usual[0]}) has {len(kept):,} of "
                    f"{len(scan.members):,}; too few to leave out all others: resize the images alike before scoring"
                )
            bad += _odd_sizes(scan, usual)
        bad.sort()
        skipped = _report_bad(name, bad, count, on_bad, len(kept))
        assert usual is not None
        self._members = [scan.members[i] for i in kept]
        self._owner = [scan.owners[i] for i in kept]
        self._grey = np.array([scan.channels[i] == 1 for i in kept])
        c = 1 if self._grey.all() else 3
        notes = {i: list(scan.how[i]) for i in kept if i in scan.how}
        if c == 3:
            for i, grey in zip(kept, self._grey.tolist(), strict=True):
                if grey:
                    notes.setdefault(i, []).append("grey to RGB")
        names = [m.name for m in self._members]
        converted = [(scan.members[i].name, ", ".join(notes[i])) for i in kept if i in notes]
        super().__init__(name, (c, *usual), kind=kind, names=names, converted=converted, skipped=skipped)
        self._pixels = scan.stack(kept, self.shape)
        self._digests = np.frombuffer(b"".join(scan.digests[i] for i in kept), np.uint8).reshape(-1, 16)
        if c == 3 and self._grey.any():
            self._digests = self._widened(self._digests)
        self._class_labels(listing)
        self._say(listing, scan, kept, [(n, h) for i in kept for n in [scan.members[i].name] for h in notes.get(i, ())])

    def _widened(self, digests: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The digests with those of grey images replaced by those of the RGB images that they became."""
        out = digests.copy()
        grey = np.flatnonzero(self._grey)
        step = max(1, PASS_BYTES // int(np.prod(self.shape)))
        for a in range(0, len(grey), step):
            index = grey[a : a + step]
            out[index] = digests_of(self._pixels[index] if self._pixels is not None else self._decoded(index, check=False))
        return out

    def _class_labels(self, listing: Listing) -> None:
        keys = [m.key for m in self._members]
        tops = [k.split(b"/") for k in keys]
        depth = 0
        while all(len(t) > depth + 1 and t[depth] == tops[0][depth] for t in tops):
            depth += 1
        if listing.labels:
            found = [listing.labels.get(archives.sample_key(k)) for k in keys]
            if all(x is not None for x in found):
                self.labels = np.array(found, np.int64)
            else:
                self.warnings.append(f"{sum(x is None for x in found):,} of {len(keys):,} images have no .cls label; no labels are used")
        elif len({t[depth] for t in tops}) > 1 and all(len(t) > depth + 1 for t in tops):
            classes = sorted({t[depth] for t in tops})
            number = {k: i for i, k in enumerate(classes)}
            self.labels = np.array([number[t[depth]] for t in tops], np.int64)
            self.warnings.append(
                f"the images are sorted into {len(classes)} folders ({some([shown(k) for k in classes])}), taken as classes; the first n "
                "of them are no fair sample"
            )

    def _say(self, listing: Listing, scan: "_Scan", kept: list[int], how: list[tuple[str, str]]) -> None:
        n = len(kept)
        self.warnings += listing.notes + _said_conversions(how, n) + ([arrays.DIM] if scan.dim else [])
        if listing.specials:
            self.warnings.append(
                f"{len(listing.specials):,} members are links, FIFOs or devices and were not read ({some(sorted(listing.specials))})"
            )
        if listing.odd_labels:
            self.warnings.append(f"{len(listing.odd_labels):,} .cls labels are no class numbers ({some(sorted(listing.odd_labels))})")
        lossy = Counter(scan.formats[i] for i in kept if scan.lossy[i])
        if lossy:
            kinds = ", ".join(sorted(lossy))
            self.warnings.append(
                f"{sum(lossy.values()):,} of {n:,} images are lossy-coded ({kinds}); against lossless images the coding itself counts as "
                "a difference"
            )
        nameless = sum(not archives.has_image_suffix(m.key) for m in self._members)
        if nameless:
            self.warnings.append(f"{nameless:,} images have no image ending in their names; they were read by content")
        if listing.others:
            self.warnings.append(f"{len(listing.others):,} other files are no images and were not read ({some(sorted(listing.others))})")
        if listing.litter:
            litter = sorted(listing.litter)
            self.info["ignored"] = litter[:100] + ([f"... {len(litter) - 100:,} more"] if len(litter) > 100 else [])

    def __len__(self) -> int:
        return len(self._members)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        self._bounds(start, stop)
        return self._pixels[start:stop].copy() if self._pixels is not None else self._decoded(np.arange(start, stop))

    def take(self, index: NDArray[np.int64]) -> NDArray[Any]:
        index = np.asarray(index, np.int64)
        return self._pixels[index] if self._pixels is not None else self._decoded(index)

    def _decoded(self, index: NDArray[np.int64], check: bool = True) -> NDArray[np.uint8]:
        out = np.empty((len(index), *self.shape), np.uint8)

        def units() -> Iterator[_Batch]:
            for number, container in enumerate(self._containers):
                places = [p for p, i in enumerate(index.tolist()) if self._owner[i] == number]
                members = [self._members[int(index[p])] for p in places]
                if members:
                    yield from _batches(container, ((places[j], members[j], data) for j, data in container.fetch(members)))

        def load(batch: _Batch) -> None:
            container, found = batch
            with container.handle() as handle:
                for place, member, data in found:
                    try:
                        pixels = decode(container.read(handle, member) if data is None else data).pixels
                    except (BadItem, OSError) as e:
                        cause = e.cause if isinstance(e, BadItem) else e.strerror
                        raise DataError(
                            f"{member.name}: {cause}; it could be read when it was opened, so it was changed since; run again"
                        ) from e
                    if pixels.shape[1:] != self.shape[1:] or len(pixels) > self.shape[0]:
                        raise DataError(f"{member.name} has another shape than when it was opened: it was changed since; run again")
                    out[place] = pixels

        for _ in _spread(load, units(), self._workers):
            pass
        if check and self._digests is not None:
            changed = np.flatnonzero((digests_of(out) != self._digests[index]).any(axis=1))
            if len(changed):
                names = [self._members[int(index[i])].name for i in changed]
                raise DataError(f"{self.name}: {some(names)} changed since it was opened; run again when nothing writes there")
        return out


class _Scan:
    """One pass over all files: what they are, and their pixels while arrays.CACHE_BYTES hold them."""

    def __init__(self, containers: Sequence[Container], workers: int) -> None:
        self.listing = Listing()
        self.members: list[Member] = []
        self.owners: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.channels: list[int] = []
        self.digests: list[bytes] = []
        self.formats: list[str] = []
        self.lossy: list[bool] = []
        self.how: dict[int, tuple[str, ...]] = {}
        self._kept: list[NDArray[np.uint8]] | None = []
        self._room = arrays.CACHE_BYTES
        self.dim = True

        def units() -> Iterator[_Batch]:
            for number, container in enumerate(containers):
                yield from _batches(container, ((number, m, data) for m, data in container.entries(self.listing)))

        for found in _spread(self._look, units(), workers):
            for owner, member, seen in found:
                self._note(owner, member, seen)

    def _look(self, batch: _Batch) -> list[tuple[int, Member, Any]]:
        container, units = batch
        out: list[tuple[int, Member, Any]] = []
        with container.handle() as handle:
            for owner, member, data in units:
                try:
                    d = decode(container.read(handle, member) if data is None else data)
                except BadItem as e:
                    out.append((owner, member, e))
                    continue
                except OSError as e:
                    out.append((owner, member, BadItem(f"cannot be read ({e.strerror})", "check the disk, or remove it")))
                    continue
                if self.dim and np.max(d.pixels) > 1:
                    self.dim = False
                h = arrays.digest_start("uint8", d.pixels.shape).copy()
                h.update(d.pixels.data)
                pixels = None if self._kept is None else d.pixels
                out.append((owner, member, (d.pixels.shape, h.digest(), d.how, d.format, d.lossy, pixels)))
        return out

    def _note(self, owner: int, member: Member, seen: Any) -> None:
        if isinstance(seen, BadItem):
            self.listing.bad.append((member.name, seen.cause, seen.mend))
            return
        shape, digest, how, kind, lossy, pixels = seen
        said = _lies(member.key, kind)
        if how or said:
            self.how[len(self.members)] = (*said, *how)
        self.members.append(member)
        self.owners.append(owner)
        self.channels.append(shape[0])
        self.sizes.append(shape[1:])
        self.digests.append(digest)
        self.formats.append(kind)
        self.lossy.append(lossy)
        self._room -= shape[0] * shape[1] * shape[2]  # uint8
        if self._room < 0:
            self._kept = None
        if self._kept is not None:
            self._kept.append(pixels)

    def stack(self, index: list[int], shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """The pixels of the images kept, where they fit."""
        if self._kept is None or len(index) * int(np.prod(shape)) > arrays.CACHE_BYTES:
            return None
        out = np.empty((len(index), *shape), np.uint8)
        for place, i in enumerate(index):
            out[place] = self._kept[i]
            self._kept[i] = out[place]  # lets the decoded array go at once
        self._kept = None
        return out


def _lies(key: bytes, found: str) -> tuple[str, ...]:
    said = archives.FORMATS.get(archives.suffix_of(key))
    return (f"{said} by name, {found} by content",) if said is not None and said != found else ()


def _odd_sizes(scan: _Scan, usual: tuple[int, int]) -> list[tuple[str, str, str]]:
    most = sum(s == usual for s in scan.sizes)
    why = f"{{}}×{{}} pixels, the other {most:,} images are {usual[1]}×{usual[0]}"
    return [
        (m.name, why.format(s[1], s[0]), "resize it, or remove it") for m, s in zip(scan.members, scan.sizes, strict=True) if s != usual
    ]


def _said_conversions(how: list[tuple[str, str]], n: int) -> list[str]:
    kinds = Counter(what for _, what in how)
    return [f"converted: {', '.join(f'{what} ({count:,} of {n:,})' for what, count in sorted(kinds.items()))}"] if kinds else []


def _report_bad(name: str, bad: list[tuple[str, str, str]], count: int, on_bad: str, kept: int) -> list[tuple[str, str]]:
    """The error that lists all bad items, or what to record of them when they are skipped."""
    if not bad:
        return []
    if on_bad == "skip" and kept:
        return [(item, cause) for item, cause, _ in bad]
    lines = [f"  {item}: {cause}; {mend}" for item, cause, mend in bad[:LISTED]]
    if len(bad) > LISTED:
        lines.append(f"  ... and {len(bad) - LISTED:,} more")
    end = (
        "mend or remove them, or pass --on-bad skip (on_bad='skip') to leave them out, counted and listed"
        if kept
        else "no good one is left"
    )
    raise DataError(f"{name}: {len(bad):,} of {count:,} cannot be scored:\n" + "\n".join(lines) + f"\n{end}")


def _nothing(name: str, containers: Sequence[Container], listing: Listing) -> str:
    what = "folder" if isinstance(containers[0], archives.Folder) else "archive"
    inside = [o for o in listing.others if o.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz", ".npz", ".npy", ".safetensors"))]
    hint = (
        f"to score one of the files in it, pass that: {some(sorted(inside))}" if inside else "put the samples there, or pass another path"
    )
    found = f"{len(listing.others):,} other files ({some(sorted(listing.others))})" if listing.others else "nothing"
    return f"{name}: expected images (png, jpg, bmp, webp, tiff, gif, avif) in the {what}, found {found}; {hint}"


# -- datasets in torchvision's layout ------------------------------------------------------------------------------------------------


def check_split(name: str, split: str, splits: Sequence[str]) -> None:
    """Refuse a split that a dataset does not have.

    Raises:
        UsageError: names all that it has.
    """
    if split not in splits:
        raise UsageError(
            f"unknown split {shown(split)!r} of dataset {name}; it has {', '.join(splits)} (for a path write ./{name}/{shown(split)})"
        )


def load_idx(
    name: str, split: str, splits: Sequence[str], folder: str, *, seed: int, n: int | None, root: Path | None, download: bool
) -> Samples:
    """A split of MNIST or of a set in its format, mapped from torchvision's files without importing torchvision.

    Args:
        name: of the dataset.
        split: train or test.
        splits: the known ones.
        folder: torchvision's class, and the folder that it uses.
        seed: of the subset of n.
        n: how many; None for all.
        root: the data folder.
        download: let torchvision fetch what is missing.

    Raises:
        MissingError: files are missing; says which, and where to put them.
    """
    check_split(name, split, splits)
    root = root or data_root()
    part = "train" if split == "train" else "t10k"
    files = [root / folder / "raw" / f"{part}-{what}-ubyte" for what in ("images-idx3", "labels-idx1")]

    def present() -> list[Path] | None:
        found = [next((q for q in (f, f.with_name(f.name + ".gz")) if q.is_file()), None) for f in files]
        return [q for q in found if q] if all(found) else None

    if present() is None and download:
        _fetch(name, folder, root, split)
    paths = present()
    if paths is None:
        raise _missing(name, split, files, "unpacked or as .gz")
    images, labels = arrays.open_idx(paths[0]), arrays.open_idx(paths[1])
    if images.ndim != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{name}/{split}: expected images (n, h, w) and n labels, found {images.shape} and {labels.shape}; download the files again"
        )
    made = ArraySamples(images[:, None], name=f"{name}/{split}", kind="dataset", labels=np.asarray(labels).astype(np.int64))
    return made if n is None else subset(made, n, seed)


def load_cifar(
    name: str, split: str, splits: Sequence[str], folder: str, *, seed: int, n: int | None, root: Path | None, download: bool
) -> Samples:
    """A split of CIFAR-10 or CIFAR-100 through torchvision's reader, which checks the md5 of its files before it reads them.

    Args:
        name: of the dataset.
        split: train or test.
        splits: the known ones.
        folder: torchvision's class.
        seed: of the subset of n.
        n: how many; None for all.
        root: the data folder.
        download: let torchvision fetch what is missing.

    Raises:
        MissingError: files are missing or damaged; says which, and where to put them.
    """
    check_split(name, split, splits)
    root = root or data_root()
    if folder == "CIFAR10":
        inside, parts = (
            "cifar-10-batches-py",
            ([f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]) + ["batches.meta"],
        )
    else:
        inside, parts = "cifar-100-python", [split, "meta"]
    files = [root / inside / p for p in parts]
    if download and not all(f.is_file() for f in files):
        _fetch(name, folder, root, split)
    if not all(f.is_file() for f in files):
        raise _missing(name, split, files, "unpacked from torchvision's archive")
    import torchvision

    try:
        found = getattr(torchvision.datasets, folder)(str(root), train=split == "train", download=False)
    except RuntimeError as e:
        raise _missing(name, split, files, f"with the right md5 sums ({e})") from e
    made = ArraySamples(found.data, name=f"{name}/{split}", kind="dataset", labels=np.array(found.targets, np.int64), layout="nhwc")
    return made if n is None else subset(made, n, seed)


def _fetch(name: str, folder: str, root: Path, split: str) -> None:
    """Torchvision's own downloader, which checks md5 sums."""
    import torchvision

    print(f"genbench: downloading {name} with torchvision to {root}", file=sys.stderr)
    try:
        root.mkdir(parents=True, exist_ok=True)
        getattr(torchvision.datasets, folder)(str(root), train=split == "train", download=True)
    except (OSError, RuntimeError) as e:  # URLError is an OSError
        raise MissingError(
            f"dataset {name}: the download to {root} failed ({shown(str(e))}); check the connection and the "
            "folder, or put the files there by hand"
        ) from e


def _missing(name: str, split: str, files: Sequence[Path], how: str) -> MissingError:
    absent = [str(f) for f in files if not f.is_file()] or [str(f) for f in files]
    return MissingError(
        f"dataset {name}/{split} is not there; put these files ({how}):\n  "
        + "\n  ".join(absent)
        + "\nor set GENBENCH_DATA to the folder that has them, or pass --download"
    )


# -- opening -----------------------------------------------------------------------------------------------------------------------


def open_samples(
    source: Any,
    *,
    n: int | None = None,
    seed: int = 0,
    on_bad: str = "error",
    value_range: tuple[float, float] | None = None,
    layout: str | None = None,
    workers: int | None = None,
    download: bool = False,
) -> Samples:
    """Samples from whatever holds them.

    Args:
        source: a folder; .zip, .tar, .tar.gz of images (several by a pattern such as shard-{000..003}.tar); .npz (arr_0, images or
            samples), .npy, .safetensors; an array or tensor; a torch Dataset; a callable f(n, seed); a torch Distribution, a
            diffusers-like pipeline or what else `genbench.adapters` adapts; a trained baseline or its run folder; a dataset ("mnist",
            "mnist/test"; write ./mnist for a folder of that name); or Samples.
        n: how many: a seeded subset where there are more. Generators need it.
        seed: of that subset, and of generators.
        on_bad: "error" lists all bad files and stops; "skip" leaves them out, counted and listed in `.skipped`.
        value_range: (low, high) of images that are no bytes; guessed and said where None.
        layout: "nchw" or "nhwc" where the shape does not tell.
        workers: decoding threads, no effect on the content; None for all cores.
        download: fetch a missing dataset.

    Returns:
        Samples in the order of their full names, bytewise.

    Raises:
        DataError: what is wrong with which files, and what to do.
        UsageError: a mistyped name or setting.
        MissingError: a dataset that is not there, with where to put it.

    Example:
        >>> x = np.zeros((2, 8, 8, 3), np.uint8)
        >>> open_samples(x).shape
        (3, 8, 8)
    """
    if on_bad not in ("error", "skip"):
        raise UsageError(f"on_bad is 'error' or 'skip', found {on_bad!r}")
    _threads(workers)
    if n is not None and n < 1:
        raise UsageError(f"n must be at least 1, found {n}")
    if not isinstance(source, str | os.PathLike | np.ndarray) and adapters.is_foreign(source):
        source = adapters.adapt(source)
    if isinstance(source, Samples):
        found = source
    elif isinstance(source, str | os.PathLike):
        found = _open_name(source, n, seed, on_bad, value_range, layout, workers, download)
    elif isinstance(source, np.ndarray):
        found = ArraySamples(source, value_range=value_range, layout=layout)
    elif is_tensor(source):
        found = ArraySamples(tensor_rows(source), name="tensor", value_range=value_range, layout=layout)
    elif hasattr(source, "sample") and callable(source.sample):
        found = _from_model(source, n, seed, getattr(source, "title", type(source).__name__), value_range, layout)
    elif hasattr(source, "__getitem__") and not isinstance(source, dict | bytes):
        found = _from_items(source, type(source).__name__, on_bad, value_range, layout)
    elif callable(source):
        found = _from_function(source, n, seed, getattr(source, "__name__", type(source).__name__), value_range, layout)
    else:
        raise UsageError(
            f"expected a path, a dataset's name, an array, a tensor, a Dataset, a callable f(n, seed) or a model, "
            f"found {type(source).__name__}"
        )
    return found if n is None else subset(found, n, seed)


def _open_name(
    source: str | os.PathLike[str],
    n: int | None,
    seed: int,
    on_bad: str,
    value_range: Any,
    layout: str | None,
    workers: int | None,
    download: bool,
) -> Samples:
    from genbench import registry

    text = os.fspath(source)
    name, slash, split = text.partition("/")
    if isinstance(source, str) and "/" not in split and re.fullmatch(r"[\w-]+", name) and name in registry.datasets():
        module = registry.dataset(name)
        return module.load(name, split if slash else module.DEFAULT, seed=seed, n=n, download=download)
    path = Path(text)
    written = shown(text)
    try:
        status = os.stat(path)
    except OSError as e:
        if isinstance(source, str) and re.search(r"[*?\[{]", text) and not os.path.lexists(path):
            return FileSamples(_shards(text, written), name=written, on_bad=on_bad, workers=workers)
        if os.path.lexists(path):
            raise DataError(f"{written}: a symbolic link that leads nowhere or to itself ({e.strerror}); mend the link") from e
        if isinstance(source, str) and re.fullmatch(r"[\w-]+(/[\w-]+)?", text):
            hint = str(near_miss(name, registry.datasets(), "dataset"))
            raise UsageError(f"{written} is neither a path nor a dataset: {hint}") from e
        raise DataError(f"{written}: there is no such file or folder ({e.strerror}); check the path") from e
    if stat.S_ISDIR(status.st_mode):
        if (path / "model.json").is_file():
            from genbench import models

            return _from_model(models.load_model(path), n, seed, written, value_range, layout)
        return FileSamples([archives.Folder(path)], name=written, on_bad=on_bad, workers=workers)
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{written}: expected a folder or a regular file, found a FIFO, socket or device; pass the samples' folder")
    return _open_file(path, written, status.st_size, on_bad, value_range, layout, workers)


def _open_file(path: Path, written: str, size: int, on_bad: str, value_range: Any, layout: str | None, workers: int | None) -> Samples:
    if size == 0:
        raise DataError(f"{written}: the file is empty (0 bytes); write it again")
    try:
        head = archives.read_file(path, first=1024)
    except BadItem as e:
        raise DataError(f"{written}: {e}") from e
    suffix = path.suffix.lower()
    if head.startswith(b"\x93NUMPY"):
        return ArraySamples(arrays.open_npy(path), name=written, value_range=value_range, layout=layout, path=path)
    if suffix == ".npy":
        raise DataError(f"{written}: expected a NumPy array, the file is {looks_like(head)}; save it again with np.save")
    if suffix == ".npz":
        return _from_arrays(arrays.open_npz(path), path, written, value_range, layout)
    if suffix == ".safetensors":
        return _from_arrays(arrays.open_safetensors(path), path, written, value_range, layout)
    container = _container(path, head)
    if container is not None:
        return FileSamples([container], name=written, on_bad=on_bad, workers=workers)
    if sniff(head) is not None:
        raise DataError(f"{written}: one image; pass the folder that holds all of them")
    raise DataError(
        f"{written}: expected a folder, .zip, .tar, .npz, .npy or .safetensors, the file is {looks_like(head)}; pass one of these"
    )


def _container(path: Path, head: bytes, prefix: str = "") -> Container | None:
    """The archive that a file is, by content; None where it is none."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")) or path.suffix.lower() == ".zip":
        return archives.Zip(path, prefix)
    packed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"))
    if path.name.lower().endswith((".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")) or archives.is_tar(
        archives.unpacked_head(path) if packed else head
    ):
        return archives.Tar(path, prefix)
    return None


_KEYS = ("arr_0", "images", "samples")


def _from_arrays(found: dict[str, Rows], path: Path, written: str, value_range: Any, layout: str | None) -> Samples:
    keys = [k for k in _KEYS if k in found]
    if len(keys) != 1:
        have = some([shown(k) for k in found], 8) or "none"
        if {"mu", "sigma"} <= set(found):
            raise DataError(f"{written}: a statistics file (mu and sigma), which has no samples; pass it as --reference")
        many = "several of the arrays" if keys else "one array called"
        raise DataError(
            f"{written}: expected {'only one of' if keys else many} arr_0, images or samples, found {have}; save it with "
            "np.savez(file, images=x)"
        )
    rows = found[keys[0]]
    said, labels = [], None
    extra = found.get("labels", found.get("arr_1"))
    if extra is not None and np.dtype(extra.dtype).kind in "iu" and tuple(extra.shape) == (rows.shape[0],):
        labels = np.asarray(extra[0 : rows.shape[0]]).astype(np.int64)
    others = [shown(k) for k in found if k != keys[0] and (labels is None or found[k] is not extra)]
    if others:
        said.append(f"other arrays in the file were not read ({some(sorted(others))})")
    return ArraySamples(rows, name=written, labels=labels, value_range=value_range, layout=layout, warnings=said, path=path)


def _shards(pattern: str, written: str) -> list[Container]:
    """The archives of a pattern: {000..003}, {a,b}, *, ?, [...]."""
    import glob

    paths: list[str] = []
    absent = []
    for text in _braces(pattern):
        found = sorted(glob.glob(text, recursive=True), key=os.fsencode) if glob.has_magic(text) and not os.path.lexists(text) else [text]
        if not found or (found == [text] and not os.path.lexists(text)):
            absent.append(shown(text))
        paths += found
    paths = list(dict.fromkeys(paths))
    if absent:
        raise DataError(f"{written}: {len(absent):,} of its parts are not there: {some(absent, LISTED)}; check the pattern")
    base = os.path.commonpath([os.path.dirname(os.path.abspath(p)) for p in paths])
    containers = []
    for text in paths:
        path = Path(text)
        if not path.is_file():
            raise DataError(f"{written}: expected archives, {shown(text)} is no regular file; pass its folder on its own")
        try:
            head = archives.read_file(path, first=1024)
        except BadItem as e:
            raise DataError(f"{shown(text)}: {e}") from e
        if not head:
            raise DataError(f"{shown(text)}: the file is empty (0 bytes); write it again")
        container = _container(path, head, os.path.relpath(os.path.abspath(text), base) + "/" if len(paths) > 1 else "")
        if container is None:
            what = looks_like(head) if sniff(head) is None else "an image"
            raise DataError(f"{written}: expected .zip or .tar archives, {shown(text)} is {what}; pass the folder that holds the images")
        containers.append(container)
    return containers


def _braces(pattern: str, limit: int = 100_000) -> list[str]:
    """Brace expansion: shard-{000..003}.tar, {train,test}.zip."""
    parts, at = [""], 0
    for match in re.finditer(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", pattern):
        middles: Iterable[str]
        if match[3] is not None:
            middles = match[3].split(",")
            count = len(middles)
        else:
            a, b = int(match[1]), int(match[2])
            count = abs(b - a) + 1
            width = len(match[1]) if match[1].startswith("0") or len(match[1]) == len(match[2]) else 0
            middles = (f"{i:0{width}d}" for i in (range(a, b + 1) if a <= b else range(a, b - 1, -1)))
        if len(parts) * count > limit:
            raise UsageError(f"{shown(pattern)}: more than {limit:,} parts; check the braces")
        ends = [pattern[at : match.start()] + middle for middle in middles]
        parts = [part + end for part in parts for end in ends]
        at = match.end()
    return [part + pattern[at:] for part in parts]
