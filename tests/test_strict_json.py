"""JSON: what any reader takes, whatever numbers there are."""

import json

import numpy as np
import pytest

from onnxsnn.strict_json import to_json


def test_numbers_that_are_not_finite_are_null():
    value = {"a": [1.5, float("nan"), (np.inf, np.float64(-np.inf))], "b": {"c": 2}, "d": "NaN"}
    found = json.loads(to_json(value, 2), parse_constant=pytest.fail)
    assert found == {"a": [1.5, None, [None, None]], "b": {"c": 2}, "d": "NaN"}
