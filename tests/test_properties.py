"""Properties over generated input: merging, the grammar of specs, canonical JSON, protocol hashes, brace expansion."""

import dataclasses
import json
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_records import content as valid_content

from genbench.errors import DataError, UsageError
from genbench.metric import MetricSpec, parse_spec
from genbench.protocol import Protocol
from genbench.run import SHAPE, Run, canonical, make, record_id
from genbench.samples import _braces
from genbench.statistics import Features, LogLikelihood, Moments, Probabilities

bounded = settings(max_examples=50)


# -- merging -------------------------------------------------------------------------------------------------------------------------


@st.composite
def shards(draw: st.DrawFn) -> tuple[np.ndarray, list[np.ndarray]]:
    """Rows of any scale and offset, and any cut of them into parts, empty ones too."""
    n, d = draw(st.integers(2, 80)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=(n, d)) * 10.0 ** draw(st.integers(-4, 4)) + draw(st.sampled_from([0.0, 1.0, -1e3]))
    return x, np.split(x, sorted(draw(st.lists(st.integers(0, n), max_size=6))))


def alike(a: Moments, b: Moments, x: np.ndarray) -> None:
    """Equal up to the rounding of sums of n squares of numbers as large as x."""
    size = float(np.abs(x).max()) or 1.0
    assert a.n == b.n
    assert np.abs(a.mean - b.mean).max() <= 1e-12 * size
    assert np.abs(a.m2 - b.m2).max() <= 1e-12 * len(x) * size**2


@bounded
@given(shards())
def test_merged_moments_are_those_of_all_rows(made: tuple[np.ndarray, list[np.ndarray]]) -> None:
    x, parts = made
    alike(Moments.merge([Moments.of(p) for p in parts]), Moments.of(x), x)


@bounded
@given(shards(), st.data())
def test_merging_moments_is_associative(made: tuple[np.ndarray, list[np.ndarray]], data: st.DataObject) -> None:
    x, parts = made
    moments = [Moments.of(p) for p in parts]
    at = data.draw(st.integers(0, len(moments)))
    halves = [Moments.merge(side) for side in (moments[:at], moments[at:]) if side]
    alike(Moments.merge(halves), Moments.merge(moments), x)


@bounded
@given(shards(), st.randoms(use_true_random=False))
def test_shards_of_moments_merge_in_any_order(made: tuple[np.ndarray, list[np.ndarray]], chance: random.Random) -> None:
    x, parts = made
    moments = [Moments.of(p) for p in parts]
    mixed = list(moments)
    chance.shuffle(mixed)
    alike(Moments.merge(mixed), Moments.merge(moments), x)


@bounded
@given(shards())
def test_the_merged_scatter_is_a_scatter(made: tuple[np.ndarray, list[np.ndarray]]) -> None:
    """Symmetric to the bit, and without negative eigenvalues beyond rounding."""
    x, parts = made
    m = Moments.merge([Moments.of(p) for p in parts])
    assert np.allclose(m.m2, m.m2.T, rtol=1e-13, atol=0)
    assert np.linalg.eigvalsh(m.m2)[0] >= -1e-12 * len(x) * float(np.abs(x).max()) ** 2


@bounded
@given(shards(), st.floats(-100, 100), st.floats(0.01, 100))
def test_moments_move_with_the_rows(made: tuple[np.ndarray, list[np.ndarray]], shift: float, scale: float) -> None:
    x, _ = made
    moved, plain = Moments.of(scale * x + shift), Moments.of(x)
    alike(moved, Moments(plain.n, scale * plain.mean + shift, scale**2 * plain.m2), scale * np.abs(x) + abs(shift))


