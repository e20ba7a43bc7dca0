"""blocks: whole numbers stand for real ones, block by block."""

import numpy as np

from onnxsnn.dialects.blocks import by_block, packed_by_block


def test_each_block_has_its_scale_and_zero_point_and_the_last_may_be_shorter():
    values, scale, zero = np.arange(10).reshape(2, 5), np.float32([[1, 2, 3]]), np.int8([[1, 0, 4]])
    real = by_block(values.T, scale.T, zero.T, 0, 2).T
    np.testing.assert_array_equal(real, [[-1, 0, 4, 6, 0], [4, 5, 14, 16, 15]])


def test_bytes_hold_the_first_number_in_their_lowest_bits():
    packed, scale = np.uint8([[0x21, 0x43]]), np.float32([[1, 10]])
    real = packed_by_block(packed, scale, np.uint8([[0x30]]), 1, 2, 4)
    np.testing.assert_array_equal(real, [[1, 2, 0, 10]])


def test_without_zero_points_it_is_the_middle():
    real = packed_by_block(np.uint8([[0b11100100]]), np.float32([[0.5]]), None, 1, 4, 2)
    np.testing.assert_array_equal(real, [[-1, -0.5, 0, 0.5]])
