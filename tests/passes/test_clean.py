"""clean: canonical form, values preserved."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxsnn.errors import ModelError
from onnxsnn.graph import constant, from_model, to_model
from onnxsnn.passes.clean import clean
from tests.models import Builder, assert_same, outputs_of, uniform


def operators(graph):
    return [node.op for node in graph.nodes]


def test_identity_dropout_and_idle_cast_are_removed():
    b = Builder((3, 6, 6))
    b.conv(4)
    b.op("Identity")
    b.op("Dropout")
    b.op("Cast", to=onnx.TensorProto.FLOAT)
    b.relu()
    graph, report = clean(b.graph())
    assert operators(graph) == ["Conv", "Relu"]
    assert report.changed
    x = uniform(2, 3, 6, 6)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_identity_in_front_of_an_output_keeps_the_output_s_name():
    b = Builder((3, 6, 6))
    b.conv(4)
    name = b.op("Identity")
    model = b.graph()
    shape = model.outputs[0].shape
    graph, _ = clean(model)
    assert [(t.name, t.shape) for t in graph.outputs] == [(name, shape)]
    assert operators(graph) == ["Conv"]


def test_identity_between_input_and_output_stays():
    b = Builder((3,))
    first = b.op("Identity", "x")
    second = b.gemm(2)
    graph, _ = clean(b.graph(first, second))
    x = uniform(2, 3)
    assert_same(outputs_of(b.model(first, second), x=x), outputs_of(graph, x=x))


PADS = [0, 0, 1, 0, 0, 0, 2, 1]


@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID"])
@pytest.mark.parametrize("way", ["pads", "value", "left out", "axes"])
def test_a_convolution_adds_the_zeros_of_a_pad(way, auto_pad):
    """PyTorch's older exporter names a value and leaves it out; TensorFlow pads for its strides."""
    b = Builder((3, 6, 6), opset=18)
    more = {
        "pads": [b.constant(PADS, np.int64)],
        "value": [b.constant(PADS, np.int64), b.constant(0.0)],
        "left out": [b.constant(PADS, np.int64), ""],
        "axes": [b.constant([0, 1, 1, 2], np.int64), "", b.constant([-1, 2], np.int64)],
    }
    b.op("Pad", "x", *more[way], mode="constant")
    b.conv(4, strides=[2, 2], auto_pad=auto_pad, pads=None if auto_pad == "VALID" else [1] * 4)
    graph, report = clean(b.graph())
    assert operators(graph) == ["Conv"]
    assert report.actions["Pad put into a convolution"] == 1
    x = uniform(2, 3, 6, 6)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


@pytest.mark.parametrize(
    ("pads", "more", "mode"),
    [
        (PADS, [1.0], "constant"),
        (PADS, [], "reflect"),
        ([0, 1, 1, 1, 0, 0, 1, 1], [], "constant"),
        ([0, 0, -1, 0, 0, 0, 0, 1], [], "constant"),
    ],
)
def test_other_pads_stay(pads, more, mode):
    b = Builder((3, 6, 6))
    b.op("Pad", "x", b.constant(pads, np.int64), *map(b.constant, more), mode=mode)
    b.channels += pads[1]
    b.conv(4)
    graph, _ = clean(b.graph())
    assert operators(graph) == ["Pad", "Conv"]
    x = uniform(2, 3, 6, 6)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_a_pad_that_something_else_reads_too_stays_for_that():
    b = Builder((3, 6, 6))
    padded = b.op("Pad", "x", b.constant(PADS, np.int64))
    first = b.conv(4)
    other = b.op("Sigmoid", padded)
    graph, _ = clean(b.graph(first, other))
    assert sorted(operators(graph)) == ["Conv", "Pad", "Sigmoid"]
    x = uniform(2, 3, 6, 6)
    assert_same(outputs_of(b.model(first, other), x=x), outputs_of(graph, x=x))


def test_dropout_whose_mask_is_read_stays():
    b = Builder((3,))
    out = b.op("Dropout", count=2)
    mask = b.op("Cast", f"{out}_1", to=onnx.TensorProto.FLOAT)
    graph, _ = clean(b.graph(out, mask))
    assert "Dropout" in operators(graph)


