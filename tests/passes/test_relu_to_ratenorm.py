"""relu_to_ratenorm: every form of a rectifier, and what is left alone."""

import numpy as np
import onnx
import pytest

from onnxsnn.errors import UnsupportedError
from onnxsnn.passes.clean import clean
from onnxsnn.passes.relu_to_ratenorm import relu_to_ratenorm
from onnxsnn.ratenorm import rate_norms, threshold_of
from tests.models import Builder, assert_same, outputs_of, uniform


def rewritten(b, *outputs):
    graph, _ = clean(b.graph(*outputs))
    report = relu_to_ratenorm(graph)
    return graph, report


def check(b, shape=(3, 6, 6)):
    """The graph after the pass, checked to compute exactly what the model does."""
    graph, report = rewritten(b)
    x = 4 * uniform(3, *shape)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x), 1e-7)
    return graph, report


def test_relu_has_no_threshold_yet_and_one_value_per_channel():
    b = Builder((3, 6, 6))
    b.conv(4)
    b.relu()
    graph, report = check(b)
    (norm,) = rate_norms(graph)
    assert norm.inputs[1].values.shape == (1, 4, 1, 1)
    assert threshold_of(norm) is None
    assert report.preserves_values


def test_max_with_zero_is_a_rectifier():
    b = Builder((3, 6, 6))
    b.op("Max", b.constant(0.0), "x")
    assert len(rate_norms(check(b)[0])) == 1


def test_max_with_another_number_is_none():
    b = Builder((3, 6, 6))
    b.op("Max", b.constant(0.5), "x")
    assert not rate_norms(check(b)[0])


@pytest.mark.parametrize(
    "order", ["clip", "min of max", "max of min", "min of relu", "relu of min"]
)
def test_clipped_rectifier_brings_its_threshold(order):
    b = Builder((3, 6, 6))
    zero, high = b.constant(0.0), b.constant(1.5)
    match order:
        case "clip":
            b.op("Clip", "x", zero, high)
        case "min of max":
            b.op("Min", b.op("Max", "x", zero), high)
        case "max of min":
            b.op("Max", b.op("Min", high, "x"), zero)
        case "min of relu":
            b.op("Min", b.op("Relu", "x"), high)
        case "relu of min":
            b.op("Relu", b.op("Min", "x", high))
    (norm,) = rate_norms(check(b)[0])
    np.testing.assert_array_equal(threshold_of(norm).ravel(), [1.5] * 3)


def test_threshold_per_channel_is_taken():
    b = Builder((3, 6, 6))
    b.op("Min", b.op("Relu", "x"), b.constant(np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)))
    (norm,) = rate_norms(check(b)[0])
    np.testing.assert_array_equal(threshold_of(norm).ravel(), [1.0, 2.0, 3.0])


def test_the_lower_of_two_thresholds_is_taken():
    b, low = Builder((3, 6, 6)), np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    b.op("Min", b.op("Min", b.op("Relu", "x"), b.constant(2.0)), b.constant(low))
    graph = check(b)[0]
    np.testing.assert_array_equal(threshold_of(rate_norms(graph)[0]).ravel(), [1.0, 2.0, 2.0])
    assert "Min" not in [node.op for node in graph.nodes]


@pytest.mark.parametrize(
    ("operators", "limit"),
    [
        (["Relu", "Relu"], None),
        (["Relu", (0.0, 1.5)], 1.5),
        (["Relu", ("", 1.5)], 1.5),
        (["Relu", (-1.0, 1.5), "Relu"], 1.5),
        ([(0.0, 1.5), "Relu"], 1.5),
        ([(0.0, 1.5), (0.0, 0.5)], 0.5),
        ([("", 1.5), "Relu"], 1.5),
        ([(-1.0, 1.5), (-0.5, 3.0), "Relu"], 1.5),
    ],
)
def test_rectifiers_and_clips_in_a_row_are_one_rectifier(operators, limit):
    b = Builder((3, 6, 6))
    for operator in operators:
        if operator == "Relu":
            b.relu()
        else:
            bounds = (bound if bound == "" else b.constant(bound) for bound in operator)
            b.op("Clip", b.last, *bounds)
    graph = check(b)[0]
    (norm,) = rate_norms(graph)
    assert [node.op for node in graph.nodes] == ["RateNorm", "Mul"]
    threshold = threshold_of(norm)
    assert threshold is None if limit is None else np.all(threshold == np.float32(limit))


