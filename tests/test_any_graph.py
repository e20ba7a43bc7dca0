"""convert, on random graphs of the table's operators: an SNN that converges, or a refusal.

Operators that jump (Ceil, a Where by a comparison) are left out: where the ANN's tensor sits
on a jump, no running mean converges to its image. LpNormalization jumps at 0, where activations
too small to have spiked sit: it gets values away from 0.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxsnn import Runner, convert, load_source
from onnxsnn.errors import UnsupportedError
from onnxsnn.operators import TABLE, Role
from onnxsnn.session import Session
from tests.models import Builder, dataset, kernels_of_today, uniform

ACTIVATIONS = {
    "Relu": {}, "LeakyRelu": {"alpha": 0.2}, "Sigmoid": {}, "Tanh": {}, "HardSwish": {},
    "HardSigmoid": {}, "Elu": {}, "Selu": {}, "Celu": {}, "Softplus": {}, "Softsign": {},
    "Erf": {}, "Abs": {}, "Neg": {}, "Identity": {}, "Softmax": {"axis": 1}, "LRN": {"size": 3},
    "LpNormalization": {"axis": 1}, "Sin": {},
}  # fmt: skip
REFUSED = {"QuantizeLinear": "scales", "RandomNormalLike": "random", "Dropout": "random"}
PAIRS = ["Add", "Sub", "Mul", "Max", "Min", "Concat", "MatMul", "Where", "Div"]
MOVES = ["pad", "slice", "transpose", "resize", "split", "shape"]
POOLS = ["MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "GlobalMaxPool"]
WEIGHTS = ["conv", "depthwise", "transposed", "batchnorm", "layernorm", "prelu"]


class Random(Builder):
    """A builder whose tensor always has the shape [N, C, H, H]."""

    def __init__(self, seed):
        super().__init__((2, 6, 6), seed)
        self.size = 6
        self.earlier = []

    def add(self, step):
        """One step at random; steps that do not fit the shape do nothing."""
        self.earlier.append((self.last, self.channels, self.size))
        if step == "LpNormalization":
            self.op("Add", self.op("Abs"), self.constant(1.0))
        if step in ACTIVATIONS:
            self.op(step, **ACTIVATIONS[step])
        elif step in REFUSED:
            self.refused(step)
        elif step in PAIRS:
            self.pair(step)
        elif step in POOLS:
            self.pool(step)
        else:
            getattr(self, step)() if step in WEIGHTS else self.move(step)

    def refused(self, step):
        match step:
            case "QuantizeLinear":
                values = self.last
                scale = self.op("ReduceMax", self.op("Abs"), keepdims=0)
                self.op("DequantizeLinear", self.op(step, values, scale), scale)
            case "Dropout":
                self.op(step, self.last, self.constant(0.5), self.constant(True, bool))
            case _:
                self.op(step)

    def __repr__(self):
        return " ".join(node.op_type for node in self.nodes)

    def pair(self, step):
        fitting = [e for e in self.earlier if e[1:] == (self.channels, self.size)]
        other = fitting[self.random.integers(len(fitting))][0]
        match step:
            case "Concat":
                self.op(step, self.last, other, axis=1)
                self.channels *= 2
            case "Where":
                mask = self.random.random((1, self.channels, self.size, self.size)) < 0.5
                self.op(step, self.constant(mask, bool), self.last, other)
            case "Div":
                mine = self.last
                positive = self.op("Add", self.op("Abs", other), self.constant(1.0))
                self.op(step, mine, positive)
            case _:
                self.op(step, self.last, other)

    def pool(self, step):
        if step in ("MaxPool", "AveragePool"):
            if self.size >= 2:
                self.op(step, kernel_shape=[2, 2], strides=[2, 2])
                self.size //= 2
            return
        if step == "ReduceMean":
            self.op(step, axes=[2, 3], keepdims=1)
        else:
            self.op(step)
        self.size = 1

    def conv(self, **attrs):
        super().conv(4, **attrs)

    def depthwise(self):
        super().conv(self.channels, group=self.channels)

    def transposed(self):
        if self.size <= 3:
            self.conv_transpose(4)
            self.size *= 2

    def layernorm(self):
        ones, zeros = self.constant(np.ones(self.size)), self.constant(np.zeros(self.size))
        self.op("LayerNormalization", self.last, ones, zeros)

    def prelu(self):
        self.op("PRelu", self.last, self.normal(self.channels, 1, 1, scale=0.3))

    def move(self, step):
        c, n = self.channels, self.size
        match step:
            case "pad":
                pads = self.constant([0, 0, 1, 1, 0, 0, 0, 0], np.int64)
                self.op("Pad", self.last, pads)
                self.size += 1
            case "slice" if n > 2:
                starts, ends, axes = ([1, 1], [n, n], [2, 3])
                bounds = [self.constant(values, np.int64) for values in (starts, ends, axes)]
                self.op("Slice", self.last, *bounds)
                self.size -= 1
            case "transpose":
                self.op("Transpose", perm=[0, 1, 3, 2])
            case "resize" if n <= 3:
                scales = self.constant([1.0, 1.0, 2.0, 2.0])
                self.op("Resize", self.last, "", scales, mode="nearest")
                self.size *= 2
            case "split" if c % 2 == 0:
                self.op("Split", count=2, axis=1)
                self.channels //= 2
            case "shape":
                """Flattened and back, by shape arithmetic."""
                x = self.last
                shape = self.op("Shape", x)
                self.op("Reshape", self.op("Flatten", x), shape)


@st.composite
def graphs(draw):
    """A graph, and whether it holds an operator that must be refused."""
    b = Random(draw(st.integers(0, 10_000)))
    steps = [*ACTIVATIONS, *PAIRS, *MOVES, *POOLS, *WEIGHTS, *WEIGHTS, *REFUSED]
    chosen = draw(st.lists(st.sampled_from(steps), min_size=1, max_size=9))
    b.conv()
    b.add("Relu")
    for step in chosen:
        b.add(step)
    b.op("Flatten")
    b.gemm(3, inputs=b.channels * b.size**2)
    return b, [step for step in chosen if step in REFUSED]


@settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(graphs())
def test_random_graph_converges_or_is_refused_by_name(tmp_path, drawn):
    b, refused = drawn
    x = uniform(4, 2, 6, 6)
    source = load_source(b.save(tmp_path / "m.onnx"))
    if refused:
        with pytest.raises(UnsupportedError, match="|".join(refused)):
            convert(source, dataset(x=x))
        return
    with kernels_of_today():
        expected = Session(source.model).run({"x": x})[b.last]
    snn = convert(source, dataset(x=x), threshold="max", timesteps=256).snn
    every = Runner(snn).run(x, 1024, every_step=True).every_step
    scale = np.abs(expected).max() + 1e-3
    early, late = (np.abs(every[t - 1][b.last] - expected).max() / scale for t in (16, 1024))
    assert late < max(0.05, early / 4), (early, late)


def test_the_random_steps_are_of_every_kind_in_the_table():
    roles = {TABLE[name].role for name in [*ACTIVATIONS, *PAIRS, *POOLS, *REFUSED]}
    assert roles == {Role.LINEAR, Role.SHAPE, Role.COMPENSATED, Role.REFUSED}
