"""merge_twins: what computes the same is one, and nothing else."""

import pytest

from onnxsnn import convert
from onnxsnn.twins import merge_twins
from tests.models import Builder, assert_same, dataset, outputs_of, uniform


def merged(b, *outputs):
    """The graph's operators, twins merged; its values are checked to stay."""
    graph, x = b.graph(*outputs), uniform(2, 3, 6, 6)
    before = outputs_of(b.model(*outputs), x=x)
    counts = merge_twins(graph)
    assert_same(before, outputs_of(graph, x=x))
    return [node.op for node in graph.nodes], counts


def test_chains_of_twins_are_one():
    b = Builder((3, 6, 6))
    ends = []
    for _ in range(3):
        b.op("Relu", "x")
        b.op("Mul", b.last, b.constant(2.0))
        ends.append(b.op("MaxPool", kernel_shape=[2, 2]))
    b.op("Sum", *ends)
    operators, counts = merged(b)
    assert operators == ["Relu", "Mul", "MaxPool", "Sum"]
    assert counts == {"Relu": 2, "Mul": 2, "MaxPool": 2}


@pytest.mark.parametrize("difference", ["attribute", "constant", "order", "operator"])
def test_what_differs_stays(difference):
    b = Builder((3, 6, 6))
    match difference:
        case "attribute":
            pair = [b.op("Elu", "x", alpha=alpha) for alpha in (1.0, 2.0)]
        case "constant":
            pair = [b.op("Mul", "x", b.constant(factor)) for factor in (1.0, 2.0)]
        case "order":
            one = b.constant(1.0)
            pair = [b.op("Sub", "x", one), b.op("Sub", one, "x")]
        case "operator":
            pair = [b.op(operator, "x") for operator in ("Relu", "Abs")]
    b.op("Add", *pair)
    assert not merged(b)[1]


def test_outputs_of_the_graph_keep_their_names():
    b = Builder((3, 6, 6))
    first, second = b.op("Relu", "x"), b.op("Relu", "x")
    read = b.op("Abs", second)
    assert merged(b, first, second, read)[0].count("Relu") == 2
    assert merged(b, second, read)[0].count("Relu") == 1


def test_what_is_drawn_twice_stays():
    b = Builder((3, 6, 6))
    b.op("Add", *(b.op("RandomUniformLike", "x") for _ in range(2)))
    assert not merge_twins(b.graph())


def test_rectifiers_of_one_tensor_are_one_layer_of_neurons(tmp_path):
    b = Builder((3, 8, 8))
    x = b.conv(4)
    branches = []
    for _ in range(2):
        b.op("Relu", x)
        b.channels = 4
        branches.append(b.conv(5))
    b.op("Add", *branches)
    b.relu()
    b.head()
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=uniform(32, 3, 8, 8)), timesteps=4).snn
    assert len(snn.layers) == 2