@pytest.mark.parametrize("bounds", [(0.5, 1.5), (-1.5, -0.5), (-1.5, 0.0)])
def test_a_clip_that_does_more_to_what_is_rectified_stays(bounds):
    b = Builder((3, 6, 6))
    b.relu()
    b.op("Clip", b.last, *map(b.constant, bounds))
    graph = check(b)[0]
    assert [node.op for node in graph.nodes] == ["RateNorm", "Mul", "Clip"]


def test_a_limit_for_each_value_stays_a_min():
    b = Builder((3, 6, 6))
    b.op("Min", b.op("Relu", "x"), b.constant(b.random.uniform(0.1, 1, (3, 6, 6))))
    assert threshold_of(rate_norms(check(b)[0])[0]) is None


def test_rounding_of_what_divides_stays():
    b = Builder((3, 6, 6))
    b.clip(6.0)
    b.op("Round", b.op("Div", b.constant(6.0), b.op("Add", b.last, b.constant(0.01))))
    check(b)


def test_a_rectifier_of_no_channels_is_refused():
    b = Builder((3,))
    b.gemm(0, transB=0)
    b.op("Concat", b.relu(), "x", axis=1)
    graph, _ = clean(b.graph())
    with pytest.raises(UnsupportedError, match="no channels"):
        relu_to_ratenorm(graph)


def test_clip_without_upper_bound_is_a_relu():
    b = Builder((3, 6, 6))
    b.op("Clip", "x", b.constant(0.0))
    assert threshold_of(rate_norms(check(b)[0])[0]) is None


@pytest.mark.parametrize("low", [-1.0, 0.5])
def test_clip_from_another_number_is_left_alone(low):
    b = Builder((3, 6, 6))
    b.op("Clip", "x", b.constant(low), b.constant(1.0))
    assert not rate_norms(check(b)[0])


def test_min_that_others_read_keeps_its_place():
    b = Builder((3, 6, 6))
    rectified = b.relu()
    b.op("Add", rectified, b.op("Min", rectified, b.constant(1.0)))
    (norm,) = rate_norms(check(b)[0])
    assert threshold_of(norm) is None


def test_rate_norm_layer_is_recognised():
    """x / theta, clipped to [0, 1]: Ding et al. 2021, equation 8."""
    b = Builder((3, 6, 6))
    b.op("Div", "x", b.constant(2.0))
    b.clip(1.0)
    (norm,) = rate_norms(check(b)[0])
    np.testing.assert_array_equal(threshold_of(norm).ravel(), [1.0] * 3)


def test_rounding_after_the_clip_is_dropped_as_qcfs_exports_it():
    b, plain = Builder((3, 6, 6)), Builder((3, 6, 6))
    levels = b.constant(4.0)
    for model in (b, plain):
        model.op("Div", "x", model.constant(2.0))
        model.clip(1.0)
    b.op("Mul", b.last, levels)
    b.op("Add", b.last, b.constant(0.5))
    b.op("Floor")
    b.op("Div", b.last, levels)
    graph, report = rewritten(b)
    assert not report.preserves_values
    assert "Floor" not in {node.op for node in graph.nodes}
    x = 4 * uniform(3, 3, 6, 6)
    after, expected = outputs_of(graph, x=x), outputs_of(plain.model(), x=x)
    np.testing.assert_allclose(*(next(iter(o.values())) for o in (after, expected)), atol=1e-6)


def test_rounding_before_the_clip_is_dropped():
    b, plain = Builder((3, 6, 6)), Builder((3, 6, 6))
    for model in (b, plain):
        model.op("Mul", "x", model.constant(2.0))
    b.op("Add", b.last, b.constant(0.5))
    b.op("Floor")
    b.clip(4.0)
    plain.clip(4.0)
    graph, report = rewritten(b)
    assert not report.preserves_values
    x = 4 * uniform(3, 3, 6, 6)
    after, expected = outputs_of(graph, x=x), outputs_of(plain.model(), x=x)
    np.testing.assert_allclose(*(next(iter(o.values())) for o in (after, expected)), atol=1e-6)


