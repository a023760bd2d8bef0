"""Searches whatever is kept on disk for a string, in every form in which it could be kept."""

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
"""What may stand around a name: tokens at its edges depend on it."""

SHORTEST, LONGEST = 4, 10
"""Fewer tokens in a row than this say nothing; more are not needed."""


def forms(name: str, encode: Callable[[str], list[int]], decode: Callable[[list[int]], str]) -> list[bytes]:
    """A name raw, in UTF-16, as hex, as base64 at each of three places, and as token ids in every usual packing."""
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
    """Runs of tokens that stand for the middle of a name, as it is cut in each of the contexts.

    How its edges are cut depends on what stands beside them, in a file as here; the middle is the same everywhere.
    """
    found = set()
    for before, after in CONTEXTS:
        ids = encode(before + name + after)
        ends = [len(decode(ids[:count])) for count in range(len(ids) + 1)]
        first = next(count for count, end in enumerate(ends) if end >= len(before))
        last = max(count for count, end in enumerate(ends) if end <= len(before) + len(name))
        spare = max(0, last - first - LONGEST)
        run = tuple(ids[first + 1 + spare // 2 : last - 1 - spare // 2])
        if len(run) >= SHORTEST:
            found.add(run)
    return found


def kept(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Everything below a folder: files as they are, and the values of databases whole, and unpacked if packed.

    A file of a database holds large values in parts, and what was deleted until it is written over: both are looked at.
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
    """Where any of the forms stands."""
    return sorted({where for where, data in blobs if any(form in data for form in wanted)})
