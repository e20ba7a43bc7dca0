"""Draw the README's picture: the demo's accuracy over timesteps, by method.

pip install matplotlib
python benchmarks/picture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

from onnxsnn.demo import Comparison, compare

TARGET = Path(__file__).parent.parent / "docs" / "demo.svg"
TIMESTEPS = (1, 2, 4, 8, 16, 32)
INK = "#808080"  # readable on light and on dark


def draw(comparison: Comparison, target: Path) -> None:
    """One line per method and the ANN's level, as SVG without a background."""
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "onnxsnn", "font.family": "sans-serif"}
    plt.rcParams |= dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    )
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for method, rows in comparison.rows.items():
        accuracies = [100 * row.accuracy for row in rows if row.accuracy is not None]
        axes.plot([row.timesteps for row in rows], accuracies, marker="o", ms=4, label=method)
    level = 100 * comparison.ann_accuracy
    axes.axhline(level, color=INK, ls="--", lw=1, label=f"ANN, {level:.1f} %")
    axes.set_xscale("log", base=2)
    axes.set_xticks(TIMESTEPS, [str(steps) for steps in TIMESTEPS])
    axes.set(xlabel="timesteps T, each converted for", ylabel="accuracy, %", ylim=(50, 96))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(target, transparent=True, metadata={"Date": None})


def main() -> None:
    comparison = compare(timesteps=TIMESTEPS)
    draw(comparison, TARGET)
    print(f"{TARGET.name}: {comparison.samples} images, ANN {comparison.ann_accuracy:.2%}")
    for method, rows in comparison.rows.items():
        print(method, " ".join(f"T={row.timesteps}: {row.accuracy:.2%}" for row in rows))


if __name__ == "__main__":
    main()
