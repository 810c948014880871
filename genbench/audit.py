"""Which number could have seen which fault: every metric's response to known defects, in standard deviations of its own null.

Real held-out samples play a perfect model. They are drawn several times: the spread of a metric's values over these draws is its null.
Then they are damaged, each defect at three levels, and

    z = ± (value − mean of the null) / SD of the null,         + where the metric calls the damaged samples worse.

A metric is blind to a defect where |z| stays small, and praises it where z is negative. The reference and training set is one half of the
data set's training split, at most 5,000 images, the draws come from the rest (and the validation split, where there is one), the held-out
set of the memorisation metrics is the test split, at most 5,000 images too. A draw of n from a pool of N varies less than n new samples:
the SD is divided by sqrt(1 − n/N).
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench import registry
from genbench.errors import DataError, UsageError, near_miss
from genbench.estimate import Quantity
from genbench.evaluation import Engine, Progress, make_plan, open_cache
from genbench.metric import parse_spec
from genbench.models import read_all
from genbench.run import version
from genbench.samples import ArraySamples, open_samples

LEVELS = 3
MOST = 5000  # images of the reference and of the held-out set: some metrics pass over all pairs, and an audit runs them a hundred times
CAP = 999.0  # of |z|, for a quantity that never moved in the null
Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Pool:
    """What a defect may use beside the drawn images.

    Args:
        images: every image that could be drawn.
        labels: their classes.
        train: the training images.
        train_labels: their classes.
    """

    images: Images
    labels: NDArray[np.int64]
    train: Images
    train_labels: NDArray[np.int64]


Damaged = tuple[Images, NDArray[np.int64]]
Defect = Callable[[Images, NDArray[np.int64], int, np.random.Generator, Pool], Damaged]
DEFECTS: dict[str, tuple[tuple[Any, ...], Callable[..., Damaged]]] = {}


def defect(*levels: Any) -> Callable[[Callable[..., Damaged]], Callable[..., Damaged]]:
    """Register a defect under its function's name; the function gets one of the levels as its third argument."""

    def wrap(function: Callable[..., Damaged]) -> Callable[..., Damaged]:
        assert len(levels) == LEVELS
        DEFECTS[function.__name__] = levels, function
        return function

    return wrap


def _bytes(x: NDArray[Any]) -> Images:
    return np.rint(np.clip(x, 0, 255)).astype(np.uint8)


@defect(8, 24, 64)
def noise(x: Images, y: NDArray[np.int64], sd: float, rng: np.random.Generator, pool: Pool) -> Damaged:
    """Gaussian noise; grey levels of its SD."""
    return _bytes(x + rng.normal(0, sd, x.shape)), y


@defect(0.01, 0.03, 0.06)
def blur(x: Images, y: NDArray[np.int64], share: float, rng: np.random.Generator, pool: Pool) -> Damaged:
    """Gaussian blur; its SD is 0.3 pixels and this share of the width."""
    from scipy.ndimage import gaussian_filter

    return _bytes(gaussian_filter(x.astype(np.float32), (0, 0, 0.3 + share * x.shape[2], 0.3 + share * x.shape[3]))), y


@defect(0.5, 1.5, 3.0)
def swirl(x: Images, y: NDArray[np.int64], angle: float, rng: np.random.Generator, pool: Pool) -> Damaged:
    """Rotation that falls off from the centre; radians at the centre."""
    from scipy.ndimage import map_coordinates

    h, w = x.shape[2:]
    rows, columns = np.mgrid[:h, :w].astype(float)
    rows, columns = rows - (h - 1) / 2, columns - (w - 1) / 2
    turn = angle * np.exp(-(rows**2 + columns**2) / (0.35 * max(h, w)) ** 2)
    at = (
        rows * np.cos(turn) - columns * np.sin(turn) + (h - 1) / 2,
        rows * np.sin(turn) + columns * np.cos(turn) + (w - 1) / 2,
    )
    return _bytes(np.stack([[map_coordinates(c.astype(float), at, order=1, mode="nearest") for c in image] for image in x])), y