def test_what_depends_on_constants_only_is_folded():
    b = Builder((3, 6, 6))
    scale = b.op("Mul", b.constant([2.0]), b.constant([3.0]))
    b.op("Mul", "x", scale)
    graph, _ = clean(b.graph())
    assert operators(graph) == ["Mul"]
    assert constant(graph.nodes[0].inputs[1]) == pytest.approx([6.0])


def test_shape_arithmetic_on_a_symbolic_batch_still_runs():
    b = Builder((3, 4, 4))
    shape = b.op("Shape", "x")
    first = b.op("Gather", shape, b.constant(0, np.int64), axis=0)
    first = b.op("Unsqueeze", first, b.constant([0], np.int64))
    target = b.op("Concat", first, b.constant([-1], np.int64), axis=0)
    b.op("Reshape", "x", target)
    b.gemm(5, inputs=48)
    graph, _ = clean(b.graph())
    x = uniform(3, 3, 4, 4)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


@pytest.mark.parametrize("attributes", [{"alpha": 0.5, "beta": 2.0}, {"transB": 0, "alpha": 3.0}])
def test_gemm_becomes_canonical(attributes):
    b = Builder((6,))
    b.gemm(4, **attributes)
    graph, _ = clean(b.graph())
    assert not {"alpha", "beta"} & set(graph.nodes[0].attrs)
    x = uniform(3, 6)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


@pytest.mark.parametrize("shape", [(), (1,), (1, 4), (4,)])
def test_gemm_bias_of_any_shape_becomes_a_vector(shape):
    b = Builder((6,))
    b.op("Gemm", "x", b.normal(6, 4), b.normal(*shape))
    graph, _ = clean(b.graph())
    assert constant(graph.nodes[0].inputs[2]).shape == (4,)
    x = uniform(3, 6)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_gemm_without_a_bias_or_with_one_of_each_sample_becomes_canonical():
    b = Builder((6,), batch=3)
    b.op("Gemm", "x", b.normal(6, 4), "", alpha=0.5, beta=2.0)
    b.op("Gemm", b.last, b.normal(4, 5), b.normal(3, 5), alpha=0.5, beta=2.0)
    b.op("Gemm", b.last, b.normal(5, 2), b.normal(3, 1), beta=2.0)
    graph, _ = clean(b.graph())
    assert sorted(node.op for node in graph.nodes) == ["Add", "Add", "Gemm", "Gemm", "Gemm"]
    assert [len(node.inputs) for node in graph.nodes] == [2] * 5
    assert not any({"alpha", "beta"} & set(node.attrs) for node in graph.nodes)
    x = uniform(3, 6)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


@pytest.mark.parametrize("terms", [1, 2, 4])
def test_a_sum_becomes_adds_from_the_left(terms):
    b = Builder((3, 6, 6))
    given = [b.conv(4), b.op("GlobalAveragePool"), b.constant(0.1), b.op("Relu", "t0")]
    summed = b.op("Sum", *given[:terms])
    b.relu()
    graph, _ = clean(b.graph(summed, b.last))
    assert "Sum" not in operators(graph)
    assert operators(graph).count("Add") == terms - 1
    x = uniform(2, 3, 6, 6)
    for name, values in outputs_of(b.model(summed, b.last), x=x).items():
        assert np.array_equal(values, outputs_of(graph, x=x)[name])


@pytest.mark.parametrize("axis", [1, -1])
def test_a_split_becomes_slices(axis):
    b = Builder((6, 6))
    sizes = b.constant([1, 2, 3], np.int64)
    first = b.op("Split", "x", sizes, count=3, axis=axis)
    parts = [first, f"{first}_1", f"{first}_2"]
    graph, report = clean(b.graph(*parts))
    assert operators(graph) == ["Slice"] * 3
    assert graph.nodes[0].name == "split0"
    assert report.actions["Split written as Slice"] == 1
    x = uniform(2, 6, 6)
    assert_same(outputs_of(b.model(*parts), x=x), outputs_of(graph, x=x))


