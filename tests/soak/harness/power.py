"""A log of what a save does to the disk, and every directory that a loss of power can leave of it.

`Recorder` notes the calls of `os` that change the disk. `crashes` replays the log to each of its points. What was
synced before the point is on the disk; of the rest any part can be, in any order: a file system may write data long
after the entry that names it, and entries in another order.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak.harness.saver import BlockFile

ROOT = 0
"""The number of the directory that is recorded."""


@dataclass(frozen=True)
class Call:
    """A change: `node` is the file or directory that must be synced for it to last.

    | kind | change |
    |---|---|
    | entry | `name` in the directory `node` is the file or directory `what` from now on |
    | no entry | `name` in the directory `node` is gone |
    | write | `data` at `offset` of the file `node` |
    | sync | everything that happened to `node` is on the disk |
    | saved | generation `what` was reported as saved |
    """

    kind: str
    node: int
    name: str = ""
    what: int = -1
    data: bytes = b""
    offset: int = 0


@dataclass
class Recorder:
    """Records the calls below `root` within a `with` block."""

    root: Path
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers: dict[str, int] = {str(self.root): ROOT}
        self._files: dict[int, tuple[int, int]] = {}  # descriptor → node, offset
        self._next = ROOT + 1
        self._real: dict[str, Any] = {}
        self.directories = {ROOT}

    def __enter__(self) -> Recorder:
        for name in ("open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "fdopen", "link"):
            self._real[name] = getattr(os, name)
        for name in self._real:
            setattr(os, name, BlockFile if name == "fdopen" else getattr(self, f"_{name}"))
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)

    def saved(self, generation: int) -> None:
        """Note that a generation was reported as saved."""
        self.calls.append(Call("saved", ROOT, what=generation))

    def _is_below(self, path: object) -> bool:
        return str(Path(str(path)).parent) in self._numbers

    def _entry(self, path: object, number: int) -> None:
        folder, name = os.path.split(str(path))
        self.calls.append(Call("entry", self._numbers[folder], name, number))
        self._numbers[str(path)] = number

    def _gone(self, path: object) -> None:
        folder, name = os.path.split(str(path))
        self.calls.append(Call("no entry", self._numbers[folder], name))
        self._numbers.pop(str(path), None)

    def _new(self, path: object) -> int:
        number, self._next = self._next, self._next + 1
        self._entry(path, number)
        return number

    def _open(self, path: Any, flags: int, *rest: Any, **more: Any) -> int:
        descriptor: int = self._real["open"](path, flags, *rest, **more)
        number = self._numbers.get(str(path))
        if number is None and self._is_below(path) and flags & os.O_CREAT:
            number = self._new(path)
        if number is not None:
            self._files[descriptor] = (number, 0)
        else:
            self._files.pop(descriptor, None)
        return descriptor

    def _write(self, descriptor: int, data: bytes) -> int:
        written: int = self._real["write"](descriptor, data)
        if descriptor in self._files:
            number, offset = self._files[descriptor]
            self.calls.append(Call("write", number, data=bytes(data[:written]), offset=offset))
            self._files[descriptor] = (number, offset + written)
        return written

    def _fsync(self, descriptor: int) -> None:
        self._real["fsync"](descriptor)
        if descriptor in self._files:
            self.calls.append(Call("sync", self._files[descriptor][0]))

    def _mkdir(self, path: Any, *rest: Any, **more: Any) -> None:
        self._real["mkdir"](path, *rest, **more)
        if self._is_below(path):
            self.directories.add(self._new(path))

    def _rename(self, source: Any, target: Any) -> None:
        self._real["rename"](source, target)
        number = self._numbers[str(source)]
        for path in [path for path in self._numbers if path.startswith(f"{source}{os.sep}")]:
            self._numbers[f"{target}{path.removeprefix(str(source))}"] = self._numbers.pop(path)
        self._entry(target, number)
        self._gone(source)

    def _link(self, source: Any, target: Any, **more: Any) -> None:
        self._real["link"](source, target, **more)
        if self._is_below(target):
            self._entry(target, self._numbers[str(source)])

    def _replace(self, source: Any, target: Any) -> None:
        self._rename(source, target)

    def _unlink(self, path: Any, *rest: Any, **more: Any) -> None:
        self._real["unlink"](path, *rest, **more)
        if self._is_below(path):
            self._gone(path)

    def _rmdir(self, path: Any, *rest: Any, **more: Any) -> None:
        self._real["rmdir"](path, *rest, **more)
        if self._is_below(path):
            self._gone(path)


Tree = dict[str, bytes | None]
"""Path → content; None for a directory."""


def crashes(recorder: Recorder, chance: int, rng: random.Random) -> Iterator[tuple[int, int, Tree]]:
    """(calls made, last generation reported as saved, what is on the disk), each tree once for each point.

    Of what was not synced there is: nothing, all, all but one call, one call, all entries without their data (absent or
    zeros), and `chance` random choices.
    """
    for point in range(len(recorder.calls) + 1):
        made = recorder.calls[:point]
        acknowledged = max((call.what for call in made if call.kind == "saved"), default=0)
        seen = set[tuple[tuple[str, bytes | None], ...]]()
        for lost, zeros in _choices(made, chance, rng):
            tree = _tree(recorder, made, lost, zeros)
            key = tuple(sorted(tree.items()))
            if key not in seen:
                seen.add(key)
                yield point, acknowledged, tree


def _choices(made: list[Call], chance: int, rng: random.Random) -> Iterator[tuple[set[int], bool]]:
    """(calls that are lost, whether lost data leaves zeros)."""
    synced: set[int] = set()
    open_calls: set[int] = set()
    for index in range(len(made) - 1, -1, -1):
        call = made[index]
        if call.kind == "sync":
            synced.add(call.node)
        elif call.kind != "saved" and call.node not in synced:
            open_calls.add(index)
    data = {index for index in open_calls if made[index].kind == "write"}
    yield set(), False
    yield open_calls, False
    yield data, False
    yield data, True
    for index in open_calls:
        yield {index}, False
        yield open_calls - {index}, False
    for _ in range(chance if open_calls else 0):
        yield {index for index in open_calls if rng.random() < 0.5}, rng.random() < 0.5


def _tree(recorder: Recorder, made: list[Call], lost: set[int], zeros: bool) -> Tree:
    entries: dict[int, dict[str, int]] = {number: {} for number in recorder.directories}
    contents: dict[int, bytearray] = {}
    for index, call in enumerate(made):
        if call.kind == "write" and (index not in lost or zeros):
            content = contents.setdefault(call.node, bytearray())
            content.extend(bytes(max(0, call.offset + len(call.data) - len(content))))
            if index not in lost:
                content[call.offset : call.offset + len(call.data)] = call.data
        elif index in lost:
            continue
        elif call.kind == "entry":
            entries[call.node][call.name] = call.what
        elif call.kind == "no entry":
            entries[call.node].pop(call.name, None)
    found: Tree = {}

    def walk(number: int, path: str) -> None:
        for name, child in entries[number].items():
            below = f"{path}{name}"
            found[below] = None if child in entries else bytes(contents.get(child, b""))
            if child in entries:
                walk(child, f"{below}/")

    walk(ROOT, "")
    return found


def put(tree: Tree, root: Path) -> None:
    """Make a tree on the real disk."""
    root.mkdir()
    for path, content in sorted(tree.items()):
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)
