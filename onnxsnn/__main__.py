"""The command `onnxsnn`, and `python -m onnxsnn`: signals end it as shells know it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

__all__ = ["main"]

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # that end a program; Windows has no SIGHUP


def main() -> None:
    """Run the command line; signals end it without a traceback, and leave no file half-written."""
    _leave_at_signals(os._exit)  # what is imported may make another error of an exception
    from onnxsnn.cli import main as command_line

    _leave_at_signals(sys.exit)
    command_line(prog_name="onnxsnn")


def _leave_at_signals(leave: Callable[[int], NoReturn]) -> None:
    """Leave with the exit code that shells know a signal by; one that is ignored stays so."""
    for number in (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: leave(128 + number))


if __name__ == "__main__":
    main()
