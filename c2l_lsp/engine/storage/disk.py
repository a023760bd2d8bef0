"""Files as a state directory needs them: private to the user, durable before they count, and deleted for certain."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from c2l_lsp.errors import StorageError


def storage_error(root: Path, error: Exception) -> StorageError:
    """The sentence for a place that cannot be written."""
    why = getattr(error, "strerror", None) or error
    return StorageError(f"What was learned cannot be kept in {root}: {why}.")


def make_private(root: Path) -> None:
    """Make a directory that is the user's alone."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(OSError):  # a file system without modes
        root.chmod(0o700)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make a rename durable where directories can be synced (not on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(content: bytes) -> bytes:
    """16 bytes by which damage to what is kept is noticed."""
    return hashlib.blake2b(content, digest_size=16).digest()


def delete(*paths: Path) -> None:
    """Delete files and directories, as many as can be. StorageError that names the first that is still there."""
    failed: list[OSError] = []

    def tried(remove: Callable[[str], None], path: str) -> None:
        try:
            remove(path)
        except OSError as error:
            failed.append(error)

    for path in map(str, paths):
        if os.path.islink(path) or not os.path.isdir(path):  # noqa: PTH112, PTH114 - os.walk gives names, not paths
            tried(os.unlink, path)
            continue
        for folder, folders, files in os.walk(path, topdown=False, onerror=failed.append):
            for name in files:
                tried(os.unlink, os.path.join(folder, name))  # noqa: PTH118
            for name in folders:
                below = os.path.join(folder, name)  # noqa: PTH118
                tried(os.unlink if os.path.islink(below) else os.rmdir, below)  # noqa: PTH114
        tried(os.rmdir, path)
    failed = [error for error in failed if not isinstance(error, FileNotFoundError)]
    if failed:
        first = failed[0]
        raise StorageError(f"{first.filename or paths[0]} cannot be deleted: {first.strerror or first}.") from first


def directory_size(directory: Path) -> int:
    """Bytes in a directory; what goes while it is looked at does not count."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).lstat().st_size
    return total
