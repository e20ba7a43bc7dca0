"""onnx's own node tests, each as an SNN: its running estimate is the operator's output.

Every case whose operators the table calls linear, shape-only or compensated is wrapped: its
float inputs are made to vary over time, by adding the spikes of a neuron that never fires,
and a neuron reads each float output, so that all that lies between must become a current.
After T steps of constant input, the mean of that current is what the operator gives.

Where a case treats the rows of its inputs as samples, many steps at once give what one by one
gives.
"""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx.backend.test.case.node import collect_testcases

from onnxsnn.graph import insert
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import IntegrateAndFire
from onnxsnn.operators import Role, fate
from onnxsnn.passes.clean import clean
from onnxsnn.passes.spike import spike
from onnxsnn.session import Session
from onnxsnn.source import Source

TIMESTEPS = 3
CASES = {case.name: case for case in collect_testcases(None) if case.kind == "node"}


def feeds_of(case):
    """The inputs of a case by name; None where they are not all tensors."""
    inputs = case.data_sets[0][0]
    names = [tensor.name for tensor in case.model.graph.input]
    if len(names) != len(inputs) or not all(isinstance(v, np.ndarray) for v in inputs):
        return None
    return dict(zip(names, inputs, strict=True))


def is_float(values):
    return values.dtype == np.float32


def run_alone(model, feeds):
    """The outputs of the case in ONNX Runtime."""
    session = Session(model)
    values = session._session.run(None, feeds)
    return dict(zip(session.outputs, values, strict=True))


def with_constants(graph, feeds, varying):
    """The graph in which every input that does not vary is a constant, as axes and indices are."""
    for tensor in list(graph.inputs):
        if tensor.name not in varying:
            tensor.to_constant(feeds[tensor.name])
            graph.inputs.remove(tensor)
    return graph


def wrapped(graph, varying, rows=(1,)):
    """The graph as an SNN in which the inputs named in `varying` vary over time.

    `rows` is the shape of the input `quiet`, which must be zeros.
    """
    rows = list(rows)
    quiet = gs.Variable("quiet", np.float32, rows)
    theta = gs.Constant("quiet.theta", np.ones(1, np.float32))
    silence = gs.Variable("silence", np.float32, rows)
    insert(graph, "RateNorm", [quiet, theta], silence)
    for tensor in [tensor for tensor in graph.inputs if tensor.name in varying]:
        axes = [-1, *[1] * (len(tensor.shape) - 1)] if tensor.shape else []
        shape = gs.Constant(f"{tensor.name}.axes", np.array(axes, np.int64))
        none = gs.Variable(f"{tensor.name}.none", np.float32, [*rows, *axes[1:]] if axes else [])
        insert(graph, "Reshape", [silence, shape], none)
        moving = gs.Variable(f"{tensor.name}.moving", np.float32, tensor.shape)
        for reader in list(tensor.outputs):
            reader.inputs = [moving if source is tensor else source for source in reader.inputs]
        insert(graph, "Add", [tensor, none], moving)
    graph.inputs.append(quiet)
    for output in list(graph.outputs):
        if output.dtype == np.float32 and output.inputs:
            shape = [1] * len(output.shape)
            threshold = gs.Constant(f"{output.name}.theta", np.ones(shape, np.float32))
            probe = gs.Variable(f"{output.name}.probe", np.float32, output.shape)
            insert(graph, "RateNorm", [output, threshold], probe)
            graph.outputs.append(probe)
    graph.toposort()
    report = spike(graph, IntegrateAndFire())
    metadata = {"timesteps": TIMESTEPS, "bits_per_spike": 1.0}
    return SpikingModel.build(graph, report.states, metadata, [])


def step(snn, feeds, backend_outputs):
    """The running estimate after the last step, stepping by hand: any first axis will do."""
    session = Session(snn.model)._session
    names = [tensor.name for tensor in session.get_outputs()]
    values = {}
    for _ in range(TIMESTEPS):
        state = {s.input: values[s.output] for s in snn.states} if values else {}
        values = dict(zip(names, session.run(names, feeds | state), strict=True))
    return {name: values[name] for name in backend_outputs}


@pytest.mark.parametrize("name", CASES)
def test_running_estimate_is_the_operator_s_output(name):
    case = CASES[name]
    feeds = feeds_of(case)
    if feeds is None or not any(map(is_float, feeds.values())):
        pytest.skip("no float32 tensor goes in")
    source = Source(case.model, "", [])
    try:
        expected = run_alone(case.model, feeds)
    except Exception as error:
        pytest.skip(f"ONNX Runtime does not run it: {str(error)[:100]}")
    graph = with_constants(source.graph(), feeds)
    if any(fate(node, ()).role is Role.REFUSED for node in graph.nodes):
        pytest.skip("refused")
    graph, _ = clean(graph)
    varying = {name for name, values in feeds.items() if is_float(values)}
    snn = wrapped(graph, varying)
    moving = {name: feeds[name] for name in varying}
    outputs = step(snn, moving | {"quiet": np.zeros(1, np.float32)}, expected)
    for output, values in expected.items():
        np.testing.assert_allclose(outputs[output], values, rtol=1e-4, atol=1e-5)
