"""The benchmark of a conversion's time and memory, held to what it is meant to show."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_vgg16_converts_within_a_minute_and_three_gibibytes():
    command = [sys.executable, str(BENCHMARKS / "convert_vgg16.py")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    row = next(line for line in printed.splitlines() if " M " in line)
    seconds, gibibytes = (float(number) for number in re.findall(r"\d+\.\d+", row)[-2:])
    assert seconds < 60
    assert gibibytes < 3
