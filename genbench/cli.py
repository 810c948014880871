"""The command line: parse, call one public function, print. Nothing heavy is imported at the top.

Results go to stdout; progress and warnings go to stderr. Exit codes: 0 ok, 1 a gate or cell failed, 2 usage, bad data, or a disk or memory
that failed, 3 weights or data missing, 130 interrupted by Ctrl-C or SIGTERM.
"""

import errno
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Env, Toml

from genbench.errors import GenbenchError, UsageError

# A command line beats the environment (GENBENCH_EVAL_SEED), which beats genbench.toml ([eval] seed = 1) in the working directory.
app = App(
    name="genbench",
    help="Evaluate generative models: every number has an interval, a protocol and a record.",
    suppress_keyboard_interrupt=False,
    config=[Env("GENBENCH_", command=True), Toml("genbench.toml", must_exist=False)],
)
cache_app = App(name="cache", help="The cache of extracted features.")
app.command(cache_app)
Many = Parameter(consume_multiple=True, negative=())
Flag = Parameter(negative=())


@app.command(name="eval")
def eval_(
    samples: str,
    /,
    *,
    reference: str | None = None,
    train: str | None = None,
    test: str | None = None,
    likelihood: Path | None = None,
    metrics: Annotated[list[str] | None, Many] = None,
    extractor: str | None = None,
    protocol: str | None = None,
    preprocess: str | None = None,
    weights: Path | None = None,
    n: Annotated[int | None, Parameter(name=["-n", "--n"])] = None,
    seed: Annotated[int | None, Parameter(name=["-s", "--seed"])] = None,
    on_bad: Literal["error", "skip"] = "error",
    device: str = "auto",
    workers: int | None = None,
    batch_size: int | None = None,
    cache: Annotated[bool, Parameter(negative="--no-cache")] = True,
    value_range: tuple[float, float] | None = None,
    layout: Literal["nchw", "nhwc"] | None = None,
    download: Annotated[bool, Flag] = False,
    quiet: Annotated[bool, Flag] = False,
    out: Path | None = None,
    json: Annotated[bool, Flag] = False,
    csv: Path | None = None,
    markdown: Path | None = None,
) -> int:
    """Score samples against a reference.

    Args:
        samples: a folder, .zip, .tar, .npz, .npy or .safetensors file, a trained baseline's run folder, a dataset split (mnist/test), or
            module:attribute, a sampler as for check.
        reference: a dataset (mnist, mnist/test), any samples, or a statistics file (.npz with mu and sigma).
        train: what the model was fitted on; the memorisation metrics need it.
        test: held-out data.
        likelihood: file with the model's log-likelihoods of held-out data: .npz with nats, or log_weights, and dims, bound, measure.
        metrics: such as fid kid:subsets=100 prdc@pixels, or "all".
        extractor: what maps samples to features; see genbench ls extractors.
        protocol: a named protocol; see genbench ls protocols.
        preprocess: the extractor's resizing mode: clean, tf1, torch or torch-aa.
        weights: file with the extractor's weights.
        n: number of samples to score: a seeded subset where there are more.
        seed: seed of every draw.
        on_bad: "error" lists all bad files and stops; "skip" leaves them out, counted and listed.
        device: auto, cpu, cuda, or openvino (the Inception network by the extra [fast]).
        workers: reader threads, one per core by default; no effect on any number.
        batch_size: samples that are read at once; no effect on any number.
        cache: keep extracted features in the cache folder.
        value_range: lowest and highest value of float images, such as -1 1; guessed and reported otherwise.
        layout: nchw or nhwc, where an array of images could be either.
        download: fetch missing data sets and weights.
        quiet: no progress on stderr.
        out: folder for the record (JSON), and for a list of skipped and converted files.
        json: print the record on stdout instead of the table.
        csv: write the results as CSV.
        markdown: write the results as markdown.
    """
    from genbench import adapters, report
    from genbench.evaluation import evaluate
    from genbench.run import printable

    _writable(csv, markdown)
    drawn = None if Path(samples).exists() else adapters.referred(samples)
    run = evaluate(
        samples if drawn is None else drawn,
        reference,
        train=train,
        test=test,
        likelihood=likelihood,
        metrics=metrics,
        extractor=extractor,
        protocol=protocol,
        preprocess=preprocess,
        weights=weights,
        n=n,
        seed=seed,
        on_bad=on_bad,
        device=device,
        workers=workers,
        batch_size=batch_size,
        cache="auto" if cache else None,
        value_range=value_range,
        layout=layout,
        download=download,
        progress=None if quiet else report.Progress(),
    )
    if out is not None:
        path = run.save(out)
        for extra in report.write_tables(run, out):
            print(f"table written to {extra}", file=sys.stderr)
        listed = report.file_list(run)
        if listed:
            report.write(out / f"{run.id}.files.csv", listed)
        print(f"record written to {path}", file=sys.stderr)
    if csv is not None:
        report.write(csv, report.to_csv([run]))
    if markdown is not None:
        report.write(markdown, report.to_markdown(run))
    if json:
        sys.stdout.write(run.to_json())
        for w in run.record["warnings"]:
            print(f"genbench: warning: {printable(w)}", file=sys.stderr)
    else:
        report.show(run)
    return 0 if run.record["results"] else 1


