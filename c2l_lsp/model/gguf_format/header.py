"""The header of a GGUF file: metadata and tensor table, read with limits and without mapping the file.

The format is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian. The
`gguf` package reads it too, but it maps the file (truncation then ends the process), trusts every count, and takes 30
times as long for a vocabulary of 150,000 tokens.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from c2l_lsp.errors import ModelError
from c2l_lsp.regular_files import OPEN_FLAGS

MAGIC = b"GGUF"
_MAX_HEADER_BYTES = 256 << 20
_MAX_ENTRIES = 10_000
_MAX_TENSORS = 100_000
_MAX_ITEMS = 4 << 20  # of an array
_MAX_NAME_BYTES = 1 << 10
_MAX_TEXT_BYTES = 16 << 20
_MAX_DIMENSIONS = 4
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class BlockFormat(NamedTuple):
    """How a tensor type stores weights: `weights` of them in `size` bytes."""

    name: str
    weights: int
    size: int


FORMATS = {
    0: BlockFormat("F32", 1, 4), 1: BlockFormat("F16", 1, 2), 2: BlockFormat("Q4_0", 32, 18),
    3: BlockFormat("Q4_1", 32, 20), 6: BlockFormat("Q5_0", 32, 22), 7: BlockFormat("Q5_1", 32, 24),
    8: BlockFormat("Q8_0", 32, 34), 10: BlockFormat("Q2_K", 256, 84), 11: BlockFormat("Q3_K", 256, 110),
    12: BlockFormat("Q4_K", 256, 144), 13: BlockFormat("Q5_K", 256, 176), 14: BlockFormat("Q6_K", 256, 210),
    16: BlockFormat("IQ2_XXS", 256, 66), 17: BlockFormat("IQ2_XS", 256, 74), 18: BlockFormat("IQ3_XXS", 256, 98),
    19: BlockFormat("IQ1_S", 256, 50), 20: BlockFormat("IQ4_NL", 32, 18), 21: BlockFormat("IQ3_S", 256, 110),
    22: BlockFormat("IQ2_S", 256, 82), 23: BlockFormat("IQ4_XS", 256, 136), 29: BlockFormat("IQ1_M", 256, 56),
    30: BlockFormat("BF16", 1, 2), 34: BlockFormat("TQ1_0", 256, 54), 35: BlockFormat("TQ2_0", 256, 66),
    39: BlockFormat("MXFP4", 32, 17),
}  # fmt: skip
"""Tensor types by their number in the file."""


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of the file: its shape as in PyTorch (slowest dimension first), and where its bytes are."""

    name: str
    shape: tuple[int, ...]
    format: int
    offset: int
    size: int

    @property
    def weights(self) -> int:
        """The number of weights."""
        count = 1
        for dimension in self.shape:
            count *= dimension
        return count


