"""One file's change as `git diff --no-color -U3` writes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha1

from c2l_lsp.repo.history.lines import changed_lines

CONTEXT = 3
_HEADING = 80
"""Bytes of a hunk's heading."""
_QUOTED = {byte: rb"\%03o" % byte for byte in (*range(0x20), *range(0x7F, 0x100))} | {
    0x07: rb"\a", 0x08: rb"\b", 0x09: rb"\t", 0x0A: rb"\n", 0x0B: rb"\v", 0x0C: rb"\f", 0x0D: rb"\r",
    0x22: rb"\"", 0x5C: rb"\\",
}  # fmt: skip


def unified_diff(old_text: str | None, new_text: str | None, path: str, old_path: str | None = None) -> str:
    """The diff from `old_text` to `new_text`; None is a file that does not exist; "" when nothing changed.

    `old_path` differs from `path` for a rename. File modes are 100644; names of objects have seven digits.
    """
    old_path = path if old_path is None else old_path
    old = None if old_text is None else old_text.encode("utf-8", "surrogatepass")
    new = None if new_text is None else new_text.encode("utf-8", "surrogatepass")
    if old == new and old_path == path:
        return ""
    parts = [
        b"diff --git %b %b\n" % (_quoted(b"a/", old_path), _quoted(b"b/", path)),
        *_header(old, new, old_path, path),
    ]
    if old != new and (old or new):
        parts.append(b"--- %b\n" % (b"/dev/null" if old is None else _file_line(b"a/", old_path)))
        parts.append(b"+++ %b\n" % (b"/dev/null" if new is None else _file_line(b"b/", path)))
        parts += _hunks(_lines(old or b""), _lines(new or b""))
    return b"".join(parts).decode("utf-8", "replace")


def _header(old: bytes | None, new: bytes | None, old_path: str, path: str) -> Iterator[bytes]:
    if old is None:
        yield b"new file mode 100644\nindex 0000000..%b\n" % _object(new or b"")
    elif new is None:
        yield b"deleted file mode 100644\nindex %b..0000000\n" % _object(old)
    else:
        if old_path != path:
            yield b"similarity index %d%%\n" % _similarity(old, new)
            yield b"rename from %b\nrename to %b\n" % (_quoted(b"", old_path), _quoted(b"", path))
        if old != new:
            yield b"index %b..%b 100644\n" % (_object(old), _object(new))


def _object(data: bytes) -> bytes:
    return sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()[:7].encode()


def _quoted(prefix: bytes, path: str) -> bytes:
    raw = prefix + path.encode("utf-8", "surrogateescape")
    escaped = b"".join(_QUOTED.get(byte, bytes([byte])) for byte in raw)
    return raw if escaped == raw else b'"%b"' % escaped


def _file_line(prefix: bytes, path: str) -> bytes:
    name = _quoted(prefix, path)
    return name + b"\t" if b" " in name and not name.startswith(b'"') else name  # tells patch(1) where it ends


def _similarity(old: bytes, new: bytes) -> int:
    """Percent of the larger file that both share, counted in lines and in pieces of 64 bytes of long ones."""
    shared = _pieces(old) & _pieces(new)
    copied = sum(len(chunk) * n for chunk, n in shared.items())
    return 100 if old == new else copied * 60000 // max(len(old), len(new), 1) * 100 // 60000


def _pieces(data: bytes) -> Counter[bytes]:
    lines = data.replace(b"\r\n", b"\n").splitlines(keepends=True) if b"\r\n" in data else _lines(data)
    return Counter(line[i : i + 64] for line in lines for i in range(0, len(line), 64))


def _lines(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


def _hunks(old: Sequence[bytes], new: Sequence[bytes]) -> Iterator[bytes]:
    heading, searched = b"", -1
    for group in _groups(_blocks(*changed_lines(old, new))):
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
        for block in group:
            yield from _signed(b" ", old[at : block[0]])
            yield from _signed(b"-", old[block[0] : block[1]])
            yield from _signed(b"+", new[block[2] : block[3]])
            at = block[1]
        yield from _signed(b" ", old[at : a1 + after])


def _blocks(old_marks: list[bool], new_marks: list[bool]) -> Iterator[tuple[int, int, int, int]]:
    """Changed stretches (old start, old end, new start, new end)."""
    i = j = 0
    while i < len(old_marks) or j < len(new_marks):
        a, b = i, j
        while i < len(old_marks) and old_marks[i]:
            i += 1
        while j < len(new_marks) and new_marks[j]:
            j += 1
        if i > a or j > b:
            yield a, i, b, j
        i, j = i + 1, j + 1


def _groups(blocks: Iterator[tuple[int, int, int, int]]) -> Iterator[list[tuple[int, int, int, int]]]:
    """Blocks whose contexts touch stand in one hunk."""
    group: list[tuple[int, int, int, int]] = []
    for block in blocks:
        if group and block[0] - group[-1][1] > 2 * CONTEXT:
            yield group
            group = []
        group.append(block)
    if group:
        yield group


def _range(start: int, end: int) -> bytes:
    count = end - start
    first = start + 1 if count else start
    return b"%d" % first if count == 1 else b"%d,%d" % (first, count)


def _heading(lines: Sequence[bytes], start: int, stop: int) -> bytes:
    """The nearest line above a hunk that begins with a letter, _ or $, but none at or above `stop`."""
    for i in range(start, stop, -1):
        line = lines[i]
        if line[:1].isalpha() or line[:1] in (b"_", b"$"):
            whole = line[:_HEADING].decode("utf-8", "ignore").encode()  # not half of a character
            return whole.rstrip(b" \t\n\v\f\r")
    return b""


def _signed(sign: bytes, lines: Sequence[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield sign + line if line.endswith(b"\n") else sign + line + b"\n\\ No newline at end of file\n"
