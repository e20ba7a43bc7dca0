"""Arrays: the file alone is enough to simulate the SNN, with NumPy and what its README says."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from onnxsnn import IntegrateAndFire, Runner, convert
from onnxsnn.errors import UnsupportedError, UsageError
from onnxsnn.export import export_npz
from onnxsnn.export.canonical import RULES
from onnxsnn.neurons import NEURONS, RECTIFYING_NEURONS
from tests.export.simulate import convolve, windows
from tests.models import Builder, dataset, uniform
from tests.networks import STRUCTURES, IntegerBuilder, eighths, integer_networks


class Simulator:
    """An SNN from its .npz alone, a batch at a time; written after the file's README."""

    def __init__(self, path):
        self.file = np.load(path)
        self.network = json.loads(self.file["network.json"])

    def run(self, x, timesteps):
        """The outputs, and the spikes of each layer and sample, after so many timesteps."""
        self.states, self.spikes = {}, {}
        for self.step in range(1, timesteps + 1):
            tensors = dict.fromkeys(self.network["inputs"], x)
            for operation in self.network["operations"]:
                arrays = {role: self.file[key] for role, key in operation["arrays"].items()}
                read = [tensors[name] for name in operation["inputs"]]
                ((name, shape),) = operation["outputs"].items()
                tensors[name] = self.compute(operation, read, shape, arrays).astype(np.float32)
                assert list(tensors[name].shape[1:]) == shape
        return {name: tensors[name] for name in self.network["outputs"]}

    def compute(self, operation, read, shape, arrays):
        operator, settings, x = operation["operator"], operation["settings"], read[0]
        if "threshold" in arrays:
            return self.fire(operation["name"], operator, settings, x, **arrays)
        key = operation["name"]
        window = [settings[k] for k in ("kernel", "strides", "pads") if k in settings]
        match operator:
            case "Linear":
                return x @ arrays["weight"].T.astype(np.float32) + arrays["bias"]
            case "Conv":
                more = settings["dilations"], settings["groups"]
                return convolve(x, arrays["weight"], arrays["bias"], *window[1:], *more)
            case "AveragePool":
                total = windows(x, *window).sum((-2, -1))
                size = windows(np.ones_like(x), *window).sum((-2, -1))
                return total / (math.prod(window[0]) if settings["include_padding"] else size)
            case "MaxPool":
                return windows(x, *window, fill=-np.inf).max((-2, -1))
            case "Mean":
                axes = tuple(axis + 1 for axis in settings["axes"])
                return x.mean(axes, keepdims=settings["keepdims"])
            case "Add":
                return sum(read)
            case "Subtract":
                return x - read[1]
            case "Scale":
                return x * arrays["scale"]
            case "Shift":
                return x + arrays["shift"]
            case "Rectify":
                return np.maximum(x, 0)
            case "Limit":
                return np.minimum(x, arrays["limit"])
            case "Concat":
                return np.concatenate(read, settings["axis"] + 1)
            case "Pad":
                half = len(settings["pads"]) // 2
                pads = zip(settings["pads"][:half], settings["pads"][half:], strict=True)
                return np.pad(x, [(0, 0), *pads])
            case "Slice":
                for axis, size in enumerate(shape, start=1):
                    start, step = settings["starts"][axis - 1], settings["steps"][axis - 1]
                    x = x.take(start + step * np.arange(size), axis)
                return x
            case "Take":
                return x.take(arrays["indices"], settings["axis"] + 1)
            case "Repeat":
                for axis, factor in enumerate(settings["factors"], start=1):
                    x = x.repeat(factor, axis)
                return x
            case "Reshape":
                return x.reshape(-1, *shape)
            case "Transpose":
                return x.transpose(0, *(axis + 1 for axis in settings["order"]))
            case "RunningSum":
                return self.add(key, x)
            case "RunningMean":
                return self.add(key, x) / self.step
            case "DelayedMean":
                late = self.step > settings["delay"]
                if self.step == settings["delay"] + 1:
                    self.states[key] = 0.0
                return self.add(key, x) / (self.step - late * settings["delay"])
            case "SumIncrement":
                return x - self.swap(key, x)
            case "MeanIncrement":
                total = np.where(np.isfinite(x), x * self.step, self.states.get(key, 0.0))
                return total - self.swap(key, total)
            case "SumToMean":
                return x / self.step
            case "Softmax":  # ONNX's, whose axes count the batch
                powers = np.exp(x - x.max(settings["axis"], keepdims=True))
                return powers / powers.sum(settings["axis"], keepdims=True)
        raise AssertionError(f"the README does not say what {operator} is")

    def add(self, key, x):
        self.states[key] = self.states.get(key, 0.0) + x
        return self.states[key]

    def swap(self, key, x):
        before = self.states.get(key, 0.0)
        self.states[key] = x
        return before

    def fire(self, key, operator, settings, x, threshold, v0):
        v, n = self.states.get(key, (v0, 0.0))
        u = v + x
        if "MultiThreshold" in operator:
            wanted = u / threshold
            if not operator.startswith("Signed"):
                wanted = np.maximum(wanted, -n)
            size = np.minimum(np.abs(wanted), settings["greatest"])
            power = np.floor(np.log2(np.maximum(size, settings["smallest"]))) + 1
            grain = np.maximum(2.0 ** (power - settings["digits"]), settings["smallest"])
            s = (np.sign(wanted) * np.rint(size / grain) * grain).astype(np.float32)
            if not operator.startswith("Signed"):
                s = np.where(n + s < 0, s / 2, s)
        elif "Burst" in operator:
            s = np.clip(np.floor(u / threshold), settings["least"], settings["most"])
        else:
            s = (u >= threshold).astype(np.float32)
            if operator == "TernaryIntegrateAndFire":
                s = s - (u < 0)
            if operator == "SignedIntegrateAndFire":
                s = s - ((u < 0) & (n > 0))
        self.states[key] = u - threshold * s, n + s
        fired = np.ceil(np.abs(s)).reshape(len(s), -1).sum(1)
        self.spikes[key] = self.spikes.get(key, 0.0) + fired
        return s


