"""Quantized models are computed in real numbers, and rectify where their whole numbers did."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from onnxsnn import Runner, convert, evaluate, load_source
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import constant, to_model
from onnxsnn.passes.clean import clean
from onnxsnn.session import Session
from tests.models import OLD_RUNTIME, Builder, dataset, kernels_of_today, optimized, uniform
from tests.networks import STRUCTURES


class Samples(CalibrationDataReader):
    """What ONNX Runtime's quantizer sees."""

    def __init__(self, x):
        self.rest = [{"x": x[i : i + 8]} for i in range(0, len(x), 8)]

    def get_next(self):
        return self.rest.pop() if self.rest else None


def quantized(path, x, way):
    """A file beside, by ONNX Runtime's own quantizer."""
    result = path.with_suffix(".8.onnx")
    if "dynamic" in way:
        quantize_dynamic(path, result)
    else:
        kind = QuantType.QUInt8 if "unsigned" in way else QuantType.QInt8
        form = QuantFormat.QDQ if "QDQ" in way else QuantFormat.QOperator
        quantize_static(
            path, result, Samples(x), quant_format=form, activation_type=kind, per_channel=True
        )
    with kernels_of_today():
        return load_source(optimized(result) if "optimized" in way else result)


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def run(model, x):
    (values,) = Session(model).run({"x": x}).values()
    return values


