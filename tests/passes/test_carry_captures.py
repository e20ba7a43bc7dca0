"""carry_captures: a Loop or Scan lists what its body reads, and computes what it did."""

import pytest

from onnxsnn.graph import constant, from_model, to_model
from onnxsnn.passes.carry_captures import carry_captures
from onnxsnn.passes.report import Report
from tests.loops import BODIES, recurrent
from tests.models import assert_same, outputs_of, uniform


def carried(kind):
    graph, report = recurrent(kind).graph(), Report("clean")
    carry_captures(graph, report)
    (node,) = (node for node in graph.nodes if node.op in ("Loop", "Scan"))
    return graph, node, report


def reads_within(body):
    """What nodes of a body and of bodies within it read."""
    parts = [body, *body.subgraphs(recursive=True)]
    return [tensor for part in parts for node in part.nodes for tensor in node.inputs]


@pytest.mark.parametrize("kind", BODIES)
def test_nothing_but_constants_comes_from_outside(kind):
    graph, node, report = carried(kind)
    outside = {id(t) for other in graph.nodes for t in other.outputs}
    read = reads_within(node.attrs["body"])
    assert not any(id(tensor) in outside for tensor in read)
    assert any(constant(tensor) is not None for tensor in read)
    assert report.actions == {f"tensors listed that a {node.op} reads": 1}


@pytest.mark.parametrize("kind", BODIES)
def test_the_same_is_computed(kind):
    graph, _, _ = carried(kind)
    for samples in (1, 3):
        x = uniform(samples, 6, 8)
        assert_same(outputs_of(recurrent(kind).model(), x=x), outputs_of(graph, x=x))


@pytest.mark.parametrize("kind", BODIES)
def test_a_second_time_finds_nothing(kind):
    graph, _, _ = carried(kind)
    again = Report("clean")
    carry_captures(from_model(to_model(graph)), again)
    assert not again.actions
