"""An SNN's outputs by its ONNX exports, in stock ONNX Runtime."""

import numpy as np

from onnxsnn.export import loop_model, step_model
from onnxsnn.session import make_session


def looped(snn, x, timesteps):
    """The outputs of the loop graph in stock ONNX Runtime."""
    feeds = {"x": x, "timesteps": np.array(timesteps, np.int64)}
    values = make_session(loop_model(snn)).run(None, feeds)
    return dict(zip(snn.outputs, values, strict=True))


def zeros(inputs, given):
    """Feeds of the first step: what is given, and states of zeros, of 1 where sizes are unnamed."""
    named = {
        size: values.shape[axis]
        for tensor in inputs
        if (values := given.get(tensor.name)) is not None
        for axis, size in enumerate(tensor.shape)
    }
    shapes = {
        tensor.name: [named.get(size, size) or 1 for size in tensor.shape] for tensor in inputs
    }
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()} | given


def stepped(snn, x, timesteps, run=None):
    """The outputs after so many steps, in stock ONNX Runtime."""
    session = make_session(step_model(snn))
    names = [tensor.name for tensor in session.get_outputs()]
    feeds = zeros(session.get_inputs(), {snn.inputs[0].name: x})
    for _ in range(timesteps):
        values = dict(zip(names, (run or session.run)(None, feeds), strict=True))
        feeds |= {state.input: values[state.output] for state in snn.states}
    return {name: values[name] for name in snn.outputs}


def assert_equal(left, right, tolerance=0.0):
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_allclose(values, right[name], atol=tolerance, rtol=0)
