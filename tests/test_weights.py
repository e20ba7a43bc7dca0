"""weights: what the layers of weights say of themselves."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxsnn.weights import weight_layer

LAYERS = {
    "convolution": ("Conv", (6, 2, 3, 3), {"group": 2}, (6, 18)),
    "transposed convolution": ("ConvTranspose", (4, 3, 2, 2), {"group": 2}, (6, 8)),
    "gemm": ("Gemm", (5, 7), {"transB": 0}, (7, 5)),
    "gemm, turned": ("Gemm", (7, 5), {"transB": 1}, (7, 5)),
    "product": ("MatMul", (5, 7), {}, (7, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_row_holds_the_weights_of_an_output(name):
    operator, shape, attrs, rows = LAYERS[name]
    x, y = gs.Variable("x", np.float32), gs.Variable("y", np.float32)
    weights = gs.Constant("w", np.random.default_rng(0).normal(size=shape).astype(np.float32))
    node = gs.Node(operator, "layer", attrs, [x, weights], [y])
    layer = weight_layer(gs.Graph([node], [x], [y], opset=17), node)
    before = layer.rows
    assert before.shape == rows
    np.testing.assert_array_equal(np.sort(before.ravel()), np.sort(weights.values.ravel()))
    scale = np.arange(1, layer.outputs + 1, dtype=np.float32)
    layer.scale_output(scale)
    np.testing.assert_allclose(layer.rows, before * scale[:, None], rtol=1e-6)
