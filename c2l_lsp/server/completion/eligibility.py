"""Decides whether a completion may be shown at a position, from settings, switches and the text of one line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from c2l_lsp.config import Settings
from c2l_lsp.server.transport.protocol import Reason, Switched
from c2l_lsp.text import CLOSERS

_IGNORED_IN_SUFFIX = frozenset(f" \t{CLOSERS}")
_HASH = ("#",)
_SLASH = ("//",)
COMMENT_MARKS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("python", "ruby", "shellscript", "perl", "r", "julia", "elixir"), _HASH),
    **dict.fromkeys(("yaml", "toml", "makefile", "dockerfile"), _HASH),
    **dict.fromkeys(("c", "cpp", "csharp", "java", "go", "rust", "swift", "kotlin", "scala", "dart"), _SLASH),
    **dict.fromkeys(("javascript", "typescript", "javascriptreact", "typescriptreact"), _SLASH),
    "php": ("//", "#"),
    "lua": ("--",),
    "sql": ("--",),
    "haskell": ("--",),
}
_STRING = re.compile(r"""("(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?)""")


@dataclass
class Switches:
    """What the user turned on or off at run time. Languages and documents that are absent follow the settings.

    `snoozed_until` is in seconds since the epoch.
    """

    enabled: bool = True
    languages: dict[str, bool] = field(default_factory=dict)
    documents: dict[str, bool] = field(default_factory=dict)
    snoozed_until: float = 0.0

    def restore(self, switched: Switched) -> None:
        """Restore the switches of the editor's previous server process."""
        self.enabled = not switched.off
        self.documents.update(switched.documents)
        self.languages.update(switched.languages)
        self.snoozed_until = switched.snoozed_until


@dataclass(frozen=True)
class CursorContext:
    """The position of a request: document, language, the text of the line around the cursor, kind of request."""

    uri: str
    language: str
    before: str
    after: str
    invoked: bool


def language_on(settings: Settings, switches: Switches, language: str) -> bool:
    """Whether completions are turned on for a language."""
    return switches.languages.get(language, settings.enabled_for(language))


def document_ineligibility(
    settings: Settings, switches: Switches, uri: str, language: str, now: float
) -> Reason | None:
    """Why a document gets no automatic completions at any position; None if it gets some."""
    if not switches.enabled:
        return Reason.OFF
    document = switches.documents.get(uri)
    if document is False:
        return Reason.BUFFER
    if document is None and not language_on(settings, switches, language):
        return Reason.LANGUAGE
    if now < switches.snoozed_until:
        return Reason.SNOOZED
    return Reason.MANUAL if settings.completion.trigger == "manual" else None


def ineligibility(settings: Settings, switches: Switches, cursor: CursorContext, now: float) -> Reason | None:
    """Why a request gets no completion; None if it may get one. Explicit requests are refused only by off switches."""
    reason = document_ineligibility(settings, switches, cursor.uri, cursor.language, now)
    if cursor.invoked:
        return None if reason in (Reason.SNOOZED, Reason.MANUAL) else reason
    if reason is not None:
        return reason
    completion = settings.completion
    if sum(char not in _IGNORED_IN_SUFFIX for char in cursor.after) > completion.max_line_suffix:
        return Reason.LINE_SUFFIX
    if len(cursor.before.strip()) < completion.min_chars:
        return Reason.MIN_CHARS
    if not completion.in_comments and in_comment(cursor.language, cursor.before):
        return Reason.COMMENT
    return None


def in_comment(language: str, before: str) -> bool:
    """Whether the text of a line up to the cursor starts a line comment. Multi-line strings are not recognised."""
    code = _STRING.sub(" ", before)
    return any(mark in code for mark in COMMENT_MARKS.get(language, ()))
