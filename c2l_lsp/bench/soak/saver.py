"""A process that saves states and is killed at it: `python -m c2l_lsp.bench.soak.saver [FAULT]`, commands on stdin.

`loop ROOT`: a child saves generation after generation until it is killed. `point N ROOT`: a child saves one generation
and kills itself at the Nth system call of it that changes the disk. Every line of output is `PID WORD [NUMBER]`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from c2l_lsp.engine.store import SCHEMA, FolderStore, InUse, Saved
from c2l_lsp.model.hypernet import RepoState

CALLS = ("write", "fsync", "rename", "replace", "mkdir", "open", "unlink", "rmdir", "chmod", "close")
"""What of `os` a save goes through; a kill comes before the call."""


def content(generation: int) -> tuple[Saved, RepoState, dict[str, torch.Tensor]]:
    """A state that says everywhere which generation it is of."""
    saved = Saved(
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


def whole(loaded: tuple[Saved, RepoState, dict[str, torch.Tensor]]) -> bool:
    """Whether all parts are of one generation."""
    saved, state, extra = loaded
    number = float(saved.generation)
    same = bool((state.tensors["S"] == number).all()) and bool((extra["P"] == number).all())
    return same and list(saved.files) == [f"{saved.generation}.py"]


def in_place(self: FolderStore, saved: Saved, state: RepoState, extra: Any) -> bool:  # noqa: ANN401
    """The planted fault: files are written over one another."""
    import msgspec
    from safetensors.torch import save as tensors_to

    target = self.root / "gen-00000001-0"
    target.mkdir(parents=True, exist_ok=True)
    for name, data in (
        ("state.safetensors", tensors_to(state.tensors)),
        ("extra.safetensors", tensors_to(dict(extra))),
        ("saved.msgpack", msgspec.msgpack.encode(saved)),
    ):
        (target / name).write_bytes(data)
    import hashlib
    import json

    sums = {
        path.name: hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        for path in target.iterdir()
        if path.name != "manifest.json"
    }
    (target / "manifest.json").write_text(json.dumps({"schema": SCHEMA, "sums": sums}))
    (self.root / "CURRENT").write_text(target.name)
    return True


def tell(word: str, number: int | str = "") -> None:
    """A line, at once and whole."""
    os.write(1, f"{os.getpid()} {word} {number}\n".encode())


def loop(root: Path) -> None:
    """Save until killed."""
    store = FolderStore(root)
    generation = 0
    while generation < 100_000:
        generation += 1
        try:
            store.save(*content(generation))
        except InUse:
            tell("busy")
            return
        tell("saved", generation)


def point(number: int, root: Path) -> None:
    """Save generation 1 in peace, then generation 2 with a kill at a system call."""
    store = FolderStore(root)
    store.save(*content(1))
    tell("saved", 1)
    left = [number]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:  # noqa: ANN401
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    store.save(*content(2))
    left[0] = 1 << 30
    tell("survived", number)


def main(fault: str = "") -> None:
    """Fork a child for every command: torch is loaded once."""
    torch.set_num_threads(1)
    if fault == "in_place":
        FolderStore.save = in_place  # type: ignore[method-assign]
    if fault == "unlocked":
        FolderStore.own = lambda self: True  # type: ignore[method-assign]
    tell("ready")
    for line in sys.stdin:
        what, *words = line.split(maxsplit=2 if line.startswith("point") else 1)
        child = os.fork()
        if child == 0:
            try:
                if what == "loop":
                    loop(Path(words[0].strip()))
                else:
                    point(int(words[0]), Path(words[1].strip()))
            finally:
                os._exit(0)
        if what == "point":
            os.waitpid(child, 0)
            tell("over", child)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    main(*sys.argv[1:])
