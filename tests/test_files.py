"""Files: written whole or not at all."""

import os
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxsnn.errors import ModelError, OutputError
from onnxsnn.files import check_writable, external_files, read_model, write_arrays, write_bytes
from onnxsnn.session import Session
from tests.models import Builder, assert_same, uniform


def test_written_bytes_replace_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    write_bytes(b"new", path)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(Path, "chmod", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(b"new", path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_names_as_long_as_a_folder_takes_are_written_and_longer_ones_refused_at_once(tmp_path):
    write_bytes(b"", tmp_path / ("n" * 255))
    with pytest.raises(OutputError, match="cannot be written"):
        check_writable(tmp_path / ("n" * 256))


def test_file_is_readable_like_any_other(tmp_path):
    (tmp_path / "plain").touch()
    write_bytes(b"", tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_writing_leaves_the_mask_of_permissions_as_it_was(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(b"", tmp_path / "file")
        assert os.umask(0o027) == 0o027
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_links_stay_and_what_they_lead_to_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link", tmp_path / "there" / "file"
    link.symlink_to(target)
    for content in (b"first", b"then"):
        check_writable(link)
        write_bytes(content, link)
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert list(target.parent.iterdir()) == [target]


def test_pipes_are_written_and_stay(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    check_writable(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_bytes(b"new", path)
    assert os.read(reader, 9) == b"new"
    os.close(reader)
    assert path.is_fifo()


def test_arrays_of_any_name_are_written(tmp_path):
    arrays = {name: uniform(2, len(name)) for name in ("file", "allow_pickle", "a/b")}
    write_arrays(arrays, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as read:
        assert_same(arrays, dict(read), 0)


def test_sizes_of_minus_one_are_read_as_unknown(tmp_path):
    b = Builder((3,))
    b.gemm(2)
    model = b.model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, tmp_path / "m.onnx")
    size = read_model(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert not size.HasField("dim_value")


@pytest.mark.parametrize("left_out", ["type", "shape"])
def test_outputs_get_the_type_and_shape_that_an_exporter_left_out(tmp_path, left_out):
    b = Builder((3,))
    b.gemm(2)
    model = b.model()
    kind = model.graph.output[0].type
    kind.Clear() if left_out == "type" else kind.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "m.onnx")
    read = read_model(tmp_path / "m.onnx")
    assert read.graph.output[0] == b.model().graph.output[0]


def test_outputs_behind_a_squeeze_get_theirs(tmp_path):
    b = Builder((1, 3))
    b.op("Squeeze")
    onnx.save(b.undeclared(), tmp_path / "m.onnx")
    sizes = read_model(tmp_path / "m.onnx").graph.output[0].type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value for size in sizes] == ["N", 3]


def lstm_of_rectified_rows():
    b = Builder((3, 4))
    b.relu()
    b.op("LSTM", b.last, b.normal(1, 8, 4), b.normal(1, 8, 2), count=3, hidden_size=2)
    b.nodes[-1].output[1] = ""
    b.op("Flatten", b.last)
    return b.model()


def test_nodes_in_any_order_are_read_in_theirs(tmp_path):
    model = lstm_of_rectified_rows()
    names = [node.name for node in model.graph.node]
    nodes = list(model.graph.node)
    model.graph.ClearField("node")
    model.graph.node.extend(nodes[::-1])
    onnx.save(model, tmp_path / "m.onnx")
    assert [node.name for node in read_model(tmp_path / "m.onnx").graph.node] == names


def test_nodes_that_read_each_other_are_refused(tmp_path):
    model = lstm_of_rectified_rows()
    model.graph.node[0].input[0] = model.graph.node[2].output[0]
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="topologically sorted"):
        read_model(tmp_path / "m.onnx")


@pytest.mark.slow  # reads 2 GiB
def test_a_model_of_more_than_2_gib_is_told_so(tmp_path):
    inputs, outputs = 2**20, 2**9 + 1
    weight = onnx.TensorProto(name="w", data_type=1, dims=[inputs, outputs], data_location=1)
    for key, value in {"location": "w.bin", "length": str(4 * inputs * outputs)}.items():
        weight.external_data.add(key=key, value=value)
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(4 * inputs * outputs)
    x, y = (
        helper.make_tensor_value_info(name, 1, ["N", size])
        for name, size in (("x", inputs), ("y", outputs))
    )
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [weight])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx: is over protobuf's limit of 2 GiB"):
        read_model(tmp_path / "m.onnx")


def beside(name):
    """A constant whose values are in a file of its name."""
    tensor = onnx.TensorProto(name=name, data_type=1, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value=name)
    return tensor


def test_files_beside_a_model_are_found_wherever_it_holds_tensors(tmp_path):
    def constant(name):
        return helper.make_node("Constant", [], ["y"], value=beside(name))

    body = helper.make_graph([constant("body node")], "body", [], [], [beside("body")])
    branches = helper.make_node("If", ["x"], ["z"], then_branch=body, else_branch=body)
    graph = helper.make_graph([constant("node"), branches], "g", [], [], [beside("graph")])
    function = helper.make_function("local", "F", [], ["y"], [constant("function")], [])
    model = helper.make_model(graph, functions=[function])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    names = ["body", "body node", "function", "graph", "node"]
    assert external_files(tmp_path / "m.onnx") == [tmp_path / name for name in names]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnxsnn.files.Path.replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_bytes(b"new", path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_is_not_there_or_a_folder_as_file_is_refused(tmp_path):
    for path in (tmp_path / "gone" / "file", tmp_path):
        with pytest.raises(OutputError, match="cannot be written"):
            check_writable(path)


@pytest.mark.parametrize("name", ["gone/../file", "gone/../there/file", "file/../file"])
def test_folder_that_is_not_there_is_none_to_leave_again(tmp_path, name):
    (tmp_path / "there").mkdir()
    for path in (tmp_path / "file", tmp_path / "there" / "file"):
        path.write_text("old")
    for write in (check_writable, lambda path: write_bytes(b"new", path)):
        with pytest.raises(OutputError, match=f"{name}: cannot be written"):
            write(tmp_path / name)
    assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "there" / "file").read_text() == "old"


def test_old_files_whose_constants_are_no_inputs(tmp_path):
    b = Builder((4,))
    b.gemm(4)
    b.relu()
    b.gemm(2)
    model = b.model()
    model.ir_version = 3
    onnx.save(model, tmp_path / "m.onnx")
    read = read_model(tmp_path / "m.onnx")
    x = uniform(2, 4)
    assert_same(Session(model).run({"x": x}), Session(read).run({"x": x}), 0)
    assert len(read.graph.input) == 1


def test_inputs_with_values_of_their_own_stay_inputs(tmp_path):
    """From IR version 4 on, constants that are inputs too are default values."""
    b = Builder((4,))
    b.op("Add", "x", b.normal(4))
    model = b.model()
    model.ir_version = 4
    model.graph.input.append(helper.make_tensor_value_info("c0", 1, [4]))
    onnx.save(model, tmp_path / "m.onnx")
    read = read_model(tmp_path / "m.onnx")
    assert [tensor.name for tensor in read.graph.input] == ["x", "c0"]


def test_permissions_of_what_was_there_stay(tmp_path):
    (tmp_path / "mine").touch(0o600)
    write_bytes(b"", tmp_path / "mine")
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o600
