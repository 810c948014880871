"""Run records: canonical JSON, content ids, round trips."""

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genbench import cli
from genbench.errors import DataError
from genbench.protocol import Protocol
from genbench.run import SHAPE, Run, canonical, make, record_id

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=4),
    max_leaves=12,
)


def content() -> dict[str, Any]:
    """All that a record needs, and all that it may have."""
    row = {
        "metric": "fid",
        "extractor": "identity",
        "quantity": "fid",
        "value": 0.1 + 0.2,
        "low": 0.1,
        "high": 0.5,
        "n": 10,
        "interval": "x",
        "bound": "exact",
        "better": "lower",
        "unit": "1",
        "measure": "mass",
        "estimator": "IWAE-64",
    }
    samples = {"kind": "samples", "fingerprint": "ab", "n": 10, "shape": [2]}
    baseline = {
        "name": "gmm",
        "config": {},
        "seed": 0,
        "passed": {},
        "dataset": "ring8",
        "sample_seed": 1,
        "family": "classical",
        "role": "model",
        "notes": ["a note"],
        "parameters": 3,
        "nfe": 1,
    }
    return {
        "results": [row],
        "skipped": [{"metric": "prdc@identity", "quantity": "coverage", "reason": "too few"}],
        "warnings": ["a warning"],
        "subject": samples | {"name": "ü\n<b>", "baseline": baseline, "skipped": [["a.png", "empty"]], "converted": []},
        "reference": samples | {"name": "ring8/train"},
        "train": samples | {"name": "ring8/train"},
        "test": samples | {"name": "ring8/test"},
        "protocol": Protocol("p", "ring8/train", ("fid",), preprocess="none", n=10, n_ref=10).to_dict() | {"order": "content"},
        "environment": {"packages": {"numpy": "2.0"}},
    }


@given(JSON)
def test_canonical_json_round_trips_exactly(value: object) -> None:
    text = canonical({"x": value})
    assert canonical(json.loads(text)) == text


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), JSON, max_size=6))
def test_id_ignores_key_order_and_timing(record: dict[str, object]) -> None:
    reordered = dict(reversed(list(record.items())))
    assert record_id(record) == record_id(reordered | {"timing": {"seconds": 1}, "id": "x"})


def test_a_records_schema_is_its_own_whatever_the_content_says() -> None:
    made = make(content() | {"schema": None, "id": "x", "timing": 3}, {"seconds": 1.0})
    assert made.record == make(content(), {"seconds": 1.0}).record


def test_save_and_load(tmp_path) -> None:
    run = make(content(), {"seconds": 1.0})
    path = run.save(tmp_path)
    again = Run.load(path)
    assert again.record == run.record
    assert path.name == f"{run.id}.json"
    assert path.read_text() == run.to_json()
    assert again["fid"].value == 0.1 + 0.2


def test_timing_does_not_move_the_id() -> None:
    assert make(content(), {"seconds": 1.0}).id == make(content(), {"seconds": 2.0}).id


def test_a_changed_record_is_refused(tmp_path) -> None:
    path = make(content(), {}).save(tmp_path)
    record = json.loads(path.read_text())
    record["results"][0]["value"] = 0.0
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="changed after it was written"):
        Run.load(path)


@pytest.mark.parametrize(
    ("text", "match"), [("", "not a readable"), ("[]", "expected a JSON object"), ("{}", "changed"), ("\0", "not a readable")]
)
def test_what_is_no_record_is_refused(tmp_path, text: str, match: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=match):
        Run.load(path)


def test_a_record_of_a_newer_genbench_is_refused(tmp_path) -> None:
    record = {"schema": 99}
    record["id"] = record_id(record)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="newer genbench"):
        Run.load(path)


def places(shape: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], bool]]:
    """Every key that readers rely on, with its place in `content`, and whether it is needed."""
    if isinstance(shape, list):
        return places(shape[0], (*path, 0))
    found: list[tuple[tuple[str | int, ...], bool]] = []
    for key, inner in shape.items() if isinstance(shape, dict) else ():
        here = (*path, key.removesuffix("?"))
        found += [(here, not key.endswith("?")), *places(inner, here)]
    return found


