"""Models as ONNX Runtime's optimizer saves them are those that they were made of."""

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static

from onnxsnn import convert, load_source
from onnxsnn.dialects.fused import take_apart
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import to_model
from onnxsnn.session import Session
from tests.models import Builder, assert_same, dataset, kernels_of_today, optimized, uniform
from tests.networks import STRUCTURES


@pytest.mark.parametrize("structure", STRUCTURES)
def test_optimized_models_are_what_they_were(tmp_path, structure):
    path = STRUCTURES[structure]().save(tmp_path / "m.onnx")
    plain, source = load_source(path), load_source(optimized(path))
    (spec,) = plain.inputs
    x = uniform(8, *spec.shape[1:])
    given = Session(to_model(source.graph())).run({"x": x})
    assert_same(Session(plain.model).run({"x": x}), given, 1e-4)
    layers = [
        sorted(layer.neuron for layer in convert(each, dataset(x=x), timesteps=4).snn.layers)
        for each in (plain, source)
    ]
    assert layers[0] == layers[1]


@pytest.mark.parametrize("is_quantized", [False, True])
def test_models_saved_for_one_machine_are_told_at_which_level_to_save_them(tmp_path, is_quantized):
    b = Builder((3, 8, 8))
    for _ in range(2):
        b.conv(16)
        b.relu()
    b.head()
    path, x = b.save(tmp_path / "m.onnx"), uniform(8, 3, 8, 8)
    if is_quantized:
        quantize_static(path, tmp_path / "q.onnx", Samples(x))
        path = tmp_path / "q.onnx"
    for level in ("BASIC", "EXTENDED"):
        convert(optimized(path, level), dataset(x=x), timesteps=2)
    laid_out = optimized(path, "ALL")
    made = {(node.domain, node.op_type) for node in onnx.load(laid_out).graph.node}
    if made.isdisjoint({("com.microsoft.nchwc", "Conv"), ("com.microsoft", "QLinearConv")}):
        pytest.skip("ONNX Runtime has no layout of its own for this machine")
    with pytest.raises(UnsupportedError, match=r"for one machine; .* ORT_ENABLE_EXTENDED or below"):
        convert(laid_out, dataset(x=x), timesteps=2)


def test_models_saved_for_another_machine_are_told_so(tmp_path):
    """There are kernels for these on machines of some kinds only."""
    b = Builder((8, 8, 3))
    model = fused(b, "NhwcFusedConv", "x", b.normal(4, 3, 3, 3))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(
        UnsupportedError, match=r"\(NhwcFusedConv\) .* ORT_ENABLE_EXTENDED or below"
    ):
        convert(tmp_path / "m.onnx")


class Samples(CalibrationDataReader):
    """What ONNX Runtime's quantizer sees, once."""

    def __init__(self, x):
        self.rest = [{"x": x}]

    def get_next(self):
        return self.rest.pop() if self.rest else None


def fused(b, operator, *inputs, **attrs):
    """The model, an operator of ONNX Runtime's own behind what is there."""
    b.op(operator, *inputs, domain="com.microsoft", **attrs)
    return b.unchecked()


ACTIVATIONS = {
    "Relu": (), "Tanh": (), "Sigmoid": (), "LeakyRelu": (0.2,), "Clip": (0.0, 0.4),
    "HardSigmoid": (0.3, 0.4),
}  # fmt: skip


def convolution(b, activation):
    weights = b.normal(4, 3, 3, 3), b.normal(4), b.op("Conv", "x", b.normal(4, 3, 3, 3))
    values = ACTIVATIONS[activation]
    attrs = {"activation_params": values} if values else {}
    return fused(b, "FusedConv", "x", *weights, activation=activation, **attrs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_convolutions_with_a_sum_and_an_activation(activation):
    model = convolution(Builder((3, 6, 6)), activation)
    x = uniform(2, 3, 6, 6)
    apart = take_apart(model)
    assert {node.domain for node in apart.graph.node} == {""}
    with kernels_of_today():
        expected = Session(model).run({"x": x})
    assert_same(expected, Session(apart).run({"x": x}), 1e-5)


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "HardSigmoid"])
def test_products_with_an_activation(activation):
    b, names = Builder((6,)), ("activation_alpha", "activation_beta")
    values = dict(zip(names, ACTIVATIONS[activation], strict=False))
    more = b.normal(6, 4), b.normal(4)
    same_in_parts(fused(b, "FusedGemm", "x", *more, activation=activation, **values), uniform(9, 6))


