"""What is packed is the same when it is unpacked, and takes the bits that it has to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxsnn.calibration.records import Record, pack

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7)
WHOLE = st.integers(-128, 127).map(float)
POWERS = st.sampled_from([0.0, *(sign * 2.0**-k for k in range(8) for sign in (1, -1))])
ANY = st.floats(width=32)


@given(
    st.sampled_from([WHOLE, POWERS, ANY]).flatmap(lambda v: hnp.arrays("f4", SHAPES, elements=v))
)
def test_what_is_packed_is_the_same_when_it_is_unpacked(values):
    full = pack(values).full()
    assert full.dtype == np.float32
    np.testing.assert_array_equal(full, values)


@pytest.mark.parametrize(
    ("values", "bits"),
    [((0, 0), 0), ((0, 1), 1), ((-1, 1), 2), ((0, 5), 3), ((-1, 0.5), 16), ((0, 0.1), 32)],
)
def test_it_takes_the_bits_that_it_has_to(values, bits):
    array = np.resize(np.float32(values), (8, 1000))
    assert pack(array).nbytes == 8 * 1000 * bits // 8


def test_what_is_seen_late_counts():
    values = np.zeros(2**13, np.float32)
    values[-1] = 0.3
    np.testing.assert_array_equal(pack(values).full(), values)


def test_a_record_keeps_a_current_that_stays_the_same_once():
    static, moving = np.float32([[0.1, 0.2]]), [np.float32([[0.3, i]]) for i in range(3)]
    record = Record([], [])
    record.add(static, [static] * 3)
    record.add(static, moving)
    assert record.bytes == 2 * 8 + 8 + 3 * 8
    record.shift(np.float32([1, 2]))
    assert record.bytes == 2 * 8 + 8 + 3 * 8
    np.testing.assert_array_equal(record.currents[0][2].full(), static + np.float32([1, 2]))
    np.testing.assert_array_equal(record.currents[1][2].full(), moving[2] + np.float32([1, 2]))
    assert record.of([1]).bytes == 8 + 3 * 8
    assert record.bytes == 2 * 8 + 8 + 3 * 8


def test_currents_that_differ_by_a_shift_are_not_the_same():
    record = Record([], [])
    currents = [np.float32([[-1, 0]]), np.float32([[0, 1]])]
    record.add(np.float32([[0.1, 0.2]]), currents)
    for packed, current in zip(record.currents[0], currents, strict=True):
        np.testing.assert_array_equal(packed.full(), current)
