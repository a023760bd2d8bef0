"""Reports after a run how many tests drove each editor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

EDITOR_TESTS = pytest.StashKey[set[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    config.stash[EDITOR_TESTS] = {item.nodeid for item in items if item.get_closest_marker("editors") is not None}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write one line after the list of skipped tests."""
    reports = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
    editor_tests = config.stash.get(EDITOR_TESTS, set())
    ran = Counter(one.nodeid.split("/")[2] for one in reports if one.nodeid in editor_tests and one.when == "call")
    if ran:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(ran.items()))
        terminalreporter.write_line(f"tests in real editors: {counts}")
