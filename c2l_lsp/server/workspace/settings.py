"""The effective settings of each folder: the user's file, initialization options and workspace settings, merged.

Reports every invalid key once. Only the user's file and the initialization option `userSettings` may set MACHINE_ONLY
groups. That option comes from the editor's configuration, which also chooses the server's command; workspace settings
are not trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from c2l_lsp.config import MACHINE_ONLY, Settings, load_user, merge
from c2l_lsp.errors import SettingError

NO_FOLDER = ""
_OPTIONS = ("clientCommands", "reportsPartialAccept", "showsProblems", "showsReplacements", "switches")
"""Initialization options that are no settings. They are handled elsewhere."""


class SettingsLayers:
    """Settings by workspace folder. NO_FOLDER stands for documents outside every folder."""

    def __init__(self, on_error: Callable[[SettingError], None]) -> None:
        self._on_error = on_error
        self._reported: set[str] = set()
        self._machine: Mapping[str, Any] = {}
        self._initial: Mapping[str, Any] = {}
        self._pulled: dict[str, Mapping[str, Any]] = {}
        self._merged: dict[str, Settings] = {}
        self._user = Settings()
        self.trusted = True

    def read_user(self) -> None:
        """Read the user's file, and merge all layers again."""
        settings, errors = load_user()
        self._report(errors)
        settings, errors = merge(settings, self._machine, source="the editor's user settings", machine=True)
        self._report(errors)
        self._user = settings
        self._merged.clear()

    def set_initial(self, options: object) -> None:
        """Set `initializationOptions`: settings, `trusted`, `userSettings`, and options that are handled elsewhere."""
        values = dict(options) if isinstance(options, Mapping) else {}
        self.trusted = values.pop("trusted", True) is not False
        self._machine = _mapping(values.pop("userSettings", None))
        for name in _OPTIONS:
            values.pop(name, None)
        self._initial = values
        self.read_user()

    def set_pulled(self, values: Mapping[str, object]) -> None:
        """Replace the responses to `workspace/configuration`, by folder."""
        self._pulled = {folder: _mapping(value) for folder, value in values.items()}
        self.read_user()

    def effective(self, folder: str) -> Settings:
        """The merged settings of a folder."""
        if folder not in self._merged:
            settings = self._user
            pulled = self._pulled.get(folder, self._pulled.get(NO_FOLDER, {}))
            for values, source in ((self._initial, "initializationOptions"), (pulled, "the workspace settings")):
                settings, errors = merge(settings, _without_defaults(values, settings), source=source, machine=False)
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


def _without_defaults(values: Mapping[str, Any], current: Settings) -> dict[str, Any]:
    """`values` without MACHINE_ONLY keys that change nothing: some editors send every setting, with its default."""
    inner = values.get("c2l")
    result = {**_mapping(inner), **{key: value for key, value in values.items() if key != "c2l"}}
    allowed = (msgspec.to_builtins(current), msgspec.to_builtins(Settings()))
    for group in MACHINE_ONLY & result.keys():
        group_values = result[group]
        if isinstance(group_values, Mapping):
            result[group] = {
                k: v for k, v in group_values.items() if all(v != known[group].get(k) for known in allowed)
            } or None
    return {group: value for group, value in result.items() if value is not None}
