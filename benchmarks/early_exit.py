"""What early exit saves, and what it costs: mean T beside the accuracy after all steps.

The network is converted for T; the margin is calibrated for each agreement on unlabelled samples
that follow those of the conversion, and the test samples stop at it. All steps and early exit
take turns, batch by batch, so that their times compare. Ways are written as for accuracy.py.

    python benchmarks/early_exit.py --model fashion-cnn.onnx --scale 1/255 \\
        --calibrate fashion-mnist/train-images-idx3-ubyte.gz \\
        --test fashion-mnist/t10k-images-idx3-ubyte.gz --ways fit fit+correct fit@signed
"""

from __future__ import annotations

import argparse
import math

from classifier import classifier_and_data, new_parser, way_of

from onnxsnn import Runner
from onnxsnn.analysis.evaluate import Evaluation, evaluate
from onnxsnn.display.base import new_table, percent, stdout
from onnxsnn.runtime.early_exit import calibrate_margin

WAYS = ["fit", "fit+correct"]
AGREEMENTS = [0.98, 0.99, 0.995, 0.999]
COLUMNS = [
    "Way", "T", "Bits per spike", "Accuracy", "Agreement asked for", "Accuracy, early exit",
    "Mean T", "Spikes saved", "Times faster",
]  # fmt: skip


def options() -> argparse.Namespace:
    parser = new_parser(__doc__.splitlines()[0])
    parser.add_argument("--held-out", type=int, default=2000, help="samples for the margin")
    parser.add_argument("--ways", nargs="+", default=WAYS)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[16])
    parser.add_argument("--agreements", type=float, nargs="+", default=AGREEMENTS)
    return parser.parse_args()


def cells(result: Evaluation, agreement: float) -> list[str]:
    """What a row says behind its way."""
    last, early = result.rows[-1], result.early_exit
    assert early is not None  # a margin was given
    return [
        str(last.timesteps),
        f"{result.bits_per_spike:.3g}",
        percent(last.accuracy),
        f"{100 * agreement:g} %",
        percent(early.accuracy),
        f"{early.timesteps:.2f}",
        percent(early.saved),
        f"{early.speedup:.2f}",
    ]


def main() -> None:
    chosen = options()
    source, unlabelled, test = classifier_and_data(chosen)
    calibration = unlabelled.slice(0, chosen.samples)
    held_out = unlabelled.slice(chosen.samples, chosen.samples + chosen.held_out)
    table = new_table(*COLUMNS)
    for way in map(way_of, chosen.ways):
        for timesteps in chosen.timesteps:
            snn = way.convert(source, calibration, timesteps)
            for agreement in chosen.agreements:
                margin = calibrate_margin(Runner(snn), held_out, agreement=agreement)
                result = evaluate(snn, test, ann=source, margin=margin)
                table.add_row(str(way), *cells(result, agreement))
            table.add_section()
    stdout().print(table)
    ann = result.ann_accuracy or 0.0
    error = math.sqrt(ann * (1 - ann) / len(test))
    print(
        f"{chosen.model.name}: ANN {percent(ann)} of {len(test):,} samples, standard error "
        f"{percent(error)}; {len(calibration)} unlabelled samples for the conversion, "
        f"{len(held_out):,} others for the margin"
    )


if __name__ == "__main__":
    main()
