"""A run or a model folder as files of a bounded size, for machines that give back only small files."""

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
"""Bytes of a part; a little under the 16 MB that are usually allowed."""

_INDEX = "parts.json"


class _Cut(io.RawIOBase):
    """A stream that becomes a row of files of at most `size` bytes."""

    def __init__(self, out: Path, size: int) -> None:
        self._out, self._size, self._buffer = out, size, bytearray()
        self.made: list[dict[str, object]] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        plain = bytes(data)  # type: ignore[call-overload]
        self._buffer += plain
        while len(self._buffer) >= self._size:
            self._put(self._size)
        return len(plain)

    def finish(self) -> None:
        """Write what is left."""
        if self._buffer:
            self._put(len(self._buffer))

    def _put(self, count: int) -> None:
        chunk = bytes(self._buffer[:count])
        del self._buffer[:count]
        name = f"part-{len(self.made):03}"
        (self._out / name).write_bytes(chunk)
        self.made.append({"name": name, "bytes": count, "sha256": hashlib.sha256(chunk).hexdigest()})


def split(folder: Path, out: Path, size: int = SIZE) -> list[Path]:
    """Pack `folder` into parts of at most `size` bytes in `out`, with an index. Raises StorageError (disk)."""
    try:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        cut = _Cut(out, size)
        compressor = zstandard.ZstdCompressor(level=3)
        with (
            compressor.stream_writer(cast(IO[bytes], cut), closefd=False) as packed,
            tarfile.open(fileobj=packed, mode="w|") as tar,
        ):
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                tar.add(file, str(file.relative_to(folder)), recursive=False)
        cut.finish()
        (out / _INDEX).write_text(json.dumps(cut.made, indent=1), "utf-8")
    except OSError as error:
        raise StorageError(f"{folder} can't be packed into {out}: {error}.") from error
    return [out / str(part["name"]) for part in cut.made]


def _read(parts: Path) -> Iterator[bytes]:
    try:
        index = json.loads((parts / _INDEX).read_text("utf-8"))
        for part in index:
            chunk = (parts / Path(part["name"]).name).read_bytes()
            if hashlib.sha256(chunk).hexdigest() != part["sha256"]:
                raise CheckpointError(f"{part['name']} in {parts} is damaged: bring it over again.")
            yield chunk
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{parts} does not hold all parts: {error}.") from error


class _Joined(io.RawIOBase):
    """The parts as one stream, read one at a time."""

    def __init__(self, parts: Path) -> None:
        self._pieces, self._rest = _read(parts), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        if not self._rest:
            self._rest = next(self._pieces, b"")
        count = min(len(view), len(self._rest))
        view[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def join(parts: Path, folder: Path) -> None:
    """Unpack what `split` made into `folder`, which appears whole or not at all.

    Raises CheckpointError (a part is missing or damaged), StorageError (disk).
    """
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    source: IO[bytes] = io.BufferedReader(_Joined(parts), 2**20)
    try:
        aside.mkdir(parents=True)
        plain = zstandard.ZstdDecompressor().stream_reader(source)
        with plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            tar.extractall(aside, filter="data")
        shutil.rmtree(folder, ignore_errors=True)
        aside.replace(folder)
    except (zstandard.ZstdError, tarfile.TarError) as error:
        raise CheckpointError(f"{parts} can't be unpacked: {error}.") from error
    except OSError as error:
        raise StorageError(f"{folder} can't be written: {error}.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
