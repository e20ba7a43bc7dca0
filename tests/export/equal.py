"""Outputs by name that are to be the same."""

import numpy as np


def assert_equal(left, right, tolerance=0.0):
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_allclose(values, right[name], atol=tolerance, rtol=0)
