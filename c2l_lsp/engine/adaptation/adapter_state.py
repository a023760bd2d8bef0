"""What was made of one folder's state, and how strong it is: the adapter, the gate's verdict on it, and deep pairs.

Knows no disk, no watching and no events; `adapt.FolderLife` says when something is made, judged or dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

from c2l_lsp.engine.adaptation.finetune import FinetuneResult
from c2l_lsp.engine.adaptation.learner import Learner
from c2l_lsp.engine.adaptation.pending_update import PendingUpdate
from c2l_lsp.engine.adaptation.validation import ValidationResult, Validator, held_out, refuse
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.lora_pair import LoraPair

NORM_LIMIT = 100.0
_GATE_SHARE = 0.05  # an update of less of the state than this keeps the strength the gate found last
_PATIENCE = 10.0  # so many times that share may change, without a pause, before the gate is asked first

NOT_VALIDATED = ValidationResult(1.0, 0.0, 0)


@dataclass(frozen=True)
class LiveAdapter:
    """What a completion runs under: swapped as one reference. `kv_key` names what the KV depends on besides ids."""

    generation: int
    adapter: Adapter | None
    kv_key: str = ""


UNADAPTED = LiveAdapter(0, None)


class AdapterState:
    """An adapter (None: kept back, or not made yet), its verdict, and what training on request left."""

    def __init__(self, model: BaseModel, slot: AdapterSlot, scale: float) -> None:
        """`scale` is the user's, on top of every strength."""
        self.adapter: Adapter | None = None
        self.verdict = NOT_VALIDATED
        self.deep = FinetuneResult()
        self._model, self._scale = model, scale
        self._trial = Validator(model, slot)
        self._since_gate = 0

    @property
    def _recalled(self) -> float:
        """The strength of what is recalled: 0 without anything to recall."""
        return self.verdict.knn_strength if self.adapter is not None and self.adapter.knn is not None else 0.0

    @property
    def strength(self) -> float:
        """The larger of the two: of the matrices, and of what is recalled."""
        return max(self.verdict.strength, self._recalled) * self._scale

    def drop(self) -> None:
        """Nothing was made."""
        self.adapter, self.verdict = None, NOT_VALIDATED

    def take(self, adapter: Adapter, ready: PendingUpdate, learner: Learner) -> Generator[None, None, str]:
        """An adapter that was made of the state after a change: why it is kept back, "" if it is not.

        After a small change the gate's last verdict stands for it; what small changes add up to is judged behind them.
        """
        change = sum(ready.plan.added.values()) + sum(ready.plan.removed.values())
        self._since_gate += change
        small = _GATE_SHARE * learner.chunks
        if ready.plan.first or change > small or self._since_gate > _PATIENCE * small:
            yield from self._judge(learner)
            self._since_gate = 0
        return self._admit(adapter)

    def judge_again(
        self, adapter: Adapter, learner: Learner, interrupted: Callable[[], bool]
    ) -> Generator[None, None, str | None]:
        """Let the gate judge what has changed since it did last, if that is enough: as `take`; None if all stays.

        Whatever is more urgent ends it; it is begun anew after the next change.
        """
        if self._since_gate <= _GATE_SHARE * learner.chunks:
            return None
        verdict, deep = self.verdict, self.deep
        for _ in self._judge(learner):
            if interrupted():
                self.verdict, self.deep = verdict, deep
                return None
            yield
        self._since_gate = 0
        same = (verdict.strength, verdict.knn_strength) == (self.verdict.strength, self.verdict.knn_strength)
        return None if same and deep is self.deep else self._admit(adapter)

    def _admit(self, adapter: Adapter) -> str:
        reason = refuse(adapter, NORM_LIMIT) or self.verdict.closed
        self.adapter = None if reason else adapter
        return reason

    def live(self, generation: int, folder: str, *, hopeless: bool) -> LiveAdapter:
        """What completions run under; of a folder that is `hopeless` deep pairs stand for nothing either."""
        matrices, recall = self.verdict.strength * self._scale, self._recalled * self._scale
        alive = self.adapter is not None and max(matrices, recall) > 0.0
        adapter = self.adapter.scaled(matrices, recall) if self.adapter is not None and alive else None
        if self.deep.pairs and self._scale > 0.0 and not hopeless:
            adapter = self._with_pairs(self.adapter, self._scale)
        if adapter is None:
            return LiveAdapter(generation, None)
        adapter.check(self._model)
        return LiveAdapter(generation, adapter, f"{folder}#{generation}" if adapter.pairs else "")

    def _judge(self, learner: Learner) -> Generator[None, None, None]:
        """Let the gate choose the strength on files held out of the state for this purpose."""
        assert learner.network is not None  # noqa: S101
        chosen = held_out(learner.records)
        rest = learner.without(chosen) if chosen else None
        if rest is None:
            self.verdict = NOT_VALIDATED
            return
        for path in chosen:
            yield from self._trial.seeing(learner.records[path].entry.digest, learner.text(path))
            yield
        adapter = learner.network.generate(rest)
        yield
        digests = [learner.records[path].entry.digest for path in chosen]
        self.verdict = yield from self._trial.validate_in_slices(adapter, digests)
        if self.deep.pairs:  # the files have changed since it was trained: does it still win?
            plain = adapter.scaled(self.verdict.strength, self.verdict.knn_strength)
            without = yield from self._trial.loss(plain, digests)
            deeper = yield from self._trial.loss(self._with_pairs(adapter, 1.0), digests)
            if not deeper < without:
                self.deep = FinetuneResult(
                    note=f"dropped: by now it is {deeper - without:+.3f} nat/token against without it"
                )

    def _with_pairs(self, adapter: Adapter | None, scale: float) -> Adapter:
        """The hypernetwork's adapter, as it made it, with the trained pairs: they stand on its final map and in place
        of its own pairs, and what it recalls gets the strength that was found beside them."""
        pairs = {name: LoraPair(pair.A, pair.B, pair.scale * scale) for name, pair in self.deep.pairs.items()}
        if adapter is None:
            return Adapter(self._model.digest, "sgd", pairs=pairs)
        return replace(adapter.scaled(self.verdict.strength * scale, self.deep.knn_strength * scale), pairs=pairs)
