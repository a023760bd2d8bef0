"""Completion requests with known answers: the rest of a line in a file, between the text before and after it.

The model reads the prompt of the engine, with fill-in-the-middle and token healing, and then the answer. The answer
ends with any token that would end a single line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from c2l_lab.repositories.spans import Span, names_of, spans_of
from c2l_lsp.engine.completion import prompt as prompts
from c2l_lsp.model.adapter.knn_lm import suffixes
from c2l_lsp.model.lm.base import BaseModel

MAX_ANSWER = 32
"""Tokens of an answer; a longer one is left out."""

_PROMPT_TOKENS = 1536  # the default of c2l.completion.maxContextTokens


@dataclass(frozen=True)
class Request:
    """A prompt with its answer.

    ids: both. targets [n]: the tokens of the answer, then all tokens that end a line. before [n]: the text's tokens up
    to each of them. prefix: tokens of the text before the answer.
    """

    ids: list[int]
    targets: list[Collection[int]]
    before: list[Sequence[int]]
    prefix: int


def requests(model: BaseModel, scored: Mapping[str, str], others: Mapping[str, str], count: int) -> Iterator[Request]:
    """About `count` requests in the files `scored` of a repository; `others` are its other files.

    None for a model without fill-in-the-middle tokens: its prompts are windows of a text.
    """
    if model.fim is None or count <= 0:
        return
    ends = line_ends(model)
    for span in spans_of(scored, names_of(others.values()), count):
        found = request(model, scored[span.path], span, ends)
        if found is not None:
            yield found


def request(model: BaseModel, document: str, span: Span, ends: frozenset[int]) -> Request | None:
    """The request at the start of a span; None if its answer is too long or other tokens give the same text."""
    prompt = prompts.build(model, document[: span.start], document[span.end :], _PROMPT_TOKENS, reserve=MAX_ANSWER)
    text = prompt.forced_prefix + document[span.start : span.end].rstrip()
    answer = model.encode(text)
    if len(answer) > MAX_ANSWER or model.decode(answer) != text:
        return None
    seen = list(prompt.ids if model.fim is None else model.fim.text_before(prompt.ids))
    whole = [*seen, *answer]
    targets: list[Collection[int]] = [*((token,) for token in answer), ends]
    return Request([*prompt.ids, *answer], targets, suffixes(whole, len(seen) - 1, len(whole)), len(seen))


def line_ends(model: BaseModel) -> frozenset[int]:
    """The tokens that end a completion of one line: those that begin with a line break, and those that end any text."""
    table = model.token_bytes
    breaks = [] if table is None else [token for token in range(model.vocabulary) if table[token][:1] in (b"\n", b"\r")]
    return frozenset(breaks) | model.stops