def test_a_split_of_samples_or_to_open_sizes_stays():
    b = Builder((6, "L"))
    b.op("Split", count=2, axis=2)
    assert operators(clean(b.graph())[0]) == ["Split"]
    b = Builder((6,))
    b.op("Split", "x", b.constant([1, 1], np.int64), count=2, axis=0)
    assert operators(clean(b.graph())[0]) == ["Split"]


def chosen(comparison, *, swapped=False, then="x", other="0", bound=0.0, zeros=()):
    def write(b):
        x, zero = b.last, b.constant(np.zeros(zeros))
        operands = (b.constant(bound), x) if swapped else (x, b.constant(bound))
        branches = {"x": x, "0": zero}
        b.op("Where", b.op(comparison, *operands), branches[then], branches[other])

    return write


@pytest.mark.parametrize(
    ("write", "is_relu"),
    [
        (chosen("Greater"), True),
        (chosen("GreaterOrEqual"), True),
        (chosen("Less", swapped=True, zeros=(1, 4, 1, 1)), True),
        (chosen("Less", then="0", other="x"), True),
        (chosen("LessOrEqual", then="0", other="x"), True),
        (chosen("Greater", swapped=True, then="0", other="x"), True),
        (chosen("Less"), False),
        (chosen("Greater", swapped=True), False),
        (chosen("Greater", then="0", other="x"), False),
        (chosen("Greater", bound=0.1), False),
        (chosen("Greater", zeros=(2, 1, 4, 6, 6)), False),
        (lambda b: b.op("LeakyRelu", alpha=0.0), True),
        (lambda b: b.op("LeakyRelu"), False),
        (lambda b: b.op("ThresholdedRelu", alpha=0.0), True),
        (lambda b: b.op("ThresholdedRelu"), False),
        (lambda b: b.op("PRelu", b.last, b.constant(np.zeros((4, 1, 1)))), True),
        (lambda b: b.op("PRelu", b.last, b.constant(np.eye(4)[0].reshape(4, 1, 1))), False),
    ],
)
def test_a_relu_in_other_words_becomes_one(write, is_relu):
    b = Builder((3, 6, 6))
    b.conv(4)
    write(b)
    graph, _ = clean(b.graph())
    assert (operators(graph) == ["Conv", "Relu"]) == is_relu
    x = uniform(2, 3, 6, 6)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x), 0)


def test_choices_of_whole_numbers_stay():
    b = Builder((3,))
    whole, zero = b.op("Cast", to=onnx.TensorProto.INT64), b.constant(0, np.int64)
    b.op("Where", b.op("Greater", whole, zero), whole, zero)
    b.op("Cast", to=onnx.TensorProto.FLOAT)
    assert "Where" in operators(clean(b.graph())[0])


def test_matmul_of_two_axes_becomes_gemm_and_of_three_does_not():
    flat, deep = Builder((6,)), Builder((5, 6))
    for b in (flat, deep):
        b.op("MatMul", "x", b.normal(6, 4))
    assert operators(clean(flat.graph())[0]) == ["Gemm"]
    assert operators(clean(deep.graph())[0]) == ["MatMul"]


def test_nodes_without_names_and_of_one_name_get_their_own():
    b = Builder((3,))
    b.relu()
    b.relu()
    b.nodes[0].name = b.nodes[1].name = ""
    graph, _ = clean(b.graph())
    assert len({node.name for node in graph.nodes} - {""}) == 2


def test_nan_weight_is_refused_by_name():
    b = Builder((3,))
    b.op("MatMul", "x", b.constant([[np.nan], [1.0], [2.0]]))
    with pytest.raises(ModelError, match=r"c0.*matmul0.*NaN"):
        clean(b.graph())


def test_weights_that_are_graph_inputs_become_constants():
    b = Builder((3,))
    b.gemm(4)
    model = b.model()
    for tensor in model.graph.initializer:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    graph, _ = clean(from_model(model))
    assert [t.name for t in graph.inputs] == ["x"]


def test_model_of_a_graph_is_valid():
    b = Builder((3, 8, 8))
    b.conv(4)
    b.batchnorm()
    b.relu()
    b.head()
    graph, _ = clean(b.graph())
    onnx.checker.check_model(to_model(graph), full_check=True)
    assert numpy_helper.to_array(to_model(graph).graph.initializer[0]).dtype == np.float32


