"""State directories as another program, a broken disk or an attacker leaves them, with checksums that agree."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load, save

from c2l_lsp.engine.storage import disk

DEEP = 100_000
"""Nesting of a hostile JSON document."""


@dataclass(frozen=True)
class Case:
    """One kind of damage. `harmless`: the state may be used as it is. `aside`: what must be set aside, as a glob."""

    name: str
    damage: Callable[[Path], None]
    aside: str = "*.bad"
    harmless: bool = False


def generation(root: Path) -> Path:
    """The current generation of a sound state directory."""
    return root / (root / "CURRENT").read_text(encoding="ascii")


def replace_file(directory: Path, name: str, content: bytes) -> None:
    """Put a file into a generation, and its checksum into the manifest."""
    (directory / name).write_bytes(content)
    manifest = json.loads((directory / "manifest.json").read_bytes())
    manifest["sums"][name] = disk.checksum(content).hex()
    (directory / "manifest.json").write_text(json.dumps(manifest))


# --- manifest --------------------------------------------------------------------------------------------------------

JSON_VALUES = {
    "null": "null", "true": "true", "0": "0", "-1": "-1", "1.5": "1.5", "NaN": "NaN", "1e400": "1e400",
    "huge int": "9" * 5000, "empty text": '""', "text": '"x"', "lone surrogate": '"\\ud800"', "list": "[]",
    "object": "{}", "deep": "[" * DEEP + "]" * DEEP,
}  # fmt: skip


def manifests() -> Iterator[Case]:
    """Every JSON type in place of the manifest, of each of its fields, and of each checksum."""
    places = ["", "schema", "sums", *(f"sums.{name}" for name in ("state.safetensors", "extra.safetensors"))]
    for place in [*places, "sums.saved.msgpack", "unknown"]:
        for value, text in JSON_VALUES.items():
            harmless = place == "unknown" and value not in ("deep", "NaN", "lone surrogate")
            yield Case(f"manifest, {place or 'all of it'}: {value}", _json_value(place, text), "gen-*.bad", harmless)
    for name, content in {"empty": b"", "not UTF-8": b"\xff\xfe{}", "cut": b'{"schema": 1, "su'}.items():
        yield Case(f"manifest, {name}", _writer("manifest.json", content), "gen-*.bad")


def _json_value(place: str, text: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = generation(root) / "manifest.json"
        found = json.loads(path.read_bytes())
        holder, _, name = place.partition(".")
        if name:
            found[holder][name] = "HERE"
        elif holder:
            found[holder] = "HERE"
        path.write_text(json.dumps(found).replace('"HERE"', text) if place else text)

    return damage


def _always(content: bytes) -> Callable[[bytes], bytes]:
    return lambda _: content


def _text_for_a_database(root: Path) -> None:
    (root / "readings.sqlite").write_bytes(b"no" * 9000)


def _writer(name: str, content: bytes) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (generation(root) / name).write_bytes(content)

    return write


# --- metadata --------------------------------------------------------------------------------------------------------

_ROW = (b"d" * 16, 1, 1, [b"k"])
METADATA: dict[str, list[Any]] = {
    "schema": [0, 2, 2**64 - 1], "generation": [-1, 2**60, 2**64 - 1], "gate": [-1.0, float("nan"), 1e308],
    "gate_recall": [float("inf"), -0.5], "folder": [b"x"], "hypernetwork": [7], "filter_digest": [None],
    "files": [
        {"../a.py": _ROW}, {"/a.py": _ROW}, {"a\0.py": _ROW}, {"": _ROW}, {"a.py": (b"d", 1, 1, [b"k"])},
        {"a.py": (b"d" * 16, -1, 1, [b"k"])}, {"a.py": (b"d" * 16, 2**64 - 1, 1, [])},
        {"a.py": (b"d" * 16, 1, 2**64 - 1, [])}, {"a.py": (b"d" * 16, 1, 1, [b""])},
        {"a.py": (b"d" * 16, 1, 1, [b"k" * 1000])}, {"a.py": (b"d" * 16, 1, 1, b"k")}, {"a.py": _ROW[:3]},
    ],
    "seen": [{"..": _ROW[:3]}, {"a.py": (b"", 1, 1)}, {"a.py": ("d" * 16, 1, 1)}, {"a.py": _ROW}],
    "touched": [["a", 1], ["/etc/passwd"], "a"], "first": [{"a": "b"}, {"../a": b""}, []],
}  # fmt: skip
_TYPES: dict[str, Any] = {
    "nil": None, "bool": True, "negative": -5, "unsigned": 2**64 - 1, "float": 1.5, "text": "x", "bytes": b"x",
    "list": [], "map": {}, "missing": ...,
}  # fmt: skip
_MAY_BE = {
    "folder": "text", "hypernetwork": "text", "filter_digest": "text", "gate": "float",
    "gate_recall": "float missing", "files": "map", "seen": "map missing",
    "touched": "list missing", "first": "map missing",
}  # fmt: skip


def metadata() -> Iterator[Case]:
    """Every msgpack type in place of every field, and values out of range, with agreeing checksums."""
    for field, values in METADATA.items():
        for value in values:
            yield Case(f"metadata, {field}: {value!r:.60}", _field(field, value), "gen-*.bad")
        for kind, value in _TYPES.items():
            harmless = kind in _MAY_BE.get(field, "").split()
            yield Case(f"metadata, {field}: {kind}", _field(field, value), "gen-*.bad", harmless)
    deep = b"\x81\xa1x" + b"\x91" * DEEP + b"\xc0"
    for name, content in {"empty": b"", "nil": b"\xc0", "list": b"\x90", "deep": deep, "cut": b"\xdf\xff\xff"}.items():
        yield Case(f"metadata, {name}", _rewrite("saved.msgpack", _always(content)), "gen-*.bad")


def _rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        directory = generation(root)
        replace_file(directory, name, change((directory / name).read_bytes()))

    return damage


def _field(field: str, value: Any) -> Callable[[Path], None]:
    def change(content: bytes) -> bytes:
        plain = msgspec.msgpack.decode(content)
        plain[field] = value
        if value is ...:
            del plain[field]
        return msgspec.msgpack.encode(plain)

    return _rewrite("saved.msgpack", change)


# --- tensors ---------------------------------------------------------------------------------------------------------

Change = Callable[[torch.Tensor], torch.Tensor | None]


def _with_nan(tensor: torch.Tensor) -> torch.Tensor:
    changed = tensor.clone().double() if not tensor.is_floating_point() else tensor.clone()
    changed.view(-1)[:1] = float("nan")
    return changed


TENSOR_CHANGES: dict[str, Change] = {
    "missing": lambda t: None,
    "float16": lambda t: t.half(),
    "bfloat16": lambda t: t.bfloat16(),
    "float8": lambda t: t.float().to(torch.float8_e4m3fn),
    "uint8": lambda t: t.to(torch.uint8),
    "bool": lambda t: t.bool(),
    "complex": lambda t: t.to(torch.complex64),
    "int64": lambda t: t.long(),
    "one dimension more": lambda t: t[None],
    "no dimension": lambda t: t.reshape(-1)[:1].sum().to(t.dtype),
    "zero size": lambda t: torch.zeros(0, dtype=t.dtype),
    "zero size, huge": lambda t: torch.zeros(0, 2**30, 2**31 - 1, dtype=t.dtype),
    "another length": lambda t: torch.cat([t.reshape(-1), t.reshape(-1)[:1]]),
    "NaN": _with_nan,
    "negative": lambda t: -t.abs() - 3 if t.dtype != torch.bool else t,
    "huge": lambda t: torch.full_like(t, torch.finfo(t.dtype).max if t.is_floating_point() else 2**7 - 1),
}
_BOUNDED = {
    ("F_e", "negative"), ("F_h", "negative"), ("n", "negative"), ("n", "huge"), ("S", "huge"),
    ("recent", "huge"), ("steps", "negative"), ("trust", "negative"), ("steps", "huge"), ("P", "huge"), ("Q", "huge"),
    ("mean", "huge"),
}  # fmt: skip
"""Changes to numbers that no repository gives. Of other numbers nobody can tell what they must be."""


def _may_be(name: str, what: str) -> bool:
    return (what in ("negative", "huge") and (name, what) not in _BOUNDED) or (name, what) == ("n", "no dimension")


def state_tensors(directory: Path) -> Iterator[Case]:
    """Every change of every tensor of a generation, one at a time, and tensors nobody knows."""
    for file in ("state.safetensors", "extra.safetensors"):
        names = sorted(load((directory / file).read_bytes()))
        for name in [name for name in names if not name.startswith("gate.") or name == "gate.head.bias"]:
            for what, change in TENSOR_CHANGES.items():
                damage, harmless = tensor_changer(file, name, change), _may_be(name, what)
                yield Case(f"{name} of {file}: {what}", damage, "gen-*.bad", harmless)
        unknown = _rewrite(file, lambda content: save({**load(content), "unknown": torch.ones(3)}))
        yield Case(f"{file}: unknown tensor", unknown, "gen-*.bad")
        many = _rewrite(file, lambda content: save({**load(content), **{str(i): torch.ones(1) for i in range(20_000)}}))
        yield Case(f"{file}: 20,000 tensors", many, "gen-*.bad")
        for what, content in {
            "empty": b"", "no header": b"\x00" * 8, "header without end": b"\xff" * 8 + b"{}",
            "deep header": _deep_header(), "text": b"not a tensor file",
        }.items():  # fmt: skip
            yield Case(f"{file}: {what}", _rewrite(file, _always(content)), "gen-*.bad")


def _deep_header() -> bytes:
    header = b'{"x": ' + b"[" * DEEP + b"]" * DEEP + b"}"
    return len(header).to_bytes(8, "little") + header


def tensor_changer(file: str, name: str, change: Change) -> Callable[[Path], None]:
    """Change one tensor of the current generation."""

    def changed(content: bytes) -> bytes:
        tensors = load(content)
        new = change(tensors.pop(name))
        return save(tensors if new is None else {**tensors, name: new.contiguous()})

    return _rewrite(file, changed)


# --- the database ----------------------------------------------------------------------------------------------------

_READING = "CREATE TABLE reading (key BLOB, rule TEXT, value BLOB, sum BLOB, PRIMARY KEY (key, rule))"
_TEXT = "CREATE TABLE text (digest BLOB PRIMARY KEY, value BLOB, sum BLOB)"
_ENDLESS = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r)"
_LOOP = f"{_ENDLESS} SELECT count(*) FROM r"
SCHEMAS: dict[str, list[str]] = {
    "a view": [_TEXT, f"CREATE VIEW reading AS {_ENDLESS} SELECT i AS key, '' AS rule, i AS value, i AS sum FROM r"],
    "a view for the texts": [_READING, f"CREATE VIEW text AS {_ENDLESS} SELECT i digest, i value, i sum FROM r"],
    "a trigger": [_READING, _TEXT, f"CREATE TRIGGER t BEFORE INSERT ON reading BEGIN SELECT ({_LOOP}); END"],
    "a trigger at deletion": [_READING, _TEXT, f"CREATE TRIGGER t AFTER DELETE ON text BEGIN SELECT ({_LOOP}); END"],
    "one more view": [_READING, _TEXT, f"CREATE VIEW v AS {_LOOP}"],
    "one more table": [_READING, _TEXT, "CREATE TABLE other (a)"],
    "one more index": [_READING, _TEXT, "CREATE INDEX i ON reading (hex(value))"],
    "a generated column": [
        _TEXT, "CREATE TABLE reading (key BLOB, rule TEXT, value BLOB GENERATED ALWAYS AS (zeroblob(1e9)), sum BLOB)",
    ],
    "a check": [_TEXT, "CREATE TABLE reading (key BLOB CHECK (length(hex(zeroblob(1e8))) > 0), rule, value, sum)"],
    "a default": [_TEXT, "CREATE TABLE reading (key, rule, value, sum DEFAULT (hex(zeroblob(1e8))))"],
    "other columns": [_TEXT, "CREATE TABLE reading (a, b)"],
    "another key": [_TEXT, "CREATE TABLE reading (key TEXT PRIMARY KEY, rule, value, sum) WITHOUT ROWID"],
    "another case": [_TEXT, _READING.replace("reading", "READING").replace("key BLOB", "key TEXT")],
    "a virtual table": [_TEXT, "CREATE VIRTUAL TABLE reading USING rtree (key, rule, value, sum, a)"],
    "a temporary name": [_READING, _TEXT, "CREATE TABLE sqlite_stat (a)".replace("sqlite_", "sqlit_")],
    "2,000 tables": [_READING, _TEXT, *(f"CREATE TABLE t{number} (a)" for number in range(2_000))],
    "1,000,000 rows": [
        _READING, _TEXT,
        f"INSERT INTO reading {_ENDLESS} SELECT CAST(i AS BLOB), 'x', x'00', x'00' FROM r LIMIT 1000000",
    ],
}  # fmt: skip
EMBEDDING_CHANGES: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "ids beyond the vocabulary": lambda t: t["ids"][1:].add_(100_000),
    "negative ids": lambda t: t["ids"][1:].fill_(-7),
    "ids with a second boundary": lambda t: t["ids"][2:3].fill_(-1),
    "an infinite scale": lambda t: t["v_scale"].fill_(float("inf")),
    "a NaN scale": lambda t: t["k_scale"][:1].fill_(float("nan")),
    "an enormous scale": lambda t: t["k_scale"].fill_(3e38),
    "another count": lambda t: t["n"].fill_(7e9),
    "a tensor missing": lambda t: t.pop("v"),
    "a tensor more": lambda t: t.update(more=torch.zeros(3)),
    "factors of another width": lambda t: t.update(v=t["v"][:, :-1].contiguous()),
    "factors of another type": lambda t: t.update(v=t["v"].float()),
    "no dimension": lambda t: t.update(keys=torch.tensor(1, dtype=torch.int8)),
    "zero size": lambda t: t.update(k=torch.zeros(0, 2**30, dtype=torch.int8)),
    "one row more": lambda t: t.update(keys=torch.cat([t["keys"], t["keys"][:1]])),
    "float8": lambda t: t.update(v=t["v"].float().to(torch.float8_e4m3fn)),
}
ROW_CHANGES = {
    "a null value": "value = NULL", "a null sum": "sum = NULL", "an integer value": "value = 7",
    "an integer sum": "sum = 7", "a text value": "value = 'x'", "a text sum": "sum = CAST(sum AS TEXT)",
    "a huge value": "value = zeroblob(100000000)", "an empty value": "value = x''",
}  # fmt: skip


@contextlib.contextmanager
def _database(root: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the database as it is."""
    with contextlib.closing(sqlite3.connect(root / "readings.sqlite")) as db, db:
        yield db


