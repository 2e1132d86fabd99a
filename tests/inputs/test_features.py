"""Features: missing, unseen and zero are three things; statistics come from training alone."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from labelgen.dialogue import Dialogue, Turn
from labelgen.inputs.features import FIRST, MISSING, UNSEEN, Features, FeatureSpace, num_tokens


def turns(*rows: tuple[str | None, float | None]) -> list[Turn]:
    return [Turn(categorical={"device": device}, numerical={"confidence": value}) for device, value in rows]


def talk(turns: list[Turn]) -> list[Dialogue]:
    return [Dialogue(id="b", turns=turns)]


TRAINED = [Dialogue(id="a", turns=turns(("car", 0.0), ("tv", 4.0), ("car", None), ("tv", 2.0), ("watch", 2.0), (None, None)))]
SPACE = Features(("device", "never"), ("confidence", "nowhere"), min_count=2).fit(TRAINED)


def test_a_name_that_the_data_never_holds_is_left_out() -> None:
    assert list(SPACE.categorical) == ["device"]
    assert list(SPACE.numerical) == ["confidence"]


def test_missing_rare_and_unseen_are_distinct() -> None:
    found = SPACE.encode_categorical(talk([*turns(("car", None), ("tv", None), ("watch", None), ("boat", None), (None, None)), Turn()]))
    assert found[:, 0].tolist() == [FIRST, FIRST + 1, UNSEEN, UNSEEN, MISSING, MISSING]


def test_numbers_are_standardised_and_missing_is_nan() -> None:
    values = SPACE.encode_numerical(TRAINED)[:, 0]
    known = values[~np.isnan(values)]
    assert len(known) == 4
    assert math.isclose(known.mean(), 0.0, abs_tol=1e-6)
    assert math.isclose(known.std(), 1.0, abs_tol=1e-6)
    assert np.isnan(SPACE.encode_numerical(talk([Turn()]))).all()


def test_a_constant_divides_by_nothing() -> None:
    constant = Features((), ("confidence",)).fit([Dialogue(id="a", turns=turns((None, 3.0), (None, 3.0)))])
    assert constant.encode_numerical(talk(turns((None, 3.0), (None, 4.0))))[:, 0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("value", [0.1, 0.7, 1e9])
def test_rounding_errors_of_a_constant_are_no_deviation(value: float) -> None:
    space = Features((), ("confidence",)).fit([Dialogue(id="a", turns=turns(*[(None, value)] * 3))])
    assert space.numerical["confidence"] == (pytest.approx(value), 1.0)


def test_numbers_too_large_for_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="confidence has values as large as 1e\\+308"):
        Features((), ("confidence",)).fit([Dialogue(id="a", turns=turns((None, 1e308), (None, -1e308)))])


def test_a_name_where_a_list_is_meant_is_refused() -> None:
    with pytest.raises(ValueError, match=r"features\.categorical=device: give a list, \[device\]"):
        Features("device")


def test_a_response_feature_is_one_that_is_read() -> None:
    with pytest.raises(ValueError, match=r"features\.response: servce are not among"):
        Features(("service",), response=("servce",)).fit(TRAINED)


def test_shapes_hold_without_features() -> None:
    assert FeatureSpace().encode_categorical(talk([Turn(), Turn()])).shape == (2, 0)
    assert FeatureSpace().encode_numerical(talk([Turn(), Turn()])).shape == (2, 0)


def test_plain_values_rebuild_it() -> None:
    plain = SPACE.as_dict()
    again = FeatureSpace(plain["categorical"], {name: tuple(shape) for name, shape in plain["numerical"].items()})
    assert again.as_dict() == plain
    assert (again.encode_categorical(TRAINED) == SPACE.encode_categorical(TRAINED)).all()


def test_numbers_of_tokens_and_time_need_no_log() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    moments = [start, start + timedelta(seconds=math.e - 1), None, start + timedelta(seconds=2 * (math.e - 1)), start]
    rows = [Turn(request="Well, yes!", timestamp=moment) for moment in moments]
    space = Features((), ("request_tokens", "response_tokens", "time_gap")).fit(talk(rows))
    assert list(space.numerical) == ["request_tokens", "time_gap"]
    assert space.numerical["request_tokens"] == (4.0, 1.0)
    gaps = space.encode_numerical([*talk(rows), *talk(rows)])[:, 1]  # the first turn of the second dialogue follows nothing
    assert np.isnan(gaps).tolist() == 2 * [True, False, True, False, True], "the turn without a time is passed over"


def test_a_logged_value_comes_before_a_derived_one() -> None:
    logged = talk([Turn(request="one two", numerical={"request_tokens": 7.0}), Turn(request="one", numerical={"request_tokens": None})])
    space = FeatureSpace({}, {"request_tokens": (0.0, 1.0)})
    assert space.encode_numerical(logged)[:, 0].tolist() == [7.0, pytest.approx(math.nan, nan_ok=True)]


def test_tokens_are_words_and_marks() -> None:
    assert [num_tokens(text) for text in ("", "don't stop", "\u00fcber 9:30", None)] == [0.0, 4.0, 4.0, None]
