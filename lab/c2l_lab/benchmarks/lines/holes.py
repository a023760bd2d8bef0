"""`bench lines`: a base LM on held-out repositories, without adapter.

Metrics: bits per byte of whole files, and exact match and edit similarity of greedy completions of three kinds of holes
(rest of a line, a line, three to five lines) with 256 and 1,024 tokens of context. Means are over repositories.
"""

from __future__ import annotations

import difflib
import math
import random
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from c2l_lab.benchmarks.lines.ngram import CachedNGram
from c2l_lab.benchmarks.result_cache import ResultCache, Values
from c2l_lab.benchmarks.stats import Row, row
from c2l_lab.corpus.corpus import Document
from c2l_lab.train.base import fim_spans
from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.engine.completion.prompt import build
from c2l_lsp.errors import CorpusError
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.lm.token_healing import forced_prefix_of

CONTEXTS = (256, 1024)
SPANS = ("rest_of_line", "whole_line", "lines_3_to_5")
RESERVE = {"rest_of_line": 48, "whole_line": 64, "lines_3_to_5": 160}
"""Maximum tokens of a completion; so many positions of the model are reserved for it."""

_WINDOW, _STRIDE = 1024, 512
Say = Callable[[str], None]


@dataclass(frozen=True)
class Hole:
    """A hole in a file of `repo`: the text before it, the text after it, and the text that was cut out."""

    repo: str
    span: str
    prefix: str
    suffix: str
    target: str


class Method(Protocol):
    """A language model."""

    def bits_per_byte(self, text: str, most: int) -> tuple[float, int]:
        """(bits, bytes) of about the first `most` tokens of a text, in windows of at most 1,024 tokens."""
        ...

    def fill(self, hole: Hole, context: int) -> str:
        """The completion of a hole, from `context` tokens of the file."""
        ...


def _lines_3_to_5(text: str, rng: random.Random) -> tuple[int, int]:
    begin, end = fim_spans.whole_line(text, rng)
    for _ in range(rng.randint(2, 4)):
        after = text.find("\n", end + 1)
        if after < 0:
            break
        end = after
    return begin, end


_CUTS = {"rest_of_line": fim_spans.rest_of_line, "whole_line": fim_spans.whole_line, "lines_3_to_5": _lines_3_to_5}


def holes(repo: str, texts: Sequence[str], span: str, count: int) -> list[Hole]:
    """`count` holes of a kind, drawn uniformly over the text of a repository, the same in every run.

    The rest of a line may start at any character. Single characters and white space are no holes, and at least 200
    characters precede a hole.
    """
    rng = random.Random(zlib.crc32(f"{repo}/{span}".encode()))  # noqa: S311 - the same sample in every run
    long = [text for text in texts if len(text) > 1000]
    made: list[Hole] = []
    for _ in range(50 * count if long else 0):
        (text,) = rng.choices(long, weights=[len(text) for text in long])
        begin, end = _CUTS[span](text, rng)
        target = text[begin:end]
        if begin < 200 or len(target.strip()) < 2 or (span == "lines_3_to_5" and target.count("\n") < 2):
            continue
        made.append(Hole(repo, span, text[:begin], text[end:], target))
        if len(made) == count:
            break
    return made


def counted(answer: str, span: str) -> str:
    """The part of a completion that is scored: the first line for single lines, else all; without trailing spaces."""
    lines = answer.split("\n")
    return "\n".join(line.rstrip() for line in (lines if span == "lines_3_to_5" else lines[:1])).rstrip()


def first_lines(text: str, hole: Hole) -> str:
    """As many lines as the hole has, for methods that do not see the text after it."""
    return "\n".join(text.split("\n")[: hole.target.count("\n") + 1])


def answer(model: BaseModel, ids: Sequence[int], forced_prefix: str) -> str:
    """The text of a completion without the forced prefix."""
    text = model.token_bytes.text(ids) if model.token_bytes is not None else model.decode(list(ids))
    return text[len(forced_prefix) :] if text.startswith(forced_prefix) else ""


class Model:
    """A base LM with the engine's prompts and decoder.

    fills: use the text after the hole (fill in the middle).
    told: give the number of missing lines; the completion does not stop before.
    """

    def __init__(self, model: BaseModel, fills: bool = True, told: bool = False) -> None:
        self._model, self._fills, self._told = model, fills, told
        self._decoder = Decoder(model, AdapterSlot(model))

    @torch.inference_mode()
    def bits_per_byte(self, text: str, most: int) -> tuple[float, int]:
        """See Method."""
        ids = [self._model.start_id, *self._model.encode(text)][: most + 1]
        total = 0.0
        for begin in range(0, max(1, len(ids) - 1), _STRIDE):
            window = ids[begin : begin + _WINDOW + 1]
            skip = 0 if begin == 0 else _WINDOW - _STRIDE
            if len(window) - 1 <= skip:
                break
            rows = torch.tensor([window], device=self._model.device)
            logits = self._model.logits(self._model.hidden(rows[:, :-1])[0, skip:]).float()
            total += float(torch.nn.functional.cross_entropy(logits, rows[0, 1 + skip :], reduction="sum"))
        return total / math.log(2), len(self._model.decode(ids[1:]).encode())

    def fill(self, hole: Hole, context: int) -> str:
        """See Method."""
        suffix = hole.suffix if self._fills else ""
        asked = build(self._model, hole.prefix, suffix, context, RESERVE[hole.span])
        most = RESERVE[hole.span]
        ids = self._answer(asked.ids, asked.forced_prefix, hole, most)
        while self._told and (left := most - len(ids)) > 0 and self._lines(ids) < hole.target.count("\n") + 1:
            ids += self._answer([*asked.ids, *ids], "" if ids else asked.forced_prefix, hole, left, goes_on=True)
        text = answer(self._model, ids, asked.forced_prefix)
        return text if asked.fim and not self._told else first_lines(text, hole)

    def _answer(self, prompt: list[int], forced_prefix: str, hole: Hole, most: int, goes_on: bool = False) -> list[int]:
        """Greedy tokens up to a stop token, at most `most`. With `goes_on` the first token is no stop token."""
        start = self._decoder.prefill(prompt, forced_prefix=forced_prefix)
        first = next(token for token in self._decoder.top_tokens(start, 8) if token not in self._model.stops)
        ids: list[int] = []
        for step in self._decoder.stream(start, first if goes_on else None):
            if step.token in self._model.stops or len(ids) >= most:
                break
            ids.append(step.token)
            if hole.span != "lines_3_to_5" and "\n" in self._model.decode(ids[-1:]):
                break
        return ids

    def _lines(self, ids: list[int]) -> int:
        return self._model.decode(ids).count("\n") + 1