@app.command
def compare(
    *samples: str,
    reference: str | None = None,
    train: str | None = None,
    test: str | None = None,
    metrics: Annotated[list[str] | None, Many] = None,
    extractor: str | None = None,
    protocol: str | None = None,
    preprocess: str | None = None,
    weights: Path | None = None,
    n: Annotated[int | None, Parameter(name=["-n", "--n"])] = None,
    seed: Annotated[int | None, Parameter(name=["-s", "--seed"])] = None,
    on_bad: Literal["error", "skip"] = "error",
    device: str = "auto",
    workers: int | None = None,
    cache: Annotated[bool, Parameter(negative="--no-cache")] = True,
    value_range: tuple[float, float] | None = None,
    layout: Literal["nchw", "nhwc"] | None = None,
    download: Annotated[bool, Flag] = False,
    quiet: Annotated[bool, Flag] = False,
    out: Path | None = None,
    json: Annotated[bool, Flag] = False,
    csv: Path | None = None,
    markdown: Path | None = None,
) -> int:
    """Compare two or more sets of samples: paired differences with intervals, p-values after Holm, ranks with ties.

    Args:
        samples: two or more, each as for eval, or NAME=SAMPLES.
        reference: a dataset, any samples, or a statistics file.
        train: what the models were fitted on.
        test: held-out data.
        metrics: such as fid kid prdc@pixels, or "all".
        extractor: what maps samples to features.
        protocol: a named protocol.
        preprocess: the extractor's resizing mode.
        weights: file with the extractor's weights.
        n: number of samples of each.
        seed: seed of every draw.
        on_bad: "error" lists all bad files and stops; "skip" leaves them out, counted and listed.
        device: auto, cpu, cuda, or openvino (the Inception network by the extra [fast]).
        workers: reader threads.
        cache: keep extracted features in the cache folder.
        value_range: lowest and highest value of float images.
        layout: nchw or nhwc.
        download: fetch missing data sets and weights.
        quiet: no progress on stderr.
        out: folder for the models' records.
        json: print records, differences and ranks as JSON.
        csv: write the differences as CSV.
        markdown: write the tables as markdown.
    """
    from genbench import report
    from genbench.comparison import compare as compared

    _writable(csv, markdown)
    found = compared(
        _by_name(samples),
        reference,
        train=train,
        test=test,
        metrics=metrics,
        extractor=extractor,
        protocol=protocol,
        preprocess=preprocess,
        weights=weights,
        n=n,
        seed=seed,
        on_bad=on_bad,
        device=device,
        workers=workers,
        cache="auto" if cache else None,
        value_range=value_range,
        layout=layout,
        download=download,
        progress=None if quiet else report.Progress(),
    )
    if out is not None:
        for made in found.runs.values():
            print(f"record written to {made.save(out)}", file=sys.stderr)
    if csv is not None:
        report.write(csv, found.to_csv())
    if markdown is not None:
        report.write(markdown, found.to_markdown())
    if json:
        sys.stdout.write(found.to_json())
        return 0
    report.show_listing(*found.table())
    print()
    report.show_listing(*found.rank_table())
    return 0


