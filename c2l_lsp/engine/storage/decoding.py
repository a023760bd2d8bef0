"""Typed decoding of all that is read from a state directory.

A state directory can be damaged, or written by another program. Each function returns a value whose types, ranges and
shapes were checked, or raises StateError: set aside, and built again from the repository.
"""

from __future__ import annotations

import re
import zlib
from typing import TypeVar

import msgspec
import safetensors
import torch
from torch import Tensor

from c2l_lsp.engine.storage import disk
from c2l_lsp.errors import StateError

SCHEMA = 1

STATE, EXTRA, SAVED = "state.safetensors", "extra.safetensors", "saved.msgpack"
PARTS = (STATE, EXTRA, SAVED)
"""The files of a generation, besides its manifest."""

MAX_BYTES = {"pointer": 256, "manifest": 1 << 16, STATE: 1 << 30, EXTRA: 1 << 30, SAVED: 1 << 28}
"""Largest size of each kind of file. A larger one is not read."""

MAX_ROW_BYTES = 16 << 20
"""Largest chunk embedding and largest compressed text of a file. `c2l.files.maxSizeKb` allows texts of 64 MiB."""

_MAX_TEXT_BYTES = 64 << 20
_MAX_GENERATION = 1 << 53  # counters cross to the editor as JSON numbers
MAX_STRENGTH = 100.0
"""Far above every strength that validation can choose."""
_MAX_TENSORS, _MAX_DIMENSIONS = 1 << 14, 4
_DIGEST_BYTES, _MAX_KEY_BYTES = 16, 64
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "I64": torch.int64, "I32": torch.int32, "I8": torch.int8,
}  # fmt: skip
_GENERATION = re.compile(rb"gen-[0-9A-Za-z-]{1,64}")

_T = TypeVar("_T")


class Manifest(msgspec.Struct, frozen=True):
    """The content of `manifest.json`: the schema, and the checksum of each file of the generation, in hex."""

    schema: int
    sums: dict[str, str]


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of a generation: the files that the state was made from, the hypernetwork and the ignore rules.

    `filter_digest`: names the ignore rules. `gate`, `gate_recall`: strengths that validation chose for the matrices and
    the kNN memory. `files`: path to (digest, size, mtime_ns, keys of its chunks). `seen`: path to (digest, size,
    mtime_ns) of every file in the folder, indexed or not, so that a later change is recognised. `touched`: changed
    files, latest last. `first`: original chunks of changed files outside the sample (see `adaptation.sample`).
    `indexed`: path to (digest, names of the chunks) of the files in the token index. `index_key`: names the model and
    the rules of the token index, "" without one.
    """

    schema: int
    folder: str
    hypernetwork: str
    filter_digest: str
    generation: int
    gate: float
    gate_recall: float = 1.0
    files: dict[str, tuple[bytes, int, int, list[bytes]]]
    seen: dict[str, tuple[bytes, int, int]] = {}
    touched: list[str] = []
    first: dict[str, bytes] = {}
    indexed: dict[str, tuple[bytes, list[bytes]]] = {}
    index_key: str = ""


_MANIFEST = msgspec.json.Decoder(Manifest)
_SAVED = msgspec.msgpack.Decoder(SavedState, strict=True)


def require(holds: object, sentence: str) -> None:
    """Raise StateError with this sentence unless `holds` is true."""
    if not holds:
        raise StateError(sentence)


def generation_name(pointer: bytes) -> str:
    """Return the name of the generation that the content of the pointer file names."""
    name = pointer.strip()
    require(_GENERATION.fullmatch(name), "the file CURRENT is damaged")
    return name.decode("ascii")


def manifest(content: bytes) -> dict[str, str]:
    """Return the checksums that a manifest lists, by the names in `PARTS`."""
    found = _decoded(_MANIFEST, content, "the manifest")
    require(found.schema == SCHEMA, f"schema {found.schema if abs(found.schema) < 1 << 32 else '?'}, not {SCHEMA}")
    for name in found.sums:
        require(name in PARTS, f"the manifest names {name[:80]!r}, which is not in the directory")
    require(len(found.sums) == len(PARTS), "the manifest does not list all files")
    return found.sums


def saved_state(content: bytes) -> SavedState:
    """Return the metadata of a generation."""
    saved = _decoded(_SAVED, content, SAVED)
    sound = all(0 <= strength <= MAX_STRENGTH for strength in (saved.gate, saved.gate_recall))  # false for NaN
    require(sound and 0 <= saved.generation <= _MAX_GENERATION, "a number is negative or not finite")
    require(saved.schema == SCHEMA, "the metadata have another schema")
    for path, (digest, size, mtime_ns, keys) in saved.files.items():
        _require_file(path, digest, size, mtime_ns)
        require(all(0 < len(key) <= _MAX_KEY_BYTES for key in keys), "a chunk has an impossible key")
    for path, (digest, size, mtime_ns) in saved.seen.items():
        _require_file(path, digest, size, mtime_ns)
    for path, (digest, names) in saved.indexed.items():
        _require_file(path, digest, 0, 0)
        require(all(len(name) == _DIGEST_BYTES for name in names), "a chunk has an impossible name")
    require(all(map(_is_relative, [*saved.touched, *saved.first])), "a path is not one of a file in the folder")
    return saved


def tensors(content: bytes, what: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; `what` names it in errors. Floating-point numbers are finite."""
    try:
        parts = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except (safetensors.SafetensorError, ValueError, OverflowError) as error:
        raise StateError(f"{what} holds no tensors: {error}") from error
    require(len(parts) <= _MAX_TENSORS, f"{what} holds {len(parts)} tensors")
    return {name: _tensor(part["dtype"], part["shape"], part["data"], what) for name, part in parts}


