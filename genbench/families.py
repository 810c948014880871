"""The families of generative models side by side: `leaderboards/families.md`, every cell measured, derived from the records of all boards.

A board with models of three families or more has a section: a column per family, which its best member stands for, and a row per quantity.
The best is the one whose samples rank first on the board (`leaderboard.PRIMARY`), among those that are not seen to copy training data. All
cells of a column are of that one member, but for the failed runs, which are the family's. What was not measured, or what no member can do,
reads –. An aspect that a board does not measure is left out of its section.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genbench import leaderboard
from genbench.leaderboard import Row, Table
from genbench.run import Run

FILE = "families.md"
FEWEST = 3  # families: fewer are no comparison
# What is asked of a family, and the quantities that answer, as far as a board has them.
ASPECTS = {
    "sample quality": ("fid_debiased", "precision", "high_quality"),
    "diversity": ("recall", "coverage", "modes", "stacked_modes", "missing_classes"),
    "likelihood": ("nll", "bits_per_dim"),
    "latent space": ("reconstruction_mse", "reconstruction_ssim", "reconstruction_lpips", "ppl"),
    "conditioning": ("cas", "class_fd_debiased"),
}


@dataclass(frozen=True)
class Family:
    """A column.

    Args:
        name: e.g. "normalizing flow".
        best: its best member; None where all runs failed.
        runs: of all members, those that failed included.
        failed: how many of them gave no number.
    """

    name: str
    best: Row | None
    runs: int
    failed: int


@dataclass(frozen=True)
class Section:
    """The families on one board.

    Args:
        board: its folder, relative to the file.
        table: the board's table of samples.
        primary: the quantity that chose the members.
        families: best first, by that quantity; those without any number last.
        machines: processors and devices of the runs.
    """

    board: str
    table: Table
    primary: str
    families: tuple[Family, ...]
    machines: tuple[str, ...]


# -- records -> sections -------------------------------------------------------------------------------------------------------------


def sections(folder: str | Path) -> list[Section]:
    """The comparisons that the boards of a folder allow.

    Raises:
        DataError: a record is damaged or was changed after it was written.
    """
    found = []
    for board in leaderboard.boards(folder):
        runs = leaderboard.records(board)
        groups: dict[tuple[str, str], list[Table]] = {}
        for t in leaderboard.derive(runs, leaderboard.failures(board)):
            groups.setdefault((t.protocol["hash"], t.reference), []).append(t)
        for (digest, reference), tables in groups.items():
            mine = [r for r in runs if (r.record["protocol"]["hash"], r.record["reference"]["name"]) == (digest, reference)]
            made = _section(board.relative_to(folder).as_posix(), tables, _machines(mine))
            if made is not None:
                found.append(made)
    return found


def _machines(runs: Sequence[Run]) -> tuple[str, ...]:
    found = set()
    for run in runs:
        about = run.record["environment"]
        device = about.get("device", "an unknown device")
        threads = about.get("threads", "?")
        cpu = f"{about.get('cpu', 'an unknown processor')}, {threads} thread{'' if threads == 1 else 's'}"
        found.add(cpu if device == "cpu" else f"{device} ({cpu})")
    return tuple(sorted(found))


def _section(board: str, tables: Sequence[Table], machines: tuple[str, ...]) -> Section | None:
    last = tables[-1]  # of samples; the ones before are of likelihoods
    primary = next((t.primary for t in reversed(tables) if t.primary is not None), None)
    rows = {id(r.cells): r for t in tables for r in t.rows if r.role == "model"}.values()
    if primary is None:
        return None
    sign = 1.0 if last.quantities[primary][0] == "lower" else -1.0

    def worth(row: Row) -> tuple[bool, float, str]:
        return "memorises" in row.flags, sign * row.cells[primary].value, row.model

    families = []
    for name in sorted({r.family for r in rows}):
        members = [r for r in rows if r.family == name]
        failed = sum(r.failed for r in members)
        best = min((r for r in members if primary in r.cells), key=worth, default=None)
        families.append(Family(name, best, sum(r.seeds for r in members) + failed, failed))
    if sum(f.best is not None for f in families) < FEWEST:
        return None
    families.sort(key=lambda f: (f.best is None, *(worth(f.best) if f.best is not None else ()), f.name))
    return Section(board, last, primary, tuple(families), machines)


# -- sections -> text ----------------------------------------------------------------------------------------------------------------


def _lines(s: Section) -> list[tuple[str, str, list[str]]]:
    """Aspect, how it is measured, and a cell per family."""
    from genbench.report import escaped, number

    best, t = [f.best for f in s.families], s.table

    def values(q: str) -> list[str]:
        found = []
        for row in best:
            value, interval, _ = leaderboard.shown(None if row is None else row.cells.get(q))
            found.append(f"{escaped(value)} {interval.replace('[', chr(92) + '[')}".strip())
        return found

    def amounts(name: str) -> list[str]:
        return [leaderboard.amount(None if row is None else getattr(row, name)) for row in best]

    def spread(row: Row | None) -> str:
        cell = None if row is None else row.cells[s.primary]
        return "–" if cell is None or cell.seed_sd is None else number(float(f"{cell.seed_sd:.3g}"))

    members = ["–" if r is None else escaped(r.model) + (f" ({', '.join(r.flags)})" if r.flags else "") for r in best]
    lines = [("member", f"best by {escaped(leaderboard.title(t, s.primary))}", members)]
    for aspect, names in ASPECTS.items():
        asked = [q for name in names for q in t.quantities if q.partition("@")[0].partition(":")[0] == name]
        known = [q for q in asked if any(r is not None and q in r.cells for r in best)]
        lines += [(aspect, escaped(leaderboard.title(t, q)), values(q)) for q in known]
        if aspect == "diversity":
            lines.append(("training stability", f"SD over seeds of {escaped(s.primary)}", [spread(r) for r in best]))
            lines.append(("training stability", "seeds", ["–" if r is None else str(r.seeds) for r in best]))
            lines.append(("training stability", "failed runs of the family", [f"{f.failed} of {f.runs}" for f in s.families]))
        if aspect == "likelihood":
            lines.append(("sampling speed", "samples per s", amounts("speed")))
            lines.append(("sampling speed", "NFE, network evaluations per sample", amounts("nfe")))
    return [*lines, ("cost", "parameters", amounts("parameters")), ("cost", "training (s)", amounts("seconds"))]


def to_markdown(found: Sequence[Section]) -> str:
    """The comparison for people."""
    from genbench.report import escaped

    lines = [
        f"<!-- {leaderboard.GENERATED} -->",
        "# Families of generative models, side by side",
        "",
        "Each family is shown by its best member, the one whose samples rank first on the board, among those that are not seen to copy "
        "training data; controls are left out. All numbers of a column are of that member (but the failed runs, which are the family's), "
        "each is a mean over seeds with its 95 % sampling interval, and – is what was not measured or what no member can do. An aspect "
        "that a board does not measure is left out there: conditioning stands on the boards of class-conditional models. Likelihoods "
        "compare only where they are of one kind: ≤ stands before upper bounds, and which bound it is stands behind. Which differences are "
        "significant stands in each board's README.md.",
        "",
    ]
    for s in found:
        t, p = s.table, s.table.protocol
        lines += [
            f"## [{escaped(p['name'])}]({escaped(s.board)}/README.md)",
            "",
            f"Reference {escaped(t.reference)}, extractor {escaped(p['extractor'])}, "
            f"{'all' if p.get('n') is None else format(p['n'], ',')} samples per run, protocol `{escaped(p['hash'])}`. "
            f"Run on {escaped('; '.join(s.machines))}.",
            "",
            "| aspect | measured as | " + " | ".join(escaped(f.name) for f in s.families) + " |",
            "|---|---|" + "---|" * len(s.families),
        ]
        before = ""
        for aspect, measured, cells in _lines(s):
            lines.append(f"| {aspect if aspect != before else ''} | {measured} | " + " | ".join(cells) + " |")
            before = aspect
        lines.append("")
    if not found:
        lines += [f"No board has models of {FEWEST} families yet.", ""]
    return "\n".join(lines)


# -- the file ------------------------------------------------------------------------------------------------------------------------


def write(folder: str | Path) -> Path:
    """Derive the comparison of a folder's boards again; returns the file."""
    from genbench.report import write as write_text

    path = Path(folder) / FILE
    write_text(path, to_markdown(sections(folder)))
    return path


def check(folder: str | Path) -> list[str]:
    """How the file differs from the records; empty where it does not."""
    difference = leaderboard.difference(Path(folder) / FILE, to_markdown(sections(folder)))
    return [] if difference is None else [difference]
