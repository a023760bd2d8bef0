"""Writing the files of a corpus atomically, and naming the files of one repository."""

from __future__ import annotations

import hashlib
from pathlib import Path

from c2l_lsp.errors import CorpusError


def write_file(file: Path, data: bytes) -> None:
    """Replace a file atomically. Raises CorpusError if it cannot be written."""
    temporary = file.with_name(file.name + ".part")
    try:
        temporary.write_bytes(data)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(file, error) from error


def write_error(file: Path, error: OSError) -> CorpusError:
    """Return the error for a file that cannot be written."""
    return CorpusError(f"{file} cannot be written ({error.strerror}). Free some disk space and run the command again.")


def file_stem(name: str) -> str:
    """Return the file name for a repository: OWNER+NAME, or a digest if the list names a folder by its path."""
    return hashlib.sha256(name.encode()).hexdigest()[:10] if name[0] in "/.~" else name.replace("/", "+")
