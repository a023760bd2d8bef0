"""Estimates the model of ordinary text that `c2l_lsp/repo/filter/randomness.py` compares random text with.

Costs are −log2 probabilities, smoothed, in 1/UNITS bit. Equal lines of a repository count once: copies of a licence
must not decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from c2l_lab.corpus.sources import GitRepository
from c2l_lsp.repo.filter import randomness
from c2l_lsp.repo.filter.plain_text import MAX_LINE_LENGTH
from c2l_lsp.repo.filter.randomness import CLASS_OF, CLASSES, LETTERS, SYMBOLS, UNITS

_SMOOTHING = 20.0  # counts of the shorter context that a letter's context gets
_DIGIT, _SIGN = 3, 8
_SUFFIXES = (
    ".py", ".js", ".ts", ".tsx", ".jsx", ".go", ".java", ".rb", ".rs", ".c", ".h", ".yaml", ".yml", ".toml", ".md",
    ".rst", ".mjs", ".vue", ".sh", ".html", ".css",
)  # fmt: skip
_MAX_FILE, _MAX_TEXT = 512 * 1024, 6_000_000  # bytes, characters

_Floats = NDArray[np.float64]


def texts(folder: Path) -> Iterator[str]:
    """Yield the source texts of a repository's newest commit, up to _MAX_TEXT characters."""
    repository, left = GitRepository(folder), _MAX_TEXT
    blobs = [b for b in repository.blobs(repository.commit()) if b.path.endswith(_SUFFIXES) and b.size <= _MAX_FILE]
    for _, data in repository.read(blobs):
        text = data.decode("utf-8", "replace")
        left -= len(text)
        if left < 0:
            return
        if max(map(len, text.split("\n"))) <= MAX_LINE_LENGTH:
            yield text


def estimate(repositories: Iterable[Iterable[str]]) -> bytes:
    """Return the content of `randomness.COSTS_FILE` for the file texts of some repositories."""
    classes, letters, symbols = np.zeros(CLASSES**4), np.zeros(LETTERS**3), np.zeros(SYMBOLS)
    for texts in repositories:
        lines = dict.fromkeys(line.strip() for text in texts for line in text.split("\n"))
        codes = randomness.codes_of("\n".join(lines))
        by_class, by_letter = randomness.contexts(codes)
        classes += np.bincount(by_class, minlength=len(classes))
        letters += np.bincount(by_letter, minlength=len(letters))
        symbols += np.bincount(codes, minlength=len(symbols))
    costs = np.concatenate([_of_classes(classes), _of_letters(letters), _of_symbols(symbols)])
    return np.minimum(np.round(costs * UNITS), 255).astype(np.uint8).tobytes()


def _of_classes(counts: _Floats) -> _Floats:
    rows = counts.reshape(-1, CLASSES) + 0.5
    return (-np.log2(rows / rows.sum(1, keepdims=True))).ravel()


def _of_letters(counts: _Floats) -> _Floats:
    """Trigrams, smoothed by bigrams, smoothed by single letters. What is no letter costs nothing here."""
    three = counts.reshape(LETTERS, LETTERS, LETTERS)
    one = three.sum((0, 1))[1:] / max(1.0, three.sum((0, 1))[1:].sum())
    two = three.sum(0)[:, 1:]
    two = (two + _SMOOTHING * one) / (two.sum(1, keepdims=True) + _SMOOTHING)
    rows = three[:, :, 1:]
    rows = (rows + _SMOOTHING * two[None]) / (rows.sum(2, keepdims=True) + _SMOOTHING)
    costs = np.zeros((LETTERS, LETTERS, LETTERS))
    costs[:, :, 1:] = -np.log2(rows)
    return costs.ravel()


def _of_symbols(counts: _Floats) -> _Floats:
    """Digits are equally likely: years and zeros in numbers say nothing of digits in identifiers."""
    costs = np.zeros(SYMBOLS)
    costs[CLASS_OF == _DIGIT] = np.log2(10)
    signs = CLASS_OF == _SIGN
    costs[signs] = -np.log2((counts[signs] + 1) / (counts[signs] + 1).sum())
    return costs
