"""loop_shapes: what Loops and Scans give, for so many samples."""

import pytest

from onnxsnn.passes.clean import clean
from onnxsnn.passes.loop_shapes import loop_shapes
from tests.loops import BODIES, recurrent
from tests.models import Builder


@pytest.mark.parametrize("kind", BODIES)
def test_shapes_are_those_of_a_run(kind):
    graph, _ = clean(recurrent(kind).graph())
    shapes = loop_shapes(graph, 1, 4)
    assert [list(found.values()) for found in shapes] == [[[6, 1, 5]], [[6, 4, 5]]]


def test_there_are_none_without_loops_and_where_sizes_are_open():
    b = recurrent("Loop")
    b.inputs[0].type.tensor_type.shape.dim[1].dim_param = "L"
    assert loop_shapes(b.graph(), 1, 2) == [{}, {}]
    b = Builder((4,))
    b.relu()
    assert loop_shapes(b.graph(), 1) == [{}]