@pytest.mark.parametrize(("operator", "potential"), [("Floor", 0.0), ("Round", 0.5)])
def test_rounding_says_where_the_potential_was_trained_to_start(operator, potential):
    b = Builder((3, 6, 6))
    b.clip(4.0)
    b.op(operator)
    graph, report = rewritten(b)
    assert operator not in {node.op for node in graph.nodes}
    assert list(report.potentials.values()) == [potential]


def test_levels_may_be_written_as_a_division_by_their_width():
    b = Builder((3, 6, 6))
    b.clip(1.0)
    b.op("Div", b.last, b.constant(0.25))
    b.op("Add", b.last, b.constant(0.5))
    b.op("Floor")
    b.op("Mul", b.last, b.constant(0.25))
    graph, report = rewritten(b)
    assert "Floor" not in {node.op for node in graph.nodes}
    assert list(report.potentials.values()) == [0.5]


def of_no_limit(b):
    b.op("Floor", b.relu())


def of_part_of_a_level(b):
    b.clip(2.5)
    b.op("Floor")


def before_a_limit_between_levels(b):
    b.op("Floor", "x")
    b.clip(2.5)


def shifted_by_more_than_a_level(b):
    b.clip(4.0)
    b.op("Floor", b.op("Add", b.last, b.constant(1.5)))


def shifted_by_channel(b):
    b.clip(4.0)
    shifts = b.constant(np.array([0.25, 0.5, 0.75]).reshape(3, 1, 1))
    b.op("Floor", b.op("Add", b.last, shifts))


def of_negated_rates(b):
    b.clip(1.0)
    b.op("Mul", b.last, b.constant(-4.0))
    b.op("Floor", b.op("Add", b.last, b.constant(0.25)))


@pytest.mark.parametrize(
    "rounded",
    [
        of_no_limit,
        of_part_of_a_level,
        before_a_limit_between_levels,
        shifted_by_more_than_a_level,
        shifted_by_channel,
        of_negated_rates,
    ],
)
def test_rounding_stays_where_it_makes_no_levels(rounded):
    b = Builder((3, 6, 6))
    rounded(b)
    graph, report = check(b)
    assert "Floor" in {node.op for node in graph.nodes}
    assert not report.potentials


def test_clip_that_only_gates_another_tensor_stays():
    """HardSwish as exporters write it: x * Clip(x + 3, 0, 6) / 6."""
    b = Builder((3, 6, 6))
    b.op("Add", "x", b.constant(3.0))
    b.clip(6.0)
    b.op("Mul", "x", b.last)
    b.op("Div", b.last, b.constant(6.0))
    assert not rate_norms(check(b)[0])


def test_channels_are_the_last_axis_behind_a_matrix_product():
    b = Builder((5, 6))
    b.op("MatMul", "x", b.normal(6, 7))
    b.relu()
    (norm,) = rate_norms(check(b, (5, 6))[0])
    assert norm.inputs[1].values.shape == (1, 1, 7)


def test_channels_follow_a_transposition():
    b = Builder((3, 6, 6))
    b.conv(4)
    b.op("Transpose", perm=[0, 2, 3, 1])
    b.op("Add", b.last, b.normal(4))
    b.relu()
    (norm,) = rate_norms(check(b)[0])
    assert norm.inputs[1].values.shape == (1, 1, 1, 4)


def test_integers_are_not_rectified():
    b = Builder((3, 6, 6))
    b.op("Cast", "x", to=onnx.TensorProto.INT32)
    b.op("Max", b.last, b.constant(0, np.int32))
    b.op("Cast", to=onnx.TensorProto.FLOAT)
    assert not rate_norms(check(b)[0])


def test_clip_whose_bound_is_not_constant_is_left_alone():
    b = Builder((3, 6, 6))
    bound = b.op("ReduceMax", "x", keepdims=0)
    b.op("Clip", "x", b.constant(0.0), bound)
    assert not rate_norms(check(b)[0])


@pytest.mark.parametrize("kind", [onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16])
def test_rectifier_of_another_type_than_float32_is_refused_by_name(kind):
    b = Builder((3, 6, 6))
    b.op("Cast", "x", to=kind)
    b.op("Relu")
    with pytest.raises(UnsupportedError, match=r"relu1.*only float32"):
        rewritten(b)


def test_unknown_number_of_channels_gets_one_threshold():
    b = Builder(("C", 6, 6))
    b.relu()
    graph, _ = rewritten(b)
    assert rate_norms(graph)[0].inputs[1].values.shape == (1, 1, 1, 1)