@bounded
@given(shards())
def test_merged_features_probabilities_and_likelihoods_are_the_whole_to_the_bit(made: tuple[np.ndarray, list[np.ndarray]]) -> None:
    x, parts = made
    assert np.array_equal(Features.merge([Features(p, "a") for p in parts]).x, x)
    whole = Probabilities.of_logits(np.clip(x, -700, 700))
    assert np.array_equal(Probabilities.merge([Probabilities.of_logits(np.clip(p, -700, 700)) for p in parts]).p, whole.p)
    nats = LogLikelihood.merge([LogLikelihood(-np.abs(p[:, 0]), 3, "lower") for p in parts])
    assert np.array_equal(nats.nats, -np.abs(x[:, 0]))
    assert (nats.dims, nats.bound) == (3, "lower")


@bounded
@given(shards(), st.data())
def test_a_value_that_is_not_finite_is_refused_wherever_it_is(made: tuple[np.ndarray, list[np.ndarray]], data: st.DataObject) -> None:
    x = made[0].copy()
    row, column = data.draw(st.integers(0, len(x) - 1)), data.draw(st.integers(0, x.shape[1] - 1))
    x[row, column] = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    with pytest.raises(DataError, match=rf"row {row}\b"):
        Features(x)


# -- the grammar of specs --------------------------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
VALUES = st.one_of(
    st.integers(-(10**9), 10**9),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["rbf", "a-b", "x.y"]),
)


@bounded
@given(NAMES, st.dictionaries(NAMES, VALUES, max_size=4), st.none() | NAMES)
def test_a_spec_is_read_as_it_is_written(name: str, chosen: dict[str, Any], extractor: str | None) -> None:
    spec = MetricSpec(name, tuple(sorted(chosen.items())), extractor)
    back = parse_spec(str(spec))
    assert back == spec
    assert [type(v) for _, v in back.settings] == [type(v) for _, v in spec.settings]
    assert str(back) == str(spec)
    assert parse_spec(f"  {spec} ") == spec


