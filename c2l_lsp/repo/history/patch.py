"""The diff of one file in the format of `git diff --no-color -U3`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha1

from c2l_lsp.repo.history.lines import changed_lines

CONTEXT = 3
_MAX_HEADING = 80
"""In bytes: the function context after a hunk's `@@`."""
_ESCAPES = {byte: rb"\%03o" % byte for byte in (*range(0x20), *range(0x7F, 0x100))} | {
    0x07: rb"\a", 0x08: rb"\b", 0x09: rb"\t", 0x0A: rb"\n", 0x0B: rb"\v", 0x0C: rb"\f", 0x0D: rb"\r",
    0x22: rb"\"", 0x5C: rb"\\",
}  # fmt: skip


def unified_diff(old_text: str | None, new_text: str | None, path: str) -> str:
    """Return the diff from `old_text` to `new_text`, "" if nothing changed. The text of a missing file is None.

    File modes are 100644, and object names have seven digits.
    """
    old = None if old_text is None else old_text.encode("utf-8", "surrogatepass")
    new = None if new_text is None else new_text.encode("utf-8", "surrogatepass")
    if old == new:
        return ""
    parts = [b"diff --git %b %b\n" % (_quote(b"a/", path), _quote(b"b/", path)), _header(old, new)]
    if old or new:
        parts.append(b"--- %b\n" % (b"/dev/null" if old is None else _file_name(b"a/", path)))
        parts.append(b"+++ %b\n" % (b"/dev/null" if new is None else _file_name(b"b/", path)))
        parts += _hunks(_lines(old or b""), _lines(new or b""))
    return b"".join(parts).decode("utf-8", "replace")


def _header(old: bytes | None, new: bytes | None) -> bytes:
    if old is None:
        return b"new file mode 100644\nindex 0000000..%b\n" % _object_name(new or b"")
    if new is None:
        return b"deleted file mode 100644\nindex %b..0000000\n" % _object_name(old)
    return b"index %b..%b 100644\n" % (_object_name(old), _object_name(new))


def _object_name(data: bytes) -> bytes:
    return sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()[:7].encode()


def _quote(prefix: bytes, path: str) -> bytes:
    raw = prefix + path.encode("utf-8", "surrogateescape")
    escaped = b"".join(_ESCAPES.get(byte, bytes([byte])) for byte in raw)
    return raw if escaped == raw else b'"%b"' % escaped


def _file_name(prefix: bytes, path: str) -> bytes:
    name = _quote(prefix, path)
    ends_with_tab = b" " in name and not name.startswith(b'"')  # the tab marks the end of the name for patch(1)
    return name + b"\t" if ends_with_tab else name


def _lines(data: bytes) -> list[bytes]:
    """Return the lines with their ends. Only a newline ends a line, unlike in bytes.splitlines."""
    lines = data.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


def _hunks(old: Sequence[bytes], new: Sequence[bytes]) -> Iterator[bytes]:
    heading, searched = b"", -1
    for group in _group_changes(_changes(*changed_lines(old, new))):
        (a0, _, b0, _), (_, a1, _, b1) = group[0], group[-1]
        before, after = min(CONTEXT, a0, b0), min(CONTEXT, len(old) - a1, len(new) - b1)
        first = a0 - before
        heading = _heading(old, first - 1, searched) or heading
        searched = first - 1
        yield b"@@ -%b +%b @@%b\n" % (
            _range(first, a1 + after),
            _range(b0 - before, b1 + after),
            b" " + heading if heading else b"",
        )
        at = first
        for change in group:
            yield from _prefix_lines(b" ", old[at : change[0]])
            yield from _prefix_lines(b"-", old[change[0] : change[1]])
            yield from _prefix_lines(b"+", new[change[2] : change[3]])
            at = change[1]
        yield from _prefix_lines(b" ", old[at : a1 + after])


def _changes(old_changed: list[bool], new_changed: list[bool]) -> Iterator[tuple[int, int, int, int]]:
    """Yield (old start, old end, new start, new end) of each contiguous change."""
    i = j = 0
    while i < len(old_changed) or j < len(new_changed):
        a, b = i, j
        while i < len(old_changed) and old_changed[i]:
            i += 1
        while j < len(new_changed) and new_changed[j]:
            j += 1
        if i > a or j > b:
            yield a, i, b, j
        i, j = i + 1, j + 1


def _group_changes(changes: Iterator[tuple[int, int, int, int]]) -> Iterator[list[tuple[int, int, int, int]]]:
    """Yield the changes of each hunk: changes whose contexts touch share one."""
    group: list[tuple[int, int, int, int]] = []
    for change in changes:
        if group and change[0] - group[-1][1] > 2 * CONTEXT:
            yield group
            group = []
        group.append(change)
    if group:
        yield group


def _range(start: int, end: int) -> bytes:
    count = end - start
    first = start + 1 if count else start
    return b"%d" % first if count == 1 else b"%d,%d" % (first, count)


def _heading(lines: Sequence[bytes], start: int, stop: int) -> bytes:
    """Return the nearest line between `start` and `stop` (exclusive), upwards, that starts with a letter, _ or $."""
    for i in range(start, stop, -1):
        line = lines[i]
        if line[:1].isalpha() or line[:1] in (b"_", b"$"):
            text = line[:_MAX_HEADING].decode("utf-8", "ignore").encode()  # drops a character cut in half
            return text.rstrip(b" \t\n\v\f\r")
    return b""


def _prefix_lines(sign: bytes, lines: Sequence[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield sign + line if line.endswith(b"\n") else sign + line + b"\n\\ No newline at end of file\n"
