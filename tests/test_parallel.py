"""over_channels: work on blocks of channels, on several cores."""

import threading

import numpy as np
import pytest

from onnxsnn import parallel
from onnxsnn.parallel import over_channels


@pytest.mark.parametrize(
    ("channels", "values"), [(1, 5), (7, 2**14), (300, 1), (300, 2**10), (3, 0)]
)
def test_blocks_are_all_channels_in_order(channels, values):
    rows = np.arange(channels)
    found = over_channels(lambda block: rows[block], channels, values)
    assert np.concatenate(found).tolist() == rows.tolist()


def test_large_channels_are_worked_on_side_by_side(monkeypatch):
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 2)
    together = threading.Barrier(2, timeout=60)
    assert len(over_channels(lambda _: together.wait(), 2, 2**20)) == 2


def test_few_values_are_one_block_in_this_thread():
    assert over_channels(lambda _: threading.current_thread(), 64, 16) == [
        threading.current_thread()
    ]


def test_what_fails_in_a_block_fails():
    with pytest.raises(ZeroDivisionError):
        over_channels(lambda block: 1 / block.start, 2, 2**20)
