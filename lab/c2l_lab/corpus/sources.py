"""Repository lists, and reading the newest commit of a repository with git.

Works on bare repositories and working trees, and never checks out files.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from c2l_lsp.errors import CorpusError

_TIMEOUT_S = 300


def read_list(file: Path) -> list[str]:
    """Return the entries of a list file. `#` starts a comment. Raises CorpusError if the file cannot be read."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"The corpus list {file} cannot be read: {error}.") from error
    names = [line.split("#", 1)[0].strip() for line in lines]
    return list(dict.fromkeys(name for name in names if name))


def require_disjoint(names: Sequence[str], others: Sequence[Path]) -> None:
    """Raise CorpusError if an owner in `names` also owns an entry of another list."""
    owners = {name.split("/")[0].lower(): name for name in names if "/" in name}
    for file in others:
        for name in read_list(file):
            if name.split("/")[0].lower() in owners:
                mine = owners[name.split("/")[0].lower()]
                raise CorpusError(
                    f"{mine} and {name} (in {file.name}) have the same owner. Remove one of them from its list."
                )


class SourceProblem(Exception):
    """A repository cannot be used. The build records the reason and continues."""


@dataclass(frozen=True)
class Blob:
    """One file of a commit. `size` is in bytes."""

    path: str
    object_id: str
    size: int


def git_folder(name: str, mirror: Path) -> Path:
    """Return the git directory of a list entry: a path, or `owner/name` below `mirror`. Raises SourceProblem."""
    for folder in (
        Path(name).expanduser(),
        mirror / name.replace("/", "+") / "repo",
        mirror / name.replace("/", "+"),
        mirror / name,
    ):
        if folder.is_dir():
            return folder / ".git" if (folder / ".git").exists() else folder
    raise SourceProblem("not found")


class GitRepository:
    """Reads the newest commit of one git directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _git(self, *args: str, stdin: bytes | None = None) -> bytes:
        # safe.directory=*: another user often owns the mirror, and these commands execute nothing from it.
        command = ["git", "-c", "safe.directory=*", "--git-dir", str(self.folder), *args]
        try:
            completed = subprocess.run(command, input=stdin, capture_output=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as slow:
            raise SourceProblem("git took too long") from slow
        if completed.returncode:
            words = completed.stderr.decode("utf-8", "replace").strip().splitlines()
            raise SourceProblem("broken git folder" + (f" ({words[0][:120]})" if words else ""))
        return completed.stdout

    def commit(self) -> str:
        """Return the id of the newest commit."""
        return self._git("rev-parse", "--verify", "HEAD^{commit}").decode().strip()

    def blobs(self, commit: str) -> list[Blob]:
        """Return the regular files of `commit`, without links and submodules."""
        found = []
        for entry in self._git("ls-tree", "-r", "-l", "-z", commit).split(b"\0"):
            if not entry:
                continue
            meta, path = entry.split(b"\t", 1)
            mode, kind, object_id, size = meta.split()
            if kind == b"blob" and mode != b"120000":
                # The size of an object missing from a partial clone is "-" or "BAD"; read() skips it.
                length = int(size) if size.isdigit() else 0
                found.append(Blob(path.decode("utf-8", "replace"), object_id.decode(), length))
        return found

    def read(self, blobs: Iterable[Blob]) -> Iterator[tuple[Blob, bytes]]:
        """Yield the content of each blob, in order, with one git process; missing objects are skipped."""
        wanted = list(blobs)
        if not wanted:
            return
        out = self._git("cat-file", "--batch", stdin="".join(b.object_id + "\n" for b in wanted).encode())
        at = 0
        for blob in wanted:
            end = out.index(b"\n", at)
            header = out[at:end].split()
            at = end + 1
            if header[-1] == b"missing":
                continue
            size = int(header[2])
            yield blob, out[at : at + size]
            at += size + 1