@app.command
def compare_protocols(
    samples: str,
    /,
    *,
    reference: str,
    train: str | None = None,
    test: str | None = None,
    protocols: Annotated[list[str] | None, Many] = None,
    weights: Path | None = None,
    n: Annotated[int | None, Parameter(name=["-n", "--n"])] = None,
    on_bad: Literal["error", "skip"] = "error",
    device: str = "auto",
    workers: int | None = None,
    cache: Annotated[bool, Parameter(negative="--no-cache")] = True,
    download: Annotated[bool, Flag] = False,
    quiet: Annotated[bool, Flag] = False,
    out: Path | None = None,
    json: Annotated[bool, Flag] = False,
    markdown: Path | None = None,
) -> int:
    """Score one set of samples as other tools would: how far apart their protocols are on it.

    Args:
        samples: as for eval.
        reference: as for eval.
        train: what the model was fitted on.
        test: held-out data.
        protocols: names, see genbench ls protocols; the presets of other tools where none is given.
        weights: file with the Inception network's weights.
        n: number of samples to score.
        on_bad: "error" lists all bad files and stops; "skip" leaves them out, counted and listed.
        device: auto, cpu, cuda, or openvino (the Inception network by the extra [fast]).
        workers: reader threads.
        cache: keep extracted features in the cache folder.
        download: fetch missing data sets and weights.
        quiet: no progress on stderr.
        out: folder for the records.
        json: print the records as JSON.
        markdown: write the table as markdown.
    """
    from genbench import report
    from genbench.comparison import compare_protocols as compared
    from genbench.run import printable

    _writable(markdown)
    found = compared(
        samples,
        reference,
        protocols=protocols,
        train=train,
        test=test,
        weights=weights,
        n=n,
        on_bad=on_bad,
        device=device,
        workers=workers,
        cache="auto" if cache else None,
        download=download,
        progress=None if quiet else report.Progress(),
    )
    if out is not None:
        for made in found.runs.values():
            print(f"record written to {made.save(out)}", file=sys.stderr)
    if markdown is not None:
        report.write(markdown, found.to_markdown())
    if json:
        sys.stdout.write(found.to_json())
        return 0
    report.show_listing(*found.table())
    for name, why in found.left_out.items():
        print(f"{name} was left out: {printable(why)}", file=sys.stderr)
    return 0


def _by_name(samples: Iterable[str]) -> dict[str, str]:
    """NAME=SAMPLES, or samples under their own name; a path that exists is never parted."""
    found: dict[str, str] = {}
    for text in samples:
        name, equals, rest = text.partition("=")
        if not equals or not name or not rest or Path(text).exists():
            name, rest = text, text
        if name in found:
            raise UsageError(f"two sets of samples are called {name!r}; give them names: NAME=SAMPLES")
        found[name] = rest
    return found


def _writable(*targets: Path | None) -> None:
    for target in targets:
        if target is not None and not target.resolve().parent.is_dir():
            raise UsageError(f"cannot write {target}: the folder {target.resolve().parent} does not exist; create it first")


@app.command
def audit(
    *,
    reference: str,
    n: Annotated[list[int] | None, Parameter(name=["-n", "--n"], consume_multiple=True, negative=())] = None,
    metrics: Annotated[list[str] | None, Many] = None,
    defects: Annotated[list[str] | None, Many] = None,
    draws: int = 10,
    extractor: str | None = None,
    seed: Annotated[int, Parameter(name=["-s", "--seed"])] = 0,
    device: str = "auto",
    quiet: Annotated[bool, Flag] = False,
    out: Path = Path("genbench-audit"),
) -> int:
    """Measure which metric sees which defect: responses in SD of each metric's own null. Writes CSV, markdown and a heat map.

    Args:
        reference: a data set of labelled images, such as digits or mnist.
        n: sample sizes; 500, or what a small data set has, where none is given.
        metrics: such as fid prdc; every one that applies where it is not given.
        defects: names; all where it is not given.
        draws: undamaged draws that make the null.
        extractor: what maps samples to features.
        seed: seed of every draw.
        device: auto, cpu, cuda, or openvino (the Inception network by the extra [fast]).
        quiet: no progress on stderr.
        out: folder for the tables.
    """
    from genbench import audit as auditing
    from genbench import report

    found = auditing.audit(
        reference,
        n=n or (),
        metrics=metrics,
        defects=defects,
        draws=draws,
        extractor=extractor,
        seed=seed,
        device=device,
        progress=None if quiet else report.Progress(),
    )
    for path in auditing.write(found, out):
        print(path)
    return 0


