"""same_paddings: explicit pads that give what `auto_pad` gives."""

from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsnn.padding import same_paddings
from tests.models import Builder, assert_same, outputs_of, uniform

pair = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=30, deadline=None)
@given(kernel=pair, strides=pair, mode=st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
def test_convolution_gives_the_same(kernel, strides, mode):
    b, x = Builder((2, 7, 6)), uniform(2, 2, 7, 6)
    b.op("Conv", b.last, b.normal(3, 2, *kernel), strides=strides, auto_pad=mode)
    graph = b.graph()
    expected = outputs_of(graph, x=x)
    (node,) = graph.nodes
    before, behind = zip(*same_paddings(node, kernel, x.shape[2:]), strict=True)
    del node.attrs["auto_pad"]
    node.attrs["pads"] = [*before, *behind]
    assert_same(expected, outputs_of(graph, x=x))
