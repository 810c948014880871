"""Laws that hold for every metric found, metamorphic relations of each, and of the whole evaluation (`test_relation_*`)."""

import io
import math
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import genbench
from genbench import registry
from genbench.estimate import Estimate, Undefined
from genbench.metric import Metric
from genbench.protocol import ANY, Protocol
from genbench.statistics import Features, LatentPath, Law, LogLikelihood, Moments, Probabilities, Reconstructions

METRICS = registry.modules("metrics")
SEEDS = {"gen": 1, "ref": 2, "train": 3, "test": 4}


def rows(role: str, n: int = 200, d: int = 3) -> np.ndarray:
    rng = np.random.default_rng(SEEDS[role])
    return rng.normal(size=(n, d)) + (0.3 if role == "gen" else 0.0)


def view(kind: type, x: np.ndarray, name: str = ""):
    """A statistic of the wanted kind from the same rows."""
    if kind is Features:
        return Features(x, labels=(x[:, 0] > 0).astype(np.int64))
    if kind is Reconstructions:
        images = x[:, np.arange(64) % x.shape[1]].reshape(-1, 1, 8, 8)
        return Reconstructions(images, 0.9 * images, np.abs(x[:, 0]))
    if kind is LatentPath:
        return LatentPath(x, 0.9 * x, 0.5)
    if kind is Law:
        return gaussian_law(x.shape[1])
    if kind is Probabilities and name == "stacked_modes":
        digits = (np.resize(x.T, (3, len(x))) > 0).astype(np.int64)
        return Probabilities(np.eye(1000)[digits[0] * 100 + digits[1] * 10 + digits[2]])
    if kind is Probabilities:
        return Probabilities.of_logits(x)
    if kind is Moments:
        return Moments.of(x)
    measure = {"bits_per_dim": "mass", "perplexity": "tokens"}.get(name, "density")
    return LogLikelihood(-np.abs(x[:, 0]), x.shape[1], measure=measure)  # the log of a mass is not above 0


def gaussian_law(d: int) -> Law:
    """Two unit Gaussians 6 apart; the rows are of one of them."""
    modes = np.zeros((2, d))
    modes[1, 0] = 6.0

    def log_density(x: np.ndarray) -> np.ndarray:
        squares = ((x[:, None] - modes) ** 2).sum(axis=2)
        return np.logaddexp.reduce(-squares / 2, axis=1) - math.log(2) - d / 2 * math.log(2 * math.pi)

    return Law("two Gaussians", d, log_density, math.log(2) + d / 2 * math.log(2 * math.pi * math.e), modes, 1.0)


def arguments(metric: Metric, x: Mapping[str, np.ndarray]):
    return {role: view(kinds[0], x[role], metric.name) for role, kinds in metric.needs.items()}


def values(name: str, x: Mapping[str, np.ndarray], **settings: object) -> dict[str, float]:
    found = registry.metric(name)(**arguments(registry.metric(name), x), **settings)
    return {q: e.value for q, e in found.items() if isinstance(e, Estimate)}


DATA = {role: rows(role) for role in SEEDS}


@pytest.mark.parametrize("name", METRICS)
def test_the_same_input_gives_the_same_bits(name: str) -> None:
    metric = registry.metric(name)
    assert metric(**arguments(metric, DATA)) == metric(**arguments(metric, DATA))


@pytest.mark.parametrize("name", METRICS)
def test_values_lie_in_their_range_and_intervals_hold_them(name: str) -> None:
    metric = registry.metric(name)
    for quantity, (q, outcome) in zip(metric.quantities, metric(**arguments(metric, DATA)).items(), strict=True):
        assert isinstance(outcome, Estimate), (q, outcome)
        assert quantity.range[0] <= outcome.value <= quantity.range[1]
        assert outcome.n == 200
        if not quantity.interval:
            assert outcome.low is None
            continue
        assert outcome.low is not None
        assert outcome.high is not None
        assert outcome.low <= outcome.value <= outcome.high
        assert outcome.low < outcome.high or outcome.value == round(outcome.value), "only of a count may all values but one be excluded"


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_rows_does_not_matter(name: str) -> None:
    rng = np.random.default_rng(9)
    plain, other = values(name, DATA), values(name, {role: x[rng.permutation(len(x))] for role, x in DATA.items()})
    placed = {q.name for q in registry.metric(name).quantities if q.placed}
    for q, value in plain.items():
        if q not in placed:  # the engine puts rows in the order of their digests
            assert other[q] == pytest.approx(value, rel=1e-9, abs=1e-12), q