def test_part_of_a_shape_is_folded_as_that_part():
    """graphsurgeon takes Shape's start and end for the whole shape."""
    b = Builder((3, 8), batch=2)
    sizes = b.op("Shape", "x", start=1, end=3)
    b.op("Reshape", b.op("Flatten", "x", axis=0), b.op("Concat", b.constant([-1], np.int64), sizes,
                                                         axis=0))  # fmt: skip
    before = outputs_of(b.model(), x=uniform(2, 3, 8))
    graph, _ = clean(b.graph())
    assert_same(before, outputs_of(graph, x=uniform(2, 3, 8)))
    assert "Shape" not in {node.op for node in graph.nodes}


def test_factors_in_shape_arithmetic_are_not_rounded():
    """Half of a size, as interpolation computes it: graphsurgeon would make the half a zero."""
    b = Builder((3, 8, 8))
    sizes = b.op("Slice", b.op("Shape", "x"), b.constant([2], np.int64), b.constant([4], np.int64))
    half = b.op("Mul", b.op("Cast", sizes, to=onnx.TensorProto.FLOAT), b.constant(0.5))
    target = b.op("Cast", half, to=onnx.TensorProto.INT64)
    batch = b.op("Slice", b.op("Shape", "x"), b.constant([0], np.int64), b.constant([2], np.int64))
    sizes = b.op("Concat", batch, target, axis=0)
    b.op("Resize", "x", "", "", sizes, mode="nearest")
    before = outputs_of(b.model(), x=uniform(2, 3, 8, 8))
    graph, _ = clean(b.graph())
    assert_same(before, outputs_of(graph, x=uniform(2, 3, 8, 8)))


@pytest.mark.parametrize("axis", [0, -1])
def test_reshape_to_a_computed_shape_gets_a_constant_one(axis):
    """Casts, Slice and Concat of either axis, as exporters of other frameworks write them."""
    b = Builder((3, 4, 4))
    x = b.relu()
    sizes = b.op("Cast", b.op("Shape", x), to=onnx.TensorProto.INT32)
    bounds = (b.constant([v], np.int64) for v in (0, 1, 0))
    batch = b.op("Cast", b.op("Slice", sizes, *bounds), to=onnx.TensorProto.INT64)
    b.op("Reshape", x, b.op("Concat", batch, b.constant([48], np.int64), axis=axis))
    before = outputs_of(b.model(), x=uniform(2, 3, 4, 4))
    graph, _ = clean(b.graph())
    assert [node.op for node in graph.nodes] == ["Relu", "Reshape"]
    assert_same(before, outputs_of(graph, x=uniform(2, 3, 4, 4)))


def test_a_transpose_that_moves_nothing_goes():
    b = Builder((3, 4))
    b.op("Transpose", perm=[0, 1, 2])
    b.op("Transpose", perm=[0, 2, 1])
    b.op("Transpose")
    graph, _ = clean(b.graph())
    assert [node.attrs.get("perm") for node in graph.nodes] == [[0, 2, 1], None]


@pytest.mark.parametrize(
    ("bounds", "goes"),
    [
        (([0, 0], [2**63 - 1, 2**63 - 1]), True),
        (([0], [2**31 - 1], [-2], [1]), True),
        (([0], [4], [2]), True),
        (([0], [4], [-1], [1]), True),
        (([1], [4], [2]), False),
        (([0], [4], [1]), False),
        (([0], [4], [2], [2]), False),
        (([0], [3], [2]), False),
    ],
)
def test_a_slice_of_everything_goes(bounds, goes):
    b = Builder((6, 4))
    b.op("Slice", b.last, *(b.constant(values, np.int64) for values in bounds))
    b.op("Neg")
    graph, _ = clean(b.graph())
    assert operators(graph) == (["Neg"] if goes else ["Slice", "Neg"])
    assert_same(outputs_of(b.model(), x=uniform(3, 6, 4)), outputs_of(graph, x=uniform(3, 6, 4)))