def of_one_vector(batch):
    """[batch, 20], of which the first row or the only one goes through a layer of 30."""
    b = Builder((20,), batch=batch)
    row = b.op("Gather", "x", b.constant(0, np.int64), axis=0)
    b.op("MatMul", row, b.constant(uniform(20, 30)))
    b.relu()
    return b


@pytest.mark.parametrize("batch", [1, 2])
def test_values_without_an_axis_of_samples_are_refused(batch):
    with pytest.raises(UnsupportedError, match=r"shape \[30\], without an axis of samples; export"):
        rewritten(of_one_vector(batch))


def test_one_number_of_a_whole_batch_is_refused():
    b = Builder((3,), batch=1)
    b.op("ReduceMean", "x", axes=[0, 1], keepdims=0)
    b.relu()
    with pytest.raises(UnsupportedError, match=r"shape \[\], without an axis of samples"):
        rewritten(b)


def test_min_of_three_is_no_upper_bound():
    b = Builder((3, 6, 6))
    b.op("Relu", b.op("Min", "x", b.op("Neg", "x"), b.constant(0.5)))
    graph, _ = check(b)
    assert [node.op for node in graph.nodes][:2] == ["Neg", "Min"]


def test_a_bound_below_zero_is_none():
    b = Builder((3, 6, 6))
    b.op("Relu", b.op("Min", "x", b.constant(-1.0)))
    assert threshold_of(rate_norms(check(b)[0])[0]) is None


@pytest.mark.parametrize("limit", [np.inf, np.finfo(np.float32).max])
def test_a_limit_beyond_any_activation_is_none(limit):
    b = Builder((3, 6, 6))
    b.clip(limit)
    assert threshold_of(rate_norms(check(b)[0])[0]) is None


@pytest.mark.parametrize(("operator", "value"), [("Max", 0.0), ("Min", 1.0)])
def test_a_bound_that_repeats_what_it_bounds_keeps_doing_so(operator, value):
    b = Builder((1, 6, 6))
    b.relu()
    b.op(operator, b.last, b.constant(np.full((1, 3, 1, 1), value)))
    b.op("MaxPool", kernel_shape=[2, 2])
    graph, _ = check(b, (1, 6, 6))
    assert operator in [node.op for node in graph.nodes]


def pooled_by_maximum(b):
    b.op("MaxPool", kernel_shape=[2, 2])


def averaged_and_flat(b):
    b.op("GlobalAveragePool")
    b.op("Flatten")


def put_together(b):
    first = b.last
    b.op("Neg", "x")
    b.op("Concat", first, b.relu(), axis=1)


@pytest.mark.parametrize("between", [pooled_by_maximum, averaged_and_flat, put_together])
def test_what_is_rectified_is_not_again(between):
    b = Builder((3, 6, 6))
    b.relu()
    between(b)
    rectifiers = sum(node.op_type == "Relu" for node in b.nodes)
    b.relu()
    graph, report = check(b)
    assert len(rate_norms(graph)) == rectifiers
    assert report.actions["Relu of what is rectified left out"] == 1


def added_to_itself(b):
    b.op("Add", b.last, b.last)


def put_beside_the_input(b):
    b.op("Concat", b.last, "x", axis=1)


def squashed(b):
    b.op("Sigmoid", "x")


@pytest.mark.parametrize("between", [added_to_itself, put_beside_the_input, squashed])
def test_anything_else_is(between):
    b = Builder((3, 6, 6))
    first = b.relu()
    between(b)
    second = b.relu()
    graph, _ = rewritten(b, first, second)
    assert len(rate_norms(graph)) == 2


@pytest.mark.parametrize(("first", "second", "layers"), [(1.0, 2.0, 1), (2.0, 1.0, 2)])
def test_what_is_clipped_is_clipped_again_if_lower(first, second, layers):
    b = Builder((3, 6, 6))
    b.clip(first)
    b.op("MaxPool", kernel_shape=[2, 2])
    b.clip(second)
    assert len(rate_norms(check(b)[0])) == layers


def test_a_clip_of_what_has_no_limit_stays():
    b = Builder((3, 6, 6))
    b.relu()
    b.op("MaxPool", kernel_shape=[2, 2])
    b.clip(1.0)
    assert len(rate_norms(check(b)[0])) == 2
