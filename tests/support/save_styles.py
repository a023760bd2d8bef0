"""The ways in which editors save a file."""

import os
from pathlib import Path


def in_place(path: Path, text: str) -> None:
    """Truncate the file and write it."""
    path.write_text(text)


def rename_over(path: Path, text: str) -> None:
    """Write a temporary file and rename it over the original."""
    temporary = path.with_name(f".{path.name}.tmp123")
    temporary.write_text(text)
    temporary.replace(path)


def backup_and_rename(path: Path, text: str) -> None:
    """Rename the original to a backup and write a new file."""
    backup = path.with_name(f"{path.name}~")
    path.rename(backup)
    path.write_text(text)
    backup.unlink()


def vim_with_swap_file(path: Path, text: str) -> None:
    """Save as Vim does, with a swap file and its test that the folder is writable."""
    swap = path.with_name(f".{path.name}.swp")
    swap.write_bytes(b"b0VIM")
    path.with_name("4913").touch()
    path.with_name("4913").unlink()
    backup_and_rename(path, text)
    swap.unlink()


def emacs_with_lock(path: Path, text: str) -> None:
    """Save as Emacs does, with a lock link and an auto-save file."""
    lock = path.with_name(f".#{path.name}")
    lock.symlink_to("me@host.1:2")
    path.with_name(f"#{path.name}#").write_text(text)
    rename_over(path, text)
    path.with_name(f"#{path.name}#").unlink()
    lock.unlink()


def python_temporary(path: Path, text: str) -> None:
    """Write a temporary file whose name the filter includes, and rename it over the original."""
    temporary = path.with_name("tmpab12.py")
    temporary.write_text(text)
    temporary.replace(path)


def in_two_writes(path: Path, text: str) -> None:
    """Flush the first characters to disk before the rest is written."""
    with path.open("w") as file:
        file.write(text[:3])
        file.flush()
        os.fsync(file.fileno())
        file.write(text[3:])


SAVE_STYLES = (
    in_place, rename_over, backup_and_rename, vim_with_swap_file, emacs_with_lock, python_temporary, in_two_writes,
)  # fmt: skip