@bounded
@given(NAMES, st.dictionaries(NAMES, st.integers(0, 99), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_settings_means_nothing(name: str, chosen: dict[str, int], chance: random.Random) -> None:
    pairs = [f"{k}={v}" for k, v in chosen.items()]
    mixed = list(pairs)
    chance.shuffle(mixed)
    assert parse_spec(f"{name}:{','.join(pairs)}") == parse_spec(f"{name}:{','.join(mixed)}")


@bounded
@given(st.text(max_size=30))
def test_any_text_is_a_spec_or_a_usage_error(text: str) -> None:
    try:
        spec = parse_spec(text)
    except UsageError:
        return
    assert spec.name.isidentifier()
    assert all(key.isidentifier() for key, _ in spec.settings)


# -- canonical JSON --------------------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), max_size=10)
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(LEAVES, lambda x: st.lists(x, max_size=4) | st.dictionaries(TEXT, x, max_size=4), max_leaves=10)


OPTIONAL = {key[:-1] for key in SHAPE if key.endswith("?")}  # what a record may say and valid_content does not


@bounded
@given(st.dictionaries(TEXT.filter(lambda key: key not in OPTIONAL), JSON, max_size=5))
def test_a_record_survives_its_file(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    run = make(content | valid_content(), {"seconds": 1.5})
    back = Run.load(run.save(tmp_path_factory.mktemp("records")))
    assert back.record == run.record
    assert back.id == record_id(back.record)
    assert canonical(back.record) == canonical(run.record)


@bounded
@given(st.dictionaries(TEXT, JSON, min_size=1, max_size=5), st.data())
def test_any_change_of_a_record_changes_its_id(content: dict[str, Any], data: st.DataObject) -> None:
    record = {k: v for k, v in content.items() if k not in ("id", "timing")} or {"a": 1}
    key = data.draw(st.sampled_from(sorted(record)))
    other = data.draw(JSON.filter(lambda x: canonical({"x": x}) != canonical({"x": record[key]})))
    assert record_id(record | {key: other}) != record_id(record)
    assert record_id({k: v for k, v in record.items() if k != key}) != record_id(record)


@bounded
@given(st.dictionaries(TEXT, JSON, max_size=5))
def test_canonical_text_is_ordered_compact_and_exact(content: dict[str, Any]) -> None:
    text = canonical(content)
    assert canonical(json.loads(text)) == text
    assert text == canonical(dict(reversed(content.items())))
    assert not text[:1].isspace()


# -- protocol hashes -------------------------------------------------------------------------------------------------------------------

PROTOCOLS = st.builds(
    Protocol,
    name=NAMES,
    reference=st.sampled_from(["ring8/train", "digits/test", "sha256:0"]),
    metrics=st.lists(
        st.sampled_from(["fid", "kid", "kid:subsets=9", "prdc", "prdc:k=3", "fid@pixels"]), min_size=1, max_size=3, unique=True
    ).map(tuple),
    extractor=st.sampled_from(["identity", "pixels", "random"]),
    n=st.none() | st.integers(1, 10**5),
    n_ref=st.none() | st.integers(1, 10**5),
    seed=st.integers(0, 99),
    order=st.sampled_from(["content", "file"]),
)


@bounded
@given(PROTOCOLS, NAMES)
def test_a_protocols_name_and_its_written_out_defaults_keep_the_hash(made: Protocol, name: str) -> None:
    assert dataclasses.replace(made, name=name).hash == made.hash
    assert made.resolved().hash == made.hash
    assert made.resolved().resolved() == made.resolved()
    fields = {k: v for k, v in made.to_dict().items() if k != "hash"}
    assert Protocol(**(fields | {"metrics": tuple(fields["metrics"])})).hash == made.hash


@bounded
@given(PROTOCOLS, st.data())
def test_whatever_can_move_a_number_changes_the_hash(made: Protocol, data: st.DataObject) -> None:
    change = data.draw(
        st.sampled_from(
            [
                {"seed": made.seed + 1},
                {"n": (made.n or 7) + 1},
                {"n_ref": (made.n_ref or 7) + 1},
                {"reference": made.reference + "x"},
                {"metrics": (*made.metrics, "vendi")},
                {"shard": made.shard + 1},
                {"batch": (made.resolved().batch or 0) + 1},
                {"order": "file" if made.order == "content" else "content"},
                {"extractor": {"identity": "pixels", "pixels": "random", "random": "identity"}[made.extractor]},
            ]
        )
    )
    assert dataclasses.replace(made, **change).hash != made.hash


# -- braces ----------------------------------------------------------------------------------------------------------------------------

PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="{},"), max_size=6)


@bounded
@given(PLAIN)
def test_text_without_braces_is_itself(text: str) -> None:
    assert _braces(text) == [text]


@bounded
@given(PLAIN, st.integers(0, 300), st.integers(0, 300), st.booleans(), PLAIN)
def test_a_range_has_every_number_once_in_order(before: str, a: int, b: int, padded: bool, after: str) -> None:
    width = max(len(str(a)), len(str(b)))
    ends = [f"{x:0{width}d}" if padded else str(x) for x in (a, b)]
    found = _braces(f"{before}{{{ends[0]}..{ends[1]}}}{after}")
    numbers = [int(text[len(before) : len(text) - len(after)]) for text in found]
    assert numbers == list(range(a, b + 1) if a <= b else range(a, b - 1, -1))
    assert all(text.startswith(before) and text.endswith(after) for text in found)
    assert not padded or len({len(text) for text in found}) == 1


@bounded
@given(st.lists(st.lists(PLAIN, min_size=2, max_size=3), min_size=1, max_size=3), PLAIN)
def test_groups_multiply_and_the_first_varies_slowest(groups: list[list[str]], between: str) -> None:
    import itertools

    pattern = between.join("{" + ",".join(group) + "}" for group in groups)
    assert _braces(pattern) == [between.join(parts) for parts in itertools.product(*groups)]


@bounded
@given(st.integers(2, 12))
def test_braces_never_make_more_than_the_limit(groups: int) -> None:
    pattern = "{0..9}" * groups
    if groups <= 5:
        assert len(set(_braces(pattern))) == 10**groups
    else:
        with pytest.raises(UsageError, match="more than 100,000 parts"):
            _braces(pattern)
