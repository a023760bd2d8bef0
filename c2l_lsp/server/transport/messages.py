"""What pops up in the editor and what only goes to its log. Sentences of errors, never source text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from c2l_lsp.errors import C2LError, SettingError, Severity
from c2l_lsp.server.transport.protocol import PROBLEM, Problem, plain

_TYPE = {Severity.ERROR: 1, Severity.WARNING: 2, Severity.INFO: 3}
_POPS_UP = {"off": 0, "onError": 1, "onWarning": 2, "always": 3}


class Messages:
    """Logs everything; shows each problem once, as far as `c2l.showNotifications` lets it.

    `structured`: the editor shows problems itself, with buttons that fix them.
    """

    def __init__(self, notify: Callable[[str, dict[str, Any]], None], level: Callable[[], str]) -> None:
        self._notify = notify
        self._level = level
        self._shown: set[tuple[Severity, str]] = set()
        self.structured = False

    def error(self, error: C2LError, severity: Severity | None = None) -> None:
        """An error of the closed set, as loud as it is or as said."""
        severity, sentence = severity or error.severity, str(error)
        kind = _TYPE[severity]
        self._notify("window/logMessage", {"type": kind, "message": sentence})
        if (severity, sentence) in self._shown or not self._pops_up(error, kind):
            return
        self._shown.add((severity, sentence))
        if self.structured:
            at = (error.key, error.file) if isinstance(error, SettingError) else ("", "")
            said = Problem(severity=severity.value, code=error.code, message=sentence, setting=at[0], file=at[1])
            self._notify(PROBLEM, plain(said))
        else:
            self._notify("window/showMessage", {"type": kind, "message": f"C2L: {sentence}"})

    def _pops_up(self, error: C2LError, kind: int) -> bool:
        """A wrong setting harms nothing, but only the user can correct it: shown unless nothing is."""
        level = _POPS_UP[self._level()]
        return kind <= level or (isinstance(error, SettingError) and level > 0)


def severity(name: str) -> Severity:
    """The severity of a name on the wire; a warning if it is none."""
    return next((one for one in Severity if one.value == name), Severity.WARNING)
