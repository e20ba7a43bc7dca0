"""Fixtures that tests of several exports share."""

import shutil
import subprocess

import pytest

from onnxsnn import convert
from tests.export.javascript import PACKAGES
from tests.models import dataset, uniform
from tests.networks import residual_network


@pytest.fixture(scope="package")
def node(tmp_path_factory):
    """A folder in which ONNX Runtime for JavaScript is installed, and nothing else."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is not installed: node and npm are needed")
    folder = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *PACKAGES]
    (folder / "package.json").write_text("{}")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
    if done.returncode:
        pytest.skip(f"npm cannot install {' and '.join(PACKAGES)}: {done.stderr.strip()[-200:]}")
    return folder


@pytest.fixture(scope="package")
def snn(tmp_path_factory):
    path = residual_network().save(tmp_path_factory.mktemp("export") / "model.onnx")
    return convert(path, dataset(x=uniform(7, 3, 8, 8)), timesteps=6).snn
