"""A process that saves states and is interrupted: `python -m tests.soak.harness.saver [FAULT]`.

| command on stdin     | a child process                                                                        |
|----------------------|----------------------------------------------------------------------------------------|
| `loop ROOT`          | saves embeddings and states, one generation after the other, until it is killed        |
| `point N ROOT`       | saves a generation and kills itself before the Nth system call that changes the disk   |
| `error N ERRNO ROOT` | lets that call fail once                                                               |

Every line of output is `PID WORD [NUMBER]`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from c2l_lsp.engine.storage.decoding import SCHEMA, SavedState
from c2l_lsp.engine.storage.state_lock import StateInUse, StateLock
from c2l_lsp.engine.storage.store import FolderStore
from c2l_lsp.errors import StorageError
from c2l_lsp.model.hypernet.protocol import ChunkEmbedding, RepoState

CALLS = ("write", "fsync", "rename", "replace", "mkdir", "open", "unlink", "rmdir", "chmod", "close")
"""The functions of `os` that a save calls; a kill comes before the call."""

BLOCK = 16384
RULE = "soak"
_say = os.write


def content(generation: int) -> tuple[SavedState, RepoState, dict[str, torch.Tensor]]:
    """A state whose parts all contain the number of its generation."""
    saved = SavedState(
        schema=SCHEMA,
        folder="/soak",
        hypernetwork="soak",
        filter_digest="",
        generation=generation,
        gate=1.0,
        files={f"{generation}.py": (b"d" * 16, 1, 1, [])},
    )
    state = RepoState({"S": torch.full((96, 96), float(generation), dtype=torch.float64)})
    return saved, state, {"P": torch.full((64, 64), float(generation))}


def whole(loaded: tuple[SavedState, RepoState, dict[str, torch.Tensor]]) -> bool:
    """Whether all parts belong to one generation."""
    saved, state, extra = loaded
    number = float(saved.generation)
    same = bool((state.tensors["S"] == number).all()) and bool((extra["P"] == number).all())
    return same and list(saved.files) == [f"{saved.generation}.py"]


def in_place(self: FolderStore, saved: SavedState, state: RepoState, extra: Any) -> bool:
    """The planted fault: files are overwritten in place, by calls of `os` that `at_call` can interrupt."""
    import hashlib
    import json

    import msgspec
    from safetensors.torch import save as tensors_to

    target = self.root / "gen-00000001-0"
    target.mkdir(parents=True, exist_ok=True)
    files = {
        "state.safetensors": tensors_to(state.tensors),
        "extra.safetensors": tensors_to(dict(extra)),
        "saved.msgpack": msgspec.msgpack.encode(saved),
    }
    for name, data in files.items():
        _overwrite(target / name, data)
    sums = {name: hashlib.blake2b(data, digest_size=16).hexdigest() for name, data in files.items()}
    _overwrite(target / "manifest.json", json.dumps({"schema": SCHEMA, "sums": sums}).encode())
    _overwrite(self.root / "CURRENT", target.name.encode())
    return True


def _overwrite(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def reading(generation: int) -> tuple[bytes, ChunkEmbedding]:
    """The cache entry of a generation: key and value, larger than a database page."""
    return b"%08d" % generation, {"q": torch.full((64, 64), generation, dtype=torch.int32)}


class BlockFile:
    """A file like that of `os.fdopen` that writes in small blocks, so that a kill can come between two."""

    def __init__(self, descriptor: int, mode: str) -> None:
        assert mode == "wb"
        self._descriptor = descriptor

    def __enter__(self) -> BlockFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def write(self, data: bytes) -> int:
        """Write all data in blocks."""
        for start in range(0, len(data), BLOCK):
            os.write(self._descriptor, data[start : start + BLOCK])
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered."""

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor


def tell(word: str, number: int | str = "") -> None:
    """Write a line at once."""
    _say(1, f"{os.getpid()} {word} {number}\n".encode())


def loop(root: Path) -> None:
    """Save until killed."""
    store = FolderStore(root)
    generation = 0
    while generation < 100_000:
        generation += 1
        try:
            store.cache.put(dict([reading(generation)]), RULE)
            store.save(*content(generation))
        except StateInUse:
            tell("busy")
            return
        tell("saved", generation)


def at_call(number: int, happens: Callable[[str], None]) -> Callable[[], int]:
    """Call `happens` before the Nth call that changes the disk. Returns a function that gives the calls left."""
    left = [number]

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                happens(name)
            return real(*args, **more)

        return call

    for name in CALLS:
        setattr(os, name, counted(name, getattr(os, name)))
    opened: Callable[[int, str], Any] = BlockFile
    os.fdopen = opened  # type: ignore[assignment]
    return lambda: left[0]


def point(number: int, root: Path) -> None:
    """Save generation 1, then generation 2 with a kill at a system call."""
    store = FolderStore(root)
    store.save(*content(1))
    tell("saved", 1)

    def kill(name: str) -> None:
        tell("at", name)
        os.kill(os.getpid(), signal.SIGKILL)

    left = at_call(number, kill)
    store.save(*content(2))
    if left() > 0:
        tell("survived", number)


def error(number: int, code: int, root: Path) -> None:
    """Save generation 1, generation 2 with an error at a system call, and generation 3."""
    store = FolderStore(root)
    store.save(*content(1))
    tell("saved", 1)

    def fail(name: str) -> None:
        tell("at", name)
        raise OSError(code, os.strerror(code))

    left = at_call(number, fail)
    least = 1
    try:
        store.save(*content(2))
        tell("saved", 2)
        least = 2
    except StorageError as refused:
        tell("refused" if "cannot be saved" in str(refused) else "unclear")
    loaded = FolderStore(root).load()
    tell("kept" if loaded is not None and whole(loaded) and loaded[0].generation >= least else "torn")
    if left() > 0:
        tell("survived", number)
    store.save(*content(3))
    tell("saved", 3)


ACTS: dict[str, Callable[..., None]] = {"loop": loop, "point": point, "error": error}


def swallows(self: FolderStore, saved: SavedState, state: RepoState, extra: Any) -> bool:
    """The planted fault: an error while saving is not reported."""
    with contextlib.suppress(StorageError):
        saves(self, saved, state, extra)
    return True


saves = FolderStore.save


def main(fault: str = "") -> None:
    """Fork a child for every command, so that torch is imported once."""
    torch.set_num_threads(1)
    if fault == "in_place":
        FolderStore.save = in_place  # type: ignore[method-assign]
    if fault == "swallows":
        FolderStore.save = swallows  # type: ignore[method-assign]
    if fault == "unlocked":
        StateLock.acquire = lambda self: True  # type: ignore[method-assign]
    tell("ready")
    for line in sys.stdin:
        what, *words = line.rstrip("\n").split(" ", maxsplit={"loop": 1, "point": 2, "error": 3}[line.split(" ")[0]])
        child = os.fork()
        if child == 0:
            try:
                ACTS[what](*map(int, words[:-1]), Path(words[-1]))
            finally:
                os._exit(0)
        if what != "loop":
            os.waitpid(child, 0)
            tell("over", child)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    main(*sys.argv[1:])
