"""The weights of a GGUF file as transformers expects them, and as a safetensors file, one tensor at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import msgspec
import numpy as np

from c2l_lsp.errors import ModelError
from c2l_lsp.model.gguf_format.families import Family
from c2l_lsp.model.gguf_format.header import FORMATS, Header, TensorEntry

_STORED = {"F32": "F32", "F16": "F16", "BF16": "BF16"}  # any other format becomes F16
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_EQUAL_COSINE = 0.98
"""Above it, two quantisations are of one matrix: 2-bit groups of normal numbers still reach 0.98, 4-bit ones 0.995."""
_COMPARED_ROWS = 256

Array: TypeAlias = np.ndarray[Any, Any]


def _stored_type(tensor: TensorEntry) -> str:
    return _STORED.get(FORMATS[tensor.format].name, "F16")


def converted_bytes(header: Header) -> int:
    """The size of a file's weights after the conversion, in bytes."""
    return sum(tensor.weights * _ITEM_BYTES[_stored_type(tensor)] for tensor in header.tensors.values())


_Dequantize: TypeAlias = Callable[[Array, int], Array]


def dequantizer() -> _Dequantize:
    """llama.cpp's own reference code. Raises ModelError if it is not installed."""
    try:
        import gguf
    except ImportError as error:
        raise ModelError("GGUF models need the Python package gguf; run pip install gguf.") from error

    def dequantize(blocks: Array, kind: int) -> Array:
        values: Array = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(kind))
        return values

    return dequantize


class Values:
    """The weights of a file's tensors, as transformers expects them."""

    def __init__(self, header: Header, family: Family, file: BinaryIO, dequantize: _Dequantize) -> None:
        self._header, self._family, self._file, self._dequantize = header, family, file, dequantize

    def read(self, name: str, rows: int = 0) -> Array:
        """A tensor as fp32, or as raw bf16 (uint16); with `rows`, its first rows only."""
        tensor = self._header.tensors[name]
        block = FORMATS[tensor.format]
        shape = (min(rows, tensor.shape[0]), *tensor.shape[1:]) if rows else tensor.shape
        row_bytes = shape[-1] // block.weights * block.size
        size = int(np.prod(shape[:-1], dtype=np.int64)) * row_bytes
        self._file.seek(tensor.offset)
        data = self._file.read(size)
        if len(data) != size:
            raise ModelError(f"{self._header.path} is truncated at {name[:60]}; download it again.")
        if block.weights == 1:
            plain = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[block.name]
            return np.frombuffer(data, plain).reshape(shape)
        blocks = np.frombuffer(data, np.uint8).reshape(*shape[:-1], row_bytes)
        try:
            return self._dequantize(blocks, tensor.format).reshape(shape)
        except (NotImplementedError, ValueError) as error:
            raise ModelError(
                f"{self._header.path} stores {name[:60]} as {block.name}, which gguf cannot read."
            ) from error

    def converted(self, name: str) -> Array:
        """A tensor in the type it is stored as, with the changes of llama.cpp's converter undone."""
        tensor = self._header.tensors[name]
        values = self.read(name)
        if self._family.rotated and (found := re.search(r"\.attn_([qk])\.", name)):
            values = self._unrotated(values, found[1])
        if self._family.norm_offset and name.endswith("norm.weight"):
            values = values - np.float32(self._family.norm_offset)
        stored = _stored_type(tensor)
        if stored == "BF16":
            return np.ascontiguousarray(values)
        with np.errstate(over="ignore"):
            result = np.ascontiguousarray(values, "<f4" if stored == "F32" else "<f2")
        if not np.isfinite(result).all():
            raise ModelError(f"{self._header.path} is damaged: {name[:60]} holds numbers that are not finite.")
        return result

    def _unrotated(self, values: Array, which: str) -> Array:
        """Rotary pairs (i, i + half) of every head, from pairs side by side."""
        heads = self._header.of_architecture("attention.head_count")
        heads = heads if which == "q" else self._header.of_architecture("attention.head_count_kv", heads)
        if not isinstance(heads, int) or heads < 1 or values.shape[0] % (2 * heads):
            raise ModelError(f"{self._header.path} is damaged: its number of heads does not fit its weights.")
        rows = values.shape[0]
        return values.reshape(heads, rows // heads // 2, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)

    def are_equal(self, first: str, second: str) -> bool:
        """Whether two tensors are quantisations of one matrix, by their first rows."""
        if self._header.tensors[first].shape != self._header.tensors[second].shape:
            return False
        a, b = (self._float(name).ravel() for name in (first, second))
        norms = float(np.linalg.norm(a) * np.linalg.norm(b))
        return norms > 0 and float(a @ b) / norms > _EQUAL_COSINE

    def _float(self, name: str) -> Array:
        values = self.read(name, _COMPARED_ROWS)
        if values.dtype == np.uint16:
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32)


def write_weights(path: Path, header: Header, names: dict[str, str], values: Values) -> None:
    """Write a safetensors file, one tensor at a time; the disk is flushed before this returns."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor, name in names.items():
        entry = header.tensors[tensor]
        stored = _stored_type(entry)
        start, end = end, end + entry.weights * _ITEM_BYTES[stored]
        table[name] = {"dtype": stored, "shape": list(entry.shape), "data_offsets": [start, end]}
    head = msgspec.json.encode(table)
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for data in _bytes_of(names, values):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _bytes_of(names: dict[str, str], values: Values) -> Iterator[memoryview]:
    for tensor in names:
        yield values.converted(tensor).data.cast("B")
