"""Reading git history: commits, changed files, blobs, and the diff text that hypernetworks are trained on.

Works in working trees, in folders below their top (paths are then relative to that folder), linked worktrees,
submodules and bare repositories. Nothing is written. Every function raises GitError if git fails.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from c2l_lsp.errors import GitError
from c2l_lsp.repo.git import git_process

MAX_BLOB_SIZE = 2_000_000
"""In bytes. Larger files are not read from history."""

PRODUCTION_SUFFIXES = (".py", ".md", ".rst")
VENDORED = frozenset({
    "vendor", "vendored", "_vendor", "third_party", "thirdparty", "3rdparty", "extern", "externals", "node_modules",
    "site-packages", "dist-packages", "build", "dist", ".eggs", ".tox", ".nox", "venv", ".venv", "env", "__pycache__",
})  # fmt: skip
"""Path parts that mark third-party code or build output."""

_EMPTY_TREE = {
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
"""The object name of the empty tree, by the length of object names (SHA-1, SHA-256)."""

_FILE_MODES = (b"100644", b"100755")
_RENAME_OPTIONS = ("-M50%", "-l1000")
_DIFF_OPTIONS = (
    "--no-color", "-U3", *_RENAME_OPTIONS, "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/",
    "--diff-algorithm=myers", "--indent-heuristic", "--inter-hunk-context=0", "--submodule=short",
    "--ignore-submodules=all", "--relative", "-O/dev/null",
)  # fmt: skip


_BLOBS_PER_CALL = 64
_PATH_HEADERS = ((b"--- ", "old"), (b"+++ ", "new"), (b"rename from ", "old"), (b"rename to ", "new"))
_ESCAPE = re.compile(rb"\\([abfnrtv\"\\]|[0-7]{3})")
_ESCAPED = {bytes([a]): bytes([b]) for a, b in zip(b'abfnrtv"\\', b'\a\b\f\n\r\t\v"\\', strict=True)}


class Commit(NamedTuple):
    """A commit. `time` is the commit time in seconds since 1970."""

    sha: str
    time: int


class Change(NamedTuple):
    """The change of one file between two commits. The path and blob are None on the side where the file is absent."""

    kind: Literal["added", "modified", "deleted", "renamed"]
    old_path: str | None
    path: str | None
    old_blob: str | None
    new_blob: str | None


def head_commit(root: Path) -> str | None:
    """Return the checked-out commit; None outside a repository and before the first commit."""
    try:
        return _resolve(root, "HEAD")
    except (git_process.NoRepository, git_process.NoCommit):
        return None


def first_parent_commits(root: Path, limit: int, *, until: str = "HEAD") -> list[Commit]:
    """Return the last `limit` commits of the first-parent history of `until`, oldest first."""
    count = f"--max-count={max(0, limit)}"
    until = git_process.revision(until)
    output = git_process.run(root, "rev-list", "--first-parent", "--timestamp", count, until, "--")
    pairs = [line.split() for line in output.decode().splitlines()]
    return [Commit(sha, int(time)) for time, sha in reversed(pairs)]


def changed_files(root: Path, a: str | None, b: str) -> list[Change]:
    """Return the regular files that differ between two commits, with renames detected.

    If `a` is None, the comparison is with the empty tree. Links and submodules are treated as absent.
    """
    b = _resolve(root, b)
    old = _EMPTY_TREE[len(b)] if a is None else git_process.revision(a)
    output = git_process.run(
        root, "diff-tree", "-r", "-z", "--raw", "--no-abbrev", *_RENAME_OPTIONS, "--relative", old, b, "--"
    )
    return list(_parse_raw_changes(output))


def tree(root: Path, sha: str) -> dict[str, str]:
    """Return path → blob for the regular files of a commit."""
    found = {}
    for record in git_process.run(root, "ls-tree", "-r", "-z", git_process.revision(sha)).split(b"\0"):
        if record.startswith(_FILE_MODES):
            metadata, _, path = record.partition(b"\t")
            found[_decode_path(path)] = metadata.split()[2].decode()
    return found


def blobs(root: Path, shas: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
    """Yield (sha, content) for each blob, in order; the content is None if missing or over MAX_BLOB_SIZE."""
    remaining = iter(shas)
    while group := [git_process.revision(sha) for sha in itertools.islice(remaining, _BLOBS_PER_CALL)]:
        names = "".join(f"{sha}\n" for sha in group).encode()
        checked = git_process.run(root, "cat-file", "--batch-check", stdin=names)
        sizes = [_blob_size(line) for line in checked.splitlines()]
        wanted = [sha for sha, size in zip(group, sizes, strict=True) if size is not None and size <= MAX_BLOB_SIZE]
        yield from _contents(root, group, wanted)


def _contents(root: Path, group: list[str], wanted: list[str]) -> Iterator[tuple[str, bytes | None]]:
    output = git_process.run(root, "cat-file", "--batch", stdin="".join(f"{sha}\n" for sha in wanted).encode())
    readable = set(wanted)
    at = 0
    for sha in group:
        if sha not in readable:
            yield sha, None
            continue
        start = output.index(b"\n", at) + 1
        size = _blob_size(output[at:start])
        if size is None:
            raise GitError(f"{root}: git could not read the object {sha}.")
        yield sha, output[start : start + size]
        at = start + size + 1  # a newline follows the content


def _blob_size(line: bytes) -> int | None:
    """Return the size in a line `<sha> blob <size>`; None for a missing object or one of another type."""
    fields = line.split()
    return int(fields[2]) if len(fields) == 3 and fields[1] == b"blob" else None


def diff_text(
    root: Path,
    a: str | None,
    b: str,
    suffixes: tuple[str, ...] = PRODUCTION_SUFFIXES,
    is_ignored: Callable[[str], bool] | None = None,
) -> str:
    """Return the production diff between two commits: `git diff -U3` without test, vendored and built files.

    Only files with one of `suffixes` are included. With `is_ignored` (FileFilter.is_ignored), the diff also omits
    files that it ignores on either side. Secrets stay in it.
    """
    b = _resolve(root, b)
    old = _EMPTY_TREE[len(b)] if a is None else git_process.revision(a)
    included = []
    for section in _sections(git_process.lines(root, "diff", *_DIFF_OPTIONS, old, b, "--"), suffixes):
        paths = _section_paths(section)
        if not paths or not is_production(paths[-1], suffixes):
            continue
        if is_ignored is None or not any(map(is_ignored, paths)):
            included.append(b"".join(section).decode("utf-8", "replace"))
    return "".join(included)


def is_production(path: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether a file has one of the suffixes and is not a test, vendored or built."""
    parts = PurePosixPath(path).parts
    return path.endswith(suffixes) and not any("test" in part.lower() or part in VENDORED for part in parts)


