"""The case of a repository: the held-out files that are scored, and the states that do not contain them.

The scored files (`targets`) are the most recently changed ones before the commit, until there is enough text. A state
contains other files only: targets, their earlier names and contaminated files are excluded at every age. States of all
ages contain the same files, so they differ only by what the commits changed. Staleness uses a second family of states
(`trails`) that excludes only the `newest` targets, because changes beside those files matter there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from c2l_lab.repositories import contamination
from c2l_lab.repositories.source import Source
from c2l_lsp.errors import CorpusError

AGES = (0, 1, 5, 20, 100)
RULES = 1  # part of every case's file name; increase it when the content of a case changes

Texts = dict[str, str]
_BATCH = 40  # files read in one call of git


@dataclass(frozen=True)
class Sizes:
    """Sizes in characters of text, except `newest`, a number of files.

    state, targets: the text of a state and of all targets.
    least_state, least_targets: a repository with less is skipped.
    least_file: shorter files are no targets.
    most_file: of a longer file only the first lines are used.
    """

    state: int = 64_000
    targets: int = 60_000
    least_state: int = 20_000
    least_targets: int = 30_000
    least_file: int = 2_000
    most_file: int = 20_000
    newest: int = 4


@dataclass(frozen=True)
class Case:
    """`states` and `trails`: age in commits → path → text. `newest`: the targets on which staleness is scored."""

    name: str
    commit: str
    targets: Texts
    newest: list[str]
    states: dict[int, Texts]
    trails: dict[int, Texts]
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def state(self) -> Texts:
        """The present state, from which adapters are made."""
        return self.states[0]

    @cached_property
    def digest(self) -> str:
        """A digest of the whole case."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def build(source: Source, sizes: Sizes, known: frozenset[str] | None = None) -> Case | str:
    """The case of a repository, or the reason why it has none.

    known: digests of the texts that may be scored; None: all.
    """
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
        return "too little text for a state"
    beside = {path: texts[path] for path in order if path not in newest}
    scored = {path: targets[path] for path in newest}
    trails, _ = _states(source, beside, scored, sizes)
    counts = {"files": len(texts), "targets": len(targets), "leaks removed": leaked, "git gaps": source.gaps}
    return Case(source.name, source.commit, targets, newest, states, trails, counts)


def _enough(source: Source, order: Sequence[str], sizes: Sizes) -> Texts:
    """The texts of files in this order, until there is enough for targets and state."""
    texts: Texts = {}
    for begin in range(0, len(order), _BATCH):
        texts |= source.read(order[begin : begin + _BATCH], 0)
        if sum(min(len(text), sizes.most_file) for text in texts.values()) > 2 * (sizes.state + sizes.targets):
            break
    return texts


def _clipped(text: str, chars: int) -> str:
    """The first lines of a text, at most `chars` characters."""
    return text if len(text) <= chars else text[: text.rfind("\n", 0, chars) + 1]


def _targets(order: Sequence[str], texts: Texts, sizes: Sizes, known: frozenset[str] | None, most: int) -> Texts:
    """The most recently changed files that may be scored, at most `most` of them."""
    targets: Texts = {}
    for path in order:
        if len(targets) >= most or sum(map(len, targets.values())) >= sizes.targets:
            break
        text = texts[path]
        if len(text) >= sizes.least_file and (known is None or name_of(text) in known):
            targets[path] = _clipped(text, sizes.most_file)
    return targets


def _limited(texts: Mapping[str, str], chars: int) -> Texts:
    limited: Texts = {}
    for path, text in texts.items():
        if sum(map(len, limited.values())) >= chars:
            break
        limited[path] = text
    return limited


def _states(source: Source, texts: Texts, targets: Texts, sizes: Sizes) -> tuple[dict[int, Texts], int]:
    """The states of all ages without contaminated files, and the number of contaminated files."""
    chosen = _limited({path: _clipped(text, sizes.most_file) for path, text in texts.items()}, sizes.state * 5 // 4)
    by_age = {0: chosen}
    for age in source.ages[1:]:
        old = source.read(list(chosen), age)
        by_age[age] = {path: _clipped(text, sizes.most_file) for path, text in old.items()}
    bad: set[str] = set()
    for texts in by_age.values():
        bad |= contamination.contaminated(texts, targets).keys()
    states: dict[int, Texts] = {}
    paths = list(_limited({path: text for path, text in chosen.items() if path not in bad}, sizes.state))
    for age, texts in by_age.items():
        states[age] = {path: texts[path] for path in paths if path in texts}
    return states, len(bad)


def name_of(text: str) -> str:
    """The digest that names a text in a corpus."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save(case: Case, path: Path) -> None:
    """Write a case atomically as JSON."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # several shards may write the same case
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
        raise CorpusError(f"{path.name} is not a case. Delete it and run again.") from error
