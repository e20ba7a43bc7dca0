"""Draw the README's picture: the demo's accuracy over timesteps, by way of converting.

pip install onnxsnn[plot]
python benchmarks/picture.py
"""

from __future__ import annotations

from pathlib import Path

from onnxsnn.demo import compare_demo
from onnxsnn.plot import draw

TARGET = Path(__file__).parent.parent / "docs" / "demo.svg"


def main() -> None:
    comparison = compare_demo()
    draw(comparison, TARGET)
    print(f"{TARGET.name}: {comparison.samples} images, ANN {comparison.ann_accuracy:.2%}")
    for way, rows in comparison.rows.items():
        print(way, " ".join(f"T={row.timesteps}: {row.accuracy:.2%}" for row in rows))


if __name__ == "__main__":
    main()
