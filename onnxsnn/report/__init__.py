"""The report: what an SNN does over time, on one page that needs nothing else."""

from onnxsnn.report.gather import ReportData, gather
from onnxsnn.report.page import page

__all__ = ["ReportData", "gather", "page"]