def test_a_slice_to_the_size_of_an_index_takes_no_rows():
    """A sum over the edges of a graph, as PyTorch's older exporter writes scatter_add."""
    b, edges = Builder((5, 4)), ([0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 3])
    sources = b.op("Gather", "x", b.constant(edges[0], np.int64), axis=1)
    index = b.constant(np.reshape(edges[1], (1, -1, 1)), np.int64)
    index = b.op("Expand", index, b.op("Shape", sources))
    taken = b.op("Slice", sources, b.constant([0, 0, 0], np.int64), b.op("Shape", index))
    b.op(
        "ScatterElements", b.op("Mul", "x", b.constant(0.0)), index, taken, axis=1, reduction="add"
    )
    graph, _ = clean(b.graph())
    assert "Slice" not in operators(graph)
    assert_same(outputs_of(b.model(), x=uniform(3, 5, 4)), outputs_of(graph, x=uniform(3, 5, 4)))


@pytest.mark.parametrize(
    ("target", "is_merged"), [([-1, 2, 6], True), ([3, -1], True), ([0, 2, -1], False)]
)
def test_a_reshape_of_a_reshape_is_one_unless_it_takes_a_size_from_it(target, is_merged):
    b = Builder((3, 4))
    b.op("Reshape", b.last, b.constant([-1, 6], np.int64))
    b.op("Reshape", b.last, b.constant([-1], np.int64)) if is_merged else None
    b.op("Reshape", b.last, b.constant(target, np.int64))
    graph, _ = clean(b.graph())
    assert operators(graph) == ["Reshape"] * (1 if is_merged else 2)
    x = uniform(6, 3, 4)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_a_reshape_that_others_read_stays():
    b = Builder((3, 4))
    rows = b.op("Reshape", b.last, b.constant([-1, 6], np.int64))
    flat = b.op("Reshape", b.last, b.constant([-1], np.int64))
    graph, _ = clean(b.graph(rows, flat))
    x = uniform(6, 3, 4)
    assert operators(graph) == ["Reshape", "Reshape"]
    assert_same(outputs_of(b.model(rows, flat), x=x), outputs_of(graph, x=x))


def test_straight_through_rounding_is_the_rounding():
    b = Builder((3,))
    x = b.op("Mul", "x", b.constant(4.0))
    b.op("Add", x, b.op("Sub", b.op("Round", x), x))
    graph, report = clean(b.graph())
    assert [node.op for node in graph.nodes] == ["Mul", "Round"]
    assert report.actions["straight-through estimators removed"] == 1


def test_a_mean_that_is_repeated_is_no_straight_through_rounding():
    b = Builder((3,))
    mean = b.op("ReduceMean", "x", axes=[1], keepdims=1)
    b.op("Add", "x", b.op("Sub", mean, "x"))
    graph, _ = clean(b.graph())
    x = uniform(4, 3)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_dropout_whose_mask_is_an_output_stays():
    b = Builder((3,))
    b.op("Dropout", count=2)
    graph, _ = clean(b.graph("t0", "t0_1"))
    assert operators(graph) == ["Dropout"]


def test_constants_that_onnxruntime_cannot_compute_do_not_keep_others_from_folding():
    b = Builder((3,))
    b.op("Add", "x", b.op("Exp", b.constant(np.ones(3))))
    graph = b.graph()
    broken = graph.nodes[0].copy()
    broken.op, broken.domain, broken.name = "Nothing", "com.example", "broken"
    broken.inputs, broken.outputs = list(graph.nodes[0].inputs), [gs.Variable("none", np.float32)]
    graph.nodes.append(broken)
    graph.outputs.append(broken.outputs[0])
    graph.import_domains = [onnx.helper.make_opsetid("com.example", 1)]
    graph, _ = clean(graph)
    assert {node.op for node in graph.nodes} == {"Add", "Nothing"}


