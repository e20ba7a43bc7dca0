"""Options that the commands share, and what is made of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from onnxsnn import display
from onnxsnn.analysis.energy import MODELS, CostModel
from onnxsnn.data import Dataset, Preprocessing, load, parse_numbers, parse_scale
from onnxsnn.errors import UsageError
from onnxsnn.files import check_writable, destination, external_files
from onnxsnn.inputs import InputSpec
from onnxsnn.model import SpikingModel
from onnxsnn.readers import is_data, labels_beside
from onnxsnn.source import Source, load_source
from onnxsnn.strict_json import to_json

__all__ = [
    "FILE",
    "OUTPUT",
    "calibration_and_test",
    "check_output",
    "cost_models",
    "cost_options",
    "data_option",
    "energy_options",
    "files_read",
    "is_read",
    "json_option",
    "load_ann",
    "load_data",
    "load_optional",
    "loading_arguments",
    "loading_options",
    "memory_option",
    "number_or_auto",
    "print_json",
    "refuse_idle",
    "refuse_read",
    "timesteps_option",
    "unlabelled_loading_options",
]

_Command = Callable[..., Any]
_Option = Callable[[_Command], _Command]


class _Readable(click.Path):
    """The name of a file; standard input is none, as what is read is read more than once."""

    def convert(self, value: Any, *context: Any) -> Any:
        """The path that was given."""
        if value == "-":
            raise UsageError("-: standard input is not read; give a file's name")
        return super().convert(value, *context)


FILE = _Readable(path_type=Path)  # that a command reads
OUTPUT = click.Path(path_type=Path)  # that it writes


def check_output(path: Path) -> None:
    """Fail before the work where a command cannot write a file, or reads it.

    Raises:
        UsageError: it is one of the files that the command was given to read, or no file.
        OutputError: a file cannot be written there.
    """
    if str(path) == "-":
        raise UsageError("-: standard output is no place for files; give a file's name")
    if destination(path).exists():
        refuse_read(path, files_read())
    check_writable(path)


def refuse_read(path: Path, read: Sequence[Path]) -> None:
    """Refuse to write what is read.

    Raises:
        UsageError: it is.
    """
    if is_read(path, read):
        raise UsageError(f"{path}: is a file that is read here; choose another to write to")


def is_read(path: Path, read: Sequence[Path]) -> bool:
    """Whether what is written at a path is one of the files read, or in a folder of them."""
    target = destination(path)
    return target.exists() and any(
        target.is_relative_to(file.resolve()) if file.is_dir() else file.samefile(target)
        for file in read
    )


def files_read() -> list[Path]:
    """The files and folders that the command was given to read, and what lies beside them."""
    context = click.get_current_context()
    given = [context.params[str(p.name)] for p in context.command.params if p.type is FILE]
    files = [beside for file in given if file and file.exists() for beside in _with_beside(file)]
    return [file for file in files if file.exists()]


def _with_beside(file: Path) -> list[Path]:
    """A file, and the labels beside images or the weights beside a model."""
    if file.is_dir() or is_data(file):
        return [file]
    labels = labels_beside(file)
    return [file, labels] if labels else [file, *external_files(file)]


def refuse_idle(needed: str, there: bool, *names: str) -> None:
    """Refuse options, by their parameters' names, that do nothing without another.

    Raises:
        UsageError: the user gave one of them, and not the other.
    """
    context = click.get_current_context()
    for option in context.command.params if not there else []:
        if option.name in names and (
            context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
        ):
            raise UsageError(f"{option.opts[0]} is for {needed}; give both, or neither")


def _together(*options: _Option) -> _Option:
    """Options that a command is given at once."""

    def give(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return give


# How data are read and prepared:
_samples_options = _together(
    click.option("--array", help="Name of the samples' array in an .npz."),
    click.option("--label-array", help="Name of the labels' array in an .npz."),
    click.option("--scale", help="Multiply the values, e.g. 1/255."),
    click.option("--mean", help="Subtract after scaling: one number, or a,b,c per channel."),
    click.option("--std", help="Divide after that: one number, or a,b,c per channel."),
    click.option("--layout", type=click.Choice(["nchw", "nhwc"]), help="Layout in the file."),
    click.option(
        "--limit", type=click.IntRange(min=1), help="Use so many samples, spread over all."
    ),
)


def _labels_options(hidden: bool) -> _Option:
    return _together(
        click.option(
            "--labels", type=FILE, hidden=hidden, help="Labels: .npy, .npz, idx(.gz), or text."
        ),
        click.option(
            "--no-labels", is_flag=True, hidden=hidden, help="Leave labels out: targets are none."
        ),
    )


loading_options = _together(_labels_options(hidden=False), _samples_options)
# Where no labels are read, which a user who gives some is told:
unlabelled_loading_options = _together(_labels_options(hidden=True), _samples_options)


def loading_arguments(options: dict[str, Any]) -> list[str]:
    """The arguments that load the same samples again, without labels."""
    names = ("array", "label_array", "scale", "mean", "std", "layout", "limit")
    given = {name: options[name] for name in names if options[name] is not None}
    return [
        text
        for name, value in given.items()
        for text in (f"--{name.replace('_', '-')}", str(value))
    ]


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
timesteps_option = click.option(
    "-T", "--timesteps", type=int,
    help="Number of timesteps to run.  [default: as many as the SNN was converted for]",
)  # fmt: skip


def memory_size(
    ctx: click.Context,  # noqa: ARG001 - click calls every callback so
    param: click.Parameter,  # noqa: ARG001
    value: str | None,
) -> int | None:
    """Bytes, from a number with a unit: 512MB, 2GiB."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|[kmg])i?b?", value.strip().lower())
    size = int(float(match[1]) * 1024 ** " kmg".index(match[2] or " ")) if match else 0
    if size < 1:
        raise click.BadParameter(f"{value!r} is no size; give one such as 512MB")
    return size


