"""Searches files for a string (a canary) in every encoding in which it could be stored."""

from __future__ import annotations

import base64
import contextlib
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

CONTEXTS = (("", ""), ("'", "'"), ('"', '"\n'), (" ", " "), (" = '", "'\n"), ("\n", "\n"), ("_", "."), ("# ", ","))
"""Texts around a name; they determine the tokens at its edges."""

MIN_TOKENS, MAX_TOKENS = 4, 10
"""Length of the token sequences that are searched; shorter ones occur by chance."""


def forms(name: str, encode: Callable[[str], list[int]], decode: Callable[[list[int]], str]) -> list[bytes]:
    """The encodings of a name: raw, UTF-16, hex, base64 at three offsets, and token ids in every usual packing."""
    raw = name.encode()
    made = [raw, name.encode("utf-16-le"), raw.hex().encode()]
    made += [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)]
    for ids in inner_tokens(name, encode, decode):
        made += [struct.pack(f"<{len(ids)}{width}", *ids) for width in ("H", "i", "q", "f", "d")]
        made += [struct.pack(f">{len(ids)}{width}", *ids) for width in ("H", "i", "q")]
        made.append(b"".join(map(msgspec.msgpack.encode, ids)))
        made += [separator.join(map(str, ids)).encode() for separator in (", ", ",", " ")]
    return list(dict.fromkeys(made))


def inner_tokens(
    name: str, encode: Callable[[str], list[int]], decode: Callable[[list[int]], str]
) -> set[tuple[int, ...]]:
    """The token sequences of the middle of a name, for each of the contexts.

    Tokens at the edges depend on the surrounding text; those of the middle do not.
    """
    found = set()
    for before, after in CONTEXTS:
        ids = encode(before + name + after)
        ends = [len(decode(ids[:count])) for count in range(len(ids) + 1)]
        first = next(count for count, end in enumerate(ends) if end >= len(before))
        last = max(count for count, end in enumerate(ends) if end <= len(before) + len(name))
        spare = max(0, last - first - MAX_TOKENS)
        run = tuple(ids[first + 1 + spare // 2 : last - 1 - spare // 2])
        if len(run) >= MIN_TOKENS:
            found.add(run)
    return found


def stored(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Path and content of every file below a folder, and every value in its databases, also decompressed.

    A database splits large values over pages and keeps deleted ones until they are overwritten. Therefore both the
    file and the values are searched.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            yield path.relative_to(folder).as_posix(), data
            if data.startswith(b"SQLite format 3\0"):
                yield from _values(path, path.relative_to(folder).as_posix())


def _values(path: Path, shown: str) -> Iterator[tuple[str, bytes]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.text_factory = bytes
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in db.execute(f'SELECT * FROM "{table.decode()}"'):
                for value in row:
                    data = value if isinstance(value, bytes) else str(value).encode()
                    yield f"{shown}:{table.decode()}", data
                    with contextlib.suppress(zlib.error):
                        yield f"{shown}:{table.decode()}, unpacked", zlib.decompress(data)


def places(blobs: list[tuple[str, bytes]], wanted: list[bytes]) -> list[str]:
    """The places that contain any of the forms."""
    return sorted({where for where, data in blobs if any(form in data for form in wanted)})