def test_sizes_taken_from_a_shape_are_constants_though_the_batch_is_open():
    """TensorFlow's exports compute padding so."""
    b = Builder((3, 8, 8))
    shape = b.op("Cast", b.op("Shape", "x"), to=onnx.TensorProto.INT32)
    height = b.op("Gather", shape, b.constant(2, np.int64))
    ends = b.op("Cast", height, to=onnx.TensorProto.INT64)
    half = b.op("Div", ends, b.constant(2, np.int64))
    width = b.op("Slice", b.op("Shape", "x"), *(b.constant([v], np.int64) for v in (3, 4, 0)))
    ends = b.op("Concat", b.op("Unsqueeze", half, b.constant([0], np.int64)), width, axis=0)
    b.op("Slice", "x", b.constant([0, 0], np.int64), ends, b.constant([2, 3], np.int64))
    before = outputs_of(b.model(), x=uniform(2, 3, 8, 8))
    graph, _ = clean(b.graph())
    assert [node.op for node in graph.nodes] == ["Slice"]
    assert_same(before, outputs_of(graph, x=uniform(2, 3, 8, 8)))


def test_an_if_of_a_constant_condition_is_its_branch():
    """Whose outputs are made in it, twice the same, from outside, and a constant."""
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,4] x) => (float[N,4] p, float[N,4] q, float[N,4] r, float[4] s)
    <bool yes = {1}, float[4] k = {1,2,3,4}>
    {
        h = Relu(x)
        a, b, c, d = If (yes) <
            then_branch = t () => (float[N,4] e, float[N,4] e, float[N,4] h2, float[4] k2)
                { no = Not(yes)
                  e = If (no) <
                      then_branch = tt () => (float[N,4] u) { u = Neg(h) },
                      else_branch = te () => (float[N,4] u) { u = Mul(h, k) }
                  >
                  h2 = Identity(h)  k2 = Identity(k) },
            else_branch = f () => (float[N,4] w, float[N,4] w, float[N,4] w, float[4] k3)
                { w = Neg(h)  k3 = Neg(k) }
        >
        p = Relu(a)  q = Neg(b)  r = Relu(c)  s = Relu(d)
    }""")
    graph, _ = clean(from_model(model))
    assert "If" not in [node.op for node in graph.nodes]
    x = uniform(3, 4)
    expected = ReferenceEvaluator(model).run(None, {"x": x})
    assert_same(dict(zip("pqrs", expected, strict=True)), outputs_of(graph, x=x))


def test_branches_may_hold_the_same_names():
    def an_if(factor, number):
        return f"""If (yes) <
            then_branch = t () => (float[N,4] f, float k)
                {{ e = Constant<value = float {{{factor}}}>()  f = Mul(h, e)
                   k = Constant<value = float {{{number}}}>() }},
            else_branch = o () => (float[N,4] f, float k)
                {{ f = Neg(h)  k = Constant<value = float {{0.0}}>() }}
        >"""

    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,4] x) => (float[N,4] y)
    <bool yes = {{1}}>
    {{
        h = Relu(x)
        a, c = {an_if(2.0, 3.0)}
        b, d = {an_if(5.0, 4.0)}
        i = Mul(a, c)
        j = Mul(b, d)
        y = Add(i, j)
    }}""")
    graph, _ = clean(from_model(model))
    x = uniform(3, 4)
    assert_same({"y": 26 * np.maximum(x, 0)}, outputs_of(graph, x=x), 1e-5)
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)


def test_branches_may_read_what_nothing_else_does():
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,4] x, float[N,4] z) => (float[N,4] y)
    <bool yes = {1}>
    {
        a = If (yes) <
            then_branch = t () => (float[N,4] f) { f = Neg(z) },
            else_branch = o () => (float[N,4] f) { f = Neg(x) }
        >
        y = Add(a, x)
    }""")
    graph, _ = clean(from_model(model))
    x, z = uniform(3, 4), uniform(3, 4, seed=1)
    assert_same({"y": x - z}, outputs_of(graph, x=x, z=z), 1e-5)


def test_straight_through_estimators_of_an_output_stay_two_outputs():
    b, x = Builder((3,)), uniform(4, 3)
    rounded = b.op("Round", "x")
    b.op("Add", "x", b.op("Sub", rounded, "x"))
    model = b.model(rounded, b.last)
    graph, _ = clean(from_model(model))
    assert_same(outputs_of(model, x=x), outputs_of(graph, x=x))


def test_dropout_without_any_setting_does_nothing():
    b = Builder((3,))
    b.op("Dropout", b.relu(), "", "")
    graph, _ = clean(b.graph())
    assert [node.op for node in graph.nodes] == ["Relu"]
