"""The command line, a file per command."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from onnxsnn.cli.bench import bench_command
from onnxsnn.cli.compare import compare_command, demo_command
from onnxsnn.cli.convert import convert_command
from onnxsnn.cli.evaluate import evaluate_command
from onnxsnn.cli.export import export_command
from onnxsnn.cli.fit_curve import fit_curve_command
from onnxsnn.cli.fix_inputs import fix_inputs_command
from onnxsnn.cli.inspect import inspect_command
from onnxsnn.cli.report import report_command
from onnxsnn.cli.run import run_command
from onnxsnn.errors import OnnxSnnError, OutputError

__all__ = ["main"]


class _Group(click.Group):
    """Turns our errors into one line on standard error, and an exit code."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Reads the command line, and may print a help."""
        with _in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        with _in_one_line():
            return super().invoke(ctx)


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except OnnxSnnError as error:
        raise _Failure(error) from error
    except MemoryError as error:
        what = f"out of memory: {error}; give fewer samples with --limit, or timesteps with -T"
        raise _Failure(OnnxSnnError(what)) from error
    except BrokenPipeError:
        raise  # click ends quietly: whoever reads has read enough
    except OSError as error:
        where = error.filename or "standard output"
        raise _Failure(OutputError(f"{where}: {error.strerror or error}")) from error


class _Failure(click.ClickException):
    """How click shows one of our errors."""

    def __init__(self, error: OnnxSnnError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code  # type: ignore[misc]  # click reads the instance's


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="onnxsnn")
def main() -> None:
    """Turn a trained ONNX network into a spiking neural network, as ONNX, and run it."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold what its encoding does not
        sys.stdout.reconfigure(errors="backslashreplace")


for _command in (
    convert_command,
    inspect_command,
    compare_command,
    evaluate_command,
    fit_curve_command,
    report_command,
    run_command,
    export_command,
    bench_command,
    fix_inputs_command,
    demo_command,
):
    main.add_command(_command)
