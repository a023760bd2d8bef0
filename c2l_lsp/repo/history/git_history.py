"""git history as data: commits, changed files, blobs and the diff text that hypernetworks are trained on.

Works in working trees, folders below their top (paths are then relative to that folder), linked worktrees, submodules
and bare repositories. Changes nothing. Every function raises GitError with a sentence when git cannot answer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from c2l_lsp.errors import GitError
from c2l_lsp.repo.filter.content import contains_secret
from c2l_lsp.repo.git import git_process

LARGEST_BLOB = 2_000_000
"""Bytes. A larger file is not read from history."""

PRODUCTION_SUFFIXES = (".py", ".md", ".rst")
VENDORED = frozenset({
    "vendor", "vendored", "_vendor", "third_party", "thirdparty", "3rdparty", "extern", "externals", "node_modules",
    "site-packages", "dist-packages", "build", "dist", ".eggs", ".tox", ".nox", "venv", ".venv", "env", "__pycache__",
})  # fmt: skip
"""Path parts whose files are somebody else's or made by a build."""

_EMPTY_TREE = {
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
"""By length of the repository's object names (SHA-1, SHA-256)."""

_FILE_MODES = (b"100644", b"100755")
_RENAMES = ("-M50%", "-l1000")
_DIFF_FORM = (
    "--no-color", "-U3", *_RENAMES, "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/",
    "--diff-algorithm=myers", "--indent-heuristic", "--inter-hunk-context=0", "--submodule=short",
    "--ignore-submodules=all", "--relative", "-O/dev/null",
)  # fmt: skip


_BLOBS_A_CALL = 64
_PATH_MARKS = ((b"--- ", "old"), (b"+++ ", "new"), (b"rename from ", "old"), (b"rename to ", "new"))
_ESCAPE = re.compile(rb"\\([abfnrtv\"\\]|[0-7]{3})")
_ESCAPED = {bytes([a]): bytes([b]) for a, b in zip(b'abfnrtv"\\', b'\a\b\f\n\r\t\v"\\', strict=True)}


class Commit(NamedTuple):
    """A commit; `time` is the committer's, in seconds since 1970."""

    sha: str
    time: int


class Change(NamedTuple):
    """One file between two commits. A path or blob is None on the side where the file is absent."""

    kind: Literal["added", "modified", "deleted", "renamed"]
    old_path: str | None
    path: str | None
    old_blob: str | None
    new_blob: str | None


def head_commit(root: Path) -> str | None:
    """The checked-out commit; None when the folder is in no repository or has no commit yet."""
    try:
        return _resolve(root, "HEAD")
    except (git_process.NoRepository, git_process.NoCommit):
        return None


def first_parent_commits(root: Path, limit: int, *, until: str = "HEAD") -> list[Commit]:
    """The last `limit` commits of the main line up to `until`, oldest first."""
    count = f"--max-count={max(0, limit)}"
    output = git_process.run(
        root, "rev-list", "--first-parent", "--timestamp", count, git_process.revision(until), "--"
    )
    pairs = [line.split() for line in output.decode().splitlines()]
    return [Commit(sha, int(time)) for time, sha in reversed(pairs)]


def changed_files(root: Path, a: str | None, b: str) -> list[Change]:
    """The files that differ between two commits, renames followed; `a` None is the empty tree.

    Only regular files: links and submodules do not exist here.
    """
    b = _resolve(root, b)
    old = _EMPTY_TREE[len(b)] if a is None else git_process.revision(a)
    output = git_process.run(
        root, "diff-tree", "-r", "-z", "--raw", "--no-abbrev", *_RENAMES, "--relative", old, b, "--"
    )
    return list(_raw_changes(output))


def tree(root: Path, sha: str) -> dict[str, str]:
    """path → blob of the regular files of a commit."""
    found = {}
    for record in git_process.run(root, "ls-tree", "-r", "-z", git_process.revision(sha)).split(b"\0"):
        if record.startswith(_FILE_MODES):
            about, _, path = record.partition(b"\t")
            found[_path(path)] = about.split()[2].decode()
    return found


def blobs(root: Path, shas: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
    """The content of each blob, in order; None when it is missing here or larger than LARGEST_BLOB."""
    waiting = iter(shas)
    while group := [git_process.revision(sha) for sha in itertools.islice(waiting, _BLOBS_A_CALL)]:
        asked = "".join(f"{sha}\n" for sha in group).encode()
        sizes = [
            _blob_size(line) for line in git_process.run(root, "cat-file", "--batch-check", stdin=asked).splitlines()
        ]
        wanted = [sha for sha, size in zip(group, sizes, strict=True) if size is not None and size <= LARGEST_BLOB]
        yield from _contents(root, group, wanted)


def _contents(root: Path, group: list[str], wanted: list[str]) -> Iterator[tuple[str, bytes | None]]:
    output = git_process.run(root, "cat-file", "--batch", stdin="".join(f"{sha}\n" for sha in wanted).encode())
    held = set(wanted)
    at = 0
    for sha in group:
        if sha not in held:
            yield sha, None
            continue
        start = output.index(b"\n", at) + 1
        size = _blob_size(output[at:start])
        if size is None:
            raise GitError(f"{root}: git could not read the object {sha}.")
        yield sha, output[start : start + size]
        at = start + size + 1  # a newline follows the content


def _blob_size(line: bytes) -> int | None:
    """Of a line `<sha> blob <size>`; None for `<sha> missing` and for trees, commits and tags."""
    fields = line.split()
    return int(fields[2]) if len(fields) == 3 and fields[1] == b"blob" else None


def diff_text(
    root: Path,
    a: str | None,
    b: str,
    suffixes: tuple[str, ...] = PRODUCTION_SUFFIXES,
    is_ignored: Callable[[str], bool] | None = None,
) -> str:
    """The production diff between two commits: `git diff -U3` of files with these suffixes, without tests, vendored
    and built files.

    `is_ignored` is the folder's filter (FileFilter.is_ignored): with it, sections of files that it leaves out on either
    side and sections that hold a secret, in removed lines too, are dropped.
    """
    b = _resolve(root, b)
    old = _EMPTY_TREE[len(b)] if a is None else git_process.revision(a)
    kept = []
    for section in _sections(git_process.lines(root, "diff", *_DIFF_FORM, old, b, "--"), suffixes):
        paths = _section_paths(section)
        if not paths or not _production(paths[-1], suffixes):
            continue
        text = b"".join(section).decode("utf-8", "replace")
        if is_ignored is None or not (any(map(is_ignored, paths)) or contains_secret(text)):
            kept.append(text)
    return "".join(kept)


def _production(path: str, suffixes: tuple[str, ...]) -> bool:
    parts = PurePosixPath(path).parts
    return path.endswith(suffixes) and not any("test" in part.lower() or part in VENDORED for part in parts)


def _sections(lines: Iterable[bytes], suffixes: tuple[str, ...]) -> Iterator[list[bytes]]:
    """The lines of each file's section. Sections whose first line shows another suffix are passed over unread."""
    ends = tuple(end.encode() + quote for end in suffixes for quote in (b"", b'"'))
    section: list[bytes] = []
    wanted = False
    for line in lines:
        # Content lines begin with a sign, so only a header can begin like this.
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
    """The old and the new path of a section, as far as it has them; one of an unchanged path."""
    found = {}
    for line in itertools.takewhile(lambda line: not line.startswith(b"@@ "), section[1:]):
        for mark, side in _PATH_MARKS:
            if line.startswith(mark):
                name = line[len(mark) :].rstrip(b"\n").removesuffix(b"\t")  # a tab ends names with spaces
                found[side] = _unquoted(name, prefixed=len(mark) == 4)
    paths = [found[side] for side in ("old", "new") if found.get(side)]
    return paths or _same_path(section[0])


def _same_path(first: bytes) -> list[str]:
    """From `diff --git a/X b/X`, all there is for an empty file or a changed mode: half of the line is the path."""
    names = first.removeprefix(b"diff --git ").rstrip(b"\n")
    half = names[: len(names) // 2]
    name = _unquoted(half, prefixed=True)
    return [name] if name and names == half + b" " + half.replace(b"a/", b"b/", 1) else []


def _unquoted(raw: bytes, *, prefixed: bool) -> str:
    """The path that git wrote, quoted like a C string if it has odd bytes, `a/` or `b/` taken off; "" is /dev/null."""
    if raw == b"/dev/null":
        return ""
    if raw.startswith(b'"') and raw.endswith(b'"'):
        raw = _ESCAPE.sub(lambda m: _ESCAPED.get(m[1]) or bytes([int(m[1], 8)]), raw[1:-1])
    return _path(raw[2:] if prefixed else raw)


def _raw_changes(output: bytes) -> Iterator[Change]:
    """From `git diff-tree --raw -z`: `:mode mode blob blob status`, one path, and a second one for a rename."""
    fields = iter(output.split(b"\0"))
    for about in fields:
        if not about:
            return
        old_mode, new_mode, old_blob, new_blob, status = about.lstrip(b":").split()
        first = _path(next(fields))
        second = _path(next(fields)) if status[:1] == b"R" else first
        was, is_ = old_mode in _FILE_MODES, new_mode in _FILE_MODES
        before, after = old_blob.decode() if was else None, new_blob.decode() if is_ else None
        if was and is_:
            yield Change("renamed" if first != second else "modified", first, second, before, after)
        elif was:
            yield Change("deleted", first, None, before, None)
        elif is_:
            yield Change("added", None, second, None, after)


def _resolve(root: Path, name: str) -> str:
    return git_process.run(root, "rev-parse", "--verify", git_process.revision(name) + "^{commit}").decode().strip()


def _path(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
