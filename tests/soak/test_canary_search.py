"""The detectors of the soak: the canary search finds every encoding, and file opens are seen from every process."""

from __future__ import annotations

import base64
import contextlib
import os
import sqlite3
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.soak.harness import canary_search
from tests.soak.harness.file_opens import Opens

NAME = "zqk3v9x1m7b5n2c8w4r6t0yp"
TEXT = f"import os\n\nclass Vault:\n    key = '{NAME}'  # mine\n"


def database(path: Path, value: bytes) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE kept (key INTEGER, value BLOB)")
        db.execute("INSERT INTO kept VALUES (1, ?)", [value])
        db.commit()


def packed(width: str) -> Callable[[list[int]], bytes]:
    return lambda ids: struct.pack(f"<{len(ids)}{width}", *ids)


WAYS: dict[str, Callable[[Path, list[int]], object]] = {
    "raw": lambda path, ids: path.write_text(TEXT),
    "UTF-16": lambda path, ids: path.write_text(TEXT, encoding="utf-16-le"),
    "hex": lambda path, ids: path.write_text(TEXT.encode().hex()),
    **{
        f"base64 after {n}": lambda path, ids, n=n: path.write_bytes(base64.b64encode(b"x" * n + TEXT.encode()))
        for n in range(3)
    },
    **{f"token ids as {w}": lambda path, ids, w=w: path.write_bytes(b"head" + packed(w)(ids)) for w in "Hiqfd"},
    "token ids in msgpack": lambda path, ids: path.write_bytes(msgspec.msgpack.encode({"ids": ids})),
    "token ids in JSON": lambda path, ids: path.write_bytes(msgspec.json.encode(ids)),
    "a value over several pages": lambda path, ids: database(path, b"\1" * 4075 + TEXT.encode() + b"\1" * 9000),
    "token ids over several pages": lambda path, ids: database(path, b"\1" * 3900 + packed("i")(ids * 30)),
    "a packed value": lambda path, ids: database(path, zlib.compress(TEXT.encode())),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_encoding_is_found(way: str, tiny, tmp_path: Path):
    wanted = canary_search.forms(NAME, tiny.encode, tiny.decode)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "other").write_bytes(TEXT.replace(NAME, NAME[::-1]).encode() * 9)
    assert canary_search.places(list(canary_search.stored(tmp_path)), wanted) == []
    WAYS[way](tmp_path / "deep" / "file", tiny.encode(TEXT))
    assert canary_search.places(list(canary_search.stored(tmp_path)), wanted)[0].startswith("deep/file")


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
def test_opens_are_seen_from_any_process_and_by_any_path(tmp_path: Path):
    names = ("a.py", "b.py", "c.py")
    for name in names:
        (tmp_path / name).write_text("x = 1\n")
    opens = Opens(tmp_path / name for name in names)
    (tmp_path / "a.py").stat()
    assert opens.seen() == set()
    below = os.open(tmp_path, os.O_RDONLY)
    os.close(os.open("b.py", os.O_RDONLY, dir_fd=below))
    os.close(below)
    assert opens.seen() == {tmp_path / "b.py"}
    subprocess.run(["cat", str(tmp_path / "c.py")], check=True, capture_output=True)
    assert opens.seen() == {tmp_path / "c.py"}
    opens.close()
