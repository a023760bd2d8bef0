"""Typing for the replay: blocks of code that commits inserted, as keystrokes at human speed.

A place is a block of lines, or part of one, that a commit inserted into a Python file, with the text before and after
it. The block is typed character by character; automatic indentation is part of the line break. Pauses are random with a
fixed seed: about 50 words a minute, longer at the end of a word or a line.
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from c2l_lsp.repo.history import git_history

_COMMITS = 60
_BLOCK = (8, 240)  # characters of a block; longer ones were pasted or generated
_KEY_S, _WORD_S, _LINE_S = 0.16, 0.12, 0.7
_SPREAD = 0.35


@dataclass(frozen=True)
class Key:
    """A pause and the text of the keystroke after it."""

    wait_s: float
    text: str


@dataclass(frozen=True)
class Place:
    """A place in a file where text was inserted, and its keystrokes. `parent`: the commit before the insertion."""

    path: str
    prefix: str
    suffix: str
    keys: tuple[Key, ...]
    parent: str = ""


def places(roots: Sequence[Path], count: int, seed: int = 0, until: str = "HEAD") -> list[Place]:
    """`count` places from the repositories in turn, up to a commit; fewer if their histories have no more."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    found: list[Place] = []
    streams = [_of(root, draw, until) for root in roots]
    while streams and len(found) < count:
        for stream in list(streams):
            place = next(stream, None)
            if place is None:
                streams.remove(stream)
            elif len(found) < count:
                found.append(place)
    return found


def _of(root: Path, draw: random.Random, until: str) -> Iterator[Place]:
    """The places in one repository, one a commit, the latest first."""
    line = [commit.sha for commit in git_history.first_parent_commits(root, _COMMITS, until=until)]
    for old, new in zip(line[-2::-1], line[:0:-1], strict=False):
        changes = [
            c for c in git_history.changed_files(root, old, new) if c.kind == "modified" and str(c.path).endswith(".py")
        ]
        for change in changes[:4]:
            texts = dict(git_history.blobs(root, [str(change.old_blob), str(change.new_blob)]))
            pair = [texts.get(str(blob)) for blob in (change.old_blob, change.new_blob)]
            block = _block(*(raw.decode("utf-8", "replace").replace("\r\n", "\n") if raw else "" for raw in pair))
            if block is not None:
                text, begin, end = block
                yield Place(str(change.path), text[:begin], text[end:], keys(text[begin:end], draw), old)
                break


def _block(old: str, new: str) -> tuple[str, int, int] | None:
    """The new text of a file, and the start and end of the first block that looks typed."""
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    if not before or len(after) > 4000:
        return None
    for kind, _, _, a, b in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        begin = sum(map(len, after[:a]))
        text = "".join(after[a:b]).rstrip("\n")
        indent = len(text) - len(text.lstrip(" \t"))
        if kind == "insert" and _BLOCK[0] <= len(text) - indent <= _BLOCK[1]:
            return new, begin + indent, begin + len(text)
    return None


def keys(text: str, draw: random.Random) -> tuple[Key, ...]:
    """The keystrokes that type a text."""
    out: list[Key] = []
    for chunk in re.findall(r"\n+[ \t]*|.", text):
        base = _KEY_S + (_LINE_S if out and out[-1].text[0] == "\n" else 0.0) + (_WORD_S if chunk == " " else 0.0)
        out.append(Key(base * draw.lognormvariate(0.0, _SPREAD), chunk))
    return tuple(out)