def assert_same(snn, path, x, timesteps, tolerance):
    simulator = Simulator(path)
    outputs = simulator.run(x, timesteps)
    result = Runner(snn, rates=True).run(x, timesteps)
    assert simulator.spikes.keys() == result.spikes.keys()
    for layer, counts in result.spikes.items():
        np.testing.assert_array_equal(simulator.spikes[layer], counts)
    assert outputs.keys() == result.outputs.keys()
    for name, values in result.outputs.items():
        np.testing.assert_allclose(outputs[name], values, atol=tolerance)


@given(
    b=integer_networks(),
    neuron=st.sampled_from([*RECTIFYING_NEURONS.values()]),
    timesteps=st.integers(1, 8),
    delay=st.integers(0, 3),
)
def test_file_alone_has_the_spikes_of_the_snn(tmp_path_factory, b, neuron, timesteps, delay):
    path = b.save(tmp_path_factory.mktemp("npz") / "m.onnx")
    folder = path.parent
    snn = convert(path, threshold="trained", neuron=neuron(), delay=delay).snn
    assert export_npz(snn, folder / "m.npz") == []
    assert_same(snn, folder / "m.npz", eighths(3, 2, 6, 6), timesteps, 1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        {"group": 2, "dilations": [2, 1], "pads": [2, 1, 2, 1]},
        {"strides": [2, 2], "pads": [0, 1, 1, 0]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2], "pads": []},
        {"auto_pad": "SAME_LOWER", "strides": [3, 2], "pads": []},
    ],
    ids=str,
)
def test_settings_of_convolutions_are_said_in_full(layer, tmp_path):
    b = IntegerBuilder((2, 8, 8))
    b.conv(4)
    b.clip(2.0)
    group = layer.get("group", 1)
    attrs = {name: value for name, value in layer.items() if value and name != "group"}
    b.op("Conv", b.last, b.normal(4, 4 // group, 3, 3), b.normal(4), group=group, **attrs)
    b.clip(4.0)
    left = b.op("ReduceMean", b.last, axes=[2, 3], keepdims=0)
    b.op("GlobalAveragePool", b.nodes[-2].output[0])
    b.op("Squeeze", b.last, b.constant([2, 3], np.int64))
    b.op("Concat", b.last, left, axis=1)
    b.op("Transpose", b.last, perm=[0, 1])
    b.op("Gemm", b.last, b.normal(8, 3))
    snn = convert(b.save(tmp_path / "m.onnx"), threshold="trained", timesteps=4).snn
    export_npz(snn, tmp_path / "m.npz")
    assert_same(snn, tmp_path / "m.npz", eighths(3, 2, 8, 8), 5, 1e-5)


def whole(b, *values):
    return b.constant(values, np.int64)


def test_parts_of_tensors_are_read_by_their_places(tmp_path):
    b = IntegerBuilder((2, 6, 6))
    b.conv(6)
    spikes = b.clip(2.0)
    reverse = b.op(
        "Slice", spikes, whole(b, 1, -1), whole(b, 9, -99), whole(b, 1, -1), whole(b, 2, -1)
    )
    first = b.op("Split", spikes, whole(b, 2, 4), count=2, axis=1)
    shuffled = b.op("Gather", f"{first}_1", whole(b, 3, 0, -2), axis=1)
    row = b.op("Gather", spikes, b.constant(-1, np.int64), axis=2)
    b.op("Concat", reverse, first, shuffled, axis=1)
    b.channels = 8
    b.conv(4)
    b.clip(4.0)
    b.op("ReduceMean", axes=[2], keepdims=0)
    b.op("Concat", b.last, row, axis=1)
    b.op("Flatten")
    b.gemm(3, inputs=60)
    snn = convert(b.save(tmp_path / "m.onnx"), threshold="trained", timesteps=4).snn
    assert export_npz(snn, tmp_path / "m.npz") == []
    assert_same(snn, tmp_path / "m.npz", eighths(3, 2, 6, 6), 5, 1e-5)


def test_crops_and_upsampling_of_keras_are_slices_and_repeats(tmp_path):
    """A Slice that says of every axis what it takes, the batch's too; Tiles of axes of size 1."""
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    b.clip(2.0)
    ends = whole(b, 2**31 - 1, -2, -1, 2**31 - 1)
    b.op("Slice", b.last, whole(b, 0, 2, 0, 0), ends, whole(b, 0, 2, 3, 1))
    b.op("Unsqueeze", b.last, whole(b, 3))
    b.op("Tile", b.last, whole(b, 1, 1, 1, 2, 1))
    b.op("Reshape", b.last, whole(b, -1, 4, 4, 5))
    b.conv(3)
    snn = convert(b.save(tmp_path / "m.onnx"), threshold="trained", timesteps=4).snn
    assert export_npz(snn, tmp_path / "m.npz") == []
    assert_same(snn, tmp_path / "m.npz", eighths(3, 2, 6, 6), 5, 1e-5)


@pytest.mark.parametrize("counts", [(1, 1, 2, 1), (2, 1, 1, 1)])
def test_tiles_that_repeat_more_than_single_values_have_no_words(counts, tmp_path):
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    b.clip(2.0)
    b.op("Tile", b.last, whole(b, *counts))
    b.conv(3)
    snn = convert(b.save(tmp_path / "m.onnx"), threshold="trained", timesteps=4).snn
    with pytest.raises(UnsupportedError, match="Tile"):
        export_npz(snn, tmp_path / "m.npz")


def resized(scales=None, sizes=None, **attrs):
    """A map of 6 x 6 that is resized between neurons."""
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    b.clip(2.0)
    given = [b.constant(scales)] if scales else ["", whole(b, *sizes)]
    b.op("Resize", b.last, "", *given, **attrs)
    b.conv(4)
    b.clip(4.0)
    b.head(3)
    return b


@pytest.mark.parametrize(
    "b",
    [
        resized([1, 1, 2, 3]),
        resized([1, 1, 4, 1], nearest_mode="round_prefer_ceil"),
        resized(sizes=[3, 4, 12, 12], coordinate_transformation_mode="pytorch_half_pixel"),
        resized([1, 1, 3, 2], coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    ],
)
def test_nearest_values_of_a_larger_map_are_repeated(b, tmp_path):
    snn = convert(b.save(tmp_path / "m.onnx"), threshold="trained", timesteps=4).snn
    assert export_npz(snn, tmp_path / "m.npz") == []
    assert_same(snn, tmp_path / "m.npz", eighths(3, 2, 6, 6), 5, 1e-5)


@pytest.mark.parametrize(
    "b",
    [
        resized([1, 1, 1.5, 2]),
        resized([1, 1, 0.5, 0.5]),
        resized([1, 1, 2, 2], mode="linear"),
        resized([1, 1, 2.1, 2]),
        resized([1, 1, 2, 2], nearest_mode="floor"),
        resized([1, 1, 2, 2], coordinate_transformation_mode="align_corners"),
    ],
)
def test_other_sizes_are_no_repetition(b, tmp_path):
    snn = convert(b.save(tmp_path / "m.onnx"), threshold="trained", timesteps=4).snn
    with pytest.raises(UnsupportedError, match=r"no words for node 'resize2'"):
        export_npz(snn, tmp_path / "m.npz")


@pytest.mark.parametrize("structure", ["mobilenet", "densenet", "vgg", "residual"])
def test_whole_networks_give_the_runner_s_outputs(structure, tmp_path):
    """Weights are no whole numbers here, so that a spike may come a step later."""
    x = uniform(3, 3, 8, 8)
    path = STRUCTURES[structure]().save(tmp_path / "m.onnx")
    snn = convert(path, dataset(x=x), timesteps=4).snn
    assert export_npz(snn, tmp_path / "m.npz") == []
    ((name, outputs),) = Simulator(tmp_path / "m.npz").run(x, 4).items()
    expected = Runner(snn).run(x, 4).outputs[name]
    assert np.linalg.norm(outputs - expected) < 0.05 * np.linalg.norm(expected)


def test_samples_behind_another_axis_are_refused_by_name(tmp_path):
    x = uniform(8, 7, 8)
    path = STRUCTURES["sequence-first"]().save(tmp_path / "m.onnx")
    snn = convert(path, dataset(x=x), timesteps=4).snn
    with pytest.raises(UnsupportedError, match="does not have its samples in front"):
        export_npz(snn, tmp_path / "m.npz")


def test_what_is_no_snn_is_refused(tmp_path):
    with pytest.raises(UsageError, match="snn: takes a SpikingModel, and str came"):
        export_npz("m.snn.onnx", tmp_path / "m.npz")


def test_potentials_of_every_position_are_written(tmp_path):
    """As a correction gives them to maps whose neighbours are alike."""
    x = uniform(32, 1, 16, 16).cumsum(2).cumsum(3) / 16
    b = Builder((1, 16, 16))
    b.conv(4)
    b.relu()
    b.head()
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=2, correct=True).snn
    export_npz(snn, tmp_path / "m.npz")
    simulator = Simulator(tmp_path / "m.npz")
    (key,) = (key for key in simulator.file if key.endswith(".v0"))
    assert simulator.file[key].shape == (4, 16, 16)
    ((name, outputs),) = simulator.run(x, 2).items()
    assert np.allclose(outputs, Runner(snn).run(x, 2).outputs[name], atol=1e-5)


def test_rounding_of_an_integer_snn_is_listed_as_lost(tmp_path):
    x = uniform(3, 3, 8, 8)
    path = STRUCTURES["vgg"]().save(tmp_path / "m.onnx")
    snn = convert(path, dataset(x=x), timesteps=4, integer=True).snn
    (loss,) = export_npz(snn, tmp_path / "m.npz")
    assert "rounding of currents to bytes" in loss
    assert "(conv3)" in loss


def test_an_integer_snn_that_rounds_nothing_loses_nothing(tmp_path):
    b = IntegerBuilder((2, 6, 6))
    for threshold in (2.0, 4.0):
        b.conv(4)
        b.clip(threshold)
    b.head(3)
    snn = convert(b.save(tmp_path / "m.onnx"), threshold="trained", integer=True).snn
    assert "QLinearConv" in {node.op_type for node in snn.model.graph.node}
    assert export_npz(snn, tmp_path / "m.npz") == []
    assert_same(snn, tmp_path / "m.npz", eighths(3, 2, 6, 6), 5, 1e-5)


def test_whole_values_are_integers_and_others_are_not(tmp_path):
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    b.clip(8.0)
    b.op("Flatten")
    b.gemm(3, inputs=144)
    path = b.save(tmp_path / "m.onnx")
    snn = convert(path, threshold="trained", neuron=IntegrateAndFire(0.0)).snn
    export_npz(snn, tmp_path / "m.npz")
    file = np.load(tmp_path / "m.npz")
    kinds = {file[name].dtype for name in file.files if "." in name and name[0].isdigit()}
    assert kinds == {np.dtype(np.int8)}
    snn = convert(path, threshold="trained", neuron=IntegrateAndFire(0.3)).snn
    export_npz(snn, tmp_path / "m.npz")
    file = np.load(tmp_path / "m.npz")
    assert {file[f"1.{role}"].dtype for role in ("threshold", "v0")} == {np.dtype(np.float32)}


def test_readme_has_words_for_every_operator(tmp_path):
    b = IntegerBuilder((4,))
    b.clip(2.0)
    export_npz(convert(b.save(tmp_path / "m.onnx")).snn, tmp_path / "m.npz")
    text = np.load(tmp_path / "m.npz")["README"].decode()
    renamed = {
        "Gemm": "Linear", "MatMul": "Linear", "GlobalAveragePool": "Mean", "ReduceMean": "Mean",
        "Sub": "Subtract", "Mul": "Scale", "Div": "Scale", "LeakyRelu": "Rectify", "Min": "Limit",
        "Flatten": "Reshape", "Squeeze": "Reshape", "Unsqueeze": "Reshape",
        "Identity": "Reshape", "Gather": "Take", "Resize": "Repeat",
        "Tile": "Repeat",
    }  # fmt: skip
    words = {renamed.get(name, name) for name in RULES} | {"Shift", "SumToMean"}
    assert {neuron.operator for neuron in NEURONS.values()} <= words
    assert not [word for word in words if word not in text]


def test_same_network_is_the_same_file(tmp_path):
    b = IntegerBuilder((4,))
    b.gemm(4)
    b.clip(2.0)
    snn = convert(b.save(tmp_path / "m.onnx")).snn
    for name in ("a.npz", "b.npz"):
        export_npz(snn, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_operators_without_words_are_refused_unless_allowed(tmp_path):
    b = Builder((3, 4, 4))
    b.conv(4)
    b.relu()
    b.op("Sigmoid")
    b.conv(4)
    b.relu()
    b.head()
    b.op("Softmax", axis=1)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=uniform(4, 3, 4, 4))).snn
    with pytest.raises(UnsupportedError, match=r"sigmoid2.*softmax8.*--allow-loss"):
        export_npz(snn, tmp_path / "m.npz")
    assert not (tmp_path / "m.npz").exists()
    assert len(export_npz(snn, tmp_path / "m.npz", allow_loss=True)) == 2
    network = json.loads(np.load(tmp_path / "m.npz")["network.json"])
    (softmax,) = (o for o in network["operations"] if o["operator"] == "Softmax")
    assert softmax["settings"] == {"axis": 1}


def pooled(operator, **attrs):
    return lambda b: b.op(operator, kernel_shape=[3, 3], strides=[2, 2], **attrs)


def upsampled(b):
    weight = b.normal(4, 4, 2, 2)
    b.op("ConvTranspose", b.last, weight, strides=[2, 2], output_shape=[17, 17])


def reflected(b):
    b.op("Pad", b.last, b.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode="reflect")


@pytest.mark.parametrize(
    ("build", "operator"),
    [
        (pooled("MaxPool", ceil_mode=1), "MaxPool"),
        (pooled("MaxPool", dilations=[2, 2]), "MaxPool"),
        (pooled("AveragePool", ceil_mode=1), "AveragePool"),
        (upsampled, "ConvTranspose"),
        (reflected, "Pad"),
    ],
)
def test_operators_in_forms_without_words_are_refused(tmp_path, build, operator):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.clip(1.0)
    build(b)
    b.op("GlobalAveragePool")
    b.op("Flatten")
    snn = convert(b.save(tmp_path / "m.onnx"), threshold="trained", timesteps=2).snn
    with pytest.raises(UnsupportedError, match=rf"no words for node '\S+' \({operator}\)"):
        export_npz(snn, tmp_path / "m.npz")


def test_axes_of_onnx_operators_count_the_batch(tmp_path):
    b = Builder((3, 8), opset=17)
    b.op("MatMul", b.last, b.normal(8, 8))
    b.relu()
    b.op("Softmax", axis=1)
    b.op("MatMul", b.last, b.normal(8, 4))
    x = uniform(6, 3, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=4, correct=False).snn
    export_npz(snn, tmp_path / "m.npz", allow_loss=True)
    (values,) = Simulator(tmp_path / "m.npz").run(x, 4).values()
    (expected,) = Runner(snn).run(x, 4).outputs.values()
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_outputs_of_two_names_are_written(tmp_path):
    b = Builder((4,))
    b.gemm(5, inputs=4)
    b.relu()
    scores = b.gemm(3)
    again = b.op("Identity")
    x = uniform(6, 4)
    snn = convert(b.save(tmp_path / "m.onnx", scores, again), dataset(x=x), timesteps=3).snn
    assert not export_npz(snn, tmp_path / "m.npz")
    found = Simulator(tmp_path / "m.npz").run(x, 3)
    for name, values in Runner(snn).run(x, 3).outputs.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


def test_constant_outputs_are_refused(tmp_path):
    b = Builder((4,))
    b.gemm(5, inputs=4)
    b.relu()
    scores = b.gemm(3)
    anchors = b.op("Identity", b.normal(1, 3))
    model = b.save(tmp_path / "m.onnx", scores, anchors)
    snn = convert(model, dataset(x=uniform(4, 4)), timesteps=2).snn
    with pytest.raises(UnsupportedError, match="is a constant"):
        export_npz(snn, tmp_path / "m.npz", allow_loss=True)


def test_tensors_among_the_settings_are_written_as_lists(tmp_path):
    b = Builder((4,))
    b.gemm(5, inputs=4)
    b.relu()
    scores = b.gemm(3)
    size = b.op("Shape", "x", start=0, end=1)
    shape = b.op("Concat", size, b.constant([3], np.int64), axis=0)
    half = numpy_helper.from_array(np.array([0.5], np.float32))
    b.op("Add", scores, b.op("ConstantOfShape", shape, value=half))
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=uniform(4, 4))).snn
    export_npz(snn, tmp_path / "m.npz", allow_loss=True)
    network = json.loads(np.load(tmp_path / "m.npz")["network.json"])
    (filled,) = (o for o in network["operations"] if o["operator"] == "ConstantOfShape")
    assert filled["settings"] == {"value": [0.5]}
