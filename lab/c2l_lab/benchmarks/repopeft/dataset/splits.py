"""Splits by repository and by time, and the caps on training tasks."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar

from c2l_lab.benchmarks.repopeft.dataset.schema import PER_COMMIT

PER_FILE = 4
"""Training tasks of one test file in one commit."""

ANCHOR_PER_REPOSITORY, ANCHOR_PER_FILE, ANCHOR_PER_FUNCTION = 200, 20, 5
"""Caps on the training tasks from the anchor commit of a repository (the snapshots track)."""

CrossSplit = Literal["train", "cr_val", "cr_test"]
T = TypeVar("T")


def chronological(kept: int) -> list[str]:
    """The split (train, val or test) of each kept commit of a repository, oldest first: 80/10/10, at least one each."""
    if kept < 3:
        return ["train"] * kept
    val = max(1, kept // 10)
    train = min(kept * 8 // 10, kept - val - 1)
    return ["train"] * train + ["val"] * val + ["test"] * (kept - train - val)


def across(repository: str, val: float = 0.1, test: float = 0.1, seed: int = 0) -> CrossSplit:
    """The split of a repository; it depends only on the name, so it stays when the list grows."""
    digest = hashlib.blake2b(f"{seed}/{repository.lower()}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < test:
        return "cr_test"
    return "cr_val" if place < test + val else "train"


def trivial(target: str) -> bool:
    """Whether a target is trivial: under 4 characters, or up to 6 characters at the end of a call."""
    text = target.strip()
    return len(text) < 4 or (len(text) <= 6 and (text.endswith(")") or text.startswith(",")))


def capped(
    tasks: Sequence[tuple[str, str]], seed: str, per_file: int = PER_FILE, per_commit: int = PER_COMMIT
) -> list[int]:
    """The training tasks among one commit's tasks, which are given as (test file, test function).

    A file gives up to `per_file` tasks, from its functions in turn; the files give up to `per_commit` tasks in turn.
    The order is random and depends only on `seed` (a commit). Returns ascending indices.
    """
    rng = random.Random(seed)  # noqa: S311 - a reproducible draw, no secret
    files: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, (file, function) in enumerate(tasks):
        files[file][function].append(index)
    of_files = [_in_turn(list(functions.values()), per_file, rng) for functions in files.values()]
    return sorted(_in_turn(of_files, per_commit, rng))


def anchored(tasks: Sequence[tuple[str, str]], seed: str) -> list[int]:
    """Which of the tasks that stand in one commit are trained on (the snapshots track); indices, ascending."""
    functions: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, task in enumerate(tasks):
        functions[task].append(index)
    rng = random.Random(seed)  # noqa: S311 - as above
    few = sorted(i for group in functions.values() for i in _in_turn([group], ANCHOR_PER_FUNCTION, rng))
    chosen = capped([tasks[i] for i in few], seed, ANCHOR_PER_FILE, ANCHOR_PER_REPOSITORY)
    return [few[i] for i in chosen]


def first(items: Iterator[T], group: Callable[[T], object], most: int) -> Iterator[T]:
    """The first `most` items of each group, in order; groups may interleave."""
    seen: dict[object, int] = defaultdict(int)
    for item in items:
        name = group(item)
        seen[name] += 1
        if seen[name] <= most:
            yield item


def _in_turn(groups: Sequence[Sequence[int]], most: int, rng: random.Random) -> list[int]:
    """Up to `most` indices, from the groups in turn; groups and members are in random order."""
    left = [rng.sample(list(group), len(group)) for group in groups]
    rng.shuffle(left)
    chosen: list[int] = []
    while left and len(chosen) < most:
        for group in left:
            if len(chosen) < most:
                chosen.append(group.pop())
        left = [group for group in left if group]
    return chosen
