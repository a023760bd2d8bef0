"""Parses the code around the cursor with tree-sitter and tells whether a text makes it worse.

The block around the cursor, from one line at column 0 to the next, is parsed alone. That bounds the time: the recovery
from an error may read all that follows it, and the grammar of Python carries the indentation along, so a whole file of
2,000 lines would cost 5 to 30 ms a key even from its last tree. Where a block is long (a class in Java), a file of
moderate length is parsed whole, from its last tree.
"""

from __future__ import annotations

import importlib
import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import Any

from c2l_lsp.engine.completion.shaping.place import Place

_GRAMMARS: dict[str, tuple[str, str]] = {
    "python": ("tree_sitter_python", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "javascriptreact": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "typescriptreact": ("tree_sitter_typescript", "language_tsx"),
    "go": ("tree_sitter_go", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "java": ("tree_sitter_java", "language"),
}
"""LSP language id → module of the grammar and its function."""

_BLOCK_BY_INDENT = frozenset({"python"})
_LONGEST_BLOCK = 2_500  # characters on each side of the cursor
_LONGEST_FILE = 30_000  # characters; of a longer file a long block is not parsed
_MOST_FAULTS = 16
_KEPT_COUNTS = 8
_HEADER = re.compile(r":[ \t]*(?:#[^\n]*)?$")


@cache
def parser_of(language: str) -> Any:  # noqa: ANN401 - an untyped library
    """Return the parser of an LSP language id; None if the language has no grammar here."""
    if language not in _GRAMMARS:
        return None
    name, function = _GRAMMARS[language]
    try:
        from tree_sitter import Language, Parser

        return Parser(Language(getattr(importlib.import_module(name), function)()))
    except (ImportError, AttributeError, TypeError, ValueError):  # not installed, or of another generation
        return None


@dataclass(frozen=True)
class Region:
    """The part of a document that is parsed: the text of it before and after the cursor."""

    before: str
    after: str


class Syntax:
    """Parses places. Keeps the last tree of each language to parse the next place from it."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[bytes, Any]] = {}
        self._counts: OrderedDict[tuple[str, bytes], int] = OrderedDict()

    def worsens(self, text: str, place: Place) -> bool:
        """Return whether the code has more syntax errors with `text` than without it.

        A text that begins a block counts with an empty block. Without a grammar the answer is False.
        """
        if parser_of(place.language) is None:
            return False
        region = region_of(place)
        if region is None:
            return False
        new = self._faults(place.language, region.before + text + region.after)
        if not new or new <= (old := self._faults(place.language, region.before + region.after)):
            return False
        bodies = (region.before + text + body + region.after for body in _bodies(text, place))
        return all(self._faults(place.language, source) > old for source in bodies)

    def _faults(self, language: str, source: str) -> int:
        """The number of errors and missing tokens of a source, at most _MOST_FAULTS."""
        data = source.encode("utf-8", "replace")
        known = (language, data)
        if known not in self._counts:
            self._counts[known] = faults(self._parse(language, data).root_node)
            while len(self._counts) > _KEPT_COUNTS:
                self._counts.popitem(last=False)
        return self._counts[known]

    def _parse(self, language: str, data: bytes) -> Any:  # noqa: ANN401 - an untyped library
        parser = parser_of(language)
        if language in _BLOCK_BY_INDENT:
            return parser.parse(data)
        if language in self._last:
            old, tree = self._last[language]
            start, old_end, new_end = _changed(old, data)
            tree.edit(
                start_byte=start,
                old_end_byte=old_end,
                new_end_byte=new_end,
                start_point=_point(old, start),
                old_end_point=_point(old, old_end),
                new_end_point=_point(data, new_end),
            )
            tree = parser.parse(data, tree)
        else:
            tree = parser.parse(data)
        self._last[language] = data, tree
        return tree


def _changed(old: bytes, new: bytes) -> tuple[int, int, int]:
    """The change between two texts: its start, its end in the old one and its end in the new one."""
    start = _common(old, new)
    most = min(len(old), len(new)) - start
    back = _common(old[len(old) - most :][::-1], new[len(new) - most :][::-1]) if most else 0
    return start, len(old) - back, len(new) - back


def _common(a: bytes, b: bytes) -> int:
    """Length of the common beginning. Compares slices, which is faster than a loop over bytes."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def _point(data: bytes, at: int) -> tuple[int, int]:
    return data.count(b"\n", 0, at), at - (data.rfind(b"\n", 0, at) + 1)


def faults(root: Any) -> int:  # noqa: ANN401 - an untyped library
    """Return the number of ERROR and MISSING nodes below a node, at most _MOST_FAULTS."""
    if not root.has_error:
        return 0
    found, waiting = 0, [root]
    while waiting and found < _MOST_FAULTS:
        node = waiting.pop()
        found += node.is_error or node.is_missing
        waiting += [child for child in node.children if child.has_error or child.is_missing]
    return found


def region_of(place: Place) -> Region | None:
    """Return what is parsed for a place: the block of lines around the cursor, or else the whole file.

    A block of Python that is indented is put under a header. None for a long block of a long file.
    """
    by_indent = place.language in _BLOCK_BY_INDENT
    start = _block_start(place.prefix, by_indent)
    before = place.prefix[start:]
    least = len(before) - len(before.lstrip(" \t")) if by_indent else 0
    end = _block_end(place.suffix, least)
    if by_indent:
        return Region(("if 1:\n" if least else "") + before, place.suffix[:end])
    if start >= 0 and end < _LONGEST_BLOCK:
        return Region(before, place.suffix[:end])
    if len(place.prefix) + len(place.suffix) > _LONGEST_FILE:
        return None
    return Region(place.prefix, place.suffix)


_DEFINITION = re.compile(r"[ \t]*(?:(?:async[ \t]+)?def\b|class\b)")
_CONTINUES = re.compile(r"(?:else|elif|except|finally|catch)\b|[)\]}{\"'#/*@]")


def _block_start(before: str, by_indent: bool) -> int:
    """Offset of the first line of the block: the nearest line at column 0, or if that is far the nearest definition.

    -1 if there is neither.
    """
    at, definition = before.rfind("\n") + 1, -1
    while at > 0 and len(before) - at <= _LONGEST_BLOCK:
        if before[at : at + 1].strip() and not _CONTINUES.match(before, at):
            return at
        if by_indent and definition < 0 and _DEFINITION.match(before, at):
            definition = at
        at = before.rfind("\n", 0, at - 1) + 1
    if at == 0:
        return 0
    return definition if definition >= 0 or not by_indent else at


def _block_end(after: str, least: int) -> int:
    """Where the block ends: before the first line below the cursor line that is indented by less than `least`.

    At the top level (`least` 0) the block ends at the next line at column 0 that continues nothing.
    """
    at = after.find("\n")
    while 0 <= at < _LONGEST_BLOCK:
        end = after.find("\n", at + 1)
        line = after[at + 1 : end if end >= 0 else len(after)]
        content = line.lstrip(" \t")
        width = len(line) - len(content)
        if content and not _CONTINUES.match(content) and (width < least or width == 0):
            return at
        at = end
    return at if at >= 0 else len(after)


def _bodies(text: str, place: Place) -> list[str]:
    """Texts that complete what the last line of a text begins: an empty block. [] if it begins nothing."""
    if place.rest.strip():
        return []
    lines = (place.line + text).split("\n")
    last = lines[-1]
    indent = last[: len(last) - len(last.lstrip())]
    if place.language not in _BLOCK_BY_INDENT:
        return [" {}"]
    if last.lstrip().startswith("@"):
        return [f"\n{indent}def _(): pass"]
    if not _HEADER.search(last):
        return []
    inner = f"\n{indent}    "
    if last.lstrip().startswith("try"):
        return [f"{inner}pass\n{indent}finally:{inner}pass"]
    return [f"{inner}pass", f"{inner}case _: pass"]