# the timing is no part of the content
PLACES = [(path, needed) for path, needed in places(SHAPE) if path[0] != "timing"]
NEEDED = [path for path, needed in PLACES if needed]


def forged(tmp_path: Path, path: tuple[str | int, ...], *value: Any) -> Path:
    """A record with a valid id in which a key has another value, or is missing."""
    record = copy.deepcopy(content())
    holder: Any = record
    for step in path[:-1]:
        holder = holder[step]
    if value:
        holder[path[-1]] = value[0]
    else:
        del holder[path[-1]]
    return make(record, {}).save(tmp_path / "runs")


def name_of(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path)).replace(".0", "[0]")


@pytest.mark.parametrize("path", NEEDED, ids=name_of)
def test_a_record_without_a_needed_key_is_refused(path: tuple[str | int, ...], tmp_path: Path) -> None:
    where = name_of(path[:-1]) or "the record"
    with pytest.raises(DataError) as e:
        Run.load(forged(tmp_path, path))
    assert f"expected the key {path[-1]} in {where}, found the keys " in str(e.value)
    assert "run the evaluation again" in str(e.value)


@pytest.mark.parametrize("value", [True, [[[]]], 1.5, "x"], ids=["bool", "list", "number", "text"])
@pytest.mark.parametrize("path", [path for path, _ in PLACES], ids=name_of)
def test_a_key_of_another_type_is_refused(path: tuple[str | int, ...], value: Any, tmp_path: Path) -> None:
    wanted: Any = content()
    for step in path:
        wanted = wanted[step]
    if (isinstance(value, str) and isinstance(wanted, str)) or (isinstance(value, float) and path[-1] in ("value", "low", "high", "nfe")):
        value = {"": 0}  # for the value would be right
    with pytest.raises(DataError, match=r"expected (the key \w+ in )?" + re.escape(name_of(path)) + ".*, found "):
        Run.load(forged(tmp_path, path, value))


@pytest.mark.parametrize("path", [path for path, needed in PLACES if not needed], ids=name_of)
def test_a_key_that_is_not_needed_may_be_absent_or_null(path: tuple[str | int, ...], tmp_path: Path) -> None:
    Run.load(forged(tmp_path, path))
    Run.load(forged(tmp_path, path, None))


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("better", "sideways", "closer or higher or lower"),
        ("bound", "none", "estimate or exact"),
        ("low", None, "come together"),
        ("low", 0.6, "is empty"),
        ("value", 10**400, "no estimate"),
        ("n", 2.5, "to be int"),
    ],
)
def test_a_result_that_no_metric_gives_is_refused(key: str, value: Any, match: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=match):
        Run.load(forged(tmp_path, ("results", 0, key), value))


def test_timing_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """It is not a part of what the id says, so that anyone may change it."""
    with pytest.raises(DataError, match="timing.training_seconds"):
        Run.load(make(content(), {"training_seconds": "long"}).save(tmp_path))


@pytest.mark.parametrize(
    "path", [*NEEDED[:: len(NEEDED) // 5], ("protocol", "reference"), ("subject", "baseline", "sample_seed")], ids=name_of
)
def test_no_command_ends_in_a_traceback(path: tuple[str | int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = str(forged(tmp_path, path))
    loads = path in NEEDED
    assert cli.run(["verify", record]) == 2
    assert cli.run(["compare", f"a={record}", f"b={record}", "--reference", "ring8"]) == 2
    assert cli.run(["show", record]) == (2 if loads else 0)
    assert cli.run(["leaderboard", str(tmp_path)]) == (2 if loads else 0)
    assert "Traceback" not in capsys.readouterr().err


def test_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        make({"results": [{"value": math.nan}]}, {})


def test_lookup_names_the_reason_and_the_near_miss() -> None:
    run = make(content(), {})
    with pytest.raises(KeyError, match="too few"):
        run["prdc"]
    with pytest.raises(KeyError, match="did you mean 'fid'"):
        run["fidd"]
    assert list(run) == ["fid@identity"]