@app.command
def train(
    name: str,
    /,
    *,
    data: str,
    budget: str | None = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True, negative=())] = None,
    seed: Annotated[int, Parameter(name=["-s", "--seed"])] = 0,
    out: Path | None = None,
    device: str = "auto",
    quiet: Annotated[bool, Flag] = False,
) -> int:
    """Train a baseline into a run folder, which is printed, with the likelihood of held-out data. Re-running goes on where it stopped.

    Args:
        name: a baseline, such as made, or made:fvsbn; see genbench ls baselines.
        data: a dataset, or a folder, archive or array file.
        budget: such as 1min, 5min or 20min; the steps of another time are measured here.
        settings: such as lr=1e-3 hidden=[512,512], in place of the recipe's.
        seed: of everything random.
        out: the run folder; one under ./genbench-runs/train where it is not given.
        device: auto, cpu or cuda.
        quiet: no progress on stderr.
    """
    from genbench import report, trained

    given = trained.parse_settings(settings or ())
    progress = None if quiet else report.Progress()
    found = trained.train(name, data, budget=budget, settings=given, seed=seed, out=out, device=device, progress=progress)
    trained.show(found)
    return 0


@app.command
def sample(
    run: Path,
    /,
    *,
    n: Annotated[int, Parameter(name=["-n", "--n"])],
    out: str,
    seed: Annotated[int, Parameter(name=["-s", "--seed"])] = 0,
    device: str = "auto",
    quiet: Annotated[bool, Flag] = False,
) -> int:
    """Draw samples of a trained baseline into a folder of PNG files or a file.

    Args:
        run: the run folder.
        n: how many.
        out: a folder, or a file ending in .npz, .npy, .safetensors or .zip.
        seed: of the draws.
        device: auto, cpu or cuda.
        quiet: no progress on stderr.
    """
    from genbench import report, trained
    from genbench.run import printable

    digest = trained.sample(run, n, out, seed=seed, device=device, progress=None if quiet else report.Progress())
    print(f"{n:,} samples written to {printable(out)}, fingerprint {digest}")
    return 0


@app.command
def verify(
    record: Path,
    /,
    *,
    resample: Annotated[bool, Flag] = False,
    model: Path | None = None,
    out: Path | None = None,
    device: str = "auto",
    cache: Annotated[bool, Parameter(negative="--no-cache")] = True,
    quiet: Annotated[bool, Flag] = False,
) -> int:
    """Make a row of a leaderboard again from its record, and compare every quantity. Exit code 1 where one differs.

    Args:
        record: a run record of a trained baseline, or a run folder.
        resample: draw and score again what was trained; without it the model is trained again too.
        model: the run folder to sample from, where it is not beside the record.
        out: folder for the training; ./genbench-runs/verify where it is not given. Re-running goes on where it stopped.
        device: auto, cpu or cuda.
        cache: keep extracted features in the cache folder.
        quiet: no progress on stderr.
    """
    from genbench import report
    from genbench import verification as again

    progress = None if quiet else report.Progress()
    return again.main(record, resample=resample, model=model, out=out, device=device, cache="auto" if cache else None, progress=progress)


@app.command
def bench(
    suite: str,
    /,
    *,
    only: Annotated[list[str] | None, Many] = None,
    seeds: int | None = None,
    budget: str | None = None,
    device: str = "auto",
    dry_run: Annotated[bool, Flag] = False,
    out: Path | None = None,
    publish: Annotated[bool, Flag] = False,
) -> int:
    """Train, sample and score the baselines of a suite; write records and leaderboards. Re-running resumes.

    Args:
        suite: such as quick; an unknown name lists them all.
        only: names of the baselines to run.
        seeds: training seeds per baseline.
        budget: of training, such as 1min, 5min or 20min; the suite's own where it is not given.
        device: auto, cpu or cuda.
        dry_run: print what would be run.
        out: folder for records and tables; ./genbench-runs/SUITE where it is not given.
        publish: write into leaderboards/ of the project.
    """
    from genbench import bench as suites
    from genbench import report

    suites.bench(
        suite,
        only=tuple(only or ()),
        seeds=seeds,
        budget=budget,
        device=device,
        dry_run=dry_run,
        out=out,
        publish=publish,
        progress=report.Progress(),
    )
    return 0


@app.command
def leaderboard(folder: Path | None = None, /, *, check: Annotated[bool, Flag] = False) -> int:
    """Derive every leaderboard table from its records again.

    Args:
        folder: where the leaderboards are; the project's own where it is not given.
        check: change nothing; fail where a table differs from its records.
    """
    from genbench import leaderboard as tables

    return tables.main(folder, check=check)


