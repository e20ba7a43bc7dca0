"""What a release holds."""

import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
HELD = (
    "onnxsnn/**/*.*", "tests/**/*.py", "benchmarks/*.py", "docs/*", "examples/*.py", "CHANGELOG.md",
    "Makefile",
)  # fmt: skip
BUILD = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"


def test_source_archive_holds_the_package_its_tests_and_what_they_read(tmp_path):
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (path,) = tmp_path.iterdir()
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    files = (path for pattern in HELD for path in ROOT.glob(pattern) if path.suffix != ".pyc")
    assert {path.relative_to(ROOT).as_posix() for path in files} <= names