@defect(0.15, 0.3, 0.5)
def occlusion(x: Images, y: NDArray[np.int64], side: float, rng: np.random.Generator, pool: Pool) -> Damaged:
    """A grey square at a random place; its side as a share of the width."""
    out = x.copy()
    size = max(1, round(side * min(x.shape[2:])))
    for image, r, c in zip(
        out, rng.integers(0, x.shape[2] - size + 1, len(x)), rng.integers(0, x.shape[3] - size + 1, len(x)), strict=True
    ):
        image[:, r : r + size, c : c + size] = 127
    return out, y


@defect(0.01, 0.05, 0.2)
def salt_pepper(x: Images, y: NDArray[np.int64], share: float, rng: np.random.Generator, pool: Pool) -> Damaged:
    """Pixels set to black or white; their share."""
    hit = rng.random(x.shape) < share
    return np.where(hit, np.where(rng.random(x.shape) < 0.5, 0, 255), x).astype(np.uint8), y


@defect(1, 2, 4)
def shift(x: Images, y: NDArray[np.int64], pixels: int, rng: np.random.Generator, pool: Pool) -> Damaged:
    """Moved to the right; pixels."""
    moved = np.roll(x, pixels, axis=3)
    moved[..., :pixels] = x[..., :1]
    return moved, y


@defect(1, 3, 5)
def dropped_classes(x: Images, y: NDArray[np.int64], count: int, rng: np.random.Generator, pool: Pool) -> Damaged:
    """The last classes never appear; their number."""
    classes = np.unique(pool.labels)
    return _draw(np.isin(pool.labels, classes[: max(1, len(classes) - count)]).astype(float), len(x), rng, pool)


@defect(2, 5, 20)
def imbalance(x: Images, y: NDArray[np.int64], times: float, rng: np.random.Generator, pool: Pool) -> Damaged:
    """The first class appears more often; times."""
    return _draw(np.where(pool.labels == np.min(pool.labels), times, 1.0), len(x), rng, pool)


def _draw(weight: NDArray[np.float64], n: int, rng: np.random.Generator, pool: Pool) -> Damaged:
    """Without replacement while there are any left: a repeated image would be another defect."""
    known = np.flatnonzero(weight > 0)
    order = known[np.argsort(rng.exponential(size=len(known)) / weight[known])]
    index = np.resize(order, n)
    return pool.images[index], pool.labels[index]


@defect(0.01, 0.05, 0.2)
def garbage(x: Images, y: NDArray[np.int64], share: float, rng: np.random.Generator, pool: Pool) -> Damaged:
    """Samples replaced by uniform noise; their share."""
    out, hit = x.copy(), _some(len(x), share, rng)
    out[hit] = rng.integers(0, 256, (len(hit), *x.shape[1:]))
    return out, y


