"""Hostile ignore rules and hostile texts: the CPU time of every decision is bounded, so that no folder stalls another.

CPU time of the thread is measured, not wall time: other work on the machine does not lengthen it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from c2l_lsp import config
from c2l_lsp.repo.filter import patterns
from c2l_lsp.repo.filter.files import FileFilter
from tests.soak.harness.bar import Finding, Task
from tests.soak.planted import slow_filter

MATCH_S, TEXT_S, RULES_S = 0.05, 1.0, 2.0
"""CPU seconds for a line of an ignore file and a path, for a text of TEXT_BYTES, and for a file of RULES lines."""

TEXT_BYTES, RULES, MAX_PATH = 512_000, 30_000, 4_096
PIECES = {
    b"*": b"aaaa", b"**": b"aa", b"/**/": b"/a/a/", b"/": b"/", b"?": b"a", b"a": b"a", b"[a-z]": b"a", b"[!b]": b"a",
    b"[[:alpha:]]": b"a", b"\\*": b"*", b"x": b"x",
}  # fmt: skip
"""Pieces of a line, and of a path that it matches."""
WORDS = (
    "token", "eyJ", "eyJ.", "password=", "-----BEGIN ", "sk-", "ghp_", "AKIA", "://a:", "'", '"', "\\", "a", "=", "\n",
    "secret", "key", "Bearer ", "0", "Aa1", "+/", "_", ".", " ", "xoxb-", "é",
)  # fmt: skip


def run(task: Task) -> Finding:
    """`count` hostile inputs of each kind; at least the known ones."""
    finding, rng, slowest = Finding(), random.Random(0), dict.fromkeys(("line", "text", "rules"), 0.0)
    plain, ruled = ((task.work / name).resolve() for name in ("plain", "ruled"))
    for folder in (plain, ruled):
        folder.mkdir()
    with slow_filter.planted(task.plant):
        for number in range(task.count):
            for kind, limit, decide in (
                ("line", MATCH_S, _match(rng, number)),
                ("text", TEXT_S, _text(rng, number, plain)),
                ("rules", RULES_S, _rules(rng, ruled, number)),
            ):
                if decide is None:
                    continue
                taken = _cpu_seconds(decide)
                slowest[kind] = max(slowest[kind], taken)
                finding.tried += 1
                finding.expect(taken <= limit, f"{kind} {number}: {taken * 1e3:.0f} ms of CPU time")
            if task.plant and finding.failed:
                break
    finding.figures |= {f"{kind}_max_ms": (taken * 1e3, "ms") for kind, taken in slowest.items()}
    return finding


def _cpu_seconds(decide: Callable[[], object]) -> float:
    began = time.thread_time()
    decide()
    return time.thread_time() - began


def _match(rng: random.Random, number: int) -> Callable[[], object]:
    """A line against a path that it matches but for the last byte. The first one stopped all completions once."""
    pieces = [b"*"] * 30 + [b"x"] if number == 0 else rng.choices([*PIECES], k=rng.randint(20, 300))
    path = b"".join(PIECES[piece] for piece in pieces)
    found = patterns.PatternList.from_file(b"".join(pieces) + b"\n", fold_case=bool(rng.randrange(2)))
    return lambda: (
        found.last_match(path[: MAX_PATH - 1] + b"y", directory=False)
        or found.last_match(path[:MAX_PATH], directory=False)
    )


def _text(rng: random.Random, number: int, root: Path) -> Callable[[], object]:
    """A few words repeated to TEXT_BYTES; the first ones are those that took seconds once."""
    words = [WORDS[number]] if number < 2 else rng.choices(WORDS, k=rng.randint(1, 4))
    once = "".join(words)
    text = (once * (TEXT_BYTES // len(once.encode()) + 1))[: TEXT_BYTES // 2 if "é" in once else TEXT_BYTES]
    rules = FileFilter(root, config.Files())
    return lambda: rules.check_text("a.py", text)


def _rules(rng: random.Random, root: Path, number: int) -> Callable[[], object] | None:
    """A file of RULES lines, and ten paths; None in nine of ten rounds."""
    if number % 10:
        return None
    lines = (b"".join(rng.choices([*PIECES], k=rng.randint(1, 12))) for _ in range(RULES))
    (root / ".gitignore").write_bytes(b"\n".join(lines))
    paths = [f"{'a' * rng.randint(1, 40)}/b{n}/c.py" for n in range(10)]

    def decide() -> None:
        rules = FileFilter(root, config.Files())
        for path in paths:
            rules.includes(path)

    return decide
