"""Kept state that is damaged in any way: set aside with a sentence, never loaded, and built again from the files."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from c2l_lsp.bench.soak.bar import Finding, Task
from c2l_lsp.errors import StateError

FILES = ("state.safetensors", "extra.safetensors", "saved.msgpack", "manifest.json", "CURRENT")


def run(task: Task) -> Finding:
    """`count` flips, a fifth as many truncations, and each other damage once; then one folder through all of it."""
    import torch

    from c2l_lsp.bench.soak import saver
    from c2l_lsp.engine import store as stores
    from c2l_lsp.engine.store import FolderStore

    finding = Finding()
    sound = task.work / "sound"
    store = FolderStore(sound)
    store.save(*saver.content(1))
    store.close()
    dice = random.Random(0)  # noqa: S311
    real = stores._sum
    if task.planted("unchecked"):
        stores._sum = lambda content: real(b"")  # every checksum agrees
        store = FolderStore(sound)
        store.save(*saver.content(2))
        store.close()

    def bit(data: bytearray) -> None:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)

    def cut(data: bytearray) -> None:
        del data[dice.randrange(len(data)) :]

    try:
        for number in range(task.count):
            _try(finding, sound, task.work / "flip", FILES[number % len(FILES)], bit, f"flip {number}")
        for number in range(task.count // 5):
            _try(finding, sound, task.work / "cut", FILES[number % len(FILES)], cut, f"cut {number}")
        _try(finding, sound, task.work / "old", "manifest.json", _older, "older schema")
        for value in (float("nan"), float("inf")):
            saved, state, extra = saver.content(1)
            state.tensors["S"][3, 3] = torch.tensor(value)
            bad = FolderStore(task.work / f"bad-{value}")
            bad.save(saved, state, extra)
            bad.close()
            _refused(finding, task.work / f"bad-{value}", f"{value} in the state")
    finally:
        stores._sum = real
    if not task.plant:
        _rebuilt(task, finding)
    return finding


def _older(data: bytearray) -> None:
    data[:] = bytes(data).replace(b'"schema": 1', b'"schema": 0')


def _try(finding: Finding, sound: Path, root: Path, file: str, damage: Callable[[bytearray], None], what: str) -> None:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(sound, root)
    generation = root / (root / "CURRENT").read_text(encoding="ascii")
    path = root / file if file == "CURRENT" else generation / file
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    _refused(finding, root, f"{what} in {file}")


def _refused(finding: Finding, root: Path, what: str) -> None:
    from c2l_lsp.engine.store import FolderStore

    finding.tried += 1
    store = FolderStore(root)
    try:
        store.load()
    except StateError as error:
        finding.expect("set aside" in str(error), f"{what}: {error}")
        finding.expect(store.load() is None, f"{what}: not set aside")
    else:
        finding.fail(f"{what}: loaded")
    finally:
        store.close()


def _rebuilt(task: Task, finding: Finding) -> None:
    """One folder of real text, learned; its state damaged; learned again at the next start, with a word about it."""
    from c2l_lsp.bench.soak import inside
    from c2l_lsp.bench.soak.fixtures import project
    from c2l_lsp.engine import wire
    from c2l_lsp.engine.session import Session

    with inside.state_in(task.work / "state"):
        root = project(task.work / "project", 6)
        settings = inside.settings()
        with Session(settings) as session:
            made = session.open(root).generation
        pointer = next((task.work / "state").glob("*/CURRENT"))
        tensors = pointer.parent / pointer.read_text(encoding="ascii") / "state.safetensors"
        tensors.write_bytes(tensors.read_bytes()[:-7] + b"damaged")
        with Session(settings) as session:
            info = session.open(root)
            told = [event.code for event in session.events if isinstance(event, wire.Trouble)]
        finding.tried += 1
        finding.expect(info.generation >= made and info.files == 6, f"not rebuilt: {info.generation}, {info.files}")
        finding.expect("state" in told, f"nothing was said of the damage, only {told}")
