"""Loss of held-out text: windows of WINDOW tokens behind a prefix of the same file, under an adapter or a context.

The prefixes are named 0, 256 and 1024; one that does not fit the model's positions beside the window is cut to what
fits (768 of a model of 1024). A context takes its room from the prefix, so no method sees more tokens than another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lab.benchmarks.adapters.merge import merged
from c2l_lab.train.memory.held_out import PREFIXES, WINDOW, ScoredText, mean_loss
from c2l_lsp.model.adapter.knn_lm import suffixes
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.lm.base import BaseModel

LEAST = 16
"""Scored tokens below which a window is left out."""


@dataclass(frozen=True)
class Window:
    """Token ids of a file's part: `seen` that are read only, then those that are scored."""

    path: str
    ids: list[int]
    seen: int


Context = Callable[[str, str], str]
"""(text before, path) → text put in front of a prompt; may be empty."""


def prefix_of(model: BaseModel, prefix: int) -> int:
    """The tokens that a prefix of this name really has."""
    return max(0, min(prefix, model.max_context - WINDOW))


def windows(model: BaseModel, targets: Mapping[str, str], prefix: int, most: int) -> list[Window]:
    """Windows from all files in turn, together at most `most` scored tokens."""
    seen = prefix_of(model, prefix)
    queues: list[list[Window]] = []
    for path in sorted(targets):
        ids = [model.start_id, *model.encode(targets[path])]
        cut = [ids[at : at + seen + WINDOW + 1] for at in range(0, max(1, len(ids) - seen - 1), WINDOW)]
        queues.append([Window(path, part, seen) for part in cut if len(part) >= seen + 1 + LEAST])
    chosen: list[Window] = []
    total = 0
    for turn in range(max(map(len, queues), default=0)):
        for queue in queues:
            if turn < len(queue) and total < most:
                chosen.append(queue[turn])
                total += len(queue[turn].ids) - seen - 1
    return chosen


@torch.inference_mode()
def read(model: BaseModel, chosen: Sequence[Window], context: Context | None = None, budget: int = 0) -> ScoredText:
    """Final hidden states and next tokens of the scored positions, under whatever weights the model has now."""
    hidden: list[Tensor] = []
    targets: list[Tensor] = []
    before: list[Sequence[int]] = []
    for window in chosen:
        ids, seen = with_context(model, window, context, budget) if context else (window.ids, window.seen)
        row = torch.tensor([ids], device=model.device)
        hidden.append(model.hidden(row[:, :-1])[0, seen:])
        targets.append(row[0, seen + 1 :])
        before += suffixes(ids, seen, len(ids) - 1)
    if not hidden:
        return ScoredText(torch.zeros(0, model.d, dtype=model.dtype), torch.zeros(0, dtype=torch.long))
    return ScoredText(torch.cat(hidden), torch.cat(targets), before)


def with_context(model: BaseModel, window: Window, context: Context, budget: int) -> tuple[list[int], int]:
    """A window's ids behind a context of at most `budget` tokens, and how many of them are read only."""
    before, scored = window.ids[: window.seen + 1], window.ids[window.seen + 1 :]
    text = context(model.decode(before), window.path) if window.seen else ""
    if not text:
        return window.ids, window.seen
    given = [model.start_id, *model.encode(text)[:budget]]
    room = max(1, model.max_context - WINDOW - len(given))
    before = before[-room:]
    return [*given, *before, *scored], len(given) + len(before) - 1


class Reader:
    """Hidden states of the bare model by case and prefix, kept for the case in work: final maps need no more."""

    def __init__(self, model: BaseModel) -> None:
        self.model = model
        self._key = ""
        self._held: dict[tuple[int, int], tuple[list[Window], ScoredText]] = {}

    def bare(self, key: str, targets: Mapping[str, str], prefix: int, most: int) -> tuple[list[Window], ScoredText]:
        """Windows of a case (named by `key`) and their states."""
        if key != self._key:
            self._key, self._held = key, {}
        if (prefix, most) not in self._held:
            chosen = windows(self.model, targets, prefix, most)
            self._held[prefix, most] = chosen, read(self.model, chosen)
        return self._held[prefix, most]

    def loss(self, chosen: Sequence[Window], bare: ScoredText, adapter: Adapter | None) -> float:
        """Mean loss in nat/token under an adapter."""
        if adapter is None:
            return mean_loss(self.model, bare, None)
        scored = bare
        if adapter.pairs:
            with merged(self.model, adapter):
                scored = read(self.model, chosen)
        return mean_loss(self.model, scored, adapter.final_map, adapter.knn)


__all__ = ["PREFIXES", "WINDOW", "Context", "Reader", "Window", "prefix_of", "read", "windows", "with_context"]
