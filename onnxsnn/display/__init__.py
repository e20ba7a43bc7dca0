"""Tables for people, and progress bars, on the command line: a file per kind of result."""

from onnxsnn.display.analysis import show_analysis, show_energy
from onnxsnn.display.base import progress, tasks, warn
from onnxsnn.display.bench import show_bench
from onnxsnn.display.comparison import show_best, show_comparison
from onnxsnn.display.conversion import show_conversion
from onnxsnn.display.evaluation import show_evaluation, show_fit_curves, show_run
from onnxsnn.display.export import show_export
from onnxsnn.display.inspection import show_convertibility, show_inspection

__all__ = [
    "progress",
    "show_analysis",
    "show_bench",
    "show_best",
    "show_comparison",
    "show_conversion",
    "show_convertibility",
    "show_energy",
    "show_evaluation",
    "show_export",
    "show_fit_curves",
    "show_inspection",
    "show_run",
    "tasks",
    "warn",
]
