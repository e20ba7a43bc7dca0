"""Accuracy over T of any trained model, ways of converting it beside each other and the ANN.

What `onnxsnn compare` prints, of ways that are named: a threshold method, a neuron where that
is not integrate-and-fire, its levels and digits, and whether it is corrected, as in `fit`
(quickly), `fit+none`, `fit+correct` (on all data), `percentile`, `fit@signed`,
`fit@burst:4+correct`, `fit@multi-threshold:8:1`, and `fit+correct+anytime` for neurons that fire
early.
Thresholds are per channel. A network of train_networks.py, which is trained the first time,
beside SpikingJelly where that is installed:

    python benchmarks/accuracy.py --network preact --fashion-mnist fashion-mnist --peer

Any other, here on Fashion-MNIST's idx files:

    python benchmarks/accuracy.py --model fashion-cnn.onnx --scale 1/255 \\
        --calibrate fashion-mnist/train-images-idx3-ubyte.gz \\
        --test fashion-mnist/t10k-images-idx3-ubyte.gz
"""

from __future__ import annotations

import argparse

from classifier import classifier_and_data, new_parser, way_of

from onnxsnn.analysis.comparison import compare
from onnxsnn.data import Dataset
from onnxsnn.display import progress, show_comparison

WAYS = ["max", "percentile", "bound", "fit", "fit+correct"]


def options() -> argparse.Namespace:
    parser = new_parser(__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", default=WAYS)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--peer", action="store_true", help="SpikingJelly converts --network too")
    chosen = parser.parse_args()
    if chosen.peer and not chosen.network:
        parser.error("--peer builds the network again, so that it takes --network")
    return chosen


def show_peer(chosen: argparse.Namespace, calibration: Dataset, test: Dataset) -> None:
    """SpikingJelly's accuracies in the same order; its neurons are of 1 bit per spike, too."""
    from peers import measure  # needs PyTorch and SpikingJelly

    (name,) = calibration.inputs
    assert test.labels is not None
    images, labels = test.inputs[name], test.labels.astype("int64")
    samples = calibration.inputs[name]
    steps = sorted(chosen.timesteps)
    found = measure(chosen.network, chosen.model, samples, images, labels, steps)
    for method, accuracies in found:
        cells = ", ".join(f"{a:.2%} at T={t}" for a, t in zip(accuracies, steps, strict=True))
        print(f"SpikingJelly {method}: {cells}", flush=True)


def main() -> None:
    chosen = options()
    source, unlabelled, test = classifier_and_data(chosen)
    calibration = unlabelled.slice(0, chosen.samples)
    ways = [way_of(text) for text in chosen.ways]
    with progress("comparing") as report:
        comparison = compare(source, calibration, test, ways, chosen.timesteps, report)
    show_comparison(comparison)
    if chosen.peer:
        show_peer(chosen, calibration, test)
    print(f"{chosen.model.name}: {len(calibration)} calibration samples without labels")


if __name__ == "__main__":
    main()
