"""What pops up in the editor and what only goes to its log. Sentences of errors, never source text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from c2l_lsp.errors import C2LError, Severity

_TYPE = {Severity.ERROR: 1, Severity.WARNING: 2, Severity.INFO: 3}
_POPS_UP = {"off": 0, "onError": 1, "onWarning": 2, "always": 3}


class Messages:
    """Logs everything; shows each problem once, as far as `c2l.showNotifications` lets it."""

    def __init__(self, notify: Callable[[str, dict[str, Any]], None], level: Callable[[], str]) -> None:
        self._notify = notify
        self._level = level
        self._shown: set[tuple[Severity, str]] = set()

    def tell(self, severity: Severity, sentence: str) -> None:
        """Something the user may want to know."""
        kind = _TYPE[severity]
        self._notify("window/logMessage", {"type": kind, "message": sentence})
        if kind <= _POPS_UP[self._level()] and (severity, sentence) not in self._shown:
            self._shown.add((severity, sentence))
            self._notify("window/showMessage", {"type": kind, "message": f"C2L: {sentence}"})

    def error(self, error: C2LError) -> None:
        """An error of the closed set."""
        self.tell(error.severity, str(error))


def severity(name: str) -> Severity:
    """The severity of a name on the wire; a warning if it is none."""
    return next((one for one in Severity if one.value == name), Severity.WARNING)