@pytest.mark.parametrize("name", METRICS)
def test_float32_rows_agree_with_float64_rows(name: str) -> None:
    single = {role: x.astype(np.float32) for role, x in DATA.items()}
    placed = {q.name for q in registry.metric(name).quantities if q.placed}
    for q, value in values(name, single).items():
        assert q in placed or value == pytest.approx(values(name, DATA)[q], rel=1e-4, abs=1e-5), q


DEGENERATE = {
    "n = 0": np.empty((0, 3)),
    "n = 1": rows("gen", 1),
    "n = 2": rows("gen", 2),
    "n = 3": rows("gen", 3),
    "n = k": rows("gen", 5),
    "n = k + 1": rows("gen", 6),
    "n < d": rows("gen", 12, 40),
    "constant": np.full((60, 3), 2.5),
    "duplicates": np.repeat(rows("gen", 6), 10, axis=0),
    "one feature constant": np.concatenate([rows("gen", 60), np.ones((60, 1))], axis=1),
    "large": 1e12 * rows("gen", 60),
    "tiny": 1e-12 * rows("gen", 60),
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("both", [True, False])
def test_degenerate_input_has_a_value_or_a_reason(name: str, case: str, both: bool) -> None:
    x = DEGENERATE[case]
    others = rows("ref", 60, x.shape[1])
    metric = registry.metric(name)
    for q, outcome in metric(**arguments(metric, {role: x if both or role == "gen" else others for role in SEEDS})).items():
        if isinstance(outcome, Undefined):
            assert len(outcome.reason) > 10, q
        else:
            assert math.isfinite(outcome.value), q


# -- Fréchet distance ----------------------------------------------------------------------------------------------------------


def fid(gen: np.ndarray, ref: np.ndarray) -> float:
    return values("fid", {"gen": gen, "ref": ref})["fid"]


def rotation(d: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


G, R = DATA["gen"], DATA["ref"]


@pytest.mark.parametrize("pair", [(G, R), (rows("gen", 20, 40), rows("ref", 30, 40)), (rows("gen", 20, 40), rows("ref", 80, 40))])
def test_fid_is_symmetric_and_invariant_to_motion(pair: tuple[np.ndarray, np.ndarray]) -> None:
    g, r = pair
    plain, q = fid(g, r), rotation(g.shape[1])
    assert fid(r, g) == pytest.approx(plain, rel=1e-9)
    assert fid(g + 5, r + 5) == pytest.approx(plain, rel=1e-8)
    assert fid(g @ q, r @ q) == pytest.approx(plain, rel=1e-8)
    assert fid(3 * g, 3 * r) == pytest.approx(9 * plain, rel=1e-9)
    assert fid(-g, -r) == pytest.approx(plain, rel=1e-9)
    assert fid(g, g) == pytest.approx(0, abs=1e-6)


def test_fid_of_a_shift_is_its_square() -> None:
    assert fid(R + np.array([3.0, 0.0, 4.0]), R) == pytest.approx(25, rel=1e-9)


def test_fid_of_padded_features_is_unchanged() -> None:
    pad = np.zeros((200, 4))
    assert fid(np.hstack([G, pad]), np.hstack([R, pad])) == pytest.approx(fid(G, R), rel=1e-7)


def test_fid_adds_over_independent_blocks_of_features() -> None:
    a, b = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), np.array([[2.0, 0], [-2, 0], [0, 3], [0, -3]])
    assert fid(a, b) == pytest.approx(fid(a[:, :1], b[:, :1]) + fid(a[:, 1:], b[:, 1:]), rel=1e-9)


def test_fid_debiased_is_near_zero_for_equal_laws() -> None:
    """Seeds 0 to 19; each interval misses 0 with at most 5 %, four or more misses of 20 have a chance of 1.6 %."""
    missed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        e = registry.metric("fid")(gen=Features(rng.normal(size=(400, 8))), ref=Features(rng.normal(size=(400, 8))))["fid_debiased"]
        missed += not e.low <= 0 <= e.high
    assert missed <= 3


# -- kernel distance -----------------------------------------------------------------------------------------------------------


def kid(gen: np.ndarray, ref: np.ndarray) -> float:
    return values("kid", {"gen": gen, "ref": ref})["kid"]


@pytest.mark.parametrize("d", [3, 40])
def test_kid_is_symmetric_and_invariant_to_rotation(d: int) -> None:
    g, r, q = rows("gen", 100, d), rows("ref", 80, d), rotation(d)
    assert kid(r, g) == pytest.approx(kid(g, r), rel=1e-9)
    assert kid(g @ q, r @ q) == pytest.approx(kid(g, r), rel=1e-8)


# -- manifolds -----------------------------------------------------------------------------------------------------------------


def prdc(gen: np.ndarray, ref: np.ndarray, **settings: object) -> dict[str, float]:
    return values("prdc", {"gen": gen, "ref": ref}, **settings)


def test_prdc_is_invariant_to_motion_and_scale() -> None:
    plain, q = prdc(G, R), rotation(3)
    assert prdc(G @ q, R @ q) == pytest.approx(plain)
    assert prdc(G + 7, R + 7) == pytest.approx(plain)
    assert prdc(0.01 * G, 0.01 * R) == pytest.approx(plain)


def test_swapping_the_sides_swaps_precision_and_recall() -> None:
    forth, back = prdc(G, R), prdc(R, G)
    assert forth["precision"] == back["recall"]
    assert forth["recall"] == back["precision"]


def test_identical_discrete_data_read_one() -> None:
    x = np.random.default_rng(0).integers(0, 3, (200, 2)).astype(float)
    found = prdc(x, x)
    assert found["precision"] == found["recall"] == found["coverage"] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_copies_read_one(dtype: type) -> None:
    x = (np.random.default_rng(0).normal(size=(300, 64)) + 100).astype(dtype)
    found = prdc(x[::-1], x)
    assert found["precision"] == found["recall"] == found["coverage"] == 1


def test_a_collapsed_generator_has_high_precision_and_low_recall() -> None:
    found = prdc(np.repeat(R[:1], 200, axis=0) + 1e-6 * G, R)
    assert found["precision"] == 1
    assert found["recall"] < 0.1


def test_far_away_samples_read_zero() -> None:
    assert prdc(G + 1000, R) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


# -- Inception score -----------------------------------------------------------------------------------------------------------


def score(p: np.ndarray, **settings: object) -> float:
    return registry.metric("inception_score")(gen=Probabilities(p), **settings)["{extractor}_score"].value


def test_scores_of_known_predictions() -> None:
    assert score(np.full((50, 10), 0.1)) == pytest.approx(1)
    assert score(np.eye(10)[np.arange(100) % 10]) == pytest.approx(10)
    assert score(np.tile(np.eye(10)[3], (50, 1))) == pytest.approx(1)


def test_the_score_ignores_class_names_and_repetition() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(6), 100)
    assert score(p[:, ::-1].copy()) == pytest.approx(score(p))
    assert score(np.concatenate([p, p])) == pytest.approx(score(p))


