"""Packing a folder into parts of limited size, for machines from which only small files can be copied."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import zstandard

from c2l_lsp.errors import CheckpointError, StorageError

SIZE = 15 * 2**20
"""Bytes per part: a little under the usual limit of 16 MB."""

_INDEX = "parts.json"


class _PartWriter(io.RawIOBase):
    """A stream that is written to numbered files of at most `size` bytes."""

    def __init__(self, out: Path, size: int) -> None:
        self._out, self._size, self._buffer = out, size, bytearray()
        self.index: list[dict[str, object]] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        plain = bytes(data)  # type: ignore[call-overload]
        self._buffer += plain
        while len(self._buffer) >= self._size:
            self._write_part(self._size)
        return len(plain)

    def finish(self) -> None:
        """Write the rest of the buffer."""
        if self._buffer:
            self._write_part(len(self._buffer))

    def _write_part(self, count: int) -> None:
        chunk = bytes(self._buffer[:count])
        del self._buffer[:count]
        name = f"part-{len(self.index):03}"
        (self._out / name).write_bytes(chunk)
        self.index.append({"name": name, "bytes": count, "sha256": hashlib.sha256(chunk).hexdigest()})


def split(folder: Path, out: Path, size: int = SIZE) -> list[Path]:
    """Pack `folder` into parts of at most `size` bytes in `out`, with an index. Raises StorageError."""
    try:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        writer = _PartWriter(out, size)
        compressor = zstandard.ZstdCompressor(level=3)
        with (
            compressor.stream_writer(cast(IO[bytes], writer), closefd=False) as packed,
            tarfile.open(fileobj=packed, mode="w|") as tar,
        ):
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                tar.add(file, str(file.relative_to(folder)), recursive=False)
        writer.finish()
        (out / _INDEX).write_text(json.dumps(writer.index, indent=1), "utf-8")
    except OSError as error:
        raise StorageError(f"{folder} cannot be packed into {out}: {error}.") from error
    return [out / str(part["name"]) for part in writer.index]


def _read_parts(parts: Path) -> Iterator[bytes]:
    try:
        index = json.loads((parts / _INDEX).read_text("utf-8"))
        for part in index:
            chunk = (parts / Path(part["name"]).name).read_bytes()
            if hashlib.sha256(chunk).hexdigest() != part["sha256"]:
                raise CheckpointError(f"{part['name']} in {parts} is damaged. Copy it again.")
            yield chunk
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{parts} does not contain all parts: {error}.") from error


class _PartReader(io.RawIOBase):
    """The parts as one stream. One part is in memory at a time."""

    def __init__(self, parts: Path) -> None:
        self._parts, self._rest = _read_parts(parts), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        if not self._rest:
            self._rest = next(self._parts, b"")
        count = min(len(view), len(self._rest))
        view[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def join(parts: Path, folder: Path) -> None:
    """Unpack parts made by `split` to `folder`, which is replaced only if all parts are intact.

    Raises CheckpointError if a part is missing or damaged, and StorageError if the folder cannot be written.
    """
    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    source: IO[bytes] = io.BufferedReader(_PartReader(parts), 2**20)
    try:
        temporary.mkdir(parents=True)
        plain = zstandard.ZstdDecompressor().stream_reader(source)
        with plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            tar.extractall(temporary, filter="data")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    except (zstandard.ZstdError, tarfile.TarError) as error:
        raise CheckpointError(f"{parts} cannot be unpacked: {error}.") from error
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