memory_option = click.option(
    "--memory", callback=memory_size,
    help="For the tensors of one run, e.g. 512MB: how many timesteps and samples go at once.",
)  # fmt: skip
data_option = click.option(
    "--data", type=FILE, required=True, help=".npy, .npz, idx(.gz), or a folder of class folders."
)


# What operations cost:
cost_options = _together(
    click.option("--mac-energy", type=float, help="Your own pJ per multiply-accumulate."),
    click.option("--ac-energy", type=float, help="Your own pJ per synaptic operation."),
)
# Whether they are counted at all, too:
energy_options = _together(
    click.option(
        "--energy", "with_energy", is_flag=True,
        help="Also count synaptic operations, and model the energy of SNN and ANN.",
    ),
    click.option(
        "--reference", type=FILE,
        help="For --energy, with --ann: another SNN of that ANN, to relate the spikes to.",
    ),
    cost_options,
)  # fmt: skip


def cost_models(options: dict[str, Any]) -> list[CostModel]:
    """The published cost models, and the user's own where there is one."""
    mac, ac = options["mac_energy"], options["ac_energy"]
    if mac is None and ac is None:
        return list(MODELS)
    if mac is None or ac is None:
        raise UsageError("a cost model of your own takes both --mac-energy and --ac-energy")
    return [*MODELS, CostModel("your own", "given by --mac-energy and --ac-energy", mac, ac)]


def number_or_auto(
    ctx: click.Context,  # noqa: ARG001 - click calls every callback so
    param: click.Parameter,  # noqa: ARG001
    value: str,
) -> int | None:
    """A number of timesteps, or of a delay; None for `auto`."""
    try:
        return None if value == "auto" else int(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither a number nor auto") from error


def load_ann(path: Path, snn: SpikingModel) -> Source:
    """The network to compare an SNN with; a warning where it is not what that was made from."""
    source = load_source(path)
    if snn.metadata.get("source_sha256") != source.digest:
        display.warn(
            [f"{path}: is not the file that the SNN was converted from; they are compared anyway"]
        )
    return source


def load_data(
    path: Path, inputs: list[InputSpec], options: dict[str, Any], labelled: bool = True
) -> Dataset:
    """The data that the options describe.

    Raises:
        UsageError: an option makes no sense, or names labels where none are read.
        DataError: as `load`.
    """
    if options["labels"] is not None and (options["no_labels"] or not labelled):
        raise UsageError(f"{options['labels']}: labels are not read here; leave --labels out")
    preprocessing = Preprocessing(
        scale=parse_scale(options["scale"]) if options["scale"] else None,
        mean=parse_numbers(options["mean"]) if options["mean"] else (),
        std=parse_numbers(options["std"]) if options["std"] else (),
        layout=options["layout"],
    )
    return load(
        path,
        inputs,
        labels=options["labels"],
        preprocessing=preprocessing,
        array=options["array"],
        label_array=options["label_array"],
        labelled=labelled and not options["no_labels"],
        limit=options["limit"],
    )


def load_optional(
    path: Path | None, inputs: list[InputSpec], options: dict[str, Any]
) -> Dataset | None:
    """The data that a command can do without, unlabelled; `options` say how to load them."""
    refuse_idle("--data", path is not None, *options)
    return load_data(path, inputs, options, labelled=False) if path else None


def calibration_and_test(
    data: Path, calibrate: Path | None, inputs: list[InputSpec], options: dict[str, Any]
) -> tuple[Dataset, Dataset]:
    """Samples to calibrate on, from a file or a quarter of the data, 256 at most; those to run.

    Of data with a limit, as many are taken as those that calibrate go into, which are then what
    their number alone, as a limit, takes of the data.
    """
    if calibrate is not None:
        samples = load_data(calibrate, inputs, options | {"labels": None}, labelled=False)
        return samples, load_data(data, inputs, options)
    limit = options["limit"] or 0
    share = max(_SHARE, -(-limit // _MOST))
    taken = limit - limit % share if limit > share else options["limit"]
    both = load_data(data, inputs, options | {"limit": taken})
    if len(both) < 2:
        raise both.error("one sample cannot calibrate and be run too; give more, or --calibrate")
    return both.parted(min(_MOST, -(-len(both) // share)))


_SHARE, _MOST = 4, 256  # one sample in so many calibrates, and so many at most


def print_json(value: Any) -> None:
    """Print what `--json` promises."""
    click.echo(to_json(value, indent=2))
