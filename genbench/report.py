"""Views of runs: a terminal table, markdown, CSV. Everything here is derived from records."""

import csv
import io
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from genbench.run import Run, printable

COLUMNS = ("metric", "extractor", "quantity", "value", "low", "high", "n", "interval", "bound", "better", "unit")
_ARROWS = {"lower": "↓", "higher": "↑", "closer": "→"}


def number(value: float | None, spread: float | None = None) -> str:
    """A number with as many digits as its interval supports: two significant digits of the half width.

    Example:
        >>> number(1.23456, 0.034)
        '1.235'
        >>> number(1234.5, 20.0)
        '1234'
    """
    if value is None:
        return ""
    if spread is not None and spread > 0 and math.isfinite(spread):
        digits = max(0, 1 - math.floor(math.log10(spread)))
        return f"{value:.{min(digits, 12)}f}" if digits <= 12 else f"{value:.3g}"
    return f"{value:.5g}"


def cell(value: float, low: float | None, high: float | None) -> tuple[str, str]:
    """The value and its interval as text."""
    if low is None or high is None:
        return number(value), "–"
    half = (high - low) / 2
    return number(value, half), f"[{number(low, half)}, {number(high, half)}]"


def neutral(text: object) -> str:
    """A CSV cell that no spreadsheet runs as a formula (OWASP: CSV injection)."""
    text = str(text)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def escaped(text: object) -> str:
    """A markdown table cell: no pipe, newline or tag of a hostile name survives."""
    safe = printable(text, "utf-8").replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
    return safe.replace("`", "\\`").replace("[", "\\[") if any(c in safe for c in "`[") else safe


def to_csv(runs: Sequence[Run]) -> str:
    """One line per quantity, full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("run", "samples", "reference", "protocol", *COLUMNS))
    for run in runs:
        r = run.record
        head = (r["id"], neutral(r["subject"]["name"]), neutral(r["reference"]["name"]), r["protocol"]["hash"])
        for row in r["results"]:
            cells = ("" if row[c] is None else repr(row[c]) if isinstance(row[c], float) else neutral(row[c]) for c in COLUMNS)
            writer.writerow((*head, *cells))
    return out.getvalue()


def to_markdown(run: Run) -> str:
    """The run as markdown: results, what was skipped and why, warnings, provenance."""
    r = run.record
    lines = [
        f"# {escaped(r['subject']['name'])} against {escaped(r['reference']['name'])}",
        "",
        f"{_counts(r)} Protocol {escaped(r['protocol']['name'])} `{r['protocol']['hash']}`, run `{r['id']}`.",
        "",
        "| metric | extractor | value | 95 % interval | better | unit | n | interval by |",
        "|---|---|---:|---|---|---|---:|---|",
    ]
    for row in r["results"]:
        value, interval = cell(row["value"], row["low"], row["high"])
        lines.append(
            f"| {escaped(_label(row))} | {escaped(row['extractor'])} | {value} | {escaped(interval)} | {row['better']} | "
            f"{row['unit']} | {row['n']} | {row['interval'] or '–'} |"
        )
    for title, entries in (
        (
            "Skipped",
            [
                f"{s.get('quantity', '')} ({s['metric']}): {s['reason']}" if s.get("quantity") else f"{s['metric']}: {s['reason']}"
                for s in r["skipped"]
            ],
        ),
        ("Warnings", r["warnings"]),
    ):
        if entries:
            lines += ["", f"## {title}", "", *(f"- {escaped(e)}" for e in entries)]
    return "\n".join(lines) + "\n"


def _label(row: dict[str, Any]) -> str:
    settings = row["metric"].partition(":")[2]
    return str(row["quantity"]) + (f":{settings}" if settings else "")


def _counts(r: dict[str, Any]) -> str:
    subject, reference = r["subject"], r["reference"]
    lost = f", {len(subject['skipped']):,} bad files skipped" if subject.get("skipped") else ""
    changed = f", {len(subject['converted']):,} converted" if subject.get("converted") else ""
    many = f"{reference['n']:,} reference samples" if reference["n"] is not None else "a statistics file"
    return f"{subject['n']:,} samples{lost}{changed}, {many}."


def show(run: Run, file: IO[str] | None = None) -> None:
    """Print a run as a table; warnings and skipped metrics stand below it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file or sys.stdout, soft_wrap=False, highlight=False, width=None if (file or sys.stdout).isatty() else 120)
    r = run.record
    console.print(Text(f"{printable(r['subject']['name'])} against {printable(r['reference']['name'])}", style="bold"))
    console.print(Text(_counts(r)))
    table = Table(box=None, pad_edge=False)
    for title, justify in (
        ("metric", "left"),
        ("extractor", "left"),
        ("value", "right"),
        ("95 % interval", "left"),
        ("better", "left"),
        ("unit", "left"),
        ("interval by", "left"),
    ):
        table.add_column(title, justify=justify, no_wrap=title in ("value", "metric", "95 % interval"))  # type: ignore[arg-type]
    for row in r["results"]:
        value, interval = cell(row["value"], row["low"], row["high"])
        texts = (
            _label(row),
            row["extractor"],
            value,
            interval,
            f"{_ARROWS[row['better']]} {row['better']}",
            row["unit"],
            row["interval"] or "–",
        )
        table.add_row(*(Text(printable(t)) for t in texts))
    console.print(table)
    for s in r["skipped"]:
        console.print(Text(f"skipped {s.get('quantity') or s['metric']}: {printable(' '.join(s['reason'].split()))}", style="dim"))
    for w in r["warnings"]:
        # what metrics have to say is not a fault of the samples
        ours = w.startswith(("samples: ", "reference: ", "train: ", "test: "))
        console.print(Text(f"{'warning' if ours else 'note'}: {printable(w)}", style="yellow" if ours else "dim"))
    console.print(Text(f"protocol {printable(r['protocol']['name'])} {r['protocol']['hash']}   run {r['id']}", style="dim"))


