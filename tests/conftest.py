"""Settings of the whole test suite."""

import os

from hypothesis import settings

# No deadlines, which a busy machine breaks; and in CI the same examples in every run.
settings.register_profile("suite", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("suite")


def pytest_terminal_summary(terminalreporter):
    """Say how many of onnx's node cases ran as SNNs."""
    counts = {
        outcome: sum("test_backend_nodes" in report.nodeid for report in reports)
        for outcome in ("passed", "failed", "skipped")
        if (reports := terminalreporter.stats.get(outcome, []))
    }
    if any(counts.values()):
        shares = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        terminalreporter.write_line(f"onnx node cases as SNNs: {shares}")