def test_a_sorted_folder_reads_low_only_without_the_shuffle() -> None:
    p = np.eye(10)[np.repeat(np.arange(10), 100)]
    assert score(p, splits=10, shuffle=False) == pytest.approx(1)
    assert score(p, splits=10) > 9


# -- more laws over all metrics ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", METRICS)
def test_a_permutation_moves_a_value_by_less_than_its_interval(name: str, seed: int) -> None:
    """Values that follow the rows' places too: they stay within one half width."""
    rng = np.random.default_rng(seed)
    metric = registry.metric(name)
    plain = metric(**arguments(metric, DATA))
    other = metric(**arguments(metric, {role: x[rng.permutation(len(x))] for role, x in DATA.items()}))
    for q, e in plain.items():
        assert other[q].n == e.n
        assert e.low is None or abs(other[q].value - e.value) <= (e.high - e.low) / 2, q


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", METRICS)
def test_degenerate_input_stays_in_range_and_in_its_interval(name: str, case: str) -> None:
    metric = registry.metric(name)
    found = metric(**arguments(metric, dict.fromkeys(SEEDS, DEGENERATE[case])))
    for quantity, (q, e) in zip(metric.quantities, found.items(), strict=True):
        if isinstance(e, Estimate):
            assert quantity.range[0] <= e.value <= quantity.range[1], q
            assert e.low is None or e.low <= e.value <= e.high, q
            assert e.n == len(DEGENERATE[case]), q


