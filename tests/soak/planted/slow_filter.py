"""The planted faults of the bar `matching`: decisions whose time is not proportional to their input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.repo.filter.patterns import Pattern


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Plant the fault of this name within the block; other names plant nothing."""
    matches: Any = Pattern.matches
    check_text: Any = FileFilter.check_text

    def backtracks(self: Pattern, subject: bytes) -> bool:
        """A line is tried against every end of the path as well."""
        for at in range(len(subject)):
            for _ in range(200):
                matches(self, subject[at:])
        return bool(matches(self, subject))

    def rescans(self: FileFilter, path: str, text: str) -> Any:
        """A text is searched again from a hundred places."""
        for at in range(0, len(text), max(1, len(text) // 100)):
            check_text(self, path, text[at:])
        return check_text(self, path, text)

    if name == "backtracks":
        Pattern.matches = backtracks  # type: ignore[method-assign]
    if name == "rescans":
        FileFilter.check_text = rescans  # type: ignore[method-assign]
    try:
        yield
    finally:
        Pattern.matches, FileFilter.check_text = matches, check_text  # type: ignore[method-assign]
