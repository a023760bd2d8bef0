"""Measures the screen for secrets: the share of secrets that it misses, and of ordinary literals that it takes.

| row | value |
|---|---|
| `learned` | share of cases (form × context) of which six characters in a row of a random part are left |
| `forms_learned` | share of forms of which a case is learned |
| `literals_lost` | share of string literals in the source files of a repository of which a character is redacted |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from c2l_lab.benchmarks import stats
from c2l_lab.benchmarks.secrets import forms, literals
from c2l_lab.benchmarks.stats import Row
from c2l_lab.corpus import sources
from c2l_lab.corpus.sources import GitRepository
from c2l_lsp.redaction import Span, redact
from c2l_lsp.repo.filter import screen

MOST_LEARNED, MOST_LOST = 0.05, 0.01
SEEDS = (1, 2, 3)
_MAX_FILE, _MAX_TEXT = 512 * 1024, 3_000_000  # bytes of a file, characters of a repository


def learned(half: str, some: Sequence[forms.Form]) -> list[Row]:
    """Return the rows of one half of the forms. The interval is over forms."""
    shares = []
    for form in some:
        cases = [case for seed in SEEDS for case in forms.cases([form], seed)]
        shares.append(sum(_is_learned(secret, text) for _, _, secret, text in cases) / len(cases))
    value, low, high = stats.clustered(shares)
    holds, bar = value <= MOST_LEARNED, f"≤ {MOST_LEARNED}"
    return [
        Row("learned", half, value, low, high, bar=bar, holds=holds),
        Row("forms_learned", half, sum(share > 0 for share in shares) / len(shares)),
        Row("forms", half, float(len(some))),
        Row("contexts", half, float(len(forms.CONTEXTS))),
    ]


def _is_learned(secret: forms.Secret, text: str) -> bool:
    return bool(secret.leaks_into(redact(text, screen.secret_spans(text))))


def lost(names: Sequence[str], mirror: Path) -> tuple[list[Row], dict[str, str]]:
    """Return the rows of some repositories, and the commit of each. SourceProblem if one cannot be read."""
    rows, commits, total, taken = list[Row](), dict[str, str](), 0, 0
    for name in names:
        repository = GitRepository(sources.git_folder(name, mirror))
        commits[name] = repository.commit()
        counts = [_count(path, text) for path, text in texts(repository, literals.SUFFIXES, _MAX_TEXT)]
        literal_count, lost_count = (sum(column) for column in zip(*counts, strict=True))
        total, taken = total + literal_count, taken + lost_count
        rows.append(Row("literals_lost", name, lost_count / literal_count))
        rows.append(Row("literals", name, float(literal_count)))
    value = taken / max(1, total)
    rows.append(Row("literals_lost", "all", value, bar=f"≤ {MOST_LOST}", holds=value <= MOST_LOST))
    rows.append(Row("literals", "all", float(total)))
    return rows, commits


def texts(repository: GitRepository, suffixes: tuple[str, ...], characters: int) -> Iterator[tuple[str, str]]:
    """Yield path and text of the files with some suffixes in the newest commit, up to a number of characters."""
    blobs = [b for b in repository.blobs(repository.commit()) if b.path.endswith(suffixes) and b.size <= _MAX_FILE]
    for blob, data in repository.read(blobs):
        text = data.decode("utf-8", "replace")
        characters -= len(text)
        if characters < 0:
            return
        yield blob.path, text


def _count(path: str, text: str) -> tuple[int, int]:
    """The number of literals of a file, and of those that are redacted, if only in part."""
    found = list(literals.literals(path, text))
    return len(found), sum(_overlap(found, screen.secret_spans(text)))


def _overlap(found: Iterable[Span], spans: Sequence[Span]) -> Iterator[bool]:
    at = 0
    for start, end in found:
        while at < len(spans) and spans[at][1] <= start:
            at += 1
        yield at < len(spans) and spans[at][0] < end