def verified(content: object, checksum: object) -> bytes | None:
    """Return the value of a row; None if its checksum does not match, as after a fault of the disk.

    Raises StateError if the columns have other types than ours: another program wrote them.
    """
    if not isinstance(content, bytes) or not isinstance(checksum, bytes):
        raise StateError("a row of the cache has values of other types")
    return content if disk.checksum(content) == checksum else None


def text(packed: bytes) -> str:
    """Return the file text of a row."""
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(packed, _MAX_TEXT_BYTES)
        found = content.decode("utf-8")
    except (zlib.error, UnicodeDecodeError) as error:
        raise StateError("a text of the cache cannot be unpacked") from error
    require(unpacker.eof, "a text of the cache is cut short or too long")
    return found


def _decoded(decoder: msgspec.json.Decoder[_T] | msgspec.msgpack.Decoder[_T], content: bytes, what: str) -> _T:
    try:
        return decoder.decode(content)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise StateError(f"{what} cannot be read: {str(error)[:200]}") from error


def _tensor(dtype: str, shape: list[int], data: bytearray, what: str) -> Tensor:
    kind = _DTYPES.get(dtype)
    if kind is None or len(shape) > _MAX_DIMENSIONS or any(size >= 1 << 31 for size in shape):
        raise StateError(f"{what} holds a tensor of {dtype} {shape[:8]}, which is none of ours")
    if not data:  # torch makes no tensor of an empty buffer
        return torch.zeros(shape, dtype=kind)
    tensor = torch.frombuffer(data, dtype=kind).reshape(shape)
    require(not kind.is_floating_point or bool(tensor.isfinite().all()), "a number is negative or not finite")
    return tensor


def _require_file(path: str, digest: bytes, size: int, mtime_ns: int) -> None:
    require(_is_relative(path), "a path is not one of a file in the folder")
    require(len(digest) == _DIGEST_BYTES, "the digest of a file has another length")
    require(0 <= size < 1 << 53 and abs(mtime_ns) < 1 << 63, "the size or time of a file is impossible")


def _is_relative(path: str) -> bool:
    return "\0" not in path and not any(part in ("", ".", "..") for part in path.split("/"))
