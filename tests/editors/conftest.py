"""Says at the end of a run in how many tests which editor was driven."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

DRIVES = pytest.StashKey[set[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    config.stash[DRIVES] = {item.nodeid for item in items if item.get_closest_marker("editors") is not None}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line, after what was skipped and why."""
    reports = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
    drives = config.stash.get(DRIVES, set())
    ran = Counter(one.nodeid.split("/")[2] for one in reports if one.nodeid in drives and one.when == "call")
    if ran:
        told = ", ".join(f"{name} {count}" for name, count in sorted(ran.items()))
        terminalreporter.write_line(f"tests in real editors: {told}")