class Progress:
    """Progress on stderr: one rewritten line with ETA and samples per second on a terminal, a plain line per stage elsewhere."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self.file = file or sys.stderr
        self.live = self.file.isatty()
        self._what = ""
        self._start = self._last = 0.0
        self._from = 0

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._start, self._last, self._from = what, now, 0.0, done
        ended = done >= total
        if not ended and now - self._last < (0.2 if self.live else 15.0):
            return
        self._last = now
        seconds = now - self._start
        rate = (done - self._from) / seconds if seconds > 0 and done > self._from else None
        speed = f", {rate:,.0f}/s" if rate else ""
        left = f", {(total - done) / rate:,.0f} s left" if rate and not ended else ""
        line = f"{what}: {done:,} of {total:,}{speed}{left}{f', {note}' if note else ''}"
        if self.live:
            self.file.write(f"\r\x1b[K{line}" + ("\n" if ended else ""))
        else:
            self.file.write(line + "\n")
        self.file.flush()


def show_listing(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a listing as aligned columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0)
    for row in rows:
        table.add_row(*(Text(printable(c)) for c in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(table)


def file_list(run: Run) -> str:
    """CSV of every file that was skipped or converted; empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for role in ("subject", "reference", "train", "test"):
        for what in ("skipped", "converted"):
            for item, why in (run.record.get(role) or {}).get(what) or ():
                writer.writerow((role, what, neutral(item), neutral(why)))
    return "role,what,file,reason\n" + out.getvalue() if out.getvalue() else ""


def write_tables(run: Run, folder: Path) -> list[Path]:
    """Write the run's tables beside its record: CSV, and pairs of images as a PNG grid; returns the paths."""
    written = []
    for table in run.tables:
        stem = f"{run.id}.{''.join(c if c.isalnum() or c in '-_' else '-' for c in table.metric)}.{table.name}"
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(table.columns)
        for row in table.rows:
            writer.writerow([repr(v) if isinstance(v, float) else neutral(v) for v in row])
        write(folder / f"{stem}.csv", out.getvalue())
        written.append(folder / f"{stem}.csv")
        if table.images and len(table.images[0]):
            from genbench.files import write_atomic

            write_atomic(folder / f"{stem}.png", pair_grid(*table.images))
            written.append(folder / f"{stem}.png")
    return written


def pair_grid(left: Any, right: Any) -> bytes:
    """A PNG of pairs: each generated image with the real one below it, 8 pairs a row, small images enlarged.

    Args:
        left: uint8 (k, c, h, w).
        right: uint8 (k, c', h', w').
    """
    import numpy as np
    from PIL import Image

    scale = max(1, 64 // max(left.shape[2:] + right.shape[2:]))

    def cells(images: Any) -> list[Any]:
        shown = images if images.shape[1] == 3 else np.repeat(images[:, :1], 3, axis=1)
        return [x.transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1) for x in shown]

    upper, lower = cells(left), cells(right)
    gap, columns = 4, min(8, len(upper))
    high, wide = upper[0].shape[0] + lower[0].shape[0] + gap, max(upper[0].shape[1], lower[0].shape[1]) + gap
    lines = -(-len(upper) // columns)
    sheet = np.full((lines * (high + gap) + gap, columns * wide + gap, 3), 255, np.uint8)
    for i, (a, b) in enumerate(zip(upper, lower, strict=True)):
        y, x = gap + i // columns * (high + gap), gap + i % columns * wide
        sheet[y : y + a.shape[0], x : x + a.shape[1]] = a
        sheet[y + a.shape[0] : y + a.shape[0] + b.shape[0], x : x + b.shape[1]] = b
    out = io.BytesIO()
    Image.fromarray(sheet).save(out, "PNG")
    return out.getvalue()


def write(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    from genbench.files import write_atomic

    write_atomic(Path(path), text.encode("utf-8", "backslashreplace"))
