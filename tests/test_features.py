"""Features: missing, unseen and zero are three things; statistics come from training alone."""

import math

import numpy as np

from labelgen.dialogue import Dialogue, Turn
from labelgen.features import FIRST, MISSING, UNSEEN, Features, FeatureSpace


def turns(*rows: tuple[str | None, float | None]) -> list[Turn]:
    return [Turn(categorical={"device": device}, numerical={"confidence": value}) for device, value in rows]


TRAINED = [Dialogue(id="a", turns=turns(("car", 0.0), ("tv", 4.0), ("car", None), ("tv", 2.0), ("watch", 2.0), (None, None)))]
SPACE = Features(("device", "never"), ("confidence", "nowhere"), min_count=2).fit(TRAINED)


def test_a_name_that_the_data_never_holds_is_left_out() -> None:
    assert list(SPACE.categorical) == ["device"]
    assert list(SPACE.numerical) == ["confidence"]


def test_missing_rare_and_unseen_are_told_apart() -> None:
    found = SPACE.categories([*turns(("car", None), ("tv", None), ("watch", None), ("boat", None), (None, None)), Turn()])
    assert found[:, 0].tolist() == [FIRST, FIRST + 1, UNSEEN, UNSEEN, MISSING, MISSING]


def test_numbers_are_standardised_and_missing_is_nan() -> None:
    values = SPACE.numbers(TRAINED[0].turns)[:, 0]
    known = values[~np.isnan(values)]
    assert len(known) == 4
    assert math.isclose(known.mean(), 0.0, abs_tol=1e-6)
    assert math.isclose(known.std(), 1.0, abs_tol=1e-6)
    assert np.isnan(SPACE.numbers([Turn()])).all()


def test_a_constant_divides_by_nothing() -> None:
    constant = Features((), ("confidence",)).fit([Dialogue(id="a", turns=turns((None, 3.0), (None, 3.0)))])
    assert constant.numbers(turns((None, 3.0), (None, 4.0)))[:, 0].tolist() == [0.0, 1.0]


def test_shapes_hold_without_features() -> None:
    assert FeatureSpace().categories([Turn(), Turn()]).shape == (2, 0)
    assert FeatureSpace().numbers([Turn(), Turn()]).shape == (2, 0)


def test_plain_values_rebuild_it() -> None:
    told = SPACE.as_dict()
    again = FeatureSpace(told["categorical"], {name: tuple(shape) for name, shape in told["numerical"].items()})
    assert again.as_dict() == told
    assert (again.categories(TRAINED[0].turns) == SPACE.categories(TRAINED[0].turns)).all()
