"""What a completion may look like: when to stop decoding, and what to cut from the text. Pure text, no model.

Rules of the field (tabby, llama.vim, continue), for indentation-based scopes: stay inside the block the cursor is in,
stop at a blank line, never repeat a line, never run into the text that already follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CLOSERS = re.compile(r"^[\s)\]}\"'`,:;>]*$")
_REPEATED = re.compile(r"(.{4,}?)\1{3,}$", re.DOTALL)


@dataclass(frozen=True)
class StopRules:
    """The surroundings of a cursor, as far as they bound a completion.

    `indent` is the width of the cursor line's indentation, `line` its text before the cursor, `rest` the text after it
    on the line, `following` the first non-blank line below.
    """

    multiline: bool
    indent: int
    line: str
    rest: str
    following: str

    @classmethod
    def of(cls, prefix: str, suffix: str, multiline: str) -> StopRules:
        """The shape at a cursor. `multiline` is the setting: auto, always or never."""
        line = prefix.rpartition("\n")[2]
        rest, _, below = suffix.partition("\n")
        rest = rest.rstrip("\r")
        following = next((text for text in below.splitlines() if text.strip()), "")
        several = multiline == "always" or (multiline == "auto" and bool(_CLOSERS.match(rest)))
        return cls(several, _width(line), line, rest, following)

    def stop(self, text: str) -> str:
        """Why decoding should end with this text so far; "" to go on. Only whole lines are judged."""
        if "\n" in text and not self.multiline and text.strip():
            return "lines"
        if _REPEATED.search(text[-400:]):
            return "repeat"
        lines = text.split("\n")
        done = lines[:-1]
        if len(lines) > 1:
            if self._reaches_suffix(done[-1]):
                return "suffix"
            if len(done) > 1 and done[-1].strip() and self._leaves_scope(done[-1]):
                return "scope"
            if len(done) > 1 and not done[-1].strip() and any(part.strip() for part in done[:-1]):
                return "blank"
            if _repeats([self.line + done[0], *done[1:]]):
                return "repeat"
        last = lines[-1]
        if len(lines) > 1 and last.strip() and self._leaves_scope(last):
            return "scope"
        return ""

    def finish(self, text: str, stopped: str) -> str:
        """The text to show: whole lines inside the scope, no overlap with what follows, no trailing space."""
        lines = text.split("\n")
        if not self.multiline:
            lines = lines[:1]
        elif stopped in ("latency", "tokens") and len(lines) > 1:
            lines = lines[:-1]  # the last line is unfinished
        kept: list[str] = []
        for number, line in enumerate(lines):
            if number and line.strip() and self._leaves_scope(line):
                break
            if number and self._reaches_suffix(line):
                break
            if kept and _repeats([self.line + kept[0], *kept[1:], line]):
                break
            kept.append(line)
        out = _unrepeated("\n".join(kept)).rstrip()
        return self._without_overlap(out)

    def _leaves_scope(self, line: str) -> bool:
        inside = self.indent if self.line.strip() else max(self.indent, 0)
        return _width(line) < inside

    def _reaches_suffix(self, line: str) -> bool:
        return len(line.strip()) > 2 and line.strip() == self.following.strip()

    def _without_overlap(self, text: str) -> str:
        """Cut from the end what stands behind the cursor anyway: `foo(a)` before `)` becomes `foo(a`."""
        rest = self.rest.rstrip()
        first, newline, others = text.partition("\n")
        if rest and not newline:
            for size in range(min(len(rest), len(text)), 0, -1):
                if text.endswith(rest[:size]) and (size == len(rest) or size > 2):
                    return text[:-size]
        if rest and newline and first.endswith(rest):
            return first[: -len(rest)]  # several lines cannot be put before text that stays on this line
        return "\n".join([first, others]) if newline else first


def closers_only(rest: str) -> bool:
    """Whether the rest of a line holds nothing but closing characters and white space."""
    return bool(_CLOSERS.match(rest))


def _width(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip(" "))


def _repeats(lines: list[str]) -> bool:
    """The last line was just said, or the last pair of lines was."""
    said = [line.strip() for line in lines if line.strip()]
    if len(said) >= 2 and len(said[-1]) > 3 and said[-1] == said[-2]:
        return True
    return len(said) >= 4 and said[-2:] == said[-4:-2]


def _unrepeated(text: str) -> str:
    match = _REPEATED.search(text)
    return text[: match.start()] + match.group(1) if match else text