@pytest.mark.parametrize("name", METRICS)
def test_a_call_leaves_its_input_alone(name: str) -> None:
    metric = registry.metric(name)
    copies = {role: x.copy() for role, x in DATA.items()}
    metric(**arguments(metric, copies))
    for role, x in copies.items():
        assert np.array_equal(x, DATA[role]), role


def test_doubling_all_rows_changes_fid_by_the_denominator_only() -> None:
    """Means stay; covariances, and so the rest of the distance, shrink by 2 (n − 1)/(2 n − 1)."""
    square = float(((G.mean(0) - R.mean(0)) ** 2).sum())
    doubled = fid(np.concatenate([G, G]), np.concatenate([R, R]))
    assert doubled - square == pytest.approx((fid(G, R) - square) * 398 / 399, rel=1e-8)


def test_fid_of_a_scaled_copy_is_the_trace() -> None:
    """tr Σ (s − 1)² for centred rows."""
    x = R - R.mean(0)
    assert fid(3 * x, x) == pytest.approx(4 * float(np.trace(np.cov(x, rowvar=False))), rel=1e-9)


def test_kid_is_not_invariant_to_a_translation_but_is_to_the_order_of_features() -> None:
    assert kid(G[:, ::-1].copy(), R[:, ::-1].copy()) == pytest.approx(kid(G, R), rel=1e-9)
    assert kid(G + 3, R + 3) != pytest.approx(kid(G, R), rel=1e-2)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc_of_equal_discrete_laws_counts_ties(k: int) -> None:
    """Closed balls: every grid point holds copies, so radii are 0 and copies are still inside."""
    x = np.repeat(np.array([[0.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), 30, axis=0)
    found = prdc(x, x[::-1].copy(), k=k)
    assert found["precision"] == found["recall"] == found["coverage"] == 1
    assert found["density"] == pytest.approx(30 / k)


def test_prdc_of_one_generated_class_loses_recall_and_coverage_only() -> None:
    x = np.repeat(np.array([[0.0], [1.0], [2.0], [3.0]]), 25, axis=0)
    found = prdc(np.zeros((100, 1)), x)
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 0.25, 0.25)


# -- relations of the whole evaluation -----------------------------------------------------------------------------------------------
# What a change of the input that means nothing, or something known, does to the numbers of a run. "Bits" are value and interval.

RELATED = ["fid", "kid", "prdc"]
_FIELDS = np.random.default_rng(8).normal(size=(110, 3, 4, 4))
PICTURES = np.clip(128 + 40 * np.kron(_FIELDS, np.ones((1, 1, 2, 2))), 0, 255).astype(np.uint8)  # (n, c, h, w)
GEN, REF = PICTURES[:50], PICTURES[50:]


def bits(gen: Any, ref: Any = REF, **settings: Any) -> dict[str, tuple[float, float | None, float | None]]:
    chosen: dict[str, Any] = {"metrics": RELATED, "extractor": "random", "cache": None, "device": "cpu"}
    found = genbench.evaluate(gen, ref, **(chosen | settings))
    return {r["quantity"]: (r["value"], r["low"], r["high"]) for r in found.record["results"]}


def png(x: np.ndarray, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(x.transpose(1, 2, 0)).save(out, "png", **options)
    return out.getvalue()


def files(root: Path, named: Mapping[str, bytes]) -> Path:
    for name, data in named.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def pngs(x: np.ndarray = GEN, **options: Any) -> dict[str, bytes]:
    return {f"{i:03d}.png": png(image, **options) for i, image in enumerate(x)}


@pytest.fixture(scope="module")
def plain() -> dict[str, tuple[float, float | None, float | None]]:
    return bits(GEN)


def test_relation_the_order_of_rows_moves_no_bit(plain: dict) -> None:
    assert bits(GEN[::-1], REF[np.random.default_rng(0).permutation(len(REF))]) == plain


def test_relation_new_file_names_move_no_bit(plain: dict, tmp_path: Path) -> None:
    names = np.random.default_rng(1).permutation(len(GEN))
    assert bits(files(tmp_path, {f"sample-{names[i]} é.PNG": data for i, data in enumerate(pngs().values())})) == plain


def in_zip(root: Path) -> Path:
    with zipfile.ZipFile(root / "x.zip", "w") as z:
        for name, data in pngs().items():
            z.writestr(name, data)
    return root / "x.zip"


def in_tar(root: Path) -> Path:
    with tarfile.open(root / "x.tar.gz", "w:gz") as t:
        for name, data in reversed(pngs().items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            t.addfile(member, io.BytesIO(data))
    return root / "x.tar.gz"


def in_npy(root: Path) -> Path:
    np.save(root / "x.npy", GEN.transpose(0, 2, 3, 1))
    return root / "x.npy"


def in_npz(root: Path) -> Path:
    np.savez_compressed(root / "x.npz", images=GEN)
    return root / "x.npz"


def in_safetensors(root: Path) -> Path:
    from safetensors.numpy import save_file

    save_file({"samples": np.ascontiguousarray(GEN)}, root / "x.safetensors")
    return root / "x.safetensors"


def in_tensor(root: Path) -> Any:
    import torch

    return torch.from_numpy(GEN.copy())


class Items:
    def __len__(self) -> int:
        return len(GEN)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(GEN[i].transpose(1, 2, 0)), 0


CONTAINERS: list[Callable[[Path], Any]] = [in_zip, in_tar, in_npy, in_npz, in_safetensors, in_tensor, lambda root: Items()]


@pytest.mark.parametrize("container", CONTAINERS, ids=["zip", "tar.gz", "npy", "npz", "safetensors", "tensor", "Dataset"])
def test_relation_another_container_moves_no_bit(plain: dict, container: Callable[[Path], Any], tmp_path: Path) -> None:
    assert bits(container(tmp_path)) == plain


def test_relation_another_coding_of_the_same_pixels_moves_no_bit(plain: dict, tmp_path: Path) -> None:
    mixed = pngs()
    for i, name in enumerate(list(mixed)[:30]):
        out = io.BytesIO()
        image = Image.fromarray(GEN[i].transpose(1, 2, 0))
        (image.convert("RGBA") if i % 3 == 0 else image).save(out, ("png", "bmp", "tiff")[i % 3])
        mixed[name] = out.getvalue()
    assert bits(files(tmp_path, mixed)) == plain


def test_relation_another_compression_moves_no_bit(plain: dict, tmp_path: Path) -> None:
    assert bits(files(tmp_path, pngs(compress_level=0))) == plain


def test_relation_subfolders_move_no_bit(plain: dict, tmp_path: Path) -> None:
    assert bits(files(tmp_path, {f"{i % 3}/deep/{name}": data for i, (name, data) in enumerate(pngs().items())})) == plain


def test_relation_litter_moves_no_bit(plain: dict, tmp_path: Path) -> None:
    litter = {".DS_Store": b"\0" * 99, "._000.png": b"\0\5\x16\7", "Thumbs.db": b"x", "__MACOSX/._1.png": b"x", "notes.txt": b"hi"}
    assert bits(files(tmp_path, pngs() | litter)) == plain


def test_relation_bad_files_that_are_skipped_move_no_bit(plain: dict, tmp_path: Path) -> None:
    bad = {"bad.png": b"", "half.png": png(GEN[0])[:80], "wide.png": png(np.zeros((3, 8, 9), np.uint8))}
    assert bits(files(tmp_path, pngs() | bad), on_bad="skip") == plain


def test_relation_scaled_floats_move_no_bit(plain: dict) -> None:
    assert bits((GEN / 255).astype(np.float32)) == plain
    assert bits((GEN / 127.5 - 1).astype(np.float32), value_range=(-1, 1)) == plain


def test_relation_readers_and_batches_move_no_bit(plain: dict, tmp_path: Path) -> None:
    root = files(tmp_path, pngs())
    for workers, batch in ((1, 1), (3, 7), (2, 1000)):
        assert bits(root, workers=workers, batch_size=batch) == plain


def test_relation_the_cache_moves_no_bit(plain: dict, tmp_path: Path) -> None:
    first = genbench.evaluate(GEN, REF, metrics=RELATED, extractor="random", cache=tmp_path, device="cpu")
    again = genbench.evaluate(GEN, REF, metrics=RELATED, extractor="random", cache=tmp_path, device="cpu")
    assert again.record["timing"]["cached"] == len(GEN) + len(REF)
    assert first.id == again.id
    assert bits(GEN, cache=tmp_path) == plain


@pytest.mark.parametrize("cuts", [[], [1], [7, 8, 30], list(range(5, 50, 5))])
def test_relation_batches_of_a_monitor_move_a_value_by_rounding_only(plain: dict, cuts: list[int]) -> None:
    monitor = genbench.Monitor(REF, metrics=RELATED, extractor="random", cache=None, device="cpu")
    for batch in np.split(GEN, cuts):
        monitor.update(batch)
    found = monitor.compute()
    for q, (value, _, _) in plain.items():
        assert found[q].value == pytest.approx(value, rel=1e-5, abs=1e-7), q


def test_relation_a_metric_does_not_depend_on_its_company(plain: dict) -> None:
    assert bits(GEN, metrics=list(reversed(RELATED))) == plain
    for name in RELATED:
        assert bits(GEN, metrics=[name]).items() <= plain.items()


def test_relation_other_roles_move_no_bit(plain: dict) -> None:
    assert bits(GEN, train=PICTURES[:40], test=PICTURES[40:]) == plain


def test_relation_all_samples_by_number_move_no_bit(plain: dict) -> None:
    assert bits(GEN, n=len(GEN)) == plain


def test_relation_a_protocol_written_out_moves_no_bit(plain: dict) -> None:
    assert bits(GEN, protocol=Protocol("mine", ANY, tuple(RELATED), "random"), metrics=None, extractor=None) == plain


def test_relation_the_sides_can_be_swapped(plain: dict) -> None:
    back = {q: v[0] for q, v in bits(REF, GEN).items()}
    assert back["fid"] == pytest.approx(plain["fid"][0], rel=1e-6)
    assert back["kid"] == pytest.approx(plain["kid"][0], rel=1e-6)
    equal = bits(GEN, REF[: len(GEN)]), bits(REF[: len(GEN)], GEN)
    assert equal[0]["precision"][0] == equal[1]["recall"][0]
    assert equal[0]["recall"][0] == equal[1]["precision"][0]


# Rows in file order: by content, other pixels would be another order, and so other blocks of a jackknife.
PIXELS: dict[str, Any] = {"protocol": Protocol("pixels", ANY, ("fid", "prdc"), "pixels", order="file"), "metrics": None, "extractor": None}
SAME_PIXELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored": lambda x: x[..., ::-1],
    "turned": lambda x: np.rot90(x, axes=(2, 3)),
    "channels exchanged": lambda x: x[:, [2, 0, 1]],
    "negative": lambda x: 255 - x,
    "with a frame": lambda x: np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=77),
    "with pixels shuffled alike": lambda x: x.reshape(len(x), -1)[:, np.random.default_rng(2).permutation(192)].reshape(x.shape),
}


@pytest.mark.parametrize("how", SAME_PIXELS)
def test_relation_the_same_motion_of_all_images_keeps_pixel_distances(how: str) -> None:
    change = SAME_PIXELS[how]
    before, after = bits(GEN, **PIXELS), bits(change(GEN), change(REF), **PIXELS)
    for q, (value, _, _) in before.items():
        assert after[q][0] == pytest.approx(value, rel=1e-4), q


def test_relation_darker_pixels_scale_the_distance() -> None:
    even = PICTURES // 2 * 2
    before, after = bits(even[:50], even[50:], **PIXELS), bits(even[:50] // 2, even[50:] // 2, **PIXELS)
    assert after["fid"][0] == pytest.approx(before["fid"][0] / 4, rel=1e-4)
    for q in ("precision", "recall", "density", "coverage"):
        assert after[q][0] == pytest.approx(before[q][0]), q


def test_relation_grey_as_colour_triples_the_distance() -> None:
    grey = PICTURES[:, :1]
    before, after = bits(grey[:50], grey[50:], **PIXELS), bits(grey[:50].repeat(3, 1), grey[50:].repeat(3, 1), **PIXELS)
    assert after["fid"][0] == pytest.approx(3 * before["fid"][0], rel=1e-4)
    assert after["density"][0] == pytest.approx(before["density"][0])


def test_relation_more_garbage_is_further_away() -> None:
    noise = np.random.default_rng(3).integers(0, 256, GEN.shape, dtype=np.uint8)
    found = [bits(np.concatenate([noise[:k], GEN[k:]])) for k in (0, 5, 15, 50)]
    for q, direction in (("fid", 1), ("kid", 1), ("precision", -1), ("density", -1)):
        values = [direction * f[q][0] for f in found]
        assert values == sorted(values), q
        assert values[0] < values[-1], q


def test_relation_other_names_of_the_classes_move_no_bit(tmp_path: Path) -> None:
    """The same new names on both sides."""

    def sorted_into(root: Path, x: np.ndarray, names: str) -> Path:
        return files(root, {f"{names[i % 3]}/{i}.png": png(image) for i, image in enumerate(x)})

    found = [
        bits(sorted_into(tmp_path / names / "g", GEN, names), sorted_into(tmp_path / names / "r", REF, names), metrics=["class_fd"])
        for names in ("abc", "cab", "zyx")
    ]
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for q, (value, _, _) in found[0].items():
            assert other[q][0] == pytest.approx(value, rel=1e-9), q


def test_relation_a_statistics_file_of_the_reference_gives_the_same_distance(tmp_path: Path) -> None:
    g, r = rows("gen", 300), rows("ref", 400)
    Moments.of(r).save(tmp_path / "s.npz")
    settings: dict[str, Any] = {"metrics": ["fid"], "extractor": "identity"}
    assert bits(g, tmp_path / "s.npz", **settings)["fid"][0] == pytest.approx(bits(g, r, **settings)["fid"][0], rel=1e-9)


def test_relation_other_seeds_of_a_subset_stay_within_the_intervals() -> None:
    """Seeds 0 to 19: differences of two subsets of 400 against one value's half width, which a third of the pairs may exceed."""
    g, r = rows("gen", 4000), rows("ref", 4000)
    found = [bits(g, r, metrics=["fid"], extractor="identity", n=400, seed=seed)["fid_debiased"] for seed in range(20)]
    whole = bits(g, r, metrics=["fid"], extractor="identity")["fid_debiased"][0]
    missed = sum(not low <= whole <= high for _, low, high in found)  # type: ignore[operator]
    assert missed <= 3, "5 % of 20; four or more have a chance of 1.6 %"
    assert len({value for value, _, _ in found}) == 20


def test_relation_a_constant_feature_changes_no_distance() -> None:
    for pad in (np.zeros((200, 2)), np.full((200, 3), 7.5)):
        assert prdc(np.hstack([G, pad]), np.hstack([R, pad])) == pytest.approx(prdc(G, R))
        assert fid(np.hstack([G, pad]), np.hstack([R, pad])) == pytest.approx(fid(G, R), rel=1e-7)


def test_relation_twice_the_samples_of_one_side_change_a_precision_only_by_ties() -> None:
    """Every generated sample twice: the share of them inside the reference's manifold, and which reference samples are covered, stay."""
    once, twice = prdc(G, R), prdc(np.repeat(G, 2, axis=0), R, equal=False)
    for q in ("precision", "density", "coverage"):
        assert twice[q] == pytest.approx(once[q]), q