def _sections(lines: Iterable[bytes], suffixes: tuple[str, ...]) -> Iterator[list[bytes]]:
    """Yield the lines of each file's section, without sections whose first line shows another suffix."""
    ends = tuple(end.encode() + quote for end in suffixes for quote in (b"", b'"'))
    section: list[bytes] = []
    wanted = False
    for line in lines:
        # Content lines start with a sign, so only a header can start like this.
        if line.startswith(b"diff --git "):
            if section:
                yield section
            section = []
            wanted = line.rstrip(b"\n").endswith(ends)
        if wanted:
            section.append(line)
    if section:
        yield section


def _section_paths(section: list[bytes]) -> list[str]:
    """Return the old and new path of a section that names both, or the one path that it names."""
    found = {}
    for line in itertools.takewhile(lambda line: not line.startswith(b"@@ "), section[1:]):
        for header, side in _PATH_HEADERS:
            if line.startswith(header):
                # git ends a name that contains a space with a tab
                name = line[len(header) :].rstrip(b"\n").removesuffix(b"\t")
                found[side] = _unquote(name, prefixed=len(header) == 4)
    paths = [found[side] for side in ("old", "new") if found.get(side)]
    return paths or _same_path(section[0])


def _same_path(first: bytes) -> list[str]:
    """Return the path in `diff --git a/X b/X`, the only header of an empty file or a mode change."""
    names = first.removeprefix(b"diff --git ").rstrip(b"\n")
    half = names[: len(names) // 2]
    name = _unquote(half, prefixed=True)
    return [name] if name and names == half + b" " + half.replace(b"a/", b"b/", 1) else []


def _unquote(raw: bytes, *, prefixed: bool) -> str:
    """Return the path without git's C-style quotes and, if `prefixed`, without `a/` or `b/`; "" for /dev/null."""
    if raw == b"/dev/null":
        return ""
    if raw.startswith(b'"') and raw.endswith(b'"'):
        raw = _ESCAPE.sub(lambda m: _ESCAPED.get(m[1]) or bytes([int(m[1], 8)]), raw[1:-1])
    return _decode_path(raw[2:] if prefixed else raw)


def _parse_raw_changes(output: bytes) -> Iterator[Change]:
    """Parse `git diff-tree --raw -z`: `:mode mode blob blob status`, one path, and a second one for a rename."""
    fields = iter(output.split(b"\0"))
    for metadata in fields:
        if not metadata:
            return
        old_mode, new_mode, old_blob, new_blob, status = metadata.lstrip(b":").split()
        first = _decode_path(next(fields))
        second = _decode_path(next(fields)) if status[:1] == b"R" else first
        in_old, in_new = old_mode in _FILE_MODES, new_mode in _FILE_MODES
        before, after = old_blob.decode() if in_old else None, new_blob.decode() if in_new else None
        if in_old and in_new:
            yield Change("renamed" if first != second else "modified", first, second, before, after)
        elif in_old:
            yield Change("deleted", first, None, before, None)
        elif in_new:
            yield Change("added", None, second, None, after)


def _resolve(root: Path, name: str) -> str:
    return git_process.run(root, "rev-parse", "--verify", git_process.revision(name) + "^{commit}").decode().strip()


def _decode_path(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
