"""What scikit-learn's pipelines have around a network gives what it gave, in other operators."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from onnxsnn import Dataset, convert, evaluate, load_source
from onnxsnn.data import load
from onnxsnn.dialects.classical import without_classical
from onnxsnn.errors import DataError, ModelError, UnsupportedError
from onnxsnn.export import export_npz
from onnxsnn.session import Session
from tests.models import OLD_RUNTIME, Builder, assert_same, uniform

ML = {"domain": "ai.onnx.ml"}
X = uniform(30, 6)


def saved(b, path, *outputs):
    """The model with operators of ai.onnx.ml, each output of a name, a type and some axes."""
    declared = [helper.make_tensor_value_info(n, kind, [None] * axes) for n, kind, axes in outputs]
    graph = helper.make_graph(b.nodes, "test", b.inputs, declared, b.constants)
    opsets = [helper.make_opsetid("", b.opset), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def in_parts(b, path, axes=2):
    """What the tensor last made is in the file, and of its source."""
    saved(b, path, (b.last, TensorProto.FLOAT, axes))
    x = np.round(3 * X)
    x[0] = 0
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    model = load_source(path).model
    assert not any(node.domain for node in model.graph.node)
    return {b.last: session.run(None, {"x": x})[0]}, Session(model).run({"x": x})


@pytest.mark.parametrize("opset", [14, 17, 18, 21])
@pytest.mark.parametrize(
    ("operator", "settings"),
    [
        ("Scaler", {"offset": [0.5], "scale": [2.0]}),
        ("Scaler", {"offset": [float(i) for i in range(6)], "scale": [0.1 * i for i in range(6)]}),
        ("Binarizer", {"threshold": 1.5}),
        ("Binarizer", {}),
        ("Normalizer", {}),
        ("Normalizer", {"norm": "L1"}),
        ("Normalizer", {"norm": "L2"}),
        ("Normalizer", {"norm": "MAX"}),
        ("Imputer", {"imputed_value_floats": [7.0], "replaced_value_float": 2.0}),
        ("Imputer", {"imputed_value_floats": [7.0]}),
        ("Imputer", {"imputed_value_floats": [9.0] * 6, "replaced_value_float": float("nan")}),
    ],
)
def test_features_are_prepared_as_before(tmp_path, opset, operator, settings):
    b = Builder((6,), opset=opset)
    b.op(operator, **settings, **ML)
    assert_same(*in_parts(b, tmp_path / "m.onnx"))


def test_chosen_columns_side_by_side(tmp_path):
    b = Builder((6,))
    columns = [
        b.op("ArrayFeatureExtractor", "x", b.constant(places, np.int64), **ML)
        for places in ([4, 1], [5], [0, 0, 2])
    ]
    b.op("FeatureVectorizer", *columns, inputdimensions=[2, 1, 3], **ML)
    assert_same(*in_parts(b, tmp_path / "m.onnx"))


def test_values_of_a_vector_are_chosen_as_one_row(tmp_path):
    """As a label is looked up by its number."""
    b = Builder((6,))
    best = b.op("ArgMax", "x", axis=1, keepdims=0)
    b.op("ArrayFeatureExtractor", b.constant(np.arange(6) + 0.5), best, **ML)
    assert_same(*in_parts(b, tmp_path / "m.onnx"))


def test_categories_become_ones(tmp_path):
    b = Builder((6,))
    column = b.op("ArrayFeatureExtractor", "x", b.constant([3], np.int64), **ML)
    b.op("OneHotEncoder", column, cats_int64s=[-2, 0, 1, 3], zeros=1, **ML)
    assert_same(*in_parts(b, tmp_path / "m.onnx", axes=3))


ONE_ROW = pytest.param(1, "LOGISTIC", marks=pytest.mark.skipif(
    OLD_RUNTIME, reason="ONNX Runtime leaves the scores of two classes as they are"
))  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "transform"), [(3, "NONE"), (3, "SOFTMAX"), (3, "LOGISTIC"), ONE_ROW]
)
def test_linear_models_are_layers_of_weights(tmp_path, rows, transform):
    b = Builder((6,))
    b.op(
        "LinearClassifier", count=2, post_transform=transform, multi_class=int(rows > 1),
        classlabels_ints=[7, 3, 5][: rows + 1], intercepts=b.random.normal(size=rows).tolist(),
        coefficients=b.random.normal(size=6 * rows).tolist(), **ML,
    )  # fmt: skip
    label, b.last = b.last, f"{b.last}_1"
    assert_same(*in_parts(b, tmp_path / "m.onnx"))
    path = saved(b, tmp_path / "l.onnx", (label, TensorProto.INT64, 1))
    given = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": X})[0]
    np.testing.assert_array_equal(Session(load_source(path).model).run({"x": X})[label], given)


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX"])
def test_a_classifier_of_one_row_and_other_scores_stays(tmp_path, transform):
    """ONNX Runtime has ways of its own with these."""
    b = Builder((6,))
    b.op(
        "LinearClassifier", count=2, post_transform=transform, classlabels_ints=[7, 3],
        intercepts=[0.5], coefficients=b.random.normal(size=6).tolist(), **ML,
    )  # fmt: skip
    path = saved(b, tmp_path / "m.onnx", (f"{b.last}_1", TensorProto.FLOAT, 2))
    model, _ = without_classical(onnx.load(path))
    assert [node.op_type for node in model.graph.node] == ["LinearClassifier"]


@pytest.mark.parametrize("intercepts", [{}, {"intercepts": [0.5, -1.0]}])
def test_linear_regression_is_a_layer_of_weights(tmp_path, intercepts):
    b = Builder((6,))
    weights = b.random.normal(size=12).tolist()
    b.op("LinearRegressor", coefficients=weights, targets=2, **intercepts, **ML)
    assert_same(*in_parts(b, tmp_path / "m.onnx"))


@pytest.mark.parametrize("usual", [{}, {"default_float": 0.5}])
def test_numbers_stand_for_others(tmp_path, usual):
    b = Builder((6,))
    b.op("Cast", to=TensorProto.INT64)
    keys = {"keys_int64s": [-2, 0, 3], "values_floats": [0.1, 0.2, 0.3]}
    b.op("LabelEncoder", **keys, **usual, **ML)
    assert_same(*in_parts(b, tmp_path / "m.onnx"))


def test_inputs_of_text_are_refused(tmp_path):
    b = Builder((6,))
    b.inputs = [helper.make_tensor_value_info("x", TensorProto.STRING, ["N", 1])]
    b.op("OneHotEncoder", cats_strings=["cat", "dog"], **ML)
    path = saved(b, tmp_path / "m.onnx", (b.last, TensorProto.FLOAT, 3))
    with pytest.raises(ModelError, match=r"m\.onnx: input 'x' is text"):
        load_source(path)


def classifier(path, names, zipmap=True):
    """A classifier as skl2onnx writes it: the class by its name, and a map of probabilities."""
    b = Builder((6,))
    b.op("Scaler", offset=[0.1], scale=[2.0], **ML)
    b.gemm(8, inputs=6)
    b.relu()
    b.gemm(3)
    scores = b.op("Softmax", axis=1)
    best = b.op("ArgMax", scores, axis=1)
    is_text = isinstance(names[0], str)
    known = b.constant(names, object if is_text else np.int64)
    chosen = b.op("ArrayFeatureExtractor", known, best, **ML)
    label = b.op("Reshape", chosen, b.constant([-1], np.int64))
    outputs = [(label, TensorProto.STRING if is_text else TensorProto.INT64, 1)]
    if not zipmap:
        return saved(b, path, *outputs, (scores, TensorProto.FLOAT, 2)), scores
    kind = "strings" if is_text else "int64s"
    b.op("ZipMap", scores, **{f"classlabels_{kind}": names}, **ML)
    b.nodes[-1].output[0] = "probabilities"
    path = saved(b, path, *outputs, ("probabilities", TensorProto.FLOAT, 2))
    model = onnx.load(path)
    key = TensorProto.STRING if is_text else TensorProto.INT64
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(key, value))
    model.graph.output[1].type.CopyFrom(maps)
    onnx.save(model, path)
    return path, "probabilities"


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("names", [["cat", "dog", "owl"], [10, 20, 30]])
def test_a_classifier_is_judged_by_its_scores(tmp_path, names, zipmap):
    path, scores = classifier(tmp_path / "m.onnx", names, zipmap)
    given = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": X})[1]
    if zipmap:
        given = np.array([[row[name] for name in names] for row in given])
    source = load_source(path)
    np.testing.assert_allclose(Session(source.model).run({"x": X})[scores], given, rtol=1e-5)
    conversion = convert(source, Dataset({"x": X}), timesteps=64)
    result = evaluate(conversion.snn, Dataset({"x": X}, given.argmax(1)), ann=source)
    assert result.ann_accuracy == 1
    assert result.rows[-1].accuracy == result.rows[-1].agreement > 0.9
    assert result.rows[-1].error < 0.05
    texts = [line for line in conversion.warnings if "is text, and left out" in line]
    assert len(texts) == isinstance(names[0], str)
    assert any("no map" in line for line in conversion.warnings) == zipmap
    assert any("whole numbers" in line for line in result.warnings) == isinstance(names[0], int)


@pytest.mark.parametrize("zipmap", [True, False])
def test_a_classifier_s_samples_stay_in_front(tmp_path, zipmap):
    path, scores = classifier(tmp_path / "m.onnx", [10, 20, 30], zipmap)
    snn = convert(path, Dataset({"x": X}), timesteps=4).snn
    assert len(export_npz(snn, tmp_path / "m.npz", allow_loss=True)) == 3  # Softmax, ArgMax, Gather
    network = json.loads(np.load(tmp_path / "m.npz")["network.json"])
    shapes = {name: shape for op in network["operations"] for name, shape in op["outputs"].items()}
    label, probabilities = network["outputs"]
    assert (shapes[label], shapes[probabilities]) == ([], [3])
    assert probabilities == scores


def test_a_vector_s_chosen_values_are_a_row(tmp_path):
    b = Builder((6,))
    places = b.op("ArgMax", axis=1)
    b.op("ArrayFeatureExtractor", b.normal(6), places, **ML)
    given, found = in_parts(b, tmp_path / "m.onnx")
    assert_same(given, found)
    assert found[b.last].shape == given[b.last].shape == (1, len(X))


def test_a_model_that_gives_text_alone_is_refused(tmp_path):
    path, _ = classifier(tmp_path / "m.onnx", ["cat", "dog", "owl"], zipmap=False)
    model = onnx.load(path)
    del model.graph.output[1]
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"m\.onnx: all that the model gives is text"):
        load_source(path)


def test_a_model_without_any_is_left_as_it_is():
    b = Builder((6,))
    b.gemm(3, inputs=6)
    model = b.model()
    assert without_classical(model) == (model, [])
    assert without_classical(model)[0] is model


def test_missing_values_are_data_where_the_model_fills_them_in(tmp_path):
    b = Builder((6,))
    b.op("Imputer", imputed_value_floats=[0.5], replaced_value_float=float("nan"), **ML)
    b.gemm(8, inputs=6)
    b.relu()
    b.gemm(3)
    source = load_source(saved(b, tmp_path / "m.onnx", (b.last, TensorProto.FLOAT, 2)))
    values = np.where(X > 0.8, np.nan, X)
    assert np.isnan(values).any()
    np.savez(tmp_path / "x.npz", x=values)
    data = load(tmp_path / "x.npz", source.inputs)
    snn = convert(source, data, timesteps=64).snn
    assert evaluate(snn, load(tmp_path / "x.npz", snn.inputs), ann=source).rows[-1].error < 0.05
    np.savez(tmp_path / "x.npz", x=np.where(X > 0.8, np.inf, X))
    with pytest.raises(DataError, match="NaN or infinity"):
        convert(source, load(tmp_path / "x.npz", source.inputs), timesteps=64)


@pytest.mark.parametrize("encoder", ["LabelEncoder", "OneHotEncoder"])
def test_encoders_keep_the_axes_of_what_they_read(tmp_path, encoder):
    b = Builder((6,))
    b.op("ArgMax", axis=1, keepdims=0)
    if encoder == "LabelEncoder":
        b.op(encoder, keys_int64s=[0, 2, 5], values_floats=[10.0, 20.0, 30.0], **ML)
    else:
        b.op(encoder, cats_int64s=[0, 2, 5], zeros=1, **ML)
    given, found = in_parts(b, tmp_path / "m.onnx", axes=1 + (encoder == "OneHotEncoder"))
    assert_same(given, found)
    assert found[b.last].shape == given[b.last].shape


def test_what_regression_makes_of_its_sums_is_refused(tmp_path):
    b = Builder((6,))
    b.gemm(8, inputs=6)
    b.relu()
    given = {"coefficients": [0.5] * 16, "targets": 2, "post_transform": "LOGISTIC"}
    b.op("LinearRegressor", **given, **ML)
    path = saved(b, tmp_path / "m.onnx", (b.last, TensorProto.FLOAT, 2))
    with pytest.raises(UnsupportedError, match="LinearRegressor"):
        convert(path, Dataset({"x": X}))