def _some(n: int, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.permutation(n)[: max(1, round(share * n))]


@defect(0.5, 0.1, 0.02)
def collapse(x: Images, y: NDArray[np.int64], share: float, rng: np.random.Generator, pool: Pool) -> Damaged:
    """Few distinct samples in every class, repeated; the share that is distinct."""
    index = np.empty(len(x), np.int64)
    for c in np.unique(y):
        own = np.flatnonzero(y == c)
        index[own] = np.resize(own[: max(1, round(share * len(own)))], len(own))
    return x[index], y[index]


@defect(0.05, 0.2, 1.0)
def copies(x: Images, y: NDArray[np.int64], share: float, rng: np.random.Generator, pool: Pool) -> Damaged:
    """Samples replaced by training images; their share."""
    out, classes, hit = x.copy(), y.copy(), _some(len(x), share, rng)
    index = rng.permutation(len(pool.train))[: len(hit)]
    out[hit[: len(index)]], classes[hit[: len(index)]] = pool.train[index], pool.train_labels[index]
    return out, classes


@defect(0.05, 0.2, 1.0)
def noisy_copies(x: Images, y: NDArray[np.int64], share: float, rng: np.random.Generator, pool: Pool) -> Damaged:
    """Samples replaced by training images with noise of 4 grey levels; their share."""
    out, classes = copies(x, y, share, rng, pool)
    changed = (out != x).any(axis=(1, 2, 3))
    out[changed] = _bytes(out[changed] + rng.normal(0, 4, out[changed].shape))
    return out, classes


@defect(0.05, 0.2, 1.0)
def shifted_copies(x: Images, y: NDArray[np.int64], share: float, rng: np.random.Generator, pool: Pool) -> Damaged:
    """Samples replaced by training images moved by one pixel; their share."""
    out, classes = copies(x, y, share, rng, pool)
    changed = (out != x).any(axis=(1, 2, 3))
    out[changed] = shift(out[changed], y, 1, rng, pool)[0]
    return out, classes


@defect(0.8, 0.5, 0.25)
def truncation(x: Images, y: NDArray[np.int64], share: float, rng: np.random.Generator, pool: Pool) -> Damaged:
    """The samples nearest to their class's mean image, of more that were drawn; the share that is kept."""
    index = rng.permutation(len(pool.images))[: round(len(x) / share)]
    distance = np.empty(len(index))
    for c in np.unique(pool.labels[index]):
        own = np.flatnonzero(pool.labels[index] == c)
        rows = pool.images[index[own]].reshape(len(own), -1).astype(np.float64)
        squares = ((rows - rows.mean(axis=0)) ** 2).sum(axis=1)
        distance[own] = np.argsort(np.argsort(squares)) / len(own)  # ranks, so that classes keep their shares
    kept = index[np.argsort(distance, kind="stable")[: len(x)]]
    return pool.images[kept], pool.labels[kept]


@defect(16, 4, 2)
def quantisation(x: Images, y: NDArray[np.int64], levels: int, rng: np.random.Generator, pool: Pool) -> Damaged:
    """Fewer grey levels; their number."""
    return _bytes(np.rint(x / 255 * (levels - 1)) * 255 / (levels - 1)), y


@defect(75, 30, 10)
def jpeg(x: Images, y: NDArray[np.int64], quality: int, rng: np.random.Generator, pool: Pool) -> Damaged:
    """Saved as JPEG and read again; its quality."""
    from PIL import Image

    out = np.empty_like(x)
    for i, image in enumerate(x):
        file = io.BytesIO()
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
        back = np.asarray(Image.open(file))
        out[i] = back[None] if back.ndim == 2 else back.transpose(2, 0, 1)
    return out, y


@dataclass(frozen=True)
class Response:
    """One cell of the audit.

    Args:
        n: samples that were scored.
        quantity: with its settings and extractor.
        better: its direction.
        defect: name.
        level: 1, 2 or 3.
        amount: what the level means for this defect.
        value: of the damaged samples.
        null: mean over the undamaged draws.
        sd: of one undamaged draw.
        z: response in SD, positive where the damaged samples are called worse.
    """

    n: int
    quantity: str
    better: str
    defect: str
    level: int
    amount: float
    value: float
    null: float
    sd: float
    z: float


@dataclass(frozen=True)
class Audit:
    """What `audit` returns.

    Args:
        reference: the data set.
        responses: all cells.
        skipped: metric -> why it has no cells.
    """

    reference: str
    responses: tuple[Response, ...]
    skipped: dict[str, str]

    def to_csv(self) -> str:
        """One line per cell."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(Response.__dataclass_fields__)
        for r in self.responses:
            writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in vars(r).values()])
        return out.getvalue()

    def grid(self, n: int) -> tuple[list[str], list[str], NDArray[np.float64]]:
        """(quantities, "defect level", z) of one sample size."""
        chosen = [r for r in self.responses if r.n == n]
        quantities = list(dict.fromkeys(r.quantity for r in chosen))
        columns = list(dict.fromkeys(f"{r.defect} {r.level}" for r in chosen))
        z = np.full((len(quantities), len(columns)), np.nan)
        for r in chosen:
            z[quantities.index(r.quantity), columns.index(f"{r.defect} {r.level}")] = r.z
        return quantities, columns, z

    def to_markdown(self) -> str:
        """A table per sample size: quantities down, defects across, z of the three levels in a cell."""
        lines = [
            "<!-- generated by genbench audit -->",
            f"# Which metric sees which defect: {self.reference}",
            "",
            "z: response in standard deviations of the metric's own null, at levels 1 / 2 / 3 of each defect. Positive: called worse.",
            "Negative: called better. |z| below 3 is blindness. See `genbench/audit.py` for the defects and levels.",
        ]
        for n in dict.fromkeys(r.n for r in self.responses):
            quantities, columns, z = self.grid(n)
            names = list(dict.fromkeys(c.rpartition(" ")[0] for c in columns))
            lines += ["", f"## n = {n:,}", "", "| quantity | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
            for quantity, row in zip(quantities, z, strict=True):
                cells = [" / ".join(_shown(row[columns.index(f"{d} {k}")]) for k in range(1, LEVELS + 1)) for d in names]
                lines.append(f"| {quantity} | " + " | ".join(cells) + " |")
        if self.skipped:
            lines += ["", "Not in the table:", "", *(f"- {name}: {why}" for name, why in self.skipped.items())]
        return "\n".join(lines) + "\n"

    def draw(self, path: Path) -> None:
        """The heat map of every sample size, one file each: `<path stem>-<n>.png` and `.svg`.

        Raises:
            MissingError: matplotlib is not installed.
        """
        from genbench.errors import MissingError

        try:
            from matplotlib.colors import SymLogNorm
            from matplotlib.figure import Figure
        except ModuleNotFoundError as e:
            raise MissingError("the heat map needs matplotlib; pip install 'genbench[plots]'") from e
        for n in dict.fromkeys(r.n for r in self.responses):
            quantities, columns, z = self.grid(n)
            figure = Figure(figsize=(0.26 * len(columns) + 3, 0.22 * len(quantities) + 2.2), layout="constrained")
            axes = figure.add_subplot()
            shown = axes.imshow(z, cmap="RdBu_r", norm=SymLogNorm(3, vmin=-100, vmax=100), aspect="auto")
            axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
            axes.set_yticks(range(len(quantities)), quantities, fontsize=7)
            axes.set_title(f"{self.reference}, n = {n:,}: response in SD of the null (red: called worse)", fontsize=9)
            figure.colorbar(shown, ticks=[-100, -30, -10, -3, 0, 3, 10, 30, 100], fraction=0.02, pad=0.01)
            for suffix in ("png", "svg"):
                metadata = {"Date": None} if suffix == "svg" else {"Software": None}
                figure.savefig(path.with_name(f"{path.stem}-{n}.{suffix}"), dpi=110, metadata=metadata)


def audit(
    reference: str,
    *,
    n: Sequence[int] = (),
    metrics: Sequence[str] | None = None,
    defects: Sequence[str] | None = None,
    draws: int = 10,
    extractor: str | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Audit:
    """Measure how metrics respond to known defects.

    Args:
        reference: a data set of labelled images, e.g. "digits".
        n: sample sizes; none for 500, or what a small data set has (half of its pool, in hundreds).
        metrics: specs; None for every metric that applies.
        defects: names; None for all.
        draws: undamaged draws that make the null.
        extractor: None for the data set's own.
        seed: of every draw.
        device: "auto", "cpu", "cuda" or "openvino".
        progress: called with (what, done, total).

    Raises:
        UsageError: not a data set of labelled images, too few images for n, an unknown defect.
    """
    if draws < 3:
        raise UsageError(f"a null needs 3 draws or more, found {draws}")
    chosen = list(defects or DEFECTS)
    for name in chosen:
        if name not in DEFECTS:
            raise near_miss(name, DEFECTS, "defect")
    pool, test = _data(reference, seed)
    ref = ArraySamples(pool.train, name=f"{reference}/train (half)", labels=pool.train_labels)
    name = extractor or str(getattr(registry.dataset(reference), "EXTRACTOR", "inception"))
    plan = make_plan(None, ref, list(metrics) if metrics else registry.modules("metrics"), name, None, None, seed, False)
    most = len(pool.images) // 2
    n = n or (min(500, most // 100 * 100 or most),)
    engine: Engine | None = None
    responses: list[Response] = []
    skipped: dict[str, str] = {}
    total = len(n) * (draws + LEVELS * len(chosen))
    done = 0

    def score(damaged: Damaged) -> dict[str, tuple[Quantity, float]]:
        nonlocal engine, done
        gen = ArraySamples(damaged[0], name="draw", labels=damaged[1])
        if engine is None:
            engine = Engine({"gen": gen, "ref": ref, "train": ref, "test": test}, None, plan, device=device, cache=open_cache(None))
        else:
            engine.give("gen", gen, {})
        record = engine.run(0.0).record
        done += 1
        if progress:
            progress("audit", done, total)
        for s in record["skipped"]:
            own = registry.metric(parse_spec(s["metric"]).name).extractor
            # the reason of weights that are missing names folders of this machine
            skipped[s.get("quantity") or s["metric"].partition("@")[0]] = (
                f"the weights of extractor {own} were not there" if own else s["reason"]
            )
        declared = {q.named(r["extractor"]): q for r in record["results"] for q in registry.metric(parse_spec(r["metric"]).name).quantities}
        return {
            f"{r['quantity']}{r['metric'].partition(':')[1]}{r['metric'].partition(':')[2]}@{r['extractor']}": (
                declared[r["quantity"]],
                r["value"],
            )
            for r in record["results"]
        }

    for size in n:
        if size > most:
            left = f"more than half of the {len(pool.images):,} images that {reference} leaves to draw from"
            raise UsageError(f"n = {size:,} is {left}; give at most {most:,}")
        rng = np.random.default_rng([seed, size])
        null = [score(_plain(size, rng, pool)) for _ in range(draws)]
        correction = math.sqrt(1 - size / len(pool.images))
        for defect_name in chosen:
            levels, function = DEFECTS[defect_name]
            for level, amount in enumerate(levels, 1):
                found = score(function(*_plain(size, rng, pool), amount, rng, pool))
                for quantity, (declared, value) in found.items():
                    before = [draw[quantity][1] for draw in null if quantity in draw]
                    if len(before) < 3:
                        continue
                    mean, sd = float(np.mean(before)), float(np.std(before, ddof=1)) / correction
                    z = _z(declared, value, before, mean, sd)
                    responses.append(Response(size, quantity, declared.better, defect_name, level, float(amount), value, mean, sd, z))
    known = {r.quantity.partition("@")[0] for r in responses}
    return Audit(reference, tuple(responses), {k: v for k, v in skipped.items() if k not in known})


def _z(declared: Quantity, value: float, before: Sequence[float], mean: float, sd: float) -> float:
    """Response in SD, positive for worse."""
    if declared.better == "closer":
        away = value - mean
        worse = abs(away) if abs(value - (declared.ideal or 0)) >= abs(mean - (declared.ideal or 0)) else -abs(away)
    else:
        worse = (value - mean) * (1 if declared.better == "lower" else -1)
    if sd <= 1e-12 * max(1.0, abs(mean)):
        return 0.0 if worse == 0 else math.copysign(CAP, worse)
    return float(np.clip(worse / sd, -CAP, CAP))


def _shown(z: float) -> str:
    return "–" if math.isnan(z) else f"{z:.0f}".replace("-0", "0") if abs(z) < 0.5 else f"{z:.0f}"


def _plain(n: int, rng: np.random.Generator, pool: Pool) -> Damaged:
    index = rng.permutation(len(pool.images))[:n]
    return pool.images[index], pool.labels[index]


def _data(reference: str, seed: int) -> tuple[Pool, ArraySamples]:
    splits = registry.dataset(reference).SPLITS
    opened = {s: open_samples(f"{reference}/{s}") for s in ("train", "valid", "test") if s in splits}
    if "train" not in opened or "test" not in opened:
        raise UsageError(f"an audit needs a training and a test split, {reference} has {', '.join(splits)}")
    if any(len(s.shape) != 3 or s.labels is None for s in opened.values()):
        raise DataError(f"an audit needs labelled images; {reference} has samples of shape {opened['train'].shape}")
    rows, labels = {k: read_all(s) for k, s in opened.items()}, {k: np.asarray(s.labels) for k, s in opened.items()}
    order = np.random.default_rng(seed).permutation(len(rows["train"]))
    half = min(len(order) // 2, MOST)
    rest = [(rows["train"][order[half:]], labels["train"][order[half:]])] + [(rows[k], labels[k]) for k in ("valid",) if k in rows]
    pool = Pool(
        np.concatenate([r for r, _ in rest]),
        np.concatenate([y for _, y in rest]),
        rows["train"][order[:half]],
        labels["train"][order[:half]],
    )
    return pool, ArraySamples(rows["test"][:MOST], name=f"{reference}/test", labels=labels["test"][:MOST])


def write(found: Audit, folder: Path) -> list[Path]:
    """`<reference>.csv`, `.md` and the heat maps, into a folder; returns the paths."""
    from genbench.report import write as write_text

    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{found.reference}.csv", folder / f"{found.reference}.md"]
    write_text(written[0], found.to_csv())
    write_text(written[1], found.to_markdown() + f"\ngenbench {version()}\n")
    found.draw(folder / found.reference)
    return written + sorted(folder.glob(f"{found.reference}-*.*"))
