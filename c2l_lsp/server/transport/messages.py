"""Messages to the user: every error is logged, and shown once if its severity is high enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from c2l_lsp.errors import C2LError, SettingError, Severity
from c2l_lsp.server.transport.protocol import PROBLEM, Problem, plain

_TYPE = {Severity.ERROR: 1, Severity.WARNING: 2, Severity.INFO: 3}
_MAX_TYPE = {"off": 0, "onError": 1, "onWarning": 2, "always": 3}


class Messages:
    """Sends errors to the editor's log, and to a popup as `c2l.showNotifications` allows.

    `structured`: the editor takes `c2l/problem` notifications and shows them with buttons that fix the problem.
    """

    def __init__(self, notify: Callable[[str, dict[str, Any]], None], level: Callable[[], str]) -> None:
        self._notify = notify
        self._level = level
        self._shown: set[tuple[Severity, str]] = set()
        self.structured = False

    def error(self, error: C2LError, severity: Severity | None = None) -> None:
        """Log an error, and show it unless the same one was shown before. `severity` overrides the error's own."""
        severity, message = severity or error.severity, str(error)
        message_type = _TYPE[severity]
        self._notify("window/logMessage", {"type": message_type, "message": message})
        if (severity, message) in self._shown or not self._pops_up(error, message_type):
            return
        self._shown.add((severity, message))
        if self.structured:
            setting, file = (error.key, error.file) if isinstance(error, SettingError) else ("", "")
            problem = Problem(severity=severity.value, code=error.code, message=message, setting=setting, file=file)
            self._notify(PROBLEM, plain(problem))
        else:
            self._notify("window/showMessage", {"type": message_type, "message": f"C2L: {message}"})

    def _pops_up(self, error: C2LError, message_type: int) -> bool:
        """An invalid setting is only a warning, but only the user can fix it: it pops up unless the level is off."""
        limit = _MAX_TYPE[self._level()]
        return message_type <= limit or (isinstance(error, SettingError) and limit > 0)


def severity(name: str) -> Severity:
    """The severity with this name on the wire; WARNING if the name is unknown."""
    return next((one for one in Severity if one.value == name), Severity.WARNING)
