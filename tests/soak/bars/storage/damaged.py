"""Damaged state: it is never loaded, but set aside with a message and rebuilt from the files."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from c2l_lsp.errors import StateError, StorageError
from tests.soak.bars.storage import damaged_live
from tests.soak.harness.bar import Finding, Task

FILES = ("state.safetensors", "extra.safetensors", "saved.msgpack", "manifest.json", "CURRENT")


def run(task: Task) -> Finding:
    """`count` bit flips, a fifth as many truncations, an older schema, damaged caches; then a whole engine."""
    from c2l_lsp.engine.storage import disk
    from c2l_lsp.engine.storage.store import FolderStore
    from tests.soak.harness import saver

    finding = Finding()
    sound = task.work / "sound"
    store = FolderStore(sound)
    store.save(*saver.content(1))
    store.close()
    rng = random.Random(0)
    real = disk.checksum
    if task.planted("unchecked"):
        disk.checksum = lambda content: real(b"")  # every checksum matches
        store = FolderStore(sound)
        store.save(*saver.content(2))
        store.close()

    def bit(data: bytearray) -> None:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)

    def begun(data: bytearray) -> None:
        data[rng.randrange(4096)] ^= 1 << rng.randrange(8)  # the page with the database schema

    def cut(data: bytearray) -> None:
        del data[rng.randrange(len(data)) :]

    try:
        for number in range(task.count):
            _try(finding, sound, task.work / "flip", FILES[number % len(FILES)], bit, f"flip {number}")
        for number in range(task.count // 5):
            _try(finding, sound, task.work / "cut", FILES[number % len(FILES)], cut, f"cut {number}")
        _try(finding, sound, task.work / "old", "manifest.json", _older, "older schema")
        for number in range(max(4, task.count // 5)):
            _cache(finding, task.work / "cache", (bit, begun, cut)[number % 3], f"damage {number}")
    finally:
        disk.checksum = real
    if not task.plant or task.plant in damaged_live.PLANTS:
        damaged_live.run(task, finding)
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
    from c2l_lsp.engine.storage.store import FolderStore

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


def _cache(finding: Finding, root: Path, damage: Callable[[bytearray], None], what: str) -> None:
    """The embedding cache returns only what was stored, and works again after at most one error."""
    from c2l_lsp.engine.storage.store import FolderStore
    from tests.soak.harness.saver import RULE, reading

    finding.tried += 1
    shutil.rmtree(root, ignore_errors=True)
    wanted = dict(reading(number) for number in range(12))
    store = FolderStore(root)
    store.cache.put(wanted, RULE)
    store.close()
    path = root / "readings.sqlite"
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    store, errors = FolderStore(root), 0
    try:
        for _ in range(3):
            try:
                found = store.cache.get(wanted, RULE)
                wrong = [key for key, value in found.items() if not value["q"].equal(wanted[key]["q"])]
                finding.expect(not wrong, f"{what} in readings.sqlite: {len(wrong)} wrong embeddings")
                store.cache.put(wanted, RULE)
            except StorageError:
                errors += 1
        finding.expect(errors <= 1, f"{what} in readings.sqlite: {errors} errors, it was not rebuilt")
    except Exception as error:  # any other exception is a violation
        finding.fail(f"{what} in readings.sqlite: {type(error).__name__}: {error}")
    finally:
        store.close()
