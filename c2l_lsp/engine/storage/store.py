"""What a folder's state is kept in: generations of the state (the truth), beside a cache of readings (see `cache`).

A generation is a directory written aside, its manifest with the checksums last, then one atomic pointer switch: a load
takes a whole generation or none. Everything is private to the user (0700/0600) and outside the workspace. One process
at a time writes (see `claim`); another that has the same folder open reads what is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from safetensors.torch import save as tensors_to
from torch import Tensor

from c2l_lsp.engine.storage import disk
from c2l_lsp.engine.storage.cache import DATABASE, Cache
from c2l_lsp.engine.storage.state_lock import LOCK, StateLock
from c2l_lsp.errors import StateError, StorageError
from c2l_lsp.model.hypernet.protocol import RepoState

SCHEMA = 1
KEPT_GENERATIONS = 2
_POINTER = "CURRENT"
_PURGE = "purge"  # stands for as long as something may be kept that the rules leave out by now
MARKS = (_POINTER, LOCK, DATABASE, _PURGE)
"""Files of which every state directory has one, whatever happened to it."""

_BROKEN = (OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError, SafetensorError)


def folder_key(folder: Path) -> str:
    """Name of a folder's state directory: a readable part and a hash of the real path."""
    real = os.path.realpath(folder)
    digest = hashlib.blake2b(os.path.normcase(real).encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
    readable = "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(real).name)[:40] or "root"
    return f"{readable}-{digest}"


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """What a generation stands for: the files folded into it and by which hypernetwork, under which filter.

    `files` maps a path to the digest, size and mtime_ns of the text and the keys of its pieces; `seen` likewise every
    file of the folder, learned or not (so that a change made later is known as one); `touched` are files that were
    changed, latest last; `first` names the chunks that files outside the sample had at first (see `Sample`).
    """

    schema: int
    folder: str
    hypernetwork: str
    filter_digest: str
    generation: int
    gate: float
    gate_recall: float = 1.0
    files: dict[str, tuple[bytes, int, int, list[bytes]]]
    seen: dict[str, tuple[bytes, int, int]] = {}
    touched: list[str] = []
    first: dict[str, bytes] = {}


class FolderStore:
    """The state directory of one folder. StorageError when it cannot be written, StateError when it cannot be read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = StateLock(root)
        self.cache = Cache(self.lock)
        self._epoch = 0

    def acquire(self) -> bool:
        """Whether this process may write here; see `Claim.own`."""
        return self.lock.acquire()

    def close(self) -> None:
        """Let go of the files, and of the right to write them."""
        self.cache.close()
        self.lock.release()

    # --- generations -----------------------------------------------------------------------------------------------

    def save(self, saved: SavedState, state: RepoState, extra: Mapping[str, Tensor]) -> bool:
        """Write a generation and switch to it. `extra` are more tensors it needs (a prior of the user's own base).

        Any thread may, while others read and write readings. False if all was cleared or purged meanwhile: then
        nothing is left of it.
        """
        self.lock.require_held()
        epoch = self._epoch
        name = f"gen-{saved.generation:08d}-{time.time_ns():x}"
        target, aside, pointer = self.root / name, self.root / f".{name}.tmp", self.root / f".{_POINTER}.tmp"
        try:
            disk.make_private(self.root)
            aside.mkdir(mode=0o700)
            files = {
                "state.safetensors": tensors_to({k: t.contiguous() for k, t in state.tensors.items()}),
                "extra.safetensors": tensors_to({k: t.contiguous() for k, t in extra.items()}),
                "saved.msgpack": msgspec.msgpack.encode(saved),
            }
            for file, content in files.items():
                disk.write_durably(aside / file, content)
            manifest = {
                "schema": SCHEMA,
                "sums": {file: disk.checksum(content).hex() for file, content in files.items()},
            }
            disk.write_durably(aside / "manifest.json", json.dumps(manifest).encode())
            disk.sync_directory(aside)
            disk.write_durably(pointer, name.encode())
            with self.lock.mutex:  # short: nobody waits for the disk here
                if epoch == self._epoch:
                    aside.rename(target)
                    pointer.replace(self.root / _POINTER)
            disk.sync_directory(self.root)
        except OSError as error:
            if epoch != self._epoch:
                return False
            raise disk.storage_error(self.root, error) from error
        if epoch != self._epoch:
            with contextlib.suppress(StorageError):
                disk.delete(aside, pointer)
            return False
        with contextlib.suppress(StorageError):  # the next save tries again
            disk.delete(*self._others(name))
        return True

    def _others(self, current: str) -> list[Path]:
        """Old generations, one left out, and what interrupted saves left."""
        generations = sorted((p for p in self.root.glob("gen-*") if p.suffix != ".bad"), key=lambda p: p.name)
        old = [path for path in generations if path.name != current][: -(KEPT_GENERATIONS - 1) or None]
        return old + list(self.root.glob(".gen-*.tmp"))

    def load(self) -> tuple[SavedState, RepoState, dict[str, Tensor]] | None:
        """The newest whole generation; None if there is none yet. StateError after setting a broken one aside.

        Without the right to write nothing is set aside: it may be the other process that is just replacing it.
        """
        writer = self._may_write()
        for last in (False, True):
            try:
                directory = self._current()
                return None if directory is None else self._read(directory)
            except _BROKEN as error:
                if not (writer or last):
                    continue  # two saves may have come between pointer and files
                raise self.reject(error) from error
        return None  # pragma: no cover - the loop returns or raises

    def reject(self, error: Exception) -> StateError:
        """The sentence for a generation that cannot be used; who may write sets it aside."""
        if self._may_write():
            self.quarantine()
        return StateError(f"The state in {self.root} is damaged ({error}); it was set aside and is built again.")

    def _may_write(self) -> bool:
        try:
            return self.acquire()
        except StorageError:  # saving will tell
            return False

    def load_metadata(self) -> SavedState | None:
        """What the newest generation stands for, without its tensors and without touching anything."""
        try:
            directory = self._current()
            return None if directory is None else self._read(directory)[0]
        except _BROKEN as error:
            raise StateError(f"The state in {self.root} is damaged ({error}).") from error

    def _current(self) -> Path | None:
        try:
            name = (self.root / _POINTER).read_text(encoding="ascii").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not name.startswith("gen-") or Path(name).name != name:
            raise ValueError("a damaged pointer")
        return self.root / name

    def _read(self, directory: Path) -> tuple[SavedState, RepoState, dict[str, Tensor]]:
        manifest = json.loads((directory / "manifest.json").read_bytes())
        if manifest.get("schema") != SCHEMA:
            raise ValueError(f"schema {manifest.get('schema')}, not {SCHEMA}")
        content = {}
        for file, checksum in manifest["sums"].items():
            if Path(file).name != file:
                raise ValueError("a file name that leaves the directory")
            content[file] = (directory / file).read_bytes()  # private memory: a mapped file could change under us
            if disk.checksum(content[file]).hex() != checksum:
                raise ValueError(f"{file} does not match its checksum")
        saved = msgspec.msgpack.decode(content["saved.msgpack"], type=SavedState, strict=True)
        numbers = [saved.gate, saved.gate_recall]
        state, extra = tensors_from(content["state.safetensors"]), tensors_from(content["extra.safetensors"])
        finite = all(bool(tensor.isfinite().all()) for tensor in [*state.values(), *extra.values()])
        if not (finite and all(math.isfinite(number) and number >= 0 for number in numbers) and saved.generation >= 0):
            raise ValueError("numbers that are not finite, or below 0")
        return saved, RepoState(state), extra

    def quarantine(self) -> None:
        """Take the current generation out of use, keeping it for a look (`*.bad`)."""
        with contextlib.suppress(OSError, StorageError):
            pointer = self.root / _POINTER
            name = pointer.read_text(encoding="ascii", errors="replace").strip()
            pointer.unlink()
            directory = self.root / Path(name).name
            if directory.name.startswith("gen-") and directory.is_dir():
                disk.delete(*self.root.glob("*.bad"))
                directory.rename(directory.with_suffix(".bad"))

    # --- deleting --------------------------------------------------------------------------------------------------

    @property
    def purge_pending(self) -> bool:
        """Whether a purge was begun, by this process or an earlier one, and not ended."""
        return (self.root / _PURGE).exists()

    def purge(self) -> None:
        """Other rules: delete every generation, also those set aside, and note that readings are yet to be pruned.

        StorageError if some of it cannot be deleted; it is no current generation any more in any case.
        """
        self.lock.require_held()
        with self.lock.mutex:
            self._epoch += 1
            try:
                (self.root / _PURGE).touch(mode=0o600)
                (self.root / _POINTER).unlink(missing_ok=True)
            except OSError as error:
                raise disk.storage_error(self.root, error) from error
        disk.delete(*self.root.glob("gen-*"), *self.root.glob(".gen-*.tmp"))

    @property
    def epoch(self) -> int:
        """Counts what was cleared and purged: what was begun in an earlier one is no use."""
        return self._epoch

    def finish_purge(self, epoch: int) -> bool:
        """End the purge of an epoch (if that is still the last): readings were pruned, and nothing of them may stay in
        SQLite's log either. StorageError if that cannot be."""
        self.lock.require_held()
        try:
            current = self._current()
        except _BROKEN as error:
            raise disk.storage_error(self.root, error) from error
        disk.delete(*(path for path in self.root.glob("gen-*") if path != current), *self.root.glob(".gen-*.tmp"))
        if not self.cache.checkpoint("TRUNCATE"):
            raise StorageError(f"What the rules leave out by now cannot be deleted from {self.root} yet.")
        with self.lock.mutex:
            if epoch == self._epoch:
                disk.delete(self.root / _PURGE)
            return epoch == self._epoch

    def clear(self) -> None:
        """Forget everything about the folder; with another process that keeps it, nothing (InUse).

        StorageError if some of it cannot be deleted.
        """
        self.lock.require_held()
        with self.lock.mutex:
            self._epoch += 1
            self.close()
            with contextlib.suppress(OSError):  # first, so that what cannot be deleted is not loaded either
                (self.root / _POINTER).unlink()
        disk.delete(self.root)
