"""Types the places of a repository against a side, and turns the counts of repositories into rows."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from c2l_lab.benchmarks.perf.typing import Place
from c2l_lab.benchmarks.stats import Row, clustered
from c2l_lab.benchmarks.typing.author import Author, Counts
from c2l_lab.benchmarks.typing.sides import Side

_READING_S = 0.3  # after an acceptance, before the next key

MEASURES: dict[str, tuple[str, Callable[[Counts], float]]] = {
    "keystrokes saved": ("share", lambda c: 1 - c.pressed / max(c.keys, 1)),
    "wrong characters shown": ("per 100 characters of the text", lambda c: 100 * c.wrong / max(c.characters, 1)),
    "ghost texts shown": ("per 100 keys", lambda c: 100 * c.shown / max(c.keys, 1)),
    "accepted": ("share of shown", lambda c: (c.whole + c.lines + c.words) / max(c.shown, 1)),
    "accepted whole": ("share of shown", lambda c: c.whole / max(c.shown, 1)),
    "flicker": ("per 100 keys", lambda c: 100 * c.flicker / max(c.keys, 1)),
    "requests": ("per 100 keys", lambda c: 100 * c.requests / max(c.keys, 1)),
    "late": ("share of requests", lambda c: c.late / max(c.requests, 1)),
}
"""Name → unit and value."""


def checkout(repository: Path, commit: str, target: Path) -> None:
    """Write the text files of a commit to a folder that becomes a git repository, so that ignore rules are git's.

    Objects that a mirror lacks (large files) are left out, as are links.
    """
    git = ["git", "-C", str(repository)]
    listing = subprocess.run([*git, "ls-tree", "-rz", commit], capture_output=True, check=True, timeout=60).stdout
    rows = [row.split(b"\t", 1) for row in listing.split(b"\0") if row.startswith(b"100")]
    shas = b"".join(head.split()[2] + b"\n" for head, _ in rows)
    blobs = io.BytesIO(
        subprocess.run([*git, "cat-file", "--batch"], input=shas, capture_output=True, check=True, timeout=300).stdout
    )
    for _, name in rows:
        head = blobs.readline().split()
        if head[-1] == b"missing":
            continue
        raw = blobs.read(int(head[2]) + 1)[:-1]
        path = target / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    subprocess.run(["git", "init", "-q", str(target)], check=True, timeout=60)


def type_place(side: Side, place: Place, patience_s: float = 0.0) -> Counts:
    """Type one place against a side. Pauses in which nothing would happen are skipped.

    An answer counts if it comes before the next key, or within `patience_s` if that is longer.
    """
    text = "".join(key.text for key in place.keys)
    waits = {}
    offset = 0
    for key in place.keys:
        waits[offset] = key
        offset += len(key.text)
    author = Author(place.prefix, place.suffix, text)
    author.counts.keys, author.counts.characters = len(place.keys), len(text)
    side.open(place.path, place.prefix, place.suffix)
    while author.text:
        if not author.accept():
            at = len(text) - len(author.text)
            start = max(begun for begun in waits if begun <= at)
            author.type(waits[start].text[at - start :])
        following = waits.get(len(text) - len(author.text))
        wait_s = following.wait_s if following is not None else _READING_S
        if not author.text:
            break
        side.edit(author.before, author.after)
        ghost, answered = side.ask(max(wait_s, patience_s))
        author.counts.requests += 1
        author.counts.late += not answered
        if answered:
            author.show(ghost)
    return author.counts


def rows(sides: Mapping[str, Mapping[str, Counts]]) -> list[Row]:
    """Rows from counts by side and repository: each measure of each side, and the differences to the last side."""
    found: list[Row] = []
    for name, (unit, value) in MEASURES.items():
        for side, counts in sides.items():
            found.append(Row(name, side, *clustered([value(one) for one in counts.values()]), unit))
    *others, last = sides
    for side in others:
        for name, (unit, value) in list(MEASURES.items())[:2]:
            both = [repository for repository in sides[side] if repository in sides[last]]
            gains = [value(sides[side][one]) - value(sides[last][one]) for one in both]
            found.append(Row(name, f"{side} − {last}", *clustered(gains), unit))
    return found


def type_all(side: Side, places: Sequence[Place], patience_s: float = 0.0) -> Counts:
    """The summed counts of some places; see type_place."""
    total = Counts()
    for place in places:
        total.add(type_place(side, place, patience_s))
    return total


def as_values(counts: Counts) -> dict[str, float]:
    """Counts as numbers for the result cache."""
    return {name: float(value) for name, value in asdict(counts).items()}


def from_values(values: Mapping[str, float]) -> Counts:
    """Counts from the result cache."""
    return Counts(**{name: int(value) for name, value in values.items()})
