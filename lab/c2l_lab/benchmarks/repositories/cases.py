"""What is measured of one repository: the files that are scored, and the states that never saw them.

Scored (`targets`) are the files that were touched last before the commit, until there is enough text. A state holds
other files only: the targets, their earlier names and whatever leaks them (`leak`) are out, at every age. States of
all ages hold the same files, those touched last first, so that only what the commits changed tells them apart. For
staleness a second family of states (`trails`) leaves out the `newest` targets alone: what was written beside them
counts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from c2l_lab.benchmarks.repositories import contamination
from c2l_lab.benchmarks.repositories.source import Source
from c2l_lsp.errors import CorpusError

AGES = (0, 1, 5, 20, 100)
RULES = 1  # part of every case's name: raise when something here changes what a case holds

Texts = dict[str, str]
_BATCH = 40  # files read at once


@dataclass(frozen=True)
class Sizes:
    """Characters of text: in a state, in the targets, the least of each and of a target, the most of one file (its
    beginning, to a whole line). `newest` counts files."""

    state: int = 64_000
    targets: int = 60_000
    least_state: int = 20_000
    least_targets: int = 30_000
    least_file: int = 2_000
    most_file: int = 20_000
    newest: int = 4


@dataclass(frozen=True)
class Case:
    """`states` and `trails`: age → path → text, age 0 first. `newest`: the targets that staleness is scored on."""

    name: str
    commit: str
    targets: Texts
    newest: list[str]
    states: dict[int, Texts]
    trails: dict[int, Texts]
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def state(self) -> Texts:
        """What an adapter is made from."""
        return self.states[0]

    @cached_property
    def digest(self) -> str:
        """Names everything in the case."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def build(source: Source, sizes: Sizes, known: frozenset[str] | None = None) -> Case | str:
    """The case of a repository, or why it has none. `known`: digests of texts that may be scored (None: all)."""
    order = list(dict.fromkeys([*source.touched(), *source.paths()]))
    texts = _enough(source, order, sizes)
    order = [path for path in order if path in texts]
    targets = _targets(order, texts, sizes, known, max(1, len(source.paths()) // 3))
    if sum(map(len, targets.values())) < sizes.least_targets:
        return "too little text to score"
    newest = list(targets)[: sizes.newest]
    out = {path: texts[path] for path in order if path not in targets}
    states, leaked = _states(source, out, targets, sizes)
    if sum(map(len, states[0].values())) < sizes.least_state:
        return "too little text to learn from"
    beside = {path: texts[path] for path in order if path not in newest}
    scored = {path: targets[path] for path in newest}
    trails, _ = _states(source, beside, scored, sizes)
    counts = {"files": len(texts), "targets": len(targets), "leaks removed": leaked, "git gaps": source.gaps}
    return Case(source.name, source.commit, targets, newest, states, trails, counts)


def _enough(source: Source, order: Sequence[str], sizes: Sizes) -> Texts:
    """Whole texts in the order asked for, until there is enough for targets and state."""
    texts: Texts = {}
    for begin in range(0, len(order), _BATCH):
        texts |= source.read(order[begin : begin + _BATCH], 0)
        if sum(min(len(text), sizes.most_file) for text in texts.values()) > 2 * (sizes.state + sizes.targets):
            break
    return texts


def _clipped(text: str, chars: int) -> str:
    """The beginning of a text, to the end of a line."""
    return text if len(text) <= chars else text[: text.rfind("\n", 0, chars) + 1]


def _targets(order: Sequence[str], texts: Texts, sizes: Sizes, known: frozenset[str] | None, most: int) -> Texts:
    """The latest touched files that may be scored: enough text, at most `most` files."""
    targets: Texts = {}
    for path in order:
        if len(targets) >= most or sum(map(len, targets.values())) >= sizes.targets:
            break
        text = texts[path]
        if len(text) >= sizes.least_file and (known is None or name_of(text) in known):
            targets[path] = _clipped(text, sizes.most_file)
    return targets


def _limited(texts: Mapping[str, str], chars: int) -> Texts:
    kept: Texts = {}
    for path, text in texts.items():
        if sum(map(len, kept.values())) >= chars:
            break
        kept[path] = text
    return kept


def _states(source: Source, texts: Texts, targets: Texts, sizes: Sizes) -> tuple[dict[int, Texts], int]:
    """The states of all ages over files that leak at no age, and how many files leaked at some."""
    chosen = _limited({path: _clipped(text, sizes.most_file) for path, text in texts.items()}, sizes.state * 5 // 4)
    by_age = {0: chosen}
    for age in source.ages[1:]:
        old = source.read(list(chosen), age)
        by_age[age] = {path: _clipped(text, sizes.most_file) for path, text in old.items()}
    bad: set[str] = set()
    for texts in by_age.values():
        bad |= contamination.leaks(texts, targets).keys()
    states: dict[int, Texts] = {}
    kept = list(_limited({path: text for path, text in chosen.items() if path not in bad}, sizes.state))
    for age, texts in by_age.items():
        states[age] = {path: texts[path] for path in kept if path in texts}
    return states, len(bad)


def name_of(text: str) -> str:
    """The digest by which a built corpus names a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save(case: Case, path: Path) -> None:
    """Write a case as JSON, aside and then in place."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # shards may make the same case at the same time
    path.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(json.dumps(asdict(case)), encoding="utf-8", errors="surrogatepass")
    part.replace(path)


def load(path: Path) -> Case:
    """Read a case. CorpusError if the file is not one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
        for name in ("states", "trails"):
            values[name] = {int(age): texts for age, texts in values[name].items()}
        return Case(**values)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorpusError(f"{path.name} holds no case; delete it and run again.") from error
