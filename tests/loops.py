"""Small recurrent networks whose bodies read tensors from around them."""

from __future__ import annotations

import numpy as np
import onnx

from tests.models import Builder

STEPS, READS, STATES = 6, 8, 5  # of a sequence, values of a step, values of a state

STEP = """
    read = MatMul(value, {weights})
    kept = MatMul(h, {recurrent})
    sum = Add(read, kept)
    next = Tanh(sum)
    out = Identity(next)
}}"""
LOOP = """
body (int64 i, bool go, float[M, 5] h) => (bool on, float[M, 5] next, float[M, 5] out) {{
    on = Identity(go)
"""
PLAIN = LOOP + "value = Gather <axis = 0> ({sequence}, i)" + STEP
NESTED = (
    LOOP
    + """
    zero = Constant <value = int64 {{0}}> ()
    first = Equal(i, zero)
    value = If (first) <
        then_branch = start () => (float[M, 8] y) {{ y = Gather <axis = 0> ({sequence}, zero) }},
        else_branch = later () => (float[M, 8] z) {{
            v = Gather <axis = 0> ({sequence}, i)
            z = Neg(v)
        }}
    >"""
    + STEP
)
SCAN = """
body (float[M, 5] h, float[M, 8] value) => (float[M, 5] next, float[M, 5] out) {{
""" + STEP.replace("MatMul(h, {recurrent})", "Mul(h, {gate})")
BODIES = {"Loop": PLAIN, "Nested": NESTED, "Scan": SCAN}


def recurrent(kind: str, batch: str | int = "N") -> Builder:
    """x [N, 6, 8], a layer of neurons, a recurrence over the 6 steps, and a read-out [N, 4]."""
    b = Builder((STEPS, READS), batch=batch)
    b.op("MatMul", "x", b.normal(READS, READS, scale=0.4))
    rectified = b.relu()
    sequence = b.op("Transpose", rectified, perm=[1, 0, 2])
    samples = b.op("Shape", "x", end=1)
    sizes = b.op("Concat", samples, b.constant([STATES], np.int64), axis=0)
    start = b.op("Expand", b.constant(0.0), sizes)
    names = {
        "sequence": sequence,
        "weights": b.normal(READS, STATES, scale=0.4),
        "recurrent": b.normal(STATES, STATES, scale=0.3),
        "gate": b.op("Sigmoid", b.op("Slice", b.op("ReduceMean", rectified, axes=[1], keepdims=0),
                     *(b.constant([i], np.int64) for i in (0, STATES, 1)))),
    }  # fmt: skip
    body = onnx.parser.parse_graph(BODIES[kind].format(**names))
    if kind == "Scan":
        b.op("Scan", start, sequence, count=2, body=body, num_scan_inputs=1)
    else:
        b.op("Loop", b.constant(STEPS, np.int64), "", start, count=2, body=body)
    b.op("Transpose", f"{b.last}_1", perm=[1, 0, 2])
    b.op("Reshape", b.last, b.constant([0, STEPS * STATES], np.int64))
    b.gemm(4, STEPS * STATES)
    return b