def _new_database(statements: list[str]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for path in root.glob("readings.sqlite*"):
            path.unlink()
        with _database(root) as db:
            db.execute("BEGIN")  # one wait for the disk
            for statement in statements:
                db.execute(statement)

    return damage


def _row_change(assignment: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        with _database(root) as db:
            db.execute(f"UPDATE reading SET {assignment}")

    return damage


def embedding_changer(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Change every stored embedding, with an agreeing checksum."""

    def damage(root: Path) -> None:
        with _database(root) as db:
            for key, rule, value in db.execute("SELECT key, rule, value FROM reading").fetchall():
                tensors = load(value)
                change(tensors)
                packed = save(tensors)
                row = (packed, disk.checksum(packed), key, rule)
                db.execute("UPDATE reading SET value = ?, sum = ? WHERE key = ? AND rule = ?", row)

    return damage


def _page(offset: int) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        data = bytearray((root / "readings.sqlite").read_bytes())
        data[offset : offset + 512] = os.urandom(512)
        (root / "readings.sqlite").write_bytes(data)

    return damage


def databases() -> Iterator[Case]:
    """Hostile schemas, rows and pages. The rows that are dropped as damaged by the disk set nothing aside."""
    aside = "readings.sqlite.bad"
    for name, statements in SCHEMAS.items():
        yield Case(f"database with {name}", _new_database(statements), aside)
    for name, change in EMBEDDING_CHANGES.items():
        yield Case(f"embeddings with {name}", embedding_changer(change), aside)
    for name, assignment in ROW_CHANGES.items():
        dropped = name == "a text sum" or name.endswith("value")
        yield Case(f"rows with {name}", _row_change(assignment), aside, harmless=dropped)
    for name, offset in {"its header": 0, "its schema": 100, "a tree": 4096, "another tree": 8192}.items():
        yield Case(f"database with random bytes in {name}", _page(offset), aside)
    yield Case("a text file for a database", _text_for_a_database, aside)


# --- links, FIFOs, directories ---------------------------------------------------------------------------------------


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link_to(target: Path) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _copy_linked(path: Path) -> None:
    """A link to a sound copy: what it names could change after the check."""
    elsewhere = path.parent.parent / f"elsewhere-{path.name}"
    path.with_name(f"{path.name}.before").rename(elsewhere)
    path.symlink_to(elsewhere)


def _full_directory(path: Path) -> None:
    (path / "full").mkdir(parents=True)


KINDS: dict[str, Callable[[Path], None]] = {
    "a FIFO": _fifo, "a directory": _full_directory, "a link into nothing": _link_to(Path("nowhere")),
    "a link to itself": lambda path: path.symlink_to(path.name), "a link to a device": _link_to(Path("/dev/zero")),
    "a link to a sound copy": _copy_linked,
}  # fmt: skip


def odd_files() -> Iterator[Case]:
    """A FIFO, a directory or a link in the place of every file of a state directory."""
    parts = ("manifest.json", "state.safetensors", "extra.safetensors", "saved.msgpack")
    for kind, make in KINDS.items():
        for part in parts:
            yield Case(f"{kind} as {part}", _replaced(part, make, inside=True), "gen-*.bad")
        yield Case(
            f"{kind} as the generation", _replaced("", make, inside=True), "*.bad", harmless=kind == "a directory"
        )
        for name in ("CURRENT", "lock", "readings.sqlite", "readings.sqlite-wal", "readings.sqlite-shm"):
            if not (name.endswith(("-wal", "-shm")) and kind == "a link to a sound copy"):
                yield Case(f"{kind} as {name}", _replaced(name, make), f"{name}*.bad")
        for name in (".CURRENT.tmp", "purge"):
            yield Case(f"{kind} as {name}", _replaced(name, make), harmless=True)


def _replaced(name: str, make: Callable[[Path], None], *, inside: bool = False) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = (generation(root) / name if name else generation(root)) if inside else root / name
        before = path.with_name(f"{path.name}.before")
        if path.exists():
            path.rename(before)
        elif make is _copy_linked:
            before.write_bytes(b"")
        make(path)
        if before.is_dir():
            shutil.rmtree(before)
        before.unlink(missing_ok=True)

    return damage
