"""The audit: defects do what they say, responses have the right sign, and the published table says what its metrics are blind to."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from genbench import audit as auditing
from genbench import cli
from genbench.audit import DEFECTS, Audit, Pool, Response, _z, audit
from genbench.errors import DataError, UsageError
from genbench.estimate import Quantity

PUBLISHED = Path(__file__).resolve().parent.parent / "leaderboards" / "audit"
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(60, 200, (400, 1, 12, 12), dtype=np.uint8)
LABELS = np.arange(400) % 8
POOL = Pool(IMAGES, LABELS, RNG.integers(0, 256, (300, 1, 12, 12), dtype=np.uint8), np.arange(300) % 8)


def damaged(name: str, level: int, n: int = 100) -> tuple[np.ndarray, np.ndarray]:
    levels, function = DEFECTS[name]
    return function(IMAGES[:n], LABELS[:n], levels[level - 1], np.random.default_rng(1), POOL)


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_keeps_shape_and_number_and_leaves_its_input_alone(name: str, level: int) -> None:
    before = IMAGES.copy()
    images, labels = damaged(name, level)
    assert images.shape == (100, 1, 12, 12)
    assert images.dtype == np.uint8
    assert labels.shape == (100,)
    assert np.array_equal(IMAGES, before)
    again, _ = damaged(name, level)
    assert np.array_equal(images, again), "the same seed gives the same damage"
    assert not np.array_equal(images, IMAGES[:100])
    assert DEFECTS[name][1].__doc__


@pytest.mark.parametrize("name", ["noise", "blur", "swirl", "occlusion", "salt_pepper", "quantisation", "jpeg"])
def test_a_higher_level_changes_more(name: str) -> None:
    apart = [np.abs(damaged(name, level)[0].astype(float) - IMAGES[:100]).mean() for level in (1, 2, 3)]
    assert apart[0] < apart[1] < apart[2]


def test_there_are_fifteen_defects_or_more() -> None:
    assert len(DEFECTS) >= 15


def test_what_the_defects_of_the_mixture_do() -> None:
    assert set(damaged("dropped_classes", 3)[1]) == {0, 1, 2}
    assert (damaged("imbalance", 3)[1] == 0).mean() > 0.4
    distinct = len(np.unique(damaged("collapse", 3)[0].reshape(100, -1), axis=0))
    assert distinct == 8, "one of every class"
    known = {image.tobytes() for image in POOL.train}
    for level, share in ((1, 5), (2, 20), (3, 100)):
        assert sum(image.tobytes() in known for image in damaged("copies", level)[0]) == share
    assert not any(image.tobytes() in known for image in damaged("shifted_copies", 3)[0])
    kept, labels = damaged("truncation", 3)
    centre = np.stack([IMAGES[c == LABELS].mean(axis=0) for c in range(8)])
    inside = ((kept - centre[labels]) ** 2).sum(axis=(1, 2, 3)).mean()
    assert inside < ((IMAGES - centre[LABELS]) ** 2).sum(axis=(1, 2, 3)).mean()


@pytest.mark.parametrize(
    ("better", "value", "expected"),
    [("lower", 13.0, 3), ("higher", 13.0, -3), ("closer", 13.0, 3), ("closer", 9.0, -1), ("closer", 5.0, -5)],
)
def test_responses_are_positive_for_worse(better: str, value: float, expected: float) -> None:
    assert _z(Quantity("x", better, ideal=0.0), value, [], 10.0, 1.0) == expected


def test_a_quantity_that_never_moved_has_a_capped_response() -> None:
    q = Quantity("x", "lower")
    assert _z(q, 0.0, [], 0.0, 0.0) == 0
    assert _z(q, 0.1, [], 0.0, 0.0) == auditing.CAP


@pytest.fixture(scope="module")
def small() -> Audit:
    return audit("digits", n=(150,), metrics=["fid", "prdc", "nn_copies"], defects=["noise", "copies"], draws=4)


def test_the_audit_of_digits(small: Audit) -> None:
    by = {(r.quantity, r.defect, r.level): r for r in small.responses}
    assert by["fid_debiased@digits", "noise", 3].z > 5
    assert by["precision@digits", "noise", 3].z > 5
    assert by["exact_copies@digits", "copies", 3].z > 50
    assert abs(by["exact_copies@digits", "noise", 3].z) < 3
    assert by["fid_debiased@digits", "copies", 3].z < 3, "no quality metric sees a copy"
    for r in small.responses:
        assert math.isfinite(r.z)
        assert r.n == 150


def test_the_tables(small: Audit, tmp_path: Path) -> None:
    rows = list(csv.DictReader(small.to_csv().splitlines()))
    assert len(rows) == len(small.responses) == 2 * 3 * len({r.quantity for r in small.responses})
    quantities, columns, z = small.grid(150)
    assert columns == ["noise 1", "noise 2", "noise 3", "copies 1", "copies 2", "copies 3"]
    assert z.shape == (len(quantities), 6)
    assert "| quantity | noise | copies |" in small.to_markdown()
    pytest.importorskip("matplotlib")
    written = auditing.write(small, tmp_path)
    assert [p.name for p in written] == ["digits.csv", "digits.md", "digits-150.png", "digits-150.svg"]


def test_a_small_data_set_has_a_sample_size_of_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert (
        cli.run(
            ["audit", "--reference", "digits", "--metrics", "fid", "--defects", "noise", "--draws", "3", "--out", str(tmp_path), "--quiet"]
        )
        == 0
    )
    assert {r["n"] for r in csv.DictReader((tmp_path / "digits.csv").read_text().splitlines())} == {"400"}


def test_bad_calls() -> None:
    with pytest.raises(UsageError, match="'noise'"):
        audit("digits", defects=["nois"])
    with pytest.raises(UsageError, match="more than half"):
        audit("digits", n=(5000,))
    with pytest.raises(DataError, match="labelled images"):
        audit("ring8")
    with pytest.raises(UsageError, match="3 draws"):
        audit("digits", draws=2)
    assert cli.run(["audit", "--reference", "digitz"]) == 2


# -- the published tables ------------------------------------------------------------------------------------------------------


def published() -> list[str]:
    return sorted(p.stem for p in PUBLISHED.glob("*.csv"))


def responses(name: str) -> list[Response]:
    kinds = {"n": int, "level": int, "amount": float, "value": float, "null": float, "sd": float, "z": float}
    with (PUBLISHED / f"{name}.csv").open() as f:
        return [Response(**{k: kinds.get(k, str)(v) for k, v in row.items()}) for row in csv.DictReader(f)]


def at(name: str, quantity: str, defect: str, level: int) -> float:
    """The response at the largest sample size of the table."""
    rows = [r for r in responses(name) if r.quantity.startswith(f"{quantity}@") and (r.defect, r.level) == (defect, level)]
    assert rows, f"{name} has no {quantity} under {defect}"
    return max(rows, key=lambda r: r.n).z


# (quantity, defect, level): what it must see, be blind to, or praise
SEES = [
    *[("fid_debiased", d, 3) for d in ("noise", "blur", "occlusion", "salt_pepper", "dropped_classes")],
    *[("kid", d, 3) for d in ("noise", "blur", "dropped_classes")],
    ("recall", "dropped_classes", 3),
    ("coverage", "dropped_classes", 3),
    ("precision", "noise", 3),
    ("precision", "garbage", 3),
    ("class_kl", "dropped_classes", 3),
    ("missing_classes", "dropped_classes", 3),
    *[(q, "copies", 3) for q in ("nn_copies", "exact_copies", "authenticity", "ct_score")],
    ("exact_copies", "copies", 1),
    ("nn_copies", "noisy_copies", 3),
    ("duplicates", "collapse", 3),
]
BLIND = [
    *[(q, "copies", 3) for q in ("fid_debiased", "kid")],
    ("precision", "dropped_classes", 3),
    ("exact_copies", "dropped_classes", 3),
    ("exact_copies", "noisy_copies", 3),
]
PRAISES = [("precision", "truncation", 3), ("density", "truncation", 3)]


@pytest.mark.parametrize("name", published())
def test_the_sign_table(name: str) -> None:
    for quantity, defect, level in SEES:
        assert at(name, quantity, defect, level) > 3, f"{quantity} sees {defect}"
    for quantity, defect, level in BLIND:
        assert at(name, quantity, defect, level) < 3, f"{quantity} is blind to {defect}"
    for quantity, defect, level in PRAISES:
        assert at(name, quantity, defect, level) < 0, f"{quantity} calls {defect} better"


@pytest.mark.parametrize("name", published())
def test_the_markdown_is_that_of_the_csv(name: str) -> None:
    found = responses(name)
    text = (PUBLISHED / f"{name}.md").read_text()
    for n in {r.n for r in found}:
        assert f"## n = {n:,}" in text
    assert {r.defect for r in found} == set(DEFECTS)
    assert all(f"| {q} |" in text for q in {r.quantity for r in found})
    table = [line for line in Audit(name, tuple(found), {}).to_markdown().splitlines() if line.startswith("| ")]
    assert table == [line for line in text.splitlines() if line.startswith("| ")]
