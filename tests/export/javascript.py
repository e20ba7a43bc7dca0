"""ONNX Runtime for JavaScript: the examples of docs/export.md, and how a script is run."""

import json
import re
import subprocess
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "export.md"
LOOP, STEP = re.findall(r"```js\n(.*?)```", DOCS.read_text(), re.DOTALL)
PACKAGES = ["onnxruntime-node", "onnxruntime-web"]


def run_script(folder, script, package):
    """What a script prints, as JSON, with one of the packages in the place of the first."""
    (folder / "run.js").write_text(script.replace(PACKAGES[0], package))
    done = subprocess.run(
        ["node", "run.js"], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
