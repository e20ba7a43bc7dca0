"""Files: written whole or not at all."""

import onnx
import pytest

from onnxsnn.errors import OutputError
from onnxsnn.files import check_writable, read_model, write_bytes
from tests.models import Builder


def test_written_bytes_replace_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    write_bytes(b"new", path)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_file_is_readable_like_any_other(tmp_path):
    (tmp_path / "plain").touch()
    write_bytes(b"", tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_sizes_of_minus_one_are_read_as_unknown(tmp_path):
    b = Builder((3,))
    b.gemm(2)
    model = b.model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, tmp_path / "m.onnx")
    size = read_model(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert not size.HasField("dim_value")


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
