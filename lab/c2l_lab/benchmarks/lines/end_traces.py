"""Traces for `bench ends`: one decode per hole that never ends, so that every rule for its end can be replayed.

The logits of the end token and of the best other token are kept at each step. A rule that only decides where to end
reads the same tokens up to there, so the replay is exact.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from c2l_lab.benchmarks.lines import holes
from c2l_lsp.engine.completion.greedy import GreedySelector
from c2l_lsp.engine.completion.prompt import build
from c2l_lsp.model.adapter.kv_sequence import sequence_reader
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel

CONTEXT = 1024
MOST_TOKENS = 160
MOST_LINES = 8
_AROUND = 3000  # characters of the file that a trace keeps before and after the hole: the rules read less


class Step(NamedTuple):
    """A decoded token, the logits of the likeliest end token and of this token, and their log-sum-exp over the
    vocabulary. `characters`: length of the answer up to and with this token; 0 inside the forced prefix."""

    token: int
    end: float
    best: float
    norm: float
    characters: int


class LineEnd(NamedTuple):
    """An end of a line in the author's text: end logit minus best other, the best other token, characters before."""

    margin: float
    token: int
    characters: int


@dataclass(frozen=True)
class Trace:
    """The trace of hole `number` of its kind in a repository. `ends`: see LineEnd; the last one ends the hole."""

    repo: str
    span: str
    number: int
    prefix: str
    suffix: str
    target: str
    text: str
    steps: list[Step] = field(default_factory=list)
    ends: list[LineEnd] = field(default_factory=list)


class Tracer:
    """Traces holes with one model. `author`: read the author's text too, for its line ends."""

    def __init__(self, model: BaseModel, *, author: bool) -> None:
        self._model, self._author = model, author
        self._reader = sequence_reader(model, AdapterSlot(model))
        self._greedy = GreedySelector(model.token_bytes)
        self._stops = torch.tensor(sorted(model.stops))

    @torch.inference_mode()
    def trace(self, hole: holes.Hole, number: int) -> Trace:
        """Return the trace of a hole."""
        prompt = build(self._model, hole.prefix, hole.suffix, CONTEXT, MOST_TOKENS)
        steps = self._steps(prompt.ids, prompt.forced_prefix)
        ends = self._ends(prompt.ids, prompt.forced_prefix, hole.target) if self._author else []
        text = holes.answer(self._model, [step.token for step in steps], prompt.forced_prefix)
        around = hole.prefix[-_AROUND:], hole.suffix[:_AROUND]
        return Trace(hole.repo, hole.span, number, *around, hole.target, text, steps, ends)

    def _steps(self, prompt: list[int], forced_prefix: str) -> list[Step]:
        sequence, steps, ids, forced = self._reader.new_sequence(), list[Step](), list[int](), forced_prefix.encode()
        logits = self._reader.logits(sequence.prefill(prompt))
        while len(ids) < MOST_TOKENS:
            row = logits[-1].float()
            token = self._greedy.select(self._without_stops(row)[None], forced, None)[0].token
            ids.append(token)
            forced = forced[len(self._model.token_bytes[token]) :] if forced and self._model.token_bytes else b""
            text = holes.answer(self._model, ids, forced_prefix)
            end, best = float(row[self._stops].max()), float(row[token])
            steps.append(Step(token, end, best, float(torch.logsumexp(row, -1)), len(text)))
            inside = text and end > best and not self._model.decode([token]).startswith("\n")
            if inside or text.count("\n") >= MOST_LINES:
                break  # an end inside a line is the model's own under every rule
            logits = self._reader.logits(sequence.decode([token]), step=True)
        return steps

    def _ends(self, prompt: list[int], forced_prefix: str, target: str) -> list[LineEnd]:
        ids = self._model.encode(forced_prefix + target + "\n")
        rows = torch.tensor([[*prompt, *ids]], device=self._model.device)
        logits = self._model.logits(self._model.hidden(rows)[0, len(prompt) - 1 : -1]).float()
        ends = []
        for at, token in enumerate(ids):
            before = holes.answer(self._model, ids[:at], forced_prefix)
            if before and "\n" in self._model.decode([token]):
                best, other = self._without_stops(logits[at]).max(-1)
                margin = float(logits[at, self._stops].max()) - float(best)
                ends.append(LineEnd(margin, int(other), len(before)))
        return ends

    def _without_stops(self, row: Tensor) -> Tensor:
        masked = row.clone()
        masked[self._stops] = -torch.inf
        return masked


def collect(
    tracer: Tracer, repos: dict[str, list[str]], counts: dict[str, int], file: Path, say: Callable[[str], None]
) -> list[Trace]:
    """Trace the first `counts[span]` holes of each kind in each repository. Traces that are in `file` are read."""
    known = {(one.repo, one.span, one.number): one for one in _read(file)}
    made: list[Trace] = []
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        for span, count in counts.items():
            for repo, texts in repos.items():
                for number, hole in enumerate(holes.holes(repo, texts, span, count)):
                    trace = known.get((repo, span, number)) or tracer.trace(hole, number)
                    made.append(trace)
                    if (repo, span, number) not in known:
                        stream.write("\n" + json.dumps(asdict(trace)) + "\n")  # the line before may be incomplete
                        stream.flush()
                say(f"{span}: {repo}")
    return made


def _read(file: Path) -> list[Trace]:
    if not file.is_file():
        return []
    found = []
    for line in file.read_text("utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue  # blank, or the incomplete last line of a run that was stopped
        steps = [Step(*one) for one in values.pop("steps")]
        ends = [LineEnd(*one) for one in values.pop("ends")]
        found.append(Trace(**values, steps=steps, ends=ends))
    return found
