"""The examples in the documentation run as they stand: docstrings, docs/api.md, docs/export.md."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxsnn
from onnxsnn import IntegrateAndFire, Runner, convert
from onnxsnn.export import export_loop, export_nir, export_npz, export_step
from tests.models import dataset, uniform
from tests.networks import average_network

DOCS = Path(__file__).parents[1] / "docs"
SOURCES = Path(onnxsnn.__file__).parent
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages([str(SOURCES)], "onnxsnn.")
    if name != "onnxsnn.torch"
]


def examples(name):
    """The docstrings of a module, or of the package, that hold examples."""
    tests = doctest.DocTestFinder().find(importlib.import_module(name))
    return [test for test in tests if test.examples]


@pytest.mark.parametrize(
    "test",
    [test for name in ["onnxsnn", *MODULES] for test in examples(name)],
    ids=lambda t: t.name,
)
def test_examples_in_docstrings(test, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_examples_of_the_python_interface(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(DOCS / "api.md"), module_relative=False, encoding="utf-8")
    assert result.attempted > 20
    assert result.failed == 0


def test_what_is_public_is_documented():
    undocumented = [name for name in onnxsnn.__all__ if not getattr(onnxsnn, name).__doc__]
    assert not undocumented


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """A folder with an SNN in every form, and what the examples start from."""
    monkeypatch.chdir(tmp_path)
    x = uniform(4, 2, 8, 8)
    path = average_network().save(tmp_path / "m.onnx")
    snn = convert(path, dataset(x=x), timesteps=8, neuron=IntegrateAndFire(0.0)).snn
    export_loop(snn, "model.loop.onnx")
    export_step(snn, "model.step.onnx")
    export_npz(snn, "model.npz")
    (expected,) = Runner(snn).run(x, 8).outputs.values()
    return snn, {"samples": x}, expected


LOOP, INLINED, STEP, SINABS, ARRAYS = re.findall(
    r"```python\n(.*?)```", (DOCS / "export.md").read_text(), re.DOTALL
)


def test_what_is_exported_is_read_as_the_documentation_says(exported, capsys):
    _, values, expected = exported
    exec(LOOP, values)
    np.testing.assert_allclose(values["outputs"][0], expected, atol=1e-5)
    exec(INLINED, values)
    assert not onnx.load("model.inlined.onnx").functions
    exec(LOOP.replace(".loop.", ".inlined."), values)
    np.testing.assert_allclose(values["outputs"][0], expected, atol=1e-5)
    exec(STEP, values)
    np.testing.assert_allclose(values["outputs"], expected, atol=1e-5)
    exec(ARRAYS, values)
    printed = capsys.readouterr().out
    assert "IntegrateAndFire" in printed
    assert "'weight': (5, 96)" in printed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sinabs_reads_nir_as_the_documentation_says(exported):
    for package in ("nir", "torch", "sinabs"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    snn, values, expected = exported
    export_nir(snn, "zero.nir")
    exec(SINABS, values)
    np.testing.assert_allclose(values["estimate"].detach().numpy(), expected, atol=1e-5)
