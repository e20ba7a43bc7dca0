"""Models of old opsets give what they gave, in a newer one."""

import onnx
import pytest

from onnxsnn.dialects.opsets import to_opset
from onnxsnn.errors import ModelError
from onnxsnn.functions import MINIMUM_OPSET
from onnxsnn.graph import opset_of
from tests.models import Builder, assert_same, outputs_of, uniform

X = uniform(2, 3, 4, 4)


def check(b):
    before = b.model()
    after = to_opset(before, MINIMUM_OPSET)
    onnx.checker.check_model(after)
    assert opset_of(after) == MINIMUM_OPSET
    assert_same(outputs_of(before, x=X), outputs_of(after, x=X))


@pytest.mark.parametrize("scale", [2.0, 1.6, 2.7, 3.0])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_upsample(mode, scale):
    b = Builder((3, 4, 4), opset=9)
    b.op("Upsample", "x", b.constant([1, 1, scale, scale]), mode=mode)
    check(b)


@pytest.mark.parametrize("scale", [0.5, 0.6, 1.5, 2.7, 3.0])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_resize(mode, scale):
    b = Builder((3, 4, 4), opset=10)
    b.op("Resize", "x", b.constant([1, 1, scale, scale]), mode=mode)
    check(b)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_pad_with_a_value_that_only_one_mode_reads(mode):
    b = Builder((3, 4, 4), opset=10)
    b.op("Pad", mode=mode, pads=[0, 0, 1, 1, 0, 0, 2, 0], value=1.5)
    check(b)


@pytest.mark.parametrize("operator", ["Hardmax", "LogSoftmax", "Softmax"])
@pytest.mark.parametrize(("opset", "axis"), [(7, 1), (9, 2), (11, -3), (12, 3)])
def test_softmax_over_an_axis_and_all_behind_it(operator, opset, axis):
    b = Builder((3, 4, 4), opset=opset)
    b.op(operator, axis=axis)
    check(b)


@pytest.mark.parametrize("opset", [8, 9, 13])
def test_moments_that_a_normalization_gives_beside_go_where_nothing_reads_them(opset):
    b = Builder((3, 4, 4), opset=opset)
    b.batchnorm()
    b.nodes[0].output.extend(["mean", "var", "saved_mean", "saved_var"])
    model = b.undeclared()  # onnx would infer what training gives
    plain = Builder((3, 4, 4), opset=opset)
    plain.batchnorm()
    assert_same(outputs_of(plain.model(), x=X), outputs_of(to_opset(model, MINIMUM_OPSET), x=X))


def test_new_models_stay_as_they_are():
    b = Builder((3, 4, 4), opset=17)
    b.op("Hardmax", axis=1)
    model = b.model()
    assert to_opset(model, MINIMUM_OPSET) is model


def test_what_onnx_cannot_convert_says_so():
    b = Builder((3, 4, 4), opset=9)
    b.op("Upsample", "x", b.constant([1, 1, 2, 2]))
    model = b.model()
    model.graph.node[0].op_type = "Unheard"
    with pytest.raises(ModelError, match="export it again with opset"):
        to_opset(model, MINIMUM_OPSET)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_resize_that_grows_one_axis_and_shrinks_another(mode):
    b = Builder((3, 4, 4), opset=10)
    b.op("Resize", "x", b.constant([1, 1, 1.5, 0.6]), mode=mode)
    check(b)
