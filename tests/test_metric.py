"""The spec grammar and what the decorator reads from a signature."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity
from genbench.metric import MetricSpec, check_settings, metric, parse_spec
from genbench.statistics import Features, Moments

NAME = st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True).filter(lambda s: s not in ("true", "false", "none", "inf", "nan"))


@given(NAME, st.dictionaries(NAME, st.integers() | st.booleans() | st.none() | NAME, max_size=4), st.none() | NAME)
def test_a_spec_round_trips(name: str, settings: dict[str, object], extractor: str | None) -> None:
    spec = MetricSpec(name, tuple(sorted(settings.items())), extractor)
    assert parse_spec(str(spec)) == spec


@pytest.mark.parametrize("text", ["", "kid:", "kid@", "kid:subsets", "kid:=1", "kid:subsets=", "k id", "kid:a=1,a=2", ":a=1"])
def test_a_malformed_spec_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_spec(text)


@metric(Quantity("probe", "lower"), cost="n", source="none")
def probe(ref: Features | Moments, gen: Features, *, k: int = 5, rate: float = 0.5, seed: int = 0) -> Estimate:
    return Estimate(float(k), None, None, len(gen), None)


def test_needs_and_settings_are_read_from_the_signature() -> None:
    assert dict(probe.needs) == {"ref": (Features, Moments), "gen": (Features,)}
    assert probe.defaults == {"k": 5, "rate": 0.5, "seed": 0}


def test_settings_are_checked() -> None:
    assert check_settings(parse_spec("probe:k=3,rate=1"), probe) == {"k": 3, "rate": 1.0, "seed": 0}
    with pytest.raises(UsageError, match="did you mean 'rate'"):
        check_settings(parse_spec("probe:rat=1"), probe)
    with pytest.raises(UsageError, match="type int"):
        check_settings(parse_spec("probe:k=abc"), probe)
    with pytest.raises(UsageError, match="type int"):
        check_settings(parse_spec("probe:k=true"), probe)
    with pytest.raises(UsageError, match="unknown setting"):
        check_settings(parse_spec("probe:seed=1"), probe)


def test_a_role_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a role"):

        @metric(Quantity("wrong", "lower"), cost="n", source="none")
        def wrong(real: Features) -> Estimate:
            return Estimate(0.0, None, None, 1, None)