@dataclass(frozen=True)
class Header:
    """Metadata and tensors of one GGUF file of `size` bytes."""

    path: Path
    size: int
    metadata: dict[str, Any]
    tensors: dict[str, TensorEntry] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """The name of the model's architecture in llama.cpp."""
        return str(self.metadata.get("general.architecture", ""))[:60]

    @property
    def weights(self) -> int:
        """The number of weights of all tensors."""
        return sum(tensor.weights for tensor in self.tensors.values())

    def of_architecture(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - a plain value
        """The metadata value ARCHITECTURE.key."""
        return self.metadata.get(f"{self.architecture}.{key}", default)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one, without waiting. Raises ModelError for anything else."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a device can have effects
            raise ModelError(f"{path} is not a regular file.")
        descriptor = os.open(path, OPEN_FLAGS)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return os.fdopen(descriptor, "rb")


def read_header(path: Path) -> Header:
    """The header of a GGUF file. Raises ModelError with the path if the file is no GGUF, damaged or truncated."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return _Reader(path, file, size).header()
        except (struct.error, UnicodeDecodeError, OSError) as error:
            raise ModelError(f"{path} is damaged or truncated; download it again.") from error


class _Reader:
    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path, self._file, self._size = path, file, size
        self._left = min(size, _MAX_HEADER_BYTES)

    def header(self) -> Header:
        if self._bytes(4) != MAGIC:
            raise ModelError(f"{self._path} is no GGUF file.")
        version = self._number("I")
        if version not in (2, 3):
            raise ModelError(f"{self._path} has GGUF version {version}; versions 2 and 3 are known.")
        tensors, entries = self._count(_MAX_TENSORS), self._count(_MAX_ENTRIES)
        metadata = {}
        for _ in range(entries):
            key = self._text(_MAX_NAME_BYTES)
            metadata[key] = self._value(self._number("I"))
        table = [self._tensor() for _ in range(tensors)]
        return Header(self._path, self._size, metadata, self._placed(table, metadata.get("general.alignment", 32)))

    def _placed(self, table: list[TensorEntry], alignment: object) -> dict[str, TensorEntry]:
        """The tensors with offsets from the beginning of the file. All of them must lie inside it."""
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
            raise ModelError(f"{self._path} is damaged: its alignment is {alignment!r:.40}.")
        start = -(-self._file.tell() // alignment) * alignment
        placed = {}
        for tensor in table:
            offset = start + tensor.offset
            if offset + tensor.size > self._size:
                raise ModelError(
                    f"{self._path} is truncated: {tensor.name} ends at byte {offset + tensor.size}, "
                    f"the file at {self._size}. Download it again."
                )
            placed[tensor.name] = TensorEntry(tensor.name, tensor.shape, tensor.format, offset, tensor.size)
        return placed

    def _tensor(self) -> TensorEntry:
        name = self._text(_MAX_NAME_BYTES)
        dimensions = self._number("I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise ModelError(f"{self._path} is damaged: {name[:60]} has {dimensions} dimensions.")
        shape = tuple(self._number("Q") for _ in range(dimensions))[::-1]
        kind, offset = self._number("I"), self._number("Q")
        if kind not in FORMATS:
            raise ModelError(f"{self._path} stores {name[:60]} in quantisation {kind}, which c2l-lsp does not know.")
        block = FORMATS[kind]
        count = 1
        for dimension in shape:
            count *= dimension
        if not count or shape[-1] % block.weights:
            raise ModelError(f"{self._path} is damaged: {name[:60]} has a shape that {block.name} cannot store.")
        return TensorEntry(name, shape, kind, offset, count // block.weights * block.size)

    def _value(self, kind: int) -> Any:  # noqa: ANN401 - a plain value
        if kind == _STRING:
            return self._text(_MAX_TEXT_BYTES)
        if kind != _ARRAY:
            return self._number(self._letter(kind))
        inner, count = self._number("I"), self._count(_MAX_ITEMS)
        if inner == _STRING:
            return [self._text(_MAX_TEXT_BYTES) for _ in range(count)]
        letter = self._letter(inner)
        return list(struct.unpack(f"<{count}{letter}", self._bytes(count * struct.calcsize(f"<{letter}"))))

    def _letter(self, kind: int) -> str:
        if kind not in _SCALARS:  # an array of arrays too: no model has one
            raise ModelError(f"{self._path} is damaged: its metadata has a value of type {kind}.")
        return _SCALARS[kind]

    def _count(self, limit: int) -> int:
        count = self._number("Q")
        if count > limit:
            raise ModelError(f"{self._path} is damaged: it declares {count} entries where {limit} are possible.")
        return count

    def _text(self, limit: int) -> str:
        length = self._number("Q")
        if length > limit:
            raise ModelError(f"{self._path} is damaged: it declares a text of {length} bytes.")
        return self._bytes(length).decode("utf-8")

    def _number(self, letter: str) -> Any:  # noqa: ANN401 - int, float or bool
        return struct.unpack(f"<{letter}", self._bytes(struct.calcsize(f"<{letter}")))[0]

    def _bytes(self, count: int) -> bytes:
        if count > self._left:
            raise ModelError(f"{self._path} is truncated, or its header is too large. Download it again.")
        self._left -= count
        return self._file.read(count)  # shorter if the file shrinks: struct.error