@app.command
def ls(kind: Literal["metrics", "baselines", "datasets", "extractors", "protocols"], /, *, markdown: Annotated[bool, Flag] = False) -> int:
    """List what there is.

    Args:
        kind: metrics, baselines, datasets, extractors or protocols.
        markdown: print the README's table of the metrics.
    """
    from genbench import report
    from genbench.listing import listing, metrics_markdown

    if markdown:
        if kind != "metrics":
            raise UsageError(f"--markdown prints the table of the metrics, found ls {kind}")
        sys.stdout.write(metrics_markdown())
        return 0
    report.show_listing(*listing(kind))
    return 0


@app.command
def show(run: Path, /, *, json: Annotated[bool, Flag] = False, markdown: Annotated[bool, Flag] = False) -> int:
    """Show a run record.

    Args:
        run: the record's file.
        json: print the record as it is stored.
        markdown: print it as markdown.
    """
    from genbench import report
    from genbench.run import Run

    found = Run.load(run)
    if json:
        sys.stdout.write(found.to_json())
    elif markdown:
        sys.stdout.write(report.to_markdown(found))
    else:
        report.show(found)
    return 0


@app.command
def check(name: str, /) -> int:
    """Run the contract of baselines on one: shipped, a user's own file, or module:attribute.

    Args:
        name: a baseline's name, a path to a .py file, or module:attribute: a sampler, a function f(n, seed), a torch Distribution, a
            pipeline, or a function without arguments that returns one of these.
    """
    from genbench import check as contract

    return contract.main(name)


@app.command
def doctor() -> int:
    """Report on Python, torch, device, threads, disk, cache, data, weights and extras, with the exact fix for each fault."""
    from genbench import doctor as examination

    return examination.main()


@cache_app.command(name="ls")
def cache_ls() -> int:
    """Where the cache is, how many shards it holds and how large they are."""
    cache = _cache()
    files = list(cache.entries())
    size = sum(f.stat().st_size for f in files)
    print(f"{cache.root}: {len(files):,} shards, {size / 1e6:,.1f} MB")
    return 0


@cache_app.command(name="clear")
def cache_clear() -> int:
    """Delete every cached shard, without asking; nothing is lost but time."""
    cache = _cache()
    shards, freed = cache.clear()
    print(f"{cache.root}: {shards:,} shards deleted, {freed / 1e6:,.1f} MB freed")
    return 0


@cache_app.command(name="verify")
def cache_verify() -> int:
    """Read every cached shard and check it against its digest; exit code 1 where one is damaged."""
    cache = _cache()
    total, bad = len(list(cache.entries())), 0
    for path, why in cache.verify():
        bad += 1
        print(f"{path}: {why}")
    print(f"{cache.root}: {total:,} shards, {bad:,} damaged")
    if bad:
        print("A damaged shard is computed again when it is next needed; genbench cache clear deletes all", file=sys.stderr)
    return 1 if bad else 0


def _cache() -> Any:
    from genbench.cache import Cache, cache_root

    return Cache(cache_root())


def _escaped(text: str) -> str:
    """Keep lines, escape every other control character of a hostile name."""
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


_MEND = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EACCES: "give yourself permission",
    errno.EPERM: "give yourself permission",
    errno.EROFS: "choose a folder that can be written",
}


def _broken(e: OSError) -> str:
    where = f"{e.filename}: " if e.filename is not None else ""
    mend = _MEND.get(e.errno or 0, "check the disk")
    return f"{where}{e.strerror or e}; {mend}, then run the same command again: what was finished is kept"


def _leave_stdout() -> None:
    """Keep what stdout can no longer take from failing once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(tokens: Iterable[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    try:
        result = app(None if tokens is None else list(tokens), exit_on_error=False, print_error=False, result_action="return_value")
        try:
            sys.stdout.flush()
        except OSError:
            _leave_stdout()
            raise
    except CycloptsError as e:
        print(f"genbench: {_escaped(str(e))}", file=sys.stderr)
        return 2
    except GenbenchError as e:
        print(f"genbench: {_escaped(str(e))}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        print("genbench: interrupted; finished shards and runs are kept, run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        _leave_stdout()
        return 0
    except OSError as e:
        print(f"genbench: {_escaped(_broken(e))}", file=sys.stderr)
        return 2
    except MemoryError:
        print("genbench: out of memory; pass a smaller -n or fewer --metrics, or use a machine with more", file=sys.stderr)
        return 2
    return result if isinstance(result, int) else 0


def main() -> None:
    """Entry point of `genbench`."""
    # On a machine that others use too, OpenMP threads that spin at each other cost half the time; asleep they cost nothing measurable.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's way of Ctrl-C
    sys.exit(run())