def gelu(b):
    return fused(b, "Gelu", "x")


def bias_gelu(b):
    return fused(b, "BiasGelu", "x", b.normal(6))


def fast_gelu(b):
    return fused(b, "FastGelu", "x", b.normal(6))


def quick_gelu(b):
    return fused(b, "QuickGelu", "x", alpha=1.5)


def usual_quick_gelu(b):
    return fused(b, "QuickGelu", "x")


def product(b):
    return fused(b, "FusedMatMul", "x", "x", transA=1, alpha=0.5)


def product_of_transposed(b):
    return fused(b, "FusedMatMul", "x", b.normal(7, 6), transB=1)


def of_unknown_rank(b, tensor):
    sizes = b.op("Shape", tensor)
    return b.op("Reshape", tensor, b.op("Compress", sizes, b.constant([1] * 3, bool)))


def product_of_unknown_ranks(b):
    return fused(b, "FusedMatMul", of_unknown_rank(b, "x"), of_unknown_rank(b, "x"), transA=1)


def normalized_sum(b):
    factors = b.normal(6), b.normal(6), b.normal(6)
    b.op(
        "SkipLayerNormalization", "x", b.op("Relu"), *factors, count=4, domain="com.microsoft",
        epsilon=1e-3,
    )  # fmt: skip
    return fused(b, "Gelu", b.op("Add", b.last, f"{b.last}_3"))


def tokens(b, among=9):
    return b.op("Cast", b.op("Mul", b.op("Abs", "x"), b.constant(among)), to=onnx.TensorProto.INT32)


def embedding(b, words, *more, count=2):
    segments, mask, places = more or ("", "", "")
    kinds = b.normal(2, 8) if segments else ""
    tables = b.normal(9, 8), b.normal(7, 8), kinds, b.normal(8), b.normal(8)
    return b.op(
        "EmbedLayerNormalization", words, segments, *tables, mask, places, count=count,
        domain="com.microsoft", epsilon=1e-3,
    )  # fmt: skip


def words(b):
    embedding(b, tokens(b))
    return b.unchecked()


def words_in_segments_at_places(b):
    mask = b.op("Cast", b.op("ConstantOfShape", b.op("Shape", "x")), to=onnx.TensorProto.INT32)
    embedding(b, tokens(b), tokens(b, 2), mask, tokens(b, 7), count=3)
    return fused(b, "Gelu", b.op("Add", b.last, f"{b.last}_2"))


def words_of_some_length(b):
    """The first of them, by ones in front in a mask, which attention reads as a length."""
    first = b.op("Less", b.constant(np.arange(5)), b.constant(3.0))
    ones = b.op("Cast", first, to=onnx.TensorProto.FLOAT)
    mask = b.op("Cast", b.op("Add", b.op("Mul", "x", b.constant(0.0)), ones), to=6)
    read = embedding(b, tokens(b), "", mask, "")
    return attending(b, read, 8, mask=f"{read}_1")


def attending(b, read, width, values=None, mask="", added="", **attrs):
    projected = 2 * width + (values or width)
    weights = b.normal(width, projected), b.normal(projected)
    sizes = {"qkv_hidden_sizes": [width, width, values]} if values else {}
    more = mask, "", added
    return fused(b, "Attention", read, *weights, *more, num_heads=2, **sizes, **attrs)


def attention(b):
    return attending(b, "x", 6)


def attention_of_other_values(b):
    return attending(b, "x", 6, 4, added=b.normal(1, 2, 5, 5), scale=0.7)


def attention_of_few_values(b):
    return attending(b, "x", 6, 4)


def attention_with_a_mask(b):
    some = b.op("Less", b.op("ReduceMean", "x", axes=[2], keepdims=0), b.constant(0.0))
    mask = b.op("Cast", some, to=onnx.TensorProto.INT32)
    return attending(b, "x", 6, mask=mask, mask_filter_value=-5.0)


def three(b, values):
    """A query, a key and values, each [N, 5, any]."""
    return [b.op("MatMul", "x", b.normal(6, width)) for width in (8, 8, values)]


def multi_head_attention(b):
    return fused(b, "MultiHeadAttention", *three(b, 8), num_heads=2)


