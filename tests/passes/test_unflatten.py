"""unflatten: layers on rows of a sequence and samples keep both axes, and their values."""

import numpy as np
import pytest

from onnxsnn import Runner, convert
from onnxsnn.passes.clean import clean
from onnxsnn.passes.unflatten import unflatten
from tests.models import Builder, assert_same, dataset, outputs_of, uniform

S, HEADS, WIDTH = 5, 2, 8


def attention(rows=(S, -1, WIDTH), **layer):
    """Attention with the sequence in front, as PyTorch writes it; x [N, 5, 8]."""
    b = Builder((S, WIDTH))
    b.op("MatMul", "x", b.normal(WIDTH, WIDTH))
    b.relu()
    b.op("Transpose", perm=[1, 0, 2])
    b.op("Reshape", b.last, b.constant([S, -1, WIDTH // HEADS], np.int64))
    q = b.op("Transpose", perm=[1, 0, 2])
    b.op("Softmax", b.op("MatMul", q, b.op("Transpose", q, perm=[0, 2, 1])), axis=-1)
    b.op("Transpose", b.op("MatMul", b.last, q), perm=[1, 0, 2])
    b.op("Reshape", b.last, b.constant([-1, WIDTH], np.int64))
    b.gemm(WIDTH, WIDTH, **layer)
    b.op("Reshape", b.last, b.constant(rows, np.int64))
    return b


@pytest.mark.parametrize("layer", [{}, {"transB": 0}])
def test_rows_of_sequence_and_samples_are_taken_apart(layer):
    b = attention(**layer)
    graph, _ = clean(b.graph())
    report = unflatten(graph)
    assert report.changed
    assert "Gemm" not in [node.op for node in graph.nodes]
    x = uniform(3, S, WIDTH)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


@pytest.mark.parametrize("rows", [(-1, S, WIDTH), (S, -1, HEADS, WIDTH // HEADS)])
def test_rows_of_samples_or_of_parts_stay_rows(rows):
    graph, _ = clean(attention(rows).graph())
    assert not unflatten(graph).changed


def test_rows_that_others_read_stay_rows():
    b = attention()
    graph, _ = clean(b.graph(b.nodes[-2].output[0], b.last))
    assert not unflatten(graph).changed


def on_rows(
    channels=(WIDTH,), operator="Gemm", target=(-1, S, HEADS, WIDTH // HEADS), encoded=False
):
    """A layer on the rows of samples, as JAX's exporter writes it; x [N, 5, 8], or of parts."""
    b = Builder((S, *channels))
    b.op("Tanh", b.op("MatMul", "x", b.normal(WIDTH, WIDTH))) if encoded else b.relu()
    b.op("Reshape", b.last, b.constant([-1, WIDTH], np.int64))
    if operator == "Gemm":
        b.gemm(WIDTH, WIDTH)
    else:
        b.op("MatMul", b.last, b.normal(WIDTH, WIDTH))
    b.op("Reshape", b.last, b.constant(target, np.int64))
    return b


@pytest.mark.parametrize("channels", [(WIDTH,), (HEADS, WIDTH // HEADS)])
@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
@pytest.mark.parametrize(
    "target", [(-1, S, HEADS, WIDTH // HEADS), (-1, S, WIDTH), (-1, S * WIDTH)]
)
def test_rows_of_samples_are_taken_apart(channels, operator, target):
    b = on_rows(channels, operator, target)
    graph, _ = clean(b.graph())
    assert unflatten(graph).changed
    product = next(node for node in graph.nodes if node.op == "MatMul")
    assert product.outputs[0].shape[1:] == [S, WIDTH]
    x = uniform(3, S, *channels)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_layers_share_rows_of_samples():
    b = on_rows()
    rows = b.nodes[1].output[0]
    first = b.last
    b.op("Reshape", b.op("MatMul", rows, b.normal(WIDTH, 3)), b.constant([-1, S, 3], np.int64))
    graph, _ = clean(b.graph(first, b.last))
    unflatten(graph)
    assert [node.op for node in graph.nodes].count("Reshape") == 1
    x = uniform(3, S, WIDTH)
    assert_same(outputs_of(b.model(first, b.last), x=x), outputs_of(graph, x=x))


def test_thresholds_reach_the_weights_of_a_layer_on_rows_of_samples(tmp_path):
    path = on_rows(encoded=True).save(tmp_path / "m.onnx")
    reports = convert(path, dataset(x=uniform(20, S, WIDTH)), timesteps=4).reports
    actions = {report.name: report.actions for report in reports}
    assert actions["absorb_scales"] == {"thresholds folded into weights": 1}


def test_rows_that_are_whole_samples_stay_rows():
    b = Builder((1, 2, WIDTH // 2))
    b.relu()
    b.op("Reshape", b.last, b.constant([-1, WIDTH], np.int64))
    b.gemm(WIDTH, WIDTH)
    b.op("Reshape", b.last, b.constant([-1, 2, WIDTH // 2], np.int64))
    graph, _ = clean(b.graph())
    assert not unflatten(graph).changed


def test_time_is_folded(tmp_path):
    b = attention()
    b.relu()
    b.op("Transpose", perm=[1, 0, 2])
    x = uniform(20, S, WIDTH)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=4).snn
    runner = Runner(snn)
    found = runner.run(x, 4).outputs
    assert not runner.warnings
    assert_same(Runner(snn, backend="numpy").run(x, 4).outputs, found)
