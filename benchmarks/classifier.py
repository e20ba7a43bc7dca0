"""A trained classifier and its data, as the scripts about one take them on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxsnn import Preprocessing, load_source
from onnxsnn.analysis.comparison import Way
from onnxsnn.data import Dataset, load, parse_scale
from onnxsnn.source import Source

__all__ = ["classifier_and_data", "new_parser", "way_of"]

CORRECTIONS = {  # `correct` and `anytime` of a way
    "": (None, False),
    "none": (False, False),
    "correct": (True, False),
    "anytime": (None, True),
    "correct+anytime": (True, True),
}


def new_parser(description: str) -> argparse.ArgumentParser:
    """A parser of what says which classifier, and which samples."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--calibrate", type=Path, help="samples; no labels needed")
    parser.add_argument("--test", type=Path, help="samples with labels")
    parser.add_argument(
        "--network",
        help="of train_networks.py, in place of these three; it is trained where it never was",
    )
    parser.add_argument(
        "--fashion-mnist", type=Path, default=Path("fashion-mnist"), help="to train on: a folder"
    )
    parser.add_argument("--scale", default="1", help="factor of the values, e.g. 1/255")
    parser.add_argument("--samples", type=int, default=256, help="calibration samples")
    parser.add_argument("--skip", type=int, default=0, help="calibration samples to skip")
    parser.add_argument("--limit", type=int, help="test samples; all by default")
    return parser


def classifier_and_data(chosen: argparse.Namespace) -> tuple[Source, Dataset, Dataset]:
    """The classifier, all unlabelled samples but those to skip, and the test samples.

    Where a network is named, its files are chosen.
    """
    if chosen.network:
        from train_networks import trained  # needs PyTorch

        files = trained(chosen.network, chosen.fashion_mnist)
        chosen.model, chosen.calibrate, chosen.test = files
    elif not (chosen.model and chosen.calibrate and chosen.test):
        raise SystemExit("give --model, --calibrate and --test, or --network")
    source = load_source(chosen.model)
    preprocessing = Preprocessing(scale=parse_scale(chosen.scale))
    unlabelled, test = (
        load(path, source.inputs, preprocessing=preprocessing, labelled=labelled)
        for path, labelled in ((chosen.calibrate, False), (chosen.test, True))
    )
    return source, unlabelled.slice(chosen.skip, None), test.slice(0, chosen.limit)


def way_of(text: str) -> Way:
    """A way as it is written on the command line."""
    method, _, correction = text.partition("+")
    correct, anytime = CORRECTIONS[correction]
    threshold, _, neuron = method.partition("@")
    name, *settings = neuron.split(":")
    levels, digits = [*map(int, settings), None, None][:2]
    return Way(threshold, name or "if", levels, correct, anytime, digits)