def multi_head_attention_of_all(b):
    some = b.op("Less", b.op("ReduceMean", "x", axes=[2], keepdims=0), b.constant(0.0))
    mask = b.op("Cast", some, to=onnx.TensorProto.INT32)
    more = b.normal(20), mask, b.normal(1, 2, 5, 5)
    settings = {"num_heads": 2, "scale": 0.7, "mask_filter_value": -5.0}
    return fused(b, "MultiHeadAttention", *three(b, 4), *more, **settings)


RULES = [
    gelu, bias_gelu, fast_gelu, quick_gelu, usual_quick_gelu, product, product_of_transposed,
    product_of_unknown_ranks, normalized_sum, attention, attention_of_other_values,
    attention_of_few_values, attention_with_a_mask, multi_head_attention,
    multi_head_attention_of_all,
]  # fmt: skip


@pytest.mark.parametrize("build", RULES)
def test_each_gives_what_it_gave(build):
    same_in_parts(build(Builder((5, 6))), uniform(2, 5, 6))


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize("build", [words, words_in_segments_at_places, words_of_some_length])
def test_embeddings_give_what_they_gave(build, opset):
    same_in_parts(build(Builder((5,), opset=opset)), uniform(2, 5))


def same_in_parts(model, x):
    apart = take_apart(model)
    assert "com.microsoft" not in {node.domain for node in apart.graph.node}
    assert_same(Session(model).run({"x": x}), Session(apart).run({"x": x}), 1e-4)


QUANTIZED = {
    attention: (5, 6),
    attention_with_a_mask: (5, 6),
    words: (5,),
    words_of_some_length: (5,),
}


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("build", QUANTIZED)
def test_quantized_attention_and_embeddings_give_what_they_gave(tmp_path, build, per_column):
    shape, path = QUANTIZED[build], tmp_path / "m.onnx"
    onnx.save(build(Builder(shape)), path)
    quantize_dynamic(path, tmp_path / "m.8.onnx", per_channel=per_column)
    model, x = onnx.load(tmp_path / "m.8.onnx"), uniform(9, *shape)
    assert {node.op_type for node in model.graph.node} & {"QAttention", "QEmbedLayerNormalization"}
    same_in_parts(model, x)
    source = load_source(tmp_path / "m.8.onnx")
    assert_same(Session(model).run({"x": x}), Session(to_model(source.graph())).run({"x": x}), 0.1)


