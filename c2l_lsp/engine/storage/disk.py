"""File operations of a state directory: private to the user, durable writes, deletion that reports what is left."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from c2l_lsp.errors import StorageError


def storage_error(root: Path, error: Exception) -> StorageError:
    """Return the error for a state directory that cannot be read or written."""
    reason = getattr(error, "strerror", None) or error
    return StorageError(f"The state cannot be saved in {root}: {reason}.")


def make_private(root: Path) -> bool:
    """Create a directory, with its parents, that only the user can access (mode 0700).

    Anything else of that name, a link too, is set aside; returns whether that was so.
    """
    with contextlib.suppress(FileExistsError):
        root.mkdir(parents=True, mode=0o700)
        return False
    in_the_way = not stat.S_ISDIR(root.lstat().st_mode)
    if in_the_way:
        set_aside(root)
        root.mkdir(mode=0o700)
    with contextlib.suppress(OSError):  # a file system without modes
        root.chmod(0o700)
    return in_the_way


def set_aside(path: Path) -> Path:
    """Rename a file or directory to `NAME.bad`, in place of what has that name, and return the new path.

    Does nothing if there is no such file. Raises StorageError or OSError.
    """
    aside = path.with_name(f"{path.name}.bad")
    if os.path.lexists(path):
        delete(aside)
        path.rename(aside)
    return aside


def publish(source: Path, target: Path) -> None:
    """Rename a file over `target`. A directory of that name is set aside."""
    try:
        source.replace(target)
    except (IsADirectoryError, PermissionError):  # PermissionError: a directory on Windows
        if not target.is_dir() or target.is_symlink():
            raise
        set_aside(target)
        source.replace(target)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file (mode 0600) and wait until it is on the disk. Anything of that name is replaced, never opened."""
    if os.path.lexists(path):
        delete(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make renames in a directory durable. Does nothing on Windows, which cannot sync directories."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(content: bytes) -> bytes:
    """Return a checksum of 16 bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()


def delete(*paths: Path) -> None:
    """Delete files and directories, as many as possible. Raises StorageError naming the first that is left."""
    failed: list[OSError] = []

    def attempt(remove: Callable[[str], None], path: str) -> None:
        try:
            remove(path)
        except OSError as error:
            failed.append(error)

    for path in map(str, paths):
        if os.path.islink(path) or not os.path.isdir(path):  # noqa: PTH112, PTH114 - os.walk gives names, not paths
            attempt(os.unlink, path)
            continue
        for folder, folders, files in os.walk(path, topdown=False, onerror=failed.append):
            for name in files:
                attempt(os.unlink, os.path.join(folder, name))  # noqa: PTH118
            for name in folders:
                below = os.path.join(folder, name)  # noqa: PTH118
                attempt(os.unlink if os.path.islink(below) else os.rmdir, below)  # noqa: PTH114
        attempt(os.rmdir, path)
    failed = [error for error in failed if not isinstance(error, FileNotFoundError)]
    if failed:
        first = failed[0]
        raise StorageError(f"{first.filename or paths[0]} cannot be deleted: {first.strerror or first}.") from first


def directory_size(directory: Path) -> int:
    """Return the size in bytes of all files in a directory. One file with several names counts once.

    Files that disappear meanwhile do not count.
    """
    sizes: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                found = (Path(folder) / name).lstat()
                sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())
