"""onnx's own node tests, each as an SNN: its running estimate is the operator's output.

Every case whose operators the table calls linear, shape-only or compensated is wrapped: its
float inputs are made to vary over time, by adding the spikes of a neuron that never fires,
and a neuron reads each float output, so that all that lies between must become a current.
After T steps of constant input, the mean of that current is what the operator gives.

Where a case treats the rows of its inputs as samples, many steps at once give what one by one
gives.
"""

import copy

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx.backend.test.case.node import collect_testcases

from onnxsnn.graph import insert, opset_of
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import IntegrateAndFire
from onnxsnn.operators import Role, fate
from onnxsnn.passes.clean import clean
from onnxsnn.passes.spike import spike
from onnxsnn.runtime.onnxruntime_backend import OnnxRuntimeBackend
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


def runs_alone(model, feeds):
    """Whether ONNX Runtime runs the case."""
    try:
        run_alone(model, feeds)
    except Exception:
        return False
    return True


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


def stepped(snn, feeds, names):
    """The running estimates after each step, [T, ...], stepping by hand: any first axis will do."""
    session = Session(snn.model)._session
    outputs = [tensor.name for tensor in session.get_outputs()]
    values, history = {}, []
    for _ in range(TIMESTEPS):
        state = {s.input: values[s.output] for s in snn.states} if values else {}
        values = dict(zip(outputs, session.run(outputs, feeds | state), strict=True))
        history.append({name: values[name] for name in names})
    return {name: np.stack([each[name] for each in history]) for name in names}


def floats_of(feeds):
    return {name: values for name, values in feeds.items() if is_float(values)}


def is_first_scan(case):
    """Whether a case is of the Scan of opset 8, which is refused."""
    scans = any(node.op_type == "Scan" for node in case.model.graph.node)
    return scans and opset_of(case.model) == 8


def is_refused(graph):
    return any(fate(node, ()).role is Role.REFUSED for node in graph.nodes)


@pytest.mark.parametrize("name", CASES)
def test_running_estimate_is_the_operator_s_output(name):
    case = CASES[name]
    feeds = feeds_of(case)
    if feeds is None or not floats_of(feeds):
        pytest.skip("no float32 tensor goes in")
    if is_first_scan(case):
        pytest.skip("refused")
    source = Source(case.model, "", [])
    try:
        expected = run_alone(case.model, feeds)
    except Exception as error:
        pytest.skip(f"ONNX Runtime does not run it: {str(error)[:100]}")
    moving = floats_of(feeds)
    graph = with_constants(source.graph(), feeds, moving)
    if is_refused(graph):
        pytest.skip("refused")
    graph, _ = clean(graph)
    snn = wrapped(graph, moving)
    outputs = stepped(snn, moving | {"quiet": np.zeros(1, np.float32)}, expected)
    for output, values in expected.items():
        np.testing.assert_allclose(outputs[output][-1], values, rtol=1e-4, atol=1e-5)


def samples_of(feeds):
    """Which inputs may be samples: all floats, or the first, the others being weights."""
    moving = floats_of(feeds)
    for names in [list(moving), list(moving)[:1]][: len(moving)]:
        chosen = {name: moving[name] for name in names}
        sizes = {values.shape[:1] for values in chosen.values()}
        if len(sizes) == 1 and sizes.pop() > (0,):
            yield chosen


def with_batch(model, samples):
    """The model whose first axis is the batch in the inputs `samples`, of any size."""
    model = copy.deepcopy(model)
    del model.graph.value_info[:]
    for tensor in model.graph.input:
        if tensor.name in samples:
            tensor.type.tensor_type.shape.dim[0].dim_param = "N"
    for tensor in model.graph.output:
        for size in tensor.type.tensor_type.shape.dim:
            size.Clear()
    return onnx.shape_inference.infer_shapes(model)


def folded(snn, feeds):
    """The outputs after each step, two steps at once and then one; None if they do not fold."""
    backend = OnnxRuntimeBackend(snn.model, snn.states, snn.outputs, threads=1)
    backend.tile(feeds, TIMESTEPS)
    if backend.warnings:
        return None
    inputs, state, pieces = backend.prepare(feeds), backend.initial_state(), []
    for steps in (2, 1):
        outputs, state = backend.advance(inputs, state, steps, every_step=True)
        pieces.append(outputs)
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in snn.outputs}


def folds(case):
    """Whether a case treats samples alone; if so, it must give what stepping gives."""
    feeds = feeds_of(case) or {}
    if not floats_of(feeds) or not runs_alone(case.model, feeds):
        return False
    if is_first_scan(case):
        return False
    graph = Source(case.model, "", []).graph()
    if is_refused(graph) or any(graph.subgraphs()):  # a body declares sizes that stay as they are
        return False
    for samples in samples_of(feeds):
        source = Source(with_batch(case.model, samples), "", [])
        graph = with_constants(source.graph(), feeds, samples)
        snn = wrapped(clean(graph)[0], samples, rows=("N",))
        size = len(next(iter(samples.values())))
        inputs = samples | {"quiet": np.zeros(size, np.float32)}
        found = folded(snn, inputs)
        if found is not None:
            expected = stepped(snn, inputs, snn.outputs)
            for name, values in expected.items():
                np.testing.assert_allclose(
                    found[name], values, rtol=1e-4, atol=1e-5, err_msg=case.name
                )
            return True
    return False


def test_many_steps_at_once_give_what_stepping_gives():
    """Without the cases that onnx makes of others, by functions: they are as many again."""
    cases = [case for name, case in CASES.items() if "_expanded" not in name]
    assert sum(map(folds, cases)) > 300