WAYS = [
    "dynamic", "dynamic, optimized", "QDQ", "QDQ unsigned", "QOperator", "QOperator unsigned",
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("structure", sorted(STRUCTURES))
def test_real_numbers_are_near_and_neurons_the_same(tmp_path, structure, way):
    b = STRUCTURES[structure]()
    plain = load_source(b.save(tmp_path / "m.onnx"))
    (spec,) = plain.inputs
    x = uniform(32, *spec.shape[1:])
    source = quantized(tmp_path / "m.onnx", x, way)
    real = run(to_model(source.graph()), x)
    if not OLD_RUNTIME:  # whose kernels of whole numbers are rough
        assert error(real, run(source.model, x)) < 0.06
    assert error(real, run(plain.model, x)) < 0.03
    layers = [
        [layer.neuron for layer in convert(each, dataset(x=x), timesteps=4).snn.layers]
        for each in (plain, source)
    ]
    assert layers[0] == layers[1]


def rounded(b, tensor, scale=0.05, zero=0, kind=np.uint8, bounds=()):
    """To whole numbers, within bounds or those of their type, and back."""
    levels = b.constant(scale), b.constant(zero, kind)
    whole = b.op("QuantizeLinear", tensor, *levels)
    if bounds:
        whole = b.op("Clip", whole, *(b.constant(bound, kind) for bound in bounds))
    return b.op("DequantizeLinear", whole, *levels)


def clips(b, tmp_path):
    """Upper bounds of the rectifiers in the graph that is converted, in order."""
    graph, _ = clean(load_source(b.save(tmp_path / "m.onnx")).graph())
    assert {node.op for node in graph.nodes} <= {"Clip", "Gemm", "Conv", "MaxPool", "Relu"}
    assert all(constant(node.inputs[1]) == 0 for node in graph.nodes if node.op == "Clip")
    return [float(node.inputs[2].values) for node in graph.nodes if node.op == "Clip"]


def test_rounding_to_nothing_below_zero_rectifies(tmp_path):
    b = Builder((4,))
    b.gemm(4, inputs=4)
    rounded(b, b.last)
    b.gemm(3, inputs=4)
    rounded(b, b.last, 0.1, -128, np.int8)
    b.gemm(2, inputs=3)
    assert clips(b, tmp_path) == pytest.approx([255 * 0.05, 255 * 0.1])


def test_rounding_to_either_side_of_zero_does_not(tmp_path):
    b = Builder((4,))
    rounded(b, "x", 0.01, 3)
    b.gemm(4, inputs=4)
    rounded(b, b.last, 0.1, 0, np.int8)
    b.relu()
    b.gemm(3, inputs=4)
    rounded(b, b.last, 0.1, 120)
    b.gemm(2, inputs=3)
    assert cut_off(b, tmp_path) == pytest.approx([-12.7, 12.7, -12, 13.5])


def cut_off(b, tmp_path):
    """Bounds of what is cut off in the graph that is converted, in order."""
    graph, _ = clean(load_source(b.save(tmp_path / "m.onnx")).graph())
    nodes = [node for node in graph.nodes if node.op in ("Clip", "Max", "Min")]
    return [float(tensor.values) for node in nodes for tensor in node.inputs[1:]]


def test_whole_numbers_of_both_signs_are_cut_off_where_they_end(tmp_path):
    b = Builder((4,))
    b.gemm(4, inputs=4)
    rounded(b, b.last, 0.1, 0, np.int8)
    b.gemm(4, inputs=4)
    rounded(b, b.last, 0.1, 128)
    b.gemm(4, inputs=4)
    rounded(b, b.last, 0.25, 0, np.int8, bounds=(-7, 7))
    b.gemm(4, inputs=4)
    rounded(b, b.last, 0.1, 55)
    b.gemm(4, inputs=4)
    rounded(b, b.last, 0.5, 0, np.int8, bounds=(-2, 1))
    b.gemm(3, inputs=4)
    expected = [-12.7, 12.7, -12.7, 12.7, -1.75, 1.75, -5.5, 20, -1, 0.5]
    assert cut_off(b, tmp_path) == pytest.approx(expected)


def test_so_they_are_in_front_of_an_average_and_not_again_behind_it(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    rounded(b, b.last, 0.1, 0, np.int8)
    b.op("GlobalAveragePool")
    rounded(b, b.last, 0.01, 0, np.int8)
    b.op("Flatten")
    b.gemm(3, inputs=4)
    assert cut_off(b, tmp_path) == pytest.approx([-12.7, 12.7])


@pytest.mark.parametrize(("sizes", "more"), [((-1, 2, 2), [-1, 1]), (None, [])])
def test_narrower_limits_of_the_same_values_cut_off(tmp_path, sizes, more):
    """A quantizer leaves out a HardTanh behind a Reshape too; those of a part may be as narrow."""
    b = Builder((4,))
    b.gemm(4, inputs=4)
    rounded(b, b.last, 0.1, 0, np.int8)
    if sizes is not None:
        b.op("Reshape", b.last, b.constant(sizes, np.int64))
    else:
        b.op("Slice", b.last, *(b.constant([value], np.int64) for value in (0, 2, 1)))
    rounded(b, b.last, 1 / 127, 0, np.int8)
    b.op("MatMul", b.last, b.normal(2, 3))
    assert cut_off(b, tmp_path) == pytest.approx([-12.7, 12.7, *more])


def test_a_sum_of_rectifiers_is_cut_off_above(tmp_path):
    b = Builder((4,))
    first = b.op("Relu", b.gemm(4, inputs=4))
    b.gemm(4, inputs=4)
    rounded(b, b.op("Add", b.relu(), first), 0.5, bounds=(0, 15))
    b.gemm(3, inputs=4)
    assert cut_off(b, tmp_path) == [7.5]


@pytest.mark.parametrize("reader", ["Add", "Relu", "output", "MatMul"])
def test_so_is_what_anything_else_reads(tmp_path, reader):
    b = Builder((4,))
    tensor = rounded(b, b.gemm(4, inputs=4), 0.001, 0, np.int8)
    b.gemm(4, inputs=4)
    match reader:
        case "Add":
            b.op("Add", b.last, tensor)
        case "Relu":
            b.op("Add", b.last, b.op("Relu", tensor))
        case "MatMul":
            b.op("MatMul", tensor, b.op("Transpose", b.last))
    outputs = [tensor] if reader == "output" else []
    source = load_source(b.save(tmp_path / "m.onnx", *outputs, b.last))
    x = uniform(32, 4)
    found, expected = (
        Session(model).run({"x": x}) for model in (to_model(source.graph()), source.model)
    )
    for name, values in expected.items():
        assert error(found[name], values) < 0.02


def test_per_channel_limits_of_both_signs_are_those_of_channels(tmp_path):
    b = Builder((4, 5, 5))
    b.conv(3)
    levels = b.constant([0.001, 0.002, 0.004]), b.constant([0, 20, -40], np.int8)
    whole = b.op("QuantizeLinear", b.last, *levels, axis=1)
    b.op("DequantizeLinear", whole, *levels, axis=1)
    b.conv(3)
    source = load_source(b.save(tmp_path / "m.onnx"))
    x = uniform(8, 4, 5, 5)
    assert error(run(to_model(source.graph()), x), run(source.model, x)) < 0.02


def test_what_a_normalization_or_bias_reads_is_not_the_end_of_a_layer(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4, bias=False)
    rounded(b, b.last, 0.1, 60)
    b.batchnorm()
    rounded(b, b.last, 0.1)
    b.conv(4, bias=False)
    rounded(b, b.last, 0.1, 60)
    b.op("Add", b.last, b.normal(4, 1, 1))
    rounded(b, b.last, 0.1)
    b.head()
    assert cut_off(b, tmp_path) == pytest.approx([0, 25.5, 0, 25.5])


@pytest.mark.parametrize("way", ["QDQ", "QDQ unsigned", "QOperator"])
@pytest.mark.parametrize("low", [-0.5, -0.2])
def test_a_clip_that_the_quantizer_left_out_stays_in_residual_networks(tmp_path, low, way):
    b = Builder((3, 8, 8))
    b.conv(6)
    first = b.op("Clip", b.last, b.constant(low), b.constant(0.5))
    b.conv(6)
    b.op("Clip", b.last, b.constant(low), b.constant(0.5))
    b.op("Add", b.last, first)
    b.conv(6)
    b.op("Clip", b.last, b.constant(low), b.constant(0.5))
    b.head()
    b.save(tmp_path / "m.onnx")
    x = 4 * uniform(64, 3, 8, 8)
    source = quantized(tmp_path / "m.onnx", x, way)
    expected = run(source.model, x)
    assert error(run(to_model(source.graph()), x), expected) < 0.05
    conversion = convert(source, dataset(x=x), timesteps=64)
    assert (
        error(Runner(conversion.snn).run(x).outputs[source.graph().outputs[0].name], expected) < 0.1
    )


def test_what_comes_in_is_not_cut_off(tmp_path):
    b = Builder((4,))
    rounded(b, "x", 0.01)
    b.gemm(4, inputs=4)
    assert clips(b, tmp_path) == []


def test_noise_says_nothing_of_how_whole_numbers_are_read(tmp_path):
    """Unlike data: it goes beyond the numbers of the input, which are not cut off."""
    b = Builder((4,))
    rounded(b, "x", 0.001)
    b.gemm(4, inputs=4)
    b.relu()
    b.gemm(2, inputs=4)
    path, data = b.save(tmp_path / "m.onnx"), dataset(x=uniform(9, 4))
    said = [convert(path, given, timesteps=4).warnings for given in (None, data)]
    assert ["those of the file" in " ".join(lines) for lines in said] == [False, True]


def test_a_rectifier_in_front_takes_the_limit(tmp_path):
    b = Builder((4,))
    b.gemm(4, inputs=4)
    b.relu()
    rounded(b, b.last, 0.5, bounds=(0, 15))
    b.gemm(4, inputs=4)
    b.clip(3.0)
    rounded(b, b.last, 0.5)
    assert clips(b, tmp_path) == pytest.approx([7.5, 3.0])


def test_so_does_one_in_front_of_whole_numbers_of_both_signs(tmp_path):
    b = Builder((4,))
    b.gemm(4, inputs=4)
    b.relu()
    rounded(b, b.last, 0.02, 0, np.int8)
    b.gemm(4, inputs=4)
    assert clips(b, tmp_path) == pytest.approx([127 * 0.02])


def test_limits_that_every_reader_has_of_its_own_are_one(tmp_path):
    b = Builder((4,))
    b.gemm(4, inputs=4)
    rectified, ends = b.relu(), []
    for _ in range(2):
        rounded(b, rectified, 0.5, bounds=(0, 15))
        ends.append(b.gemm(4, inputs=4))
    b.op("Add", *ends)
    graph, _ = clean(load_source(b.save(tmp_path / "m.onnx")).graph())
    (clip,) = (node for node in graph.nodes if node.op in ("Clip", "Relu"))
    assert constant(clip.inputs[2]) == 7.5


def test_a_rectifier_that_others_read_takes_no_limit(tmp_path):
    b = Builder((4,))
    b.gemm(4, inputs=4)
    rectified = b.relu()
    rounded(b, rectified, 0.5)
    first = b.gemm(4, inputs=4)
    b.last = rectified
    b.gemm(4, inputs=4)
    b.op("Gemm", first, b.last)
    assert clips(b, tmp_path) == []


def test_a_clip_that_others_read_is_not_followed_by_another(tmp_path):
    b = Builder((4,))
    b.gemm(4, inputs=4)
    clipped = b.clip(6.0)
    rounded(b, clipped, 0.5)
    first = b.gemm(4, inputs=4)
    b.last = clipped
    b.gemm(4, inputs=4)
    b.op("Gemm", first, b.last)
    assert clips(b, tmp_path) == [6.0]


def test_fewer_bits_have_a_lower_limit(tmp_path):
    b = Builder((4,))
    b.gemm(4, inputs=4)
    rounded(b, b.last, 0.5, bounds=(0, 15))
    assert clips(b, tmp_path) == [7.5]


def test_what_is_rectified_already_is_not_again(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    rounded(b, b.last)
    b.op("MaxPool", kernel_shape=[2, 2])
    rounded(b, b.last)
    b.conv(4)
    assert len(clips(b, tmp_path)) == 1


def rectified_and_rounded(b):
    b.gemm(4, inputs=4)
    return rounded(b, b.relu())


def squashed(b):
    b.op("Sigmoid", b.gemm(4, inputs=4))


def summed(b):
    b.op("Add", rectified_and_rounded(b), b.constant(np.ones(4)))


def scaled(b):
    b.op("Mul", rectified_and_rounded(b), b.constant(0.5))


def reshaped(b):
    b.op("Reshape", rectified_and_rounded(b), b.constant([-1, 4], np.int64))


def padded(b):
    b.op(
        "Pad", rectified_and_rounded(b), b.constant([0, 0], np.int64), "", b.constant([1], np.int64)
    )


def summed_as_whole_numbers(b):
    rectified_and_rounded(b)
    levels = b.constant(0.125), b.constant(0, np.uint8)
    whole = b.op("QuantizeLinear", b.last, *levels)
    added = b.op("QLinearAdd", *(whole, *levels) * 2, *levels, domain="com.microsoft")
    b.op("DequantizeLinear", added, *levels)


def less(b):
    first = rectified_and_rounded(b)
    b.last = "x"
    b.op("Sub", first, rectified_and_rounded(b))


def less_a_constant(b):
    b.op("Add", rectified_and_rounded(b), b.constant([1.0, 2.0, -1.0, 0.0]))


def clipped_below_zero(b):
    b.op("Clip", b.gemm(4, inputs=4), b.constant(-1.0), b.constant(1.0))


NEVER_NEGATIVE = [squashed, summed, scaled, reshaped, padded, summed_as_whole_numbers]


@pytest.mark.parametrize("build", [*NEVER_NEGATIVE, less, less_a_constant, clipped_below_zero])
def test_what_may_be_negative_is_rectified_and_nothing_else(tmp_path, build):
    b = Builder((4,), opset=18)
    build(b)
    rounded(b, b.last, 0.125)
    b.gemm(3, inputs=4)
    onnx.save(b.unchecked(), tmp_path / "m.onnx")
    graph = load_source(tmp_path / "m.onnx").graph()
    limits = [node.inputs[2].values for node in graph.nodes if node.op == "Clip"]
    assert (255 * 0.125 in limits) is (build not in NEVER_NEGATIVE)


def test_a_rectifier_that_is_an_output_takes_no_limit(tmp_path):
    b = Builder((4,))
    rectified = b.relu()
    rounded(b, rectified, 0.001)
    source, x = load_source(b.save(tmp_path / "m.onnx", rectified, b.last)), uniform(9, 4)
    found, expected = (Session(m).run({"x": x}) for m in (to_model(source.graph()), source.model))
    np.testing.assert_array_equal(found[rectified], expected[rectified])


def test_limits_of_channels_and_then_one_of_all_cut_off_in_turn(tmp_path):
    b, x = Builder((3,)), uniform(9, 3)
    whole, levels = each(b, b.relu(), SCALES, np.uint8)
    b.op("DequantizeLinear", whole, *levels, axis=1)
    rounded(b, b.last, 0.002)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.02


def test_scales_are_of_the_second_axis_where_none_is_named(tmp_path):
    b, x = Builder((3,)), uniform(8, 3) * 100 * np.float32(SCALES)
    levels = b.constant(SCALES), b.constant(np.zeros(3), np.int8)
    real = b.op("DequantizeLinear", b.op("QuantizeLinear", "x", *levels), *levels)
    weights = b.op("QuantizeLinear", b.normal(3, 3, scale=0.1), *levels)
    b.op("MatMul", real, b.op("DequantizeLinear", weights, *levels))
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.02


KINDS = [("INT4", 15), ("UINT4", 15), ("FLOAT8E4M3FN", None)]


@pytest.mark.parametrize(("kind", "levels"), KINDS)
def test_levels_are_those_of_the_type(tmp_path, kind, levels):
    b = Builder((4,), opset=21)
    kind = TensorProto.DataType.Value(kind)
    whole = b.op("QuantizeLinear", "x", b.constant(0.1), "", output_dtype=kind)
    b.op("DequantizeLinear", whole, b.constant(0.1))
    assert load_source(b.save(tmp_path / "m.onnx")).levels == levels


def test_levels_of_weights_do_not_count(tmp_path):
    b = Builder((4,))
    b.op("MatMul", "x", rounded(b, b.normal(4, 3), 0.5, 0, np.int8, bounds=(-7, 7)))
    assert load_source(b.save(tmp_path / "m.onnx")).levels is None


def test_weights_are_what_their_whole_numbers_say(tmp_path):
    """Of every channel by a scale of its own, from real ones that are rounded in the graph."""
    b = Builder((4,))
    weights = b.random.normal(size=(4, 3)).astype(np.float32)
    scales = np.array([0.5, 0.25, 0.1], np.float32)
    levels = b.constant(scales), b.constant([0, 0, 1], np.int8)
    whole = b.op("QuantizeLinear", b.constant(weights), *levels, axis=1)
    held = b.op("Clip", whole, b.constant(-7, np.int8), b.constant(7, np.int8))
    b.op("MatMul", "x", b.op("DequantizeLinear", held, *levels, axis=1))
    source, x = load_source(b.save(tmp_path / "m.onnx")), uniform(5, 4)
    zeros = [0, 0, 1]
    real = (np.clip(np.round(weights / scales) + zeros, -7, 7) - zeros) * scales
    assert error(run(to_model(source.graph()), x), x @ real) < 1e-6


def test_a_bias_of_whole_numbers_is_added_as_before(tmp_path):
    """As ONNX Runtime's quantizer wrote it once: how many steps it takes is computed."""
    b = Builder((3, 6, 6))
    whole = b.op("DynamicQuantizeLinear", "x", count=3)
    scale, zero = f"{whole}_1", f"{whole}_2"
    weights = b.constant(b.random.integers(-127, 128, (4, 3, 3, 3)), np.int8)
    sums = b.op("ConvInteger", whole, weights, zero)
    worth = b.op("Mul", scale, b.constant(0.01))
    steps = b.op("Floor", b.op("Div", b.normal(1, 4, 1, 1), worth))
    total = b.op("Add", sums, b.op("Cast", steps, to=TensorProto.INT32))
    b.op("Mul", b.op("Cast", total, to=TensorProto.FLOAT), worth)
    b.relu()
    with kernels_of_today():
        source = load_source(b.save(tmp_path / "m.onnx"))
    x = uniform(5, 3, 6, 6)
    assert error(run(to_model(source.graph()), x), run(source.model, x)) < 0.02
    assert len(convert(source, dataset(x=x), timesteps=4).snn.layers) == 1


def test_padding_is_of_what_its_whole_number_stands_for(tmp_path):
    b = Builder((4,))
    levels = b.constant(0.5), b.constant(128, np.uint8)
    whole = b.op("QuantizeLinear", "x", *levels)
    pads = b.constant([0, 1, 0, 0], np.int64)
    b.op("DequantizeLinear", b.op("Pad", whole, pads, b.constant(130, np.uint8)), *levels)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert np.all(run(to_model(source.graph()), uniform(3, 4))[:, 0] == 1.0)


def test_padding_that_is_not_named_is_of_whole_zeros(tmp_path):
    b, x = Builder((4,)), uniform(3, 4)
    levels = b.constant(0.01), b.constant(128, np.uint8)
    whole = b.op("QuantizeLinear", "x", *levels)
    b.op("DequantizeLinear", b.op("Pad", whole, b.constant([0, 1, 0, 0], np.int64)), *levels)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.02


def test_bounds_that_are_computed_cut_off_whole_numbers(tmp_path):
    b, x = Builder((4,)), uniform(9, 4)
    levels = b.constant(0.01), b.constant(0, np.int8)
    whole = b.op("QuantizeLinear", "x", *levels)
    some = b.op("Cast", b.op("ReduceMean", "x", keepdims=0), to=TensorProto.INT8)
    b.op("DequantizeLinear", b.op("Clip", whole, "", some), *levels)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.02


def test_maps_of_whole_numbers_may_be_resized(tmp_path):
    b, x = Builder((3, 4, 4)), uniform(5, 3, 4, 4)
    levels = b.constant(0.01), b.constant(3, np.int8)
    whole = b.op("QuantizeLinear", "x", *levels)
    larger = b.op("Resize", whole, "", b.constant([1, 1, 2, 2]), mode="nearest")
    b.op("DequantizeLinear", larger, *levels)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.02


def test_bytes_that_go_out_are_within_their_type(tmp_path):
    b, x = Builder((4,)), uniform(9, 4)
    b.op("QuantizeLinear", "x", b.constant(0.001), b.constant(100, np.uint8))
    source = load_source(b.save(tmp_path / "m.onnx"))
    np.testing.assert_array_equal(run(to_model(source.graph()), x), run(b.model(), x))


def bytes_in_and_out():
    b = Builder((4,))
    b.inputs[0].type.tensor_type.elem_type = TensorProto.UINT8
    levels = b.constant(0.02), b.constant(10, np.uint8)
    b.op("DequantizeLinear", "x", *levels)
    b.gemm(6, inputs=4)
    b.relu()
    b.gemm(3, inputs=6)
    b.op("QuantizeLinear", b.last, b.constant(0.05), b.constant(100, np.uint8))
    return b


def test_bytes_that_come_in_and_go_out_stay_bytes(tmp_path):
    b, x = bytes_in_and_out(), np.arange(80, dtype=np.uint8).reshape(20, 4)
    source = load_source(b.save(tmp_path / "m.onnx"))
    np.testing.assert_array_equal(run(to_model(source.graph()), x), run(b.model(), x))
    snn = convert(source, dataset(x=x), timesteps=64).snn
    (found,) = Runner(snn).run(x).outputs.values()
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - run(b.model(), x)).max() <= 3


def test_it_is_said(tmp_path):
    source = load_source(bytes_in_and_out().save(tmp_path / "m.onnx"))
    warnings = convert(source, dataset(x=np.ones((4, 4), np.uint8))).warnings
    assert "the model is of whole numbers; the SNN computes in float32" in warnings


@pytest.mark.parametrize("last", [0, 1])
def test_channels_at_the_end_are_not_taken_for_others(tmp_path, last):
    b = Builder((4, 4, 4))
    levels = b.constant(0.1), b.constant(0, np.int8)
    b.op("QuantizeLinear", b.relu(), *levels)
    own = {"domain": "com.microsoft", "channels_last": last}
    b.op("QLinearGlobalAveragePool", b.last, *levels, *levels, **own)
    b.op("DequantizeLinear", b.last, *levels)
    onnx.save(b.unchecked(), tmp_path / "m.onnx")
    nodes = {node.op for node in load_source(tmp_path / "m.onnx").graph().nodes}
    assert ("GlobalAveragePool" in nodes) == (last == 0)
    assert ("QLinearGlobalAveragePool" in nodes) == (last == 1)


def test_scales_that_are_computed_are_refused_by_name(tmp_path):
    b = Builder((4,))
    b.relu()
    rectified = b.last
    scale = b.op("ReduceMax", rectified, keepdims=0)
    b.op("DequantizeLinear", b.op("QuantizeLinear", rectified, scale), scale)
    with pytest.raises(UnsupportedError, match=r"QuantizeLinear.*scales are no constants"):
        convert(b.save(tmp_path / "m.onnx"), dataset(x=uniform(4, 4)))


def with_a_scale_that_is_an_output(b):
    b.op("DynamicQuantizeLinear", "x", count=3)
    b.last = f"{b.last}_1"


def in_blocks_of_values(b):
    scale = b.constant(np.full((2, 2), 0.1))
    whole = b.op("QuantizeLinear", "x", scale, b.constant(np.zeros((2, 2)), np.int8), block_size=2)
    b.op("DequantizeLinear", whole, b.constant(0.1), b.constant(0, np.int8))


def real_in_blocks_of_values(b):
    whole = b.op("QuantizeLinear", "x", b.constant(0.1), b.constant(0, np.int8))
    scale = b.constant(np.full((2, 2), 0.1))
    b.op("DequantizeLinear", whole, scale, b.constant(np.zeros((2, 2)), np.int8), block_size=2)


def with_a_scale_of_a_branch(b):
    most = onnx.helper.make_tensor_value_info("most", TensorProto.FLOAT, [])
    node = onnx.helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0)
    body = onnx.helper.make_graph([node], "body", [], [most])
    scale = b.op("If", b.constant(True, bool), then_branch=body, else_branch=body)
    b.op("DequantizeLinear", b.op("QuantizeLinear", "x", scale), scale)


def with_many_scales_of_unknown_axes(b):
    flat = b.op("Reshape", "x", b.op("Compress", b.op("Shape", "x"), b.constant([1, 1], bool)))
    one, many = (b.constant(np.full(size, 0.1)) for size in ((), 4))
    zero, zeros = (b.constant(np.zeros(size), np.int8) for size in ((), 4))
    b.op("DequantizeLinear", b.op("QuantizeLinear", flat, many, zeros), one, zero)


def real_with_many_scales_of_unknown_axes(b):
    flat = b.op("Reshape", "x", b.op("Compress", b.op("Shape", "x"), b.constant([1, 1], bool)))
    one, many = (b.constant(np.full(size, 0.1)) for size in ((), 4))
    zero, zeros = (b.constant(np.zeros(size), np.int8) for size in ((), 4))
    b.op("DequantizeLinear", b.op("QuantizeLinear", flat, one, zero), many, zeros)


REFUSED = [
    with_a_scale_that_is_an_output, in_blocks_of_values, real_in_blocks_of_values,
    with_a_scale_of_a_branch, with_many_scales_of_unknown_axes,
    real_with_many_scales_of_unknown_axes,
]  # fmt: skip


@pytest.mark.parametrize("build", REFUSED)
def test_so_is_whatever_else_has_no_rule(tmp_path, build):
    b = Builder((4,), opset=21)
    b.relu()
    build(b)
    onnx.save(b.unchecked(), tmp_path / "m.onnx")
    source, x = load_source(tmp_path / "m.onnx"), uniform(2, 4)
    assert error(run(to_model(source.graph()), x), run(source.model, x)) < 1e-6
    with pytest.raises(UnsupportedError, match="scales are no constants"):
        convert(source, dataset(x=x))


def said_in_an_attribute(b):
    whole = b.op("QuantizeLinear", "x", b.constant(0.01), output_dtype=TensorProto.INT8)
    b.op("DequantizeLinear", whole, b.constant(0.01))


def rectified_whole(b, zero=0):
    levels = b.constant(0.01), b.constant(zero, np.int8)
    b.op("Relu", b.op("QuantizeLinear", "x", *levels))
    b.op("DequantizeLinear", b.last, *levels)


def rectified_whole_above_zero(b):
    rectified_whole(b, 10)


def read_by_another_scale(b):
    b.op("QuantizeLinear", "x", b.constant(0.01), b.constant(0, np.int8))
    b.op("DequantizeLinear", b.last, b.constant(0.02), b.constant(-3, np.int8))


def read_by_another_zero(b):
    b.op("QuantizeLinear", "x", b.constant(0.01), b.constant(128, np.uint8))
    weights = b.constant(b.random.integers(-9, 9, (4, 3)), np.int8)
    b.op("MatMulInteger", b.last, weights, b.constant(100, np.uint8))
    b.op("Cast", to=TensorProto.FLOAT)
    b.op("Mul", b.last, b.constant(0.01))


@pytest.mark.parametrize(
    "build",
    [
        said_in_an_attribute,
        rectified_whole,
        rectified_whole_above_zero,
        read_by_another_scale,
        read_by_another_zero,
    ],
)
def test_other_ways_to_say_whole_numbers_stand_for_the_same(tmp_path, build):
    b, x = Builder((4,), opset=21), uniform(40, 4)
    build(b)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.02
    assert source.levels == 255


def test_bytes_that_come_in_reach_a_convolution_of_whole_numbers(tmp_path):
    b = Builder((2, 5, 5))
    b.inputs[0].type.tensor_type.elem_type = TensorProto.UINT8
    weights = b.constant(b.random.integers(-9, 9, (3, 2, 3, 3)), np.int8)
    own, given = ((b.constant(s), b.constant(z, np.uint8)) for s, z in ((0.01, 128), (0.02, 128)))
    scale = b.constant(0.01), b.constant(0, np.int8)
    b.op("QLinearConv", "x", *own, weights, *scale, *given, "")
    b.op("DequantizeLinear", b.last, *given)
    x = np.random.default_rng(0).integers(0, 256, (8, 2, 5, 5)).astype(np.uint8)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.06


@pytest.mark.parametrize("zero", [False, True])
def test_weights_with_a_scale_for_each_block(tmp_path, zero):
    b, x = Builder((5,), opset=21), uniform(9, 5)
    weights = b.constant(b.random.integers(-99, 99, (5, 3)), np.int8)
    more = [b.constant(b.random.integers(-9, 9, (3, 3)), np.int8)] if zero else []
    scales = b.constant(b.random.uniform(0.01, 0.02, (3, 3)))
    held = b.op("DequantizeLinear", weights, scales, *more, axis=0, block_size=2)
    b.op("MatMul", "x", held)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 1e-6


def each(b, x, scales, kind, axis=1):
    """Rounded, by a scale for each channel."""
    levels = b.constant(scales), b.constant(np.zeros(len(scales)), kind)
    whole = b.op("QuantizeLinear", x, *levels, axis=axis)
    return whole, levels


SCALES = [0.004, 0.001, 0.008]


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("size", [3, 4])
def test_scales_of_channels(tmp_path, kind, rectified, size):
    """Cut off at a limit of each channel's own, where that rectifies."""
    b, x = Builder((3, size, size)), uniform(8, 3, size, size)
    x = x if kind is np.uint8 or rectified else x * 0.05
    b.conv(3)
    whole, levels = each(b, b.relu() if rectified else b.last, SCALES, kind)
    b.op("DequantizeLinear", whole, *levels, axis=1)
    b.conv(2)
    b.relu()
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.02
    assert "Min" in [node.op for node in source.graph().nodes] or kind is np.int8


@pytest.mark.parametrize("moved", ["Transpose", "Pad", "Concat"])
def test_channels_with_scales_of_their_own_may_move(tmp_path, moved):
    b, x = Builder((3, 4, 5)), uniform(8, 3, 4, 5) * 0.1
    whole, levels = each(b, "x", SCALES, np.int8)
    axis = 1
    if moved == "Transpose":
        whole, axis = b.op("Transpose", whole, perm=[0, 2, 3, 1]), 3
    elif moved == "Pad":
        whole = b.op("Pad", whole, b.constant([0, 0, 1, 1] * 2, np.int64), b.constant(9, np.int8))
    else:
        levels = [b.op("Concat", each_, each_, axis=0) for each_ in levels]
        whole = b.op("Concat", whole, whole, axis=1)
    b.op("DequantizeLinear", whole, *levels, axis=axis)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.03


def test_whole_numbers_of_two_scales_side_by_side(tmp_path):
    b, x = Builder((6,)), uniform(9, 6)
    zero, scales = b.constant(0, np.uint8), [b.constant(s) for s in (0.01, 0.03)]
    parts = []
    for scale in scales:
        b.op("Gemm", "x", b.normal(6, 5))
        parts.append(b.op("QuantizeLinear", b.relu(), scale, zero))
    b.op("DequantizeLinear", b.op("Concat", *parts, axis=1), scales[0], zero)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.02


def test_whole_numbers_beside_some_that_stand_for_nothing(tmp_path):
    b, x = Builder((4,)), uniform(9, 4)
    levels = b.constant(0.01), b.constant(100, np.uint8)
    whole = b.op("QuantizeLinear", "x", *levels)
    few = b.op("Cast", b.op("Abs", "x"), to=TensorProto.UINT8)
    b.op("DequantizeLinear", b.op("Concat", whole, few, axis=1), *levels)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.02


def test_whole_numbers_are_what_others_read(tmp_path):
    """A dequantization written out, and a maximum of bytes."""
    b, x = Builder((6,)), uniform(9, 6)
    zero, scale = b.constant(128, np.uint8), b.constant(0.01)
    whole = b.op("QuantizeLinear", "x", scale, zero)
    b.op("Sub", b.op("Cast", whole, to=TensorProto.FLOAT), b.constant(128))
    real = b.op("Mul", b.last, scale)
    larger = b.op("Max", whole, b.constant(150, np.uint8))
    b.op("Add", real, b.op("DequantizeLinear", larger, scale, zero))
    with kernels_of_today():
        source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.02


def test_scales_may_be_constants_in_any_form(tmp_path):
    b, x = Builder((6,)), uniform(9, 6)
    b.nodes.append(onnx.helper.make_node("Constant", [], ["scale"], value_float=0.01))
    copied, zero = b.op("Identity", "scale"), b.constant(0, np.int8)
    b.op("DequantizeLinear", b.op("QuantizeLinear", "x", copied, zero), "scale", zero)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert source.levels == 255
    assert [node.op for node in source.graph().nodes] == ["Identity", "Identity"]
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.02


def test_scales_and_zeros_may_be_computed_of_constants(tmp_path):
    """As torch.ao writes the bias of a convolution: its zero is as many zeros as it has values."""
    b, x = Builder((3, 6, 6)), uniform(5, 3, 6, 6)
    x_scale, zero = b.constant(0.01), b.constant(0, np.int8)
    kept = b.op("DequantizeLinear", b.op("QuantizeLinear", "x", x_scale, zero), x_scale, zero)
    scales = b.constant(b.random.uniform(0.01, 0.02, 4))
    weights = b.constant(b.random.integers(-127, 128, (4, 3, 3, 3)), np.int8)
    real = b.op("DequantizeLinear", weights, scales, b.constant(np.zeros(4), np.int8), axis=0)
    many = b.op("ConstantOfShape", b.op("Shape", scales))
    zeros = b.op("Cast", many, to=TensorProto.INT32)
    bias = b.constant(b.random.integers(-999, 999, 4), np.int32)
    shift = b.op("DequantizeLinear", bias, b.op("Mul", scales, x_scale), zeros, axis=0)
    b.op("Conv", kept, real, shift)
    b.relu()
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert not any(node.op == "DequantizeLinear" for node in source.graph().nodes)
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.02
    assert len(convert(source, dataset(x=x), timesteps=4).snn.layers) == 1


def test_seven_bits_of_eight_and_casts_to_the_same_type_are_rounding_alone(tmp_path):
    """As torch.ao writes its quantizers: the least bound is left out, or a Cast in between."""
    b, x = Builder((3, 6, 6)), uniform(40, 3, 6, 6)
    scale, zero, most = b.constant(0.02), b.constant(64, np.uint8), b.constant(127, np.uint8)
    clipped = b.op("Clip", b.op("QuantizeLinear", "x", scale, zero), "", most)
    b.op("DequantizeLinear", clipped, scale, zero)
    b.conv(4)
    b.relu()
    scale, zero = b.constant(0.02), b.constant(0, np.uint8)
    whole = b.op("Cast", b.op("QuantizeLinear", b.last, scale, zero), to=TensorProto.UINT8)
    real = b.op("DequantizeLinear", whole, scale, zero)
    weights = b.constant(b.random.integers(-90, 90, (8, 4, 3, 3)), np.int8)
    few = b.op("Clip", weights, "", b.constant(70, np.int8))
    b.channels = 8
    b.op("Conv", real, b.op("DequantizeLinear", few, b.constant(0.01), b.constant(0, np.int8)))
    b.relu()
    b.head()
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert error(run(to_model(source.graph()), x), run(b.model(), x)) < 0.02
    snn = convert(source, dataset(x=x), timesteps=64).snn
    assert [layer.neuron for layer in snn.layers] == ["if", "if"]
    assert evaluate(snn, dataset(x=x), ann=source).rows[-1].error < 0.05


@pytest.mark.parametrize(("axis", "opset"), [(1, 11), (2, 12), (-1, 11), (1, 13), (-1, 13)])
def test_softmax_of_an_old_opset_is_of_all_axes_from_one_on(tmp_path, axis, opset):
    b = Builder((3, 4))
    levels = b.constant(0.02), b.constant(0, np.uint8)
    shares = b.constant(1 / 256), b.constant(0, np.uint8)
    b.op("QuantizeLinear", b.relu(), *levels)
    own = {"domain": "com.microsoft", "axis": axis, "opset": opset}
    b.op("QLinearSoftmax", b.last, *levels, *shares, **own)
    b.op("DequantizeLinear", b.last, *shares)
    onnx.save(b.unchecked(), tmp_path / "m.onnx")
    source, x = load_source(tmp_path / "m.onnx"), uniform(5, 3, 4)
    np.testing.assert_allclose(run(to_model(source.graph()), x), run(source.model, x), atol=0.02)


def saved(b, path):
    """A model whose last node is of ONNX Runtime's own."""
    b.nodes[-1].domain = "com.microsoft"
    onnx.save(b.unchecked(), path)
    return path


def same_in_real_numbers(path, x, most):
    """The source, which gives what it gave."""
    with kernels_of_today():
        source = load_source(path)
    real = to_model(source.graph())
    assert {node.domain for node in real.graph.node} <= {""}
    assert error(run(real, x), run(source.model, x)) < most
    return source


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("operator", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
def test_products_of_what_is_rounded_on_the_way(tmp_path, operator, per_column):
    b, columns = Builder((6,)), (5,) if per_column else ()
    weights = b.constant(b.random.integers(0, 256, (6, 5)), np.uint8)
    scale = b.constant(b.random.uniform(0.01, 0.02, columns))
    zero = b.constant(b.random.integers(100, 150, columns), np.uint8)
    if operator == "DynamicQuantizeMatMul":
        b.op(operator, b.relu(), weights, scale, zero, b.normal(5))
    else:
        whole = b.op("DynamicQuantizeLinear", b.relu(), count=3)
        b.op(operator, whole, weights, f"{whole}_1", scale, f"{whole}_2", zero, b.normal(5))
    x = uniform(40, 6)
    source = same_in_real_numbers(saved(b, tmp_path / "m.onnx"), x, 0.02)
    result = convert(source, dataset(x=x), timesteps=4)
    assert [layer.neuron for layer in result.snn.layers] == ["if"]
    assert any("whole numbers" in line for line in result.warnings)


@pytest.mark.parametrize("given", ["", "empty", "bytes"])
@pytest.mark.parametrize("turned", [0, 1])
def test_products_with_a_factor_and_a_bias_of_whole_numbers(tmp_path, turned, given):
    b, x = Builder((6,)), uniform(40, 6)
    levels, out = (
        (b.constant(0.01), b.constant(0, np.int8)),
        (b.constant(0.05), b.constant(0, np.int8)),
    )
    weights = b.random.integers(-127, 128, (6, 5))
    held = b.constant(weights.T if turned else weights, np.int8)
    scales = b.constant(b.random.uniform(0.01, 0.02, 5)), b.constant(np.zeros(5), np.int8)
    bias = b.constant(b.random.integers(-9999, 9999, 5), np.int32)
    more = {"": (), "empty": ("", ""), "bytes": out}[given]
    whole = b.op("QuantizeLinear", "x", *levels)
    own = {"domain": "com.microsoft", "transB": turned, "alpha": 0.5}
    b.op("QGemm", whole, *levels, held, *scales, bias, *more, **own)
    if given == "bytes":
        b.op("DequantizeLinear", b.last, *out)
    onnx.save(b.unchecked(), tmp_path / "m.onnx")
    same_in_real_numbers(tmp_path / "m.onnx", x, 0.02)


def packed_product(b, bits, zero=None, inputs=40, **attrs):
    """Random bytes, which hold weights [7, inputs] in blocks of 16."""
    blocks = -(-inputs // 16)
    weights = b.constant(b.random.integers(0, 256, (7, blocks, 2 * bits)), np.uint8)
    scale = b.constant(b.random.uniform(0.01, 0.02, (7, blocks)))
    zeros = {
        "packed": (b.random.integers(0, 256, (7, -(-blocks * bits // 8))), np.uint8),
        "real": (b.random.uniform(0, 2**bits, (7, blocks)), np.float32),
    }
    points = b.constant(*zeros[zero]) if zero else ""
    settings = {"K": inputs, "N": 7, "bits": bits, "block_size": 16, **attrs}
    b.op("MatMulNBits", b.relu(), weights, scale, points, "", b.normal(7), **settings)


FEW_BITS = [(bits, zero) for bits in (2, 4, 8) for zero in (None, "packed", "real")]


@pytest.mark.parametrize(("bits", "zero"), FEW_BITS[:-1])  # ONNX Runtime has not the last
@pytest.mark.parametrize("inputs", [40, 64])
def test_weights_that_are_packed_in_blocks(tmp_path, bits, zero, inputs):
    b, x = Builder((inputs,)), uniform(40, inputs)
    packed_product(b, bits, zero, inputs)
    source = same_in_real_numbers(saved(b, tmp_path / "m.onnx"), x, 1e-5)
    assert len(convert(source, dataset(x=x), timesteps=4).snn.layers) == 1


def test_packed_weights_of_products_that_round_what_they_read(tmp_path):
    b = Builder((40,))
    packed_product(b, 4, accuracy_level=4)
    same_in_real_numbers(saved(b, tmp_path / "m.onnx"), uniform(40, 40), 0.02)


def test_packed_weights_in_an_old_opset(tmp_path):
    b = Builder((40,), opset=11)
    packed_product(b, 4)
    same_in_real_numbers(saved(b, tmp_path / "m.onnx"), uniform(40, 40), 1e-5)


def test_packed_weights_are_of_4_bits_where_nothing_is_said(tmp_path):
    b = Builder((40,))
    packed_product(b, 4)
    (said,) = (each_ for each_ in b.nodes[-1].attribute if each_.name == "bits")
    b.nodes[-1].attribute.remove(said)
    same_in_real_numbers(saved(b, tmp_path / "m.onnx"), uniform(40, 40), 1e-5)


ORDER = pytest.param(
    "order", marks=pytest.mark.skipif(OLD_RUNTIME, reason="ONNX Runtime has no packed order yet")
)


@pytest.mark.parametrize("what", ["weights", "groups", ORDER])
def test_packed_weights_that_are_not_known_are_refused_by_name(tmp_path, what):
    b = Builder((40,))
    packed_product(b, 4)
    node = b.nodes[-1]
    if what == "groups":
        node.input[4] = b.constant(np.arange(40) // 16, np.int32)
    elif what == "order":
        node.attribute.append(onnx.helper.make_attribute("weight_prepacked", 1))
    else:
        b.nodes.insert(0, onnx.helper.make_node("Cast", ["x"], ["bytes"], to=TensorProto.UINT8))
        node.input[1] = "bytes"
    with pytest.raises(UnsupportedError, match=r"MatMulNBits.*com\.microsoft"):
        convert(saved(b, tmp_path / "m.onnx"), dataset(x=uniform(3, 40)))


TABLES = [("uint8", 2), ("uint8", 4), ("uint8", 8), ("int4", 4), ("uint4", 4)]


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize(("kind", "bits"), TABLES)
def test_rows_of_a_table_in_blocks(tmp_path, kind, bits, zero):
    if OLD_RUNTIME and zero and kind == "uint8" and bits == 4:
        pytest.skip("ONNX Runtime reads packed zero points wrongly")
    b, many = Builder((3,)), 8 // bits if kind == "uint8" else 1
    rows = b.op("Cast", b.op("Mul", b.op("Abs"), b.constant(9)), to=TensorProto.INT64)
    least, most = {"int4": (-8, 8), "uint4": (0, 16), "uint8": (0, 256)}[kind]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(kind.upper()))

    def whole(size):
        """Packed, if they are bytes."""
        return b.constant(b.random.integers(least, most, (10, -(-size // many))), dtype)

    held, scale = whole(40), b.constant(b.random.uniform(0.01, 0.02, (10, 3)))
    points = [whole(3)] if zero else []
    b.op("GatherBlockQuantized", held, rows, scale, *points, block_size=16, bits=bits)
    same_in_real_numbers(saved(b, tmp_path / "m.onnx"), uniform(20, 3), 1e-6)


def test_rows_of_a_table_in_blocks_along_another_axis(tmp_path):
    """Of 128 each, where nothing is said."""
    b = Builder((3,))
    places = b.op("Cast", b.op("Mul", b.op("Abs"), b.constant(9)), to=TensorProto.INT64)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(TensorProto.INT4)
    held = b.constant(b.random.integers(-8, 8, (200, 10)), dtype)
    scale = b.constant(b.random.uniform(0.01, 0.02, (2, 10)))
    b.op("GatherBlockQuantized", held, places, scale, gather_axis=1, quantize_axis=0)
    same_in_real_numbers(saved(b, tmp_path / "m.onnx"), uniform(20, 3), 1e-6)
