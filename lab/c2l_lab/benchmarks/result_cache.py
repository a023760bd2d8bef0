"""A cache of results, one JSON object a line, so that a long run can be stopped, continued and sharded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from c2l_lsp.errors import SettingError, StorageError

Values = dict[str, float]


class ResultCache:
    """Values by key, in a file to which several processes may append; without a file nothing is cached."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, Values] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._read(line)

    def _read(self, line: str) -> None:
        try:
            found = json.loads(line)
            self._known[found["key"]] = {str(name): float(value) for name, value in found["values"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # the incomplete last line of a run that was stopped

    def get_or_compute(self, key: Sequence[object], texts: Sequence[str], compute: Callable[[], Values]) -> Values:
        """The values for a key and the texts they depend on, computed if absent. StorageError if the write fails."""
        name = "/".join([*map(str, key), hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()])
        if name not in self._known:
            self._known[name] = compute()
            self._append(name)
        return self._known[name]

    def _append(self, name: str) -> None:
        if self._path is None:
            return
        line = "\n" + json.dumps({"key": name, "values": self._known[name]}) + "\n"  # the line before may be incomplete
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error.strerror or error}.") from error


def share(text: str) -> tuple[int, int]:
    """The pair (i − 1, n) of "i/n"; (0, 1) for ""."""
    if not text:
        return 0, 1
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise SettingError(f"--shard {text} is not of the form i/n with 1 ≤ i ≤ n.")
    return int(first) - 1, int(count)
