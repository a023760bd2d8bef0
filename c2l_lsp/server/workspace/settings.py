"""Which settings hold where: the user's file, the editor's start-up options and its workspace settings, merged.

Owns the layers and reports every wrong key once. Asks nobody: the values are handed in. Only the user's file and the
start-up option `userSettings` may set machine groups; whoever sets that option could set the server's command as well,
while a workspace's own settings reach us as plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from c2l_lsp.config import MACHINE_ONLY, Settings, load_user, merge
from c2l_lsp.errors import SettingError

EVERYWHERE = ""


class SettingsLayers:
    """Settings by workspace folder (EVERYWHERE: outside of all)."""

    def __init__(self, on_error: Callable[[SettingError], None]) -> None:
        self._on_error = on_error
        self._reported: set[str] = set()
        self._machine: Mapping[str, Any] = {}
        self._initial: Mapping[str, Any] = {}
        self._pulled: dict[str, Mapping[str, Any]] = {}
        self._merged: dict[str, Settings] = {}
        self._base = Settings()
        self.trusted = True

    def read_user(self) -> None:
        """Read the user's file (again)."""
        settings, errors = load_user()
        self._report(errors)
        settings, errors = merge(settings, self._machine, source="the editor's user settings", machine=True)
        self._report(errors)
        self._base = settings
        self._merged.clear()

    def set_initial(self, options: object) -> None:
        """`initializationOptions`: settings, and beside them `trusted`, `userSettings` and some that others heed."""
        values = dict(options) if isinstance(options, Mapping) else {}
        self.trusted = values.pop("trusted", True) is not False
        self._machine = _mapping(values.pop("userSettings", None))
        for name in ("clientCommands", "reportsPartialAccept", "showsProblems", "switches"):  # of others
            values.pop(name, None)
        self._initial = values
        self.read_user()

    def set_pulled(self, values: Mapping[str, object]) -> None:
        """The answers to `workspace/configuration`, by folder; they replace the former ones."""
        self._pulled = {folder: _mapping(value) for folder, value in values.items()}
        self.read_user()

    def of(self, folder: str) -> Settings:
        """The settings that hold in a folder."""
        if folder not in self._merged:
            settings = self._base
            pulled = self._pulled.get(folder, self._pulled.get(EVERYWHERE, {}))
            for values, source in ((self._initial, "initializationOptions"), (pulled, "the workspace settings")):
                settings, errors = merge(settings, _without_echo(values, settings), source=source, machine=False)
                self._report(errors)
            self._merged[folder] = settings
        return self._merged[folder]

    def _report(self, errors: list[SettingError]) -> None:
        for error in errors:
            if str(error) not in self._reported:
                self._reported.add(str(error))
                self._on_error(error)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _without_echo(values: Mapping[str, Any], current: Settings) -> dict[str, Any]:
    """`values` without machine keys that change nothing: editors answer with every default they know."""
    inner = values.get("c2l")
    kept = {**_mapping(inner), **{key: value for key, value in values.items() if key != "c2l"}}
    allowed = (msgspec.to_builtins(current), msgspec.to_builtins(Settings()))
    for group in MACHINE_ONLY & kept.keys():
        given = kept[group]
        if isinstance(given, Mapping):
            kept[group] = {k: v for k, v in given.items() if all(v != known[group].get(k) for known in allowed)} or None
    return {group: given for group, given in kept.items() if given is not None}
