"""Reads and writes parquet files in batches of rows; no file is in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from c2l_lab.benchmarks.repopeft.dataset import schema
from c2l_lsp.errors import CorpusError

_READ_ROWS = 128
_READ_BYTES = 1 << 20  # of a column, at a time
_WRITE_ROWS = 256
_WRITE_CHARS = 32_000_000  # of one row group, before compression


def _library() -> Any:  # noqa: ANN401 - pyarrow has no types
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise CorpusError("Reading this benchmark needs pyarrow: pip install c2l-lab.") from error
    return pyarrow


def columns_of(file: Path) -> list[str]:
    """The columns of a parquet file. CorpusError if it is not one."""
    with _opened(file) as found:
        return list(found.schema_arrow.names)


def rows(file: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a file as dicts of its columns among `columns`; embeddings are f16 arrays. CorpusError if damaged."""
    pyarrow = _library()
    with _opened(file) as found:
        names = [n for n in found.schema_arrow.names if columns is None or n in columns]
        try:
            for batch in found.iter_batches(batch_size=_READ_ROWS, columns=names):
                yield from _dicts(batch)
        except (pyarrow.ArrowException, OSError) as error:
            raise _broken(file, error) from error


def _opened(file: Path) -> Any:  # noqa: ANN401 - a ParquetFile
    pyarrow = _library()
    try:
        # without a buffer size, the whole file is read ahead, which is GBs for the published ones
        return pyarrow.parquet.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise _broken(file, error) from error


def _broken(file: Path, error: Exception) -> CorpusError:
    return CorpusError(f"{file} cannot be read as parquet: {str(error).splitlines()[0][:200]}.")


def _dicts(batch: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - a RecordBatch
    cells = {
        name: _arrays(column) if name in schema.EMBEDDINGS else column.to_pylist()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    for i in range(batch.num_rows):
        yield {name: values[i] for name, values in cells.items()}


def _arrays(column: Any) -> list[schema.Embedding | None]:  # noqa: ANN401 - a list array
    """Each list as an f16 array, by numpy because 2,048 Python floats per cell would take seconds."""
    found: list[schema.Embedding | None] = []
    for i in range(len(column)):
        cell = column[i]
        found.append(cell.values.to_numpy(zero_copy_only=False).astype(np.float16) if cell.is_valid else None)
    return found


class Table:
    """A zstd-compressed parquet file that gets its final name when it is complete."""

    def __init__(self, file: Path, columns: tuple[str, ...], extra: Mapping[str, str] | None = None) -> None:
        """`extra` maps names of further columns to arrow type names (bool, int32, …)."""
        pyarrow = _library()
        self._file, self._part = file, file.with_name(file.name + ".part")
        self._schema = schema.arrow(columns)
        for name, kind in (extra or {}).items():
            self._schema = self._schema.append(pyarrow.field(name, pyarrow.type_for_alias(kind)))
        self._rows: list[Mapping[str, Any]] = []
        self._chars = 0
        self.count = 0
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pyarrow.parquet.ParquetWriter(self._part, self._schema, compression="zstd")
        except OSError as error:
            raise self._no_room(error) from error

    def __enter__(self) -> Table:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush()
            self._writer.close()
            if kind is None:
                self._part.replace(self._file)
        except OSError as problem:
            raise self._no_room(problem) from problem
        finally:
            self._part.unlink(missing_ok=True)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; missing columns are null."""
        self._rows.append({name: row.get(name) for name in self._schema.names})
        self._chars += sum(len(value) for value in row.values() if isinstance(value, str))
        self.count += 1
        if len(self._rows) >= _WRITE_ROWS or self._chars >= _WRITE_CHARS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        pyarrow = _library()
        arrays = [_column([r[field.name] for r in self._rows], field.type) for field in self._schema]
        try:
            self._writer.write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema))
        except OSError as error:
            raise self._no_room(error) from error
        self._rows, self._chars = [], 0

    def _no_room(self, error: OSError) -> CorpusError:
        return CorpusError(
            f"{self._file} cannot be written ({error.strerror or error}). Free some space and try again."
        )


def _column(values: list[Any], kind: Any) -> Any:  # noqa: ANN401 - arrow's
    pyarrow = _library()
    if not pyarrow.types.is_list(kind):
        return pyarrow.array(values, type=kind)
    given = [np.asarray(v, np.float16) for v in values if v is not None]
    flat = np.concatenate(given) if given else np.zeros(0, np.float16)
    ends = np.cumsum([0, *(0 if v is None else len(v) for v in values)])
    missing = pyarrow.array([v is None for v in values])
    return pyarrow.ListArray.from_arrays(pyarrow.array(ends, pyarrow.int32()), pyarrow.array(flat), mask=missing)
