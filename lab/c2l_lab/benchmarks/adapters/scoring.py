"""The loss of held-out text, in windows of WINDOW tokens after a prefix of the same file.

The prefixes are named 0, 256 and 1024. A prefix that does not fit the model beside the window is cut: 1024 becomes 768
for a model of 1,024 positions. A context replaces part of the prefix, so every method has the same number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lab.benchmarks.adapters.merge import merged
from c2l_lab.train.memory.held_out import PREFIXES, WINDOW, ScoredText, Scores, scores
from c2l_lsp.model.adapter.knn_lm import suffixes
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.lm.base import BaseModel

MIN_SCORED = 16
"""Windows with fewer scored tokens are skipped."""


@dataclass(frozen=True)
class Window:
    """Token ids of an excerpt of a file: `seen` unscored tokens, then the scored ones."""

    path: str
    ids: list[int]
    seen: int


Context = Callable[[str, str], str]
"""(text before the cursor, path) → text to put before the prompt; may be empty."""


def prefix_of(model: BaseModel, prefix: int) -> int:
    """The number of tokens of the prefix with this name."""
    return max(0, min(prefix, model.max_context - WINDOW))


def windows(model: BaseModel, targets: Mapping[str, str], prefix: int, most: int) -> list[Window]:
    """Windows taken from all files in turn, with about `most` scored tokens in total."""
    seen = prefix_of(model, prefix)
    queues: list[list[Window]] = []
    for path in sorted(targets):
        ids = [model.start_id, *model.encode(targets[path])]
        cut = [ids[at : at + seen + WINDOW + 1] for at in range(0, max(1, len(ids) - seen - 1), WINDOW)]
        queues.append([Window(path, part, seen) for part in cut if len(part) >= seen + 1 + MIN_SCORED])
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
    """Final hidden states and next tokens at the scored positions, with the model's current weights."""
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
    """The ids of a window after a context of at most `budget` tokens, and the number of unscored ids."""
    before, scored = window.ids[: window.seen + 1], window.ids[window.seen + 1 :]
    text = context(model.decode(before), window.path) if window.seen else ""
    if not text:
        return window.ids, window.seen
    head = [model.start_id, *model.encode(text)[:budget]]
    room = max(1, model.max_context - WINDOW - len(head))
    before = before[-room:]
    return [*head, *before, *scored], len(head) + len(before) - 1


class Reader:
    """Hidden states of the base model by prefix, cached for one case. A final map needs nothing else."""

    def __init__(self, model: BaseModel) -> None:
        self.model = model
        self._key = ""
        self._cached: dict[tuple[int, int], tuple[list[Window], ScoredText]] = {}

    def base_states(
        self, key: str, targets: Mapping[str, str], prefix: int, most: int
    ) -> tuple[list[Window], ScoredText]:
        """The windows of a case (named by `key`) and their hidden states."""
        if key != self._key:
            self._key, self._cached = key, {}
        if (prefix, most) not in self._cached:
            chosen = windows(self.model, targets, prefix, most)
            self._cached[prefix, most] = chosen, read(self.model, chosen)
        return self._cached[prefix, most]

    def scores(self, chosen: Sequence[Window], states: ScoredText, adapter: Adapter | None) -> Scores:
        """Loss and calibration under an adapter."""
        if adapter is None:
            return scores(self.model, states, None)
        scored = states
        if adapter.pairs:
            with merged(self.model, adapter):
                scored = read(self.model, chosen)
        return scores(self.model, scored, adapter.final_map, adapter.knn)

    def loss(self, chosen: Sequence[Window], states: ScoredText, adapter: Adapter | None) -> float:
        """Mean loss in nat/token under an adapter."""
        return self.scores(chosen, states, adapter).mean_loss


__all__ = ["PREFIXES", "WINDOW", "Context", "Reader", "Window", "prefix_of", "read", "windows", "with_context"]
