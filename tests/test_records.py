"""Run records: canonical JSON, content ids, round trips."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genbench.errors import DataError
from genbench.run import Run, canonical, make, record_id

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=4),
    max_leaves=12,
)


def content() -> dict[str, object]:
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
    }
    return {"results": [row], "skipped": [{"metric": "prdc@identity", "reason": "too few"}], "subject": {"name": "ü\n<b>"}}


@given(JSON)
def test_canonical_json_round_trips_exactly(value: object) -> None:
    text = canonical({"x": value})
    assert canonical(json.loads(text)) == text


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), JSON, max_size=6))
def test_id_ignores_key_order_and_timing(record: dict[str, object]) -> None:
    reordered = dict(reversed(list(record.items())))
    assert record_id(record) == record_id(reordered | {"timing": {"seconds": 1}, "id": "x"})


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
