"""The state directory of a folder: saved generations of its state, and the cache of chunk embeddings.

A generation is a directory. It is written under a temporary name, the manifest with the checksums last; then one rename
of the pointer file CURRENT makes it the current one. A load returns a complete generation or none. All files are
private to the user (0700/0600) and outside the workspace. One process at a time writes (see `state_lock`); others that
have the same folder open only read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from safetensors.torch import save as tensors_to
from torch import Tensor

from c2l_lsp import regular_files
from c2l_lsp.engine.storage import decoding, disk
from c2l_lsp.engine.storage.cache import DATABASE, Cache
from c2l_lsp.engine.storage.decoding import EXTRA, MAX_BYTES, PARTS, SAVED, SCHEMA, STATE, SavedState
from c2l_lsp.engine.storage.state_lock import LOCK, StateLock
from c2l_lsp.errors import StateError, StorageError
from c2l_lsp.model.hypernet.protocol import RepoState

KEPT_GENERATIONS = 2
_POINTER = "CURRENT"
_PURGE = "purge"  # exists while data of files that are excluded now may be left
MARKER_FILES = (_POINTER, LOCK, DATABASE, _PURGE)
"""Every state directory has at least one of these files, whatever happened to it."""

_MANIFEST = "manifest.json"
_DAMAGE = (OSError, StateError)


def _packed(tensors: Mapping[str, Tensor]) -> bytes:
    return tensors_to({name: tensor.contiguous() for name, tensor in tensors.items()})


def folder_key(folder: Path) -> str:
    """Return the name of a folder's state directory: a readable part, and a hash of the real path."""
    real = os.path.realpath(folder)
    digest = hashlib.blake2b(os.path.normcase(real).encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
    readable = "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(real).name)[:40] or "root"
    return f"{readable}-{digest}"


class FolderStore:
    """The state directory of one folder.

    Writing raises StorageError if the directory cannot be written, and StateInUse if another process holds the lock.
    Reading raises StateError if the state is damaged.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = StateLock(root)
        self.cache = Cache(self.lock)
        self._epoch = 0

    def acquire(self) -> bool:
        """Take the lock if it is free, and return whether this process holds it. See `StateLock.acquire`."""
        return self.lock.acquire()

    def close(self) -> None:
        """Close the cache and release the lock."""
        self.cache.close()
        self.lock.release()

    # --- generations -----------------------------------------------------------------------------------------------

    def save(self, saved: SavedState, state: RepoState, extra: Mapping[str, Tensor] | None) -> bool:
        """Write a generation and make it the current one. Return False if `clear` or `purge` was called meanwhile.

        `extra`: tensors besides the state, such as the token index; None: those of the current generation, whose file
        the new one shares. The cache is made durable first: the chunks of the generation are in it. Any thread may save
        while others use the cache.
        """
        self.lock.require_held()
        self.cache.checkpoint()
        epoch = self._epoch
        name = f"gen-{saved.generation:08d}-{time.time_ns():x}"
        target, temporary, pointer = self.root / name, self.root / f".{name}.tmp", self.root / f".{_POINTER}.tmp"
        try:
            disk.make_private(self.root)
            temporary.mkdir(mode=0o700)
            files = {STATE: _packed(state.tensors), SAVED: msgspec.msgpack.encode(saved)}
            sums = {} if extra is not None else {EXTRA: self._share_extra(temporary)}
            if extra is not None:
                files[EXTRA] = _packed(extra)
            for file, content in files.items():
                disk.write_durably(temporary / file, content)
                sums[file] = disk.checksum(content).hex()
            manifest = {"schema": SCHEMA, "sums": sums}
            disk.write_durably(temporary / _MANIFEST, json.dumps(manifest).encode())
            disk.sync_directory(temporary)
            disk.write_durably(pointer, name.encode())
            with self.lock.mutex:  # renames only: no wait for the disk
                if epoch == self._epoch:
                    temporary.rename(target)
            disk.sync_directory(self.root)  # the pointer must not reach the disk before what it names
            with self.lock.mutex:
                if epoch == self._epoch:
                    disk.publish(pointer, self.root / _POINTER)
            disk.sync_directory(self.root)
        except _DAMAGE as error:
            if epoch != self._epoch:
                return False
            raise disk.storage_error(self.root, error) from error
        if epoch != self._epoch:
            with contextlib.suppress(StorageError):
                disk.delete(temporary, target, pointer)
            return False
        with contextlib.suppress(StorageError):  # the next save tries again
            disk.delete(*self._obsolete(name))
        return True

    def _share_extra(self, directory: Path) -> str:
        """Link the extra tensors of the current generation into a directory, and return their checksum.

        The file is on the disk already and never written again. Raises OSError or StateError if that is not possible.
        """
        current = self._current()
        if current is None:
            raise FileNotFoundError(errno.ENOENT, "there is no current generation", str(self.root))
        manifest = regular_files.read(self.root, f"{current}/{_MANIFEST}", MAX_BYTES["manifest"])
        os.link(self.root / current / EXTRA, directory / EXTRA, follow_symlinks=False)
        return decoding.manifest(manifest)[EXTRA]

    def _obsolete(self, current: str) -> list[Path]:
        """Generations older than the last KEPT_GENERATIONS, and files of interrupted saves."""
        generations = sorted((p for p in self.root.glob("gen-*") if p.suffix != ".bad"), key=lambda p: p.name)
        old = [path for path in generations if path.name != current][: -(KEPT_GENERATIONS - 1) or None]
        return old + list(self.root.glob(".gen-*.tmp"))

    def load(self) -> tuple[SavedState, RepoState, dict[str, Tensor]] | None:
        """Return the current generation as (metadata, state, extra tensors), or None if there is none.

        Raises StateError if it is damaged. The damaged generation is set aside, unless another process holds the lock
        and may be replacing it.
        """
        writer = self._may_write()
        try:
            return self._load_current()
        except _DAMAGE as error:
            if writer:
                raise self.reject(error) from error
        try:  # the other process may have replaced the generation after its name was read
            return self._load_current()
        except _DAMAGE as error:
            raise self.reject(error) from error

    def _load_current(self) -> tuple[SavedState, RepoState, dict[str, Tensor]] | None:
        directory = self._current()
        return None if directory is None else self._read(directory)

    def reject(self, error: Exception) -> StateError:
        """Set the current generation aside because of `error`, if this process may write. Return the error to raise."""
        if self._may_write():
            self.quarantine()
        return StateError(f"The state in {self.root} is damaged ({error}). It was set aside and is built again.")

    def _may_write(self) -> bool:
        try:
            return self.acquire()
        except StorageError:  # a save will report it
            return False

    def load_metadata(self) -> SavedState | None:
        """Return the metadata of the current generation, or None. Takes no lock and changes nothing.

        Raises StateError if the generation is damaged.
        """
        try:
            loaded = self._load_current()
            return None if loaded is None else loaded[0]
        except _DAMAGE as error:
            raise StateError(f"The state in {self.root} is damaged ({error}).") from error

    def _current(self) -> str | None:
        """The name of the current generation. Raises StateError or OSError if the pointer is damaged."""
        try:
            return decoding.generation_name(regular_files.read(self.root, _POINTER, MAX_BYTES["pointer"]))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _read(self, generation: str) -> tuple[SavedState, RepoState, dict[str, Tensor]]:
        content = regular_files.read(self.root, f"{generation}/{_MANIFEST}", MAX_BYTES["manifest"])
        sums = decoding.manifest(content)
        parts = {}
        for file in PARTS:  # not mapped: the file could change after the check
            parts[file] = regular_files.read(self.root, f"{generation}/{file}", MAX_BYTES[file])
            decoding.require(disk.checksum(parts[file]).hex() == sums[file], f"{file} does not match its checksum")
        saved = decoding.saved_state(parts[SAVED])
        return saved, RepoState(decoding.tensors(parts[STATE], STATE)), decoding.tensors(parts[EXTRA], EXTRA)

    def quarantine(self) -> None:
        """Rename the current generation to `*.bad`, for inspection, so that it is not loaded again.

        A pointer that names no generation is set aside itself.
        """
        try:
            name = self._current()
        except _DAMAGE:
            name = None
        with contextlib.suppress(OSError, StorageError):
            pointer = self.root / _POINTER
            if name is None or not os.path.lexists(self.root / name):
                disk.set_aside(pointer)
                return
            pointer.unlink()
            disk.delete(*self.root.glob("gen-*.bad"))
            disk.set_aside(self.root / name)

    # --- deleting --------------------------------------------------------------------------------------------------

    @property
    def purge_pending(self) -> bool:
        """Whether a purge was started, by this or an earlier process, and not finished."""
        return os.path.lexists(self.root / _PURGE)

    def purge(self) -> None:
        """Delete every generation, also those set aside, because files are excluded that were not before.

        The purge is pending until the cache is pruned too and `finish_purge` is called. Raises StorageError if
        something cannot be deleted; even then there is no current generation any more.
        """
        self.lock.require_held()
        with self.lock.mutex:
            self._epoch += 1
            try:
                with contextlib.suppress(FileExistsError):  # of whatever kind
                    os.close(os.open(self.root / _PURGE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                (self.root / _POINTER).unlink(missing_ok=True)
            except OSError as error:
                raise disk.storage_error(self.root, error) from error
        disk.delete(*self.root.glob("gen-*"), *self.root.glob("*.bad"), *self.root.glob(".gen-*.tmp"))

    @property
    def epoch(self) -> int:
        """Number of calls of `clear` and `purge`. A save that began in an earlier epoch is discarded."""
        return self._epoch

    def finish_purge(self, epoch: int) -> bool:
        """Finish the purge of an epoch after the cache was pruned, and return whether no later purge has started.

        Empties SQLite's log as well, which may still hold deleted rows. Raises StorageError if something is left.
        """
        self.lock.require_held()
        try:
            current = self._current()
        except _DAMAGE as error:
            raise disk.storage_error(self.root, error) from error
        old = [path for path in self.root.glob("gen-*") if path.name != current]
        disk.delete(*old, *self.root.glob("*.bad"), *self.root.glob(".gen-*.tmp"))
        if not self.cache.checkpoint("TRUNCATE"):
            raise StorageError(f"Data of files that are excluded now cannot be deleted from {self.root} yet.")
        with self.lock.mutex:
            if epoch == self._epoch:
                disk.delete(self.root / _PURGE)
            return epoch == self._epoch

    def clear(self) -> None:
        """Delete the state directory.

        Raises StateInUse, and deletes nothing, if another process holds the lock; StorageError if something is left.
        """
        self.lock.require_held()
        with self.lock.mutex:
            self._epoch += 1
            self.close()
            with contextlib.suppress(OSError):  # first, so that a generation that cannot be deleted is not loaded
                (self.root / _POINTER).unlink()
        disk.delete(self.root)