@pytest.mark.parametrize("per_gate", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
def test_lstms_of_whole_weights_give_what_they_gave_up_to_rounding(directions, per_gate):
    """ONNX Runtime rounds what they read, and what they remember, to 8 bits too."""
    b = Builder((5, 6), batch=2)

    def weights(inputs):
        """Whole numbers, and what 1 and 0 are of each."""
        values = b.random.integers(0, 256, (directions, inputs, 16))
        rows = (directions, 16) if per_gate else (directions,)
        scale = b.constant(b.random.uniform(0.002, 0.006, rows))
        return b.constant(values, np.uint8), scale, b.constant(np.full(rows, 128), np.uint8)

    (inner, *units), (outer, *others) = weights(6), weights(4)
    first = b.op("Transpose", "x", perm=[1, 0, 2])
    given = first, inner, outer, b.normal(directions, 32, scale=0.1), ""
    states = b.normal(directions, 2, 4), b.normal(directions, 2, 4)
    way = "bidirectional" if directions == 2 else "forward"
    model = fused(
        b, "DynamicQuantizeLSTM", *given, *states, "", *units, *others,
        hidden_size=4, direction=way,
    )  # fmt: skip
    x, apart = uniform(2, 5, 6), take_apart(model)
    assert [node.op_type for node in apart.graph.node][-2:] == ["LSTM", "Identity"]
    assert_same(Session(model).run({"x": x}), Session(apart).run({"x": x}), 0.02)


@pytest.mark.parametrize("opset", [14, 17])
def test_normalization_that_onnx_had_not_yet(tmp_path, opset):
    b = Builder((5, 6), opset=opset)
    b.op("LayerNormalization", b.op("MatMul", "x", b.normal(6, 6)), b.normal(6), b.normal(6))
    b.op("MatMul", b.op("Relu"), b.normal(6, 6))
    model = b.unchecked()
    onnx.save(model, tmp_path / "m.onnx")
    x = uniform(8, 5, 6)
    given = Session(to_model(load_source(tmp_path / "m.onnx").graph())).run({"x": x})
    assert_same(Session(model).run({"x": x}), given, 1e-4)
    convert(tmp_path / "m.onnx", dataset(x=x), timesteps=4).snn.save(tmp_path / "m.snn.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "m.snn.onnx"))


def test_a_normalization_of_that_time_adds_what_it_did_to_small_variances():
    b = Builder((6,), opset=14)
    b.op("LayerNormalization", "x", b.normal(6), b.normal(6))
    same_in_parts(b.unchecked(), 1e-3 * uniform(8, 6))


@pytest.mark.parametrize("opset", [14, 17])
def test_a_normalized_sum_adds_next_to_nothing_to_small_variances(opset):
    b = Builder((6,), opset=opset)
    model = fused(b, "SkipLayerNormalization", "x", b.op("Relu"), b.normal(6))
    same_in_parts(model, 1e-3 * uniform(8, 6))


def test_onnx_s_own_of_the_same_name_is_left():
    b = Builder((6,), opset=20)
    b.op("Gelu", approximate="tanh")
    model = b.model()
    assert take_apart(model) is model


def normalization_of_two_axes(b):
    b.op("LayerNormalization", "x", b.normal(5, 6), b.normal(5, 6), axis=1)
    return b.unchecked()


def product_of_turned_batches(b):
    return fused(b, "FusedMatMul", "x", b.normal(6, 5, 7), transBatchB=1)


def product_with_turned_batches(b):
    return fused(b, "FusedMatMul", "x", b.normal(5, 6, 7), transBatchA=1)


def attention_with_a_cache(b):
    more = b.normal(6, 18), b.normal(18), "", b.normal(2, 2, 2, 3, 3)
    return fused(b, "Attention", "x", *more, num_heads=2)


def attention_of_weights_of_unknown_rank(b):
    weights = of_unknown_rank(b, b.normal(6, 18))
    return fused(b, "Attention", "x", weights, b.normal(18), num_heads=2)


def multi_head_attention_with_a_cache(b):
    cached = b.normal(2, 2, 3, 4), b.normal(2, 2, 3, 4)
    return fused(b, "MultiHeadAttention", *three(b, 8), "", "", "", *cached, num_heads=2)


def multi_head_attention_that_is_cached(b):
    return fused(b, "MultiHeadAttention", *three(b, 8), num_heads=2, count=3)


def multi_head_attention_of_one_tensor(b):
    packed = b.op("Reshape", "x", b.constant([0, 5, 1, 3, 2], np.int64))
    return fused(b, "MultiHeadAttention", packed, num_heads=1)


def attention_with_a_mask_of_each_query(b):
    b.op("MatMul", "x", b.op("Transpose", "x", perm=[0, 2, 1]))
    mask = b.op("Cast", b.op("Greater", b.last, b.constant(0.0)), to=onnx.TensorProto.INT32)
    return attending(b, "x", 6, mask=mask)


@pytest.mark.parametrize(
    "build",
    [
        normalization_of_two_axes,
        product_of_turned_batches,
        product_with_turned_batches,
        attention_with_a_cache,
        attention_of_weights_of_unknown_rank,
        attention_with_a_mask_of_each_query,
        multi_head_attention_with_a_cache,
        multi_head_attention_that_is_cached,
        multi_head_attention_of_one_tensor,
    ],
)
def test_what_has_no_rule_is_left(build):
    model = build(Builder((5, 6), opset=14))
    assert take_apart(model).graph == model.graph


@pytest.mark.parametrize("attribute", ["unidirectional", "do_rotary"])
def test_attention_that_is_not_known_is_refused_by_name(tmp_path, attribute):
    model = attending(Builder((5, 8)), "x", 8, **{attribute: 1})
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match=r"Attention.*com\.microsoft"):
        convert(tmp_path / "m.onnx", dataset(x=uniform(3, 5, 8)))


def test_multi_head_attention_that_is_causal_is_refused_by_name(tmp_path):
    b = Builder((5, 6))
    onnx.save(
        fused(b, "MultiHeadAttention", *three(b, 8), num_heads=2, unidirectional=1),
        tmp_path / "m.onnx",
    )
    with pytest.raises(UnsupportedError, match=r"MultiHeadAttention.*com\.microsoft"):
        convert(tmp_path / "m.onnx", dataset(x=uniform(3, 5, 6)))


def test_others_are_left_and_refused_by_name(tmp_path):
    model = fused(Builder((4, 4)), "Inverse", "x")
    assert take_apart(model) is model
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match=r"Inverse.*com\.microsoft"):
        convert(tmp_path / "m.onnx", dataset(x=uniform(3, 4, 4)))
