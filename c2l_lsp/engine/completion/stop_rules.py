"""Text rules that end a completion: when to stop decoding, and what to cut from the decoded text.

The rules are those of tabby, llama.vim and continue, for scopes by indentation: stay in the block of the cursor, stop
at a blank line, do not repeat a line, do not write the line that already follows. No model is needed here. What is
shown of the text is the subject of `shaping`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from c2l_lsp.text import is_closers_only

_REPETITION = re.compile(r"(.{4,}?)\1{3,}$", re.DOTALL)
"""A string of at least four characters, four times or more in a row."""

_REPETITION_WINDOW = 400  # characters: the search is quadratic


@dataclass(frozen=True)
class StopRules:
    """The text around a cursor that limits a completion.

    `multiline`: the completion may have more than one line.
    `indent`: width of the cursor line's indentation in columns.
    `line`: the cursor line before the cursor. `rest`: the cursor line after it.
    `following`: the first line below the cursor that is not blank, or "".
    """

    multiline: bool
    indent: int
    line: str
    rest: str
    following: str

    @classmethod
    def at_cursor(cls, prefix: str, suffix: str, multiline: str) -> StopRules:
        """Return the rules for the text before and after a cursor.

        `multiline` is the setting: "never", "always", or "auto" (only where nothing but closers follows on the line).
        """
        line = prefix.rpartition("\n")[2]
        rest, _, below = suffix.partition("\n")
        rest = rest.rstrip("\r")
        following = next((text for text in below.splitlines() if text.strip()), "")
        several = multiline == "always" or (multiline == "auto" and is_closers_only(rest))
        return cls(several, _indent(line), line, rest, following)

    def stop_reason(self, text: str) -> str:
        """Return why decoding should end after `text` ("lines", "repeat", "suffix", "scope", "blank"), or ""."""
        if "\n" in text and not self.multiline and text.strip():
            return "lines"
        if _REPETITION.search(text[-_REPETITION_WINDOW:]):
            return "repeat"
        *complete, last = text.split("\n")
        if complete and (reason := self._reason_after_line(complete)):
            return reason
        return "scope" if complete and last.strip() and self._leaves_scope(last) else ""

    def _reason_after_line(self, lines: list[str]) -> str:
        """The reason to stop after these complete lines. The first continues the cursor line, so it has no indent."""
        last = lines[-1]
        if self._is_following(last):
            return "suffix"
        if len(lines) > 1 and last.strip() and self._leaves_scope(last):
            return "scope"
        if len(lines) > 1 and not last.strip() and any(line.strip() for line in lines[:-1]):
            return "blank"
        return "repeat" if _repeats([self.line + lines[0], *lines[1:]]) else ""

    def trim(self, text: str, *, incomplete: bool = False) -> str:
        """Return the part of a decoded text that may be suggested.

        The result stays in the scope, repeats nothing and has no trailing white space. `incomplete`: decoding was
        cut off inside the last line, which is dropped if another one remains.
        """
        lines = text.split("\n")
        if not self.multiline:
            lines = lines[:1]
        elif incomplete and len(lines) > 1:
            lines = lines[:-1]
        kept: list[str] = []
        for number, line in enumerate(lines):
            if number and line.strip() and self._leaves_scope(line):
                break
            if number and self._is_following(line):
                break
            if kept and _repeats([self.line + kept[0], *kept[1:], line]):
                break
            kept.append(line)
        return _collapse_repetition("\n".join(kept)).rstrip()

    def _leaves_scope(self, line: str) -> bool:
        return _indent(line) < self.indent

    def _is_following(self, line: str) -> bool:
        return len(line.strip()) > 2 and line.strip() == self.following.strip()


def _indent(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip(" "))


def _repeats(lines: list[str]) -> bool:
    """Whether the last line repeats the one before it, or the last two lines repeat the two before them."""
    written = [line.strip() for line in lines if line.strip()]
    if len(written) >= 2 and len(written[-1]) > 3 and written[-1] == written[-2]:
        return True
    return len(written) >= 4 and written[-2:] == written[-4:-2]


def _collapse_repetition(text: str) -> str:
    match = _REPETITION.search(text)
    return text[: match.start()] + match.group(1) if match else text
