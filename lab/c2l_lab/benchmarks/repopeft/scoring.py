"""Scores of a prediction, as published or strict.

Published: the prediction is cut to the shape of the reference (one line, no comma, one word) before the comparison.
That favours methods that generate too much. Strict: prediction and reference are cut by one rule that does not depend
on the reference: at the end of the first expression, with brackets and strings balanced.
"""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass

from c2l_lab.benchmarks.repopeft.dataset.assertions import MOCK
from c2l_lab.benchmarks.repopeft.dataset.schema import Task
from c2l_lsp.errors import CorpusError

_FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
_OPEN, _CLOSE = "([{", ")]}"
_WITH_COMMAS = frozenset({"pytest.raises", "pytest.approx", "self.assertRaisesRegex", "self.assertWarnsRegex"})
_MOCK_ENDS = tuple(f"{name}(" for name in MOCK)


@dataclass(frozen=True)
class Score:
    """The scores of one prediction: exact match, edit similarity by difflib, CodeBLEU (None: not computed)."""

    exact: bool
    edit: float
    codebleu: float | None


def score(prediction: str, task: Task, *, strict: bool = False, codebleu: bool = True) -> Score:
    """Score a raw prediction for a task."""
    if strict:
        cleaned, reference = (strictly(text, commas=takes_list(task)) for text in (prediction, task.target))
    else:
        cleaned, reference = published(prediction, task.target), _uncommented(task.target)
    return Score(
        exact=normal(cleaned) == normal(reference),
        edit=difflib.SequenceMatcher(None, cleaned, reference).ratio(),
        codebleu=code_bleu(cleaned, reference) if codebleu else None,
    )


def published(prediction: str, target: str) -> str:
    """The published cleaning, which depends on the target."""
    text = _without_fim(prediction)
    if "\n" not in target:
        text = text.split("\n", 1)[0]
    text, reference = _uncommented(text), _uncommented(target)
    if reference:
        if "," not in reference:
            text = text.split(",", 1)[0].strip()
        if len(reference.split()) == 1 and len(text.split()) > 1:
            text = text.split()[0]
    return text.strip()


def takes_list(task: Task) -> bool:
    """Whether the expected value is a list of arguments, from the assertion and the end of the prompt."""
    return task.assertion_type in _WITH_COMMAS or task.prefix.rstrip().endswith(_MOCK_ENDS)


def strictly(text: str, *, commas: bool = False) -> str:
    """The first value in a text, cut without the reference.

    It ends at the bracket that closes the enclosing call, at a line end outside brackets, at a comment, and at a comma
    outside brackets unless `commas` is true.
    """
    text = _without_fim(text)
    depth = at = 0
    while at < len(text):
        here = text[at]
        if here in "\"'":
            at = _string_end(text, at)
            continue
        if here in _OPEN:
            depth += 1
        elif here in _CLOSE:
            depth -= 1
        if depth < 0 or here == "#" or (depth == 0 and (here == "\n" or (here == "," and not commas))):
            break
        at += 1
    return " ".join(text[:at].split())


def normal(text: str) -> str:
    """The normal form for exact match: no trailing `:`, `,` or blanks; uniform commas and white space."""
    text = text.strip().rstrip(":, \t").replace(", ", ",").replace(" ,", ",")
    return " ".join(text.split())


def code_bleu(prediction: str, reference: str) -> float:
    """CodeBLEU from the package `codebleu`: 0 if either text is blank, 1 if they are equal. CorpusError without it."""
    if not prediction.strip() or not reference.strip():
        return 0.0
    if prediction.strip() == reference.strip():
        return 1.0
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns about every value without data flow, which is nearly all
    try:
        from codebleu import calc_codebleu

        return float(calc_codebleu([reference], [prediction], lang="python")["codebleu"])
    except ImportError as error:
        raise CorpusError(
            "CodeBLEU needs the packages codebleu and tree-sitter-python (Python up to 3.12): "
            "pip install 'c2l-lsp[bench]', or leave it out with --no-codebleu."
        ) from error
    finally:
        logging.disable(before)


def _without_fim(text: str) -> str:
    for token in _FIM:
        text = text.replace(token, "")
    return text.strip()


def _uncommented(text: str) -> str:
    return text.split("#", 1)[0].strip()


def _string_end(text: str, at: int) -> int:
    """The end of the string literal that starts at `at`; the end of the text if it is not closed."""
    quote = text[at : at + 3] if text.startswith(("'''", '"""'), at) else text[at]
    at += len(quote)
    while at < len(text) and not text.startswith(quote, at):
        at += 2 if text[at] == "\\" else 1
    return min(at + len(quote), len(text))