class Grams:
    """The cached 5-gram over the tokens of `model`. Its cache contains both sides of the hole."""

    def __init__(self, model: BaseModel, grams: CachedNGram) -> None:
        self._model, self._grams = model, grams

    def bits_per_byte(self, text: str, most: int) -> tuple[float, int]:
        """See Method. The cache contains the file so far."""
        ids = [self._model.start_id, *self._model.encode(text)][: most + 1]
        return self._grams.nat(ids, 1) / math.log(2), len(self._model.decode(ids[1:]).encode())

    def fill(self, hole: Hole, context: int) -> str:
        """See Method."""
        forced_prefix = forced_prefix_of(hole.prefix)
        before = self._model.encode(hole.prefix.removesuffix(forced_prefix)[-8 * context :])
        after = self._model.encode(hole.suffix[: 8 * context])[: context // 4]
        before = before[-(context - len(after)) :]
        ids: list[int] = []
        shown = (after, before)
        for token in self._grams.greedy(
            before, shown, RESERVE[hole.span], self._model.token_bytes, forced_prefix.encode()
        ):
            if token in self._model.stops:
                break
            ids.append(token)
            if self._model.decode(ids).count("\n") > hole.target.count("\n"):
                break
        return first_lines(answer(self._model, ids, forced_prefix), hole)


def repositories(documents: Iterable[Document], most: int) -> dict[str, list[str]]:
    """Texts by repository, for the first `most` repositories by name with at least 20,000 characters."""
    files: dict[str, list[str]] = defaultdict(list)
    for document in sorted(documents, key=lambda d: (d.repo, d.path)):
        files[document.repo].append(document.text)
    enough = {name: texts for name, texts in files.items() if sum(map(len, texts)) >= 20_000}
    if len(enough) < 2:
        raise CorpusError("At least two repositories with 20,000 characters of code are needed.")
    return dict(list(enough.items())[:most])


def measure(
    method: Method, name: str, repos: dict[str, list[str]], *, tasks: int, contexts: Sequence[int] = CONTEXTS,
    spans: Sequence[str] = SPANS, tokens: int = 6000, cache: ResultCache | None = None, say: Say = lambda line: None,
) -> list[Row]:  # fmt: skip
    """All rows of one method: bits per byte over about `tokens` tokens, and `tasks` holes of each kind per repository.

    cache: results of earlier runs with the same weights.
    """
    cache = cache or ResultCache()
    key = (name, tasks, "+".join(map(str, contexts)), "+".join(spans), tokens)
    found: dict[str, list[float]] = defaultdict(list)
    for at, (repo, texts) in enumerate(repos.items(), start=1):

        def measured(repo: str = repo, texts: list[str] = texts) -> Values:
            return _repository(method, repo, texts, tasks, contexts, spans, tokens)

        for row_name, value in cache.get_or_compute((*key, repo), texts, measured).items():
            found[row_name].append(value)
        say(f"{name}: {at} of {len(repos)} repositories")
    ordered = sorted(found, key=lambda row_name: _ORDER.index(row_name.split("/")[0]))
    return [row(n, name, found[n], "bit/byte" if n == _BITS else "share") for n in ordered]


_BITS = "bits_per_byte"
_ORDER = [_BITS, "exact_match", "edit_similarity"]


def _repository(
    method: Method, repo: str, texts: Sequence[str], tasks: int, contexts: Sequence[int], spans: Sequence[str],
    tokens: int,
) -> Values:  # fmt: skip
    found: Values = {_BITS: _repository_bits(method, texts, tokens)} if tokens else {}
    for span in spans:
        asked = holes(repo, texts, span, tasks)
        for context in contexts if asked else ():
            scores = [_score(method, hole, context) for hole in asked]
            found[f"exact_match/{span}/{context}"] = sum(e for e, _ in scores) / len(scores)
            found[f"edit_similarity/{span}/{context}"] = sum(c for _, c in scores) / len(scores)
    return found


def _repository_bits(method: Method, texts: Sequence[str], tokens: int) -> float:
    """Bits per byte over files in the order of their checksums, so that no folder is preferred."""
    bits, size, left = 0.0, 0, tokens
    for text in sorted(texts, key=lambda t: zlib.crc32(t.encode())):
        if left < 64:
            break
        got, count = method.bits_per_byte(text, min(left, 2048))
        bits, size, left = bits + got, size + count, left - min(left, 2048, max(1, count // 4))
    return bits / max(size, 1)


def _score(method: Method, hole: Hole, context: int) -> tuple[float, float]:
    """(exact match, edit similarity by difflib) of one completion."""
    text, truth = counted(method.fill(hole, context), hole.span), counted(hole.target, hole.span)
    return float(text == truth), difflib.SequenceMatcher(None, text, truth, autojunk=False).ratio()
