"""Whether a completion may be given at a place, and if not, why. No model, no LSP: settings, switches and one line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from c2l_lsp.config import Settings
from c2l_lsp.server.transport.protocol import Reason, Switched
from c2l_lsp.text import CLOSERS

_CLOSERS = frozenset(f" \t{CLOSERS}")
_HASH = ("#",)
_SLASH = ("//",)
COMMENT_MARKS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("python", "ruby", "shellscript", "perl", "r", "yaml", "toml", "makefile", "dockerfile"), _HASH),
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
    """What the user turned on or off while running; None and absence leave it to the settings."""

    everything: bool = True
    languages: dict[str, bool] = field(default_factory=dict)
    documents: dict[str, bool] = field(default_factory=dict)
    snoozed_until: float = 0.0

    def restore(self, switched: Switched) -> None:
        """What the user had turned on and off when a former server of the same editor ended."""
        self.everything = not switched.off
        self.documents.update(switched.documents)
        self.languages.update(switched.languages)
        self.snoozed_until = switched.snoozed_until


@dataclass(frozen=True)
class Spot:
    """A place in a document, as far as the gate looks."""

    uri: str
    language: str
    before: str
    after: str
    invoked: bool


def language_on(settings: Settings, switches: Switches, language: str) -> bool:
    """Whether completions are on for a language."""
    return switches.languages.get(language, settings.enabled_for(language))


def closed_for_document(settings: Settings, switches: Switches, uri: str, language: str, now: float) -> Reason | None:
    """Why a document gets no automatic completion anywhere; None if it does."""
    if not switches.everything:
        return Reason.OFF
    document = switches.documents.get(uri)
    if document is False:
        return Reason.BUFFER
    if document is None and not language_on(settings, switches, language):
        return Reason.LANGUAGE
    if now < switches.snoozed_until:
        return Reason.SNOOZED
    return Reason.MANUAL if settings.completion.trigger == "manual" else None


def closed(settings: Settings, switches: Switches, spot: Spot, now: float) -> Reason | None:
    """Why a request gets no completion; None if it does. An explicit request passes all but the off switches."""
    reason = closed_for_document(settings, switches, spot.uri, spot.language, now)
    if spot.invoked:
        return None if reason in (Reason.SNOOZED, Reason.MANUAL) else reason
    if reason is not None:
        return reason
    completion = settings.completion
    if sum(char not in _CLOSERS for char in spot.after) > completion.max_line_suffix:
        return Reason.LINE_SUFFIX
    if len(spot.before.strip()) < completion.min_chars:
        return Reason.MIN_CHARS
    if not completion.in_comments and in_comment(spot.language, spot.before):
        return Reason.COMMENT
    return None


def in_comment(language: str, before: str) -> bool:
    """Whether a line's text up to the cursor has opened a line comment. Strings over several lines are not seen."""
    code = _STRING.sub(" ", before)
    return any(mark in code for mark in COMMENT_MARKS.get(language, ()))
