"""The adapter of one workspace: the generated adapter, its validation result, and finetuned LoRA pairs.

Knows no disk, no watching and no events. `WorkspaceAdapter` decides when an adapter is validated or dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from c2l_lsp.cooperative import Slices
from c2l_lsp.engine.adaptation.finetune import FinetuneResult
from c2l_lsp.engine.adaptation.learner import Learner
from c2l_lsp.engine.adaptation.registry import AUTO
from c2l_lsp.engine.adaptation.update_plan import UpdatePlan
from c2l_lsp.engine.adaptation.validation import ValidationResult, Validator, rejection
from c2l_lsp.model.adapter import mixture
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.adapter.token_index import TokenIndex
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.lora_pair import LoraPair

NORM_LIMIT = 100.0
_REVALIDATE_SHARE = 0.05  # an update of a smaller share of the state keeps the strengths found last
_PART_SHARE = 0.5  # a further part of a folder is published first unless it is more than this share of the state
_PATIENCE = 10.0  # small updates may add up to this many times that share before one of them is validated first

NOT_VALIDATED = ValidationResult(1.0, 0.0, 0)


@dataclass(frozen=True)
class LiveAdapter:
    """What a completion runs under, swapped as one reference. The KV cache depends on token ids and `kv_key`."""

    generation: int
    adapter: Adapter | None
    kv_key: str = ""


UNADAPTED = LiveAdapter(0, None)


class AdapterState:
    """The adapter (None: rejected, or not generated yet), its validation result, and the finetuned pairs."""

    def __init__(self, model: BaseModel, slot: AdapterSlot, scale: float) -> None:
        """`scale` is `c2l.adapter.scale`; it multiplies every strength."""
        self.adapter: Adapter | None = None
        self.validation = NOT_VALIDATED
        self.finetuned = FinetuneResult()
        self._model, self._scale = model, scale
        self._validator = Validator(model, slot)
        self._changed_chunks = 0  # since the last validation

    @property
    def _knn_strength(self) -> float:
        """The strength of the kNN memory; 0 without one."""
        return self.validation.knn_strength if self.adapter is not None and self.adapter.knn is not None else 0.0

    @property
    def strength(self) -> float:
        """The larger strength of the two: of the weights and of the kNN memory."""
        return max(self.validation.strength, self._knn_strength) * self._scale

    # --- changes -----------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Drop the adapter and its validation result; finetuned pairs stay."""
        self.adapter, self.validation = None, NOT_VALIDATED

    def withdraw(self) -> None:
        """Drop the adapter; the validation result stays for the next one."""
        self.adapter = None

    def set_tokens(self, tokens: TokenIndex) -> None:
        """Replace the token index of the adapter, or make an adapter of it alone."""
        adapter = self.adapter or Adapter(self._model.digest, AUTO)
        self.adapter = adapter.with_tokens(tokens, self._model.d, mixture.load(self._model.id, self._model.digest))

    def restore(self, adapter: Adapter, validation: ValidationResult, finetuned: FinetuneResult) -> None:
        """Take up the adapter of a saved state, unless it is too large to be used."""
        self.adapter, self.validation = None if rejection(adapter, NORM_LIMIT) else adapter, validation
        if finetuned.pairs:
            self.finetuned = finetuned

    def set_adapter(self, adapter: Adapter) -> None:
        """Replace the adapter by one of the same validation result."""
        self.adapter = adapter

    def set_finetuned(self, result: FinetuneResult) -> None:
        """Replace the finetuned pairs and the note about them."""
        self.finetuned = result

    # --- validation --------------------------------------------------------------------------------------------------

    def validate(
        self, adapter: Adapter, plan: UpdatePlan, learner: Learner, interrupted: Callable[[], bool]
    ) -> Slices[str | None]:
        """Accept a new adapter or reject it; return the reason of a rejection, "" without one.

        After a small update, and a further part of a large folder, the last validation result is used: `revalidate`
        follows once the generation is live. So it does once `interrupted` returns true: an edit must not wait. If the
        folder was never validated, None is returned then, and the adapter is left for the next generation.
        """
        self._changed_chunks += plan.changed_chunks
        small = _REVALIDATE_SHARE * learner.chunk_count
        most = (_PART_SHARE if plan.first else _REVALIDATE_SHARE) * learner.chunk_count
        if plan.changed_chunks > most or self._changed_chunks > _PATIENCE * small:
            if (yield from self._validated(learner, interrupted)):
                self._changed_chunks = 0
            elif self.validation == NOT_VALIDATED:
                return None
        return self._accept(adapter)

    def validate_tokens(self, learner: Learner, interrupted: Callable[[], bool]) -> Slices[str | None]:
        """Validate the adapter of a token index alone; return the reason of a rejection as `validate` does.

        Returns None as soon as `interrupted` returns true: the first update of the state validates it again.
        """
        return self._accept(learner.generate()) if (yield from self._validated(learner, interrupted)) else None

    def _validated(self, learner: Learner, interrupted: Callable[[], bool]) -> Slices[bool]:
        """Validate; once `interrupted` returns true, keep the earlier result and return False."""
        before, finetuned = self.validation, self.finetuned
        for _ in self._validate(learner):
            if interrupted():
                self.validation, self.finetuned = before, finetuned
                return False
            yield
        return True

    def revalidate(self, adapter: Adapter, learner: Learner, interrupted: Callable[[], bool]) -> Slices[str | None]:
        """Validate a live adapter if small updates have added up; None if nothing changes, else as `validate`.

        Stops without a result as soon as `interrupted` returns true; the next update starts it again.
        """
        if self._changed_chunks <= _REVALIDATE_SHARE * learner.chunk_count:
            return None
        before, finetuned = self.validation, self.finetuned
        if not (yield from self._validated(learner, interrupted)):
            return None
        self._changed_chunks = 0
        same = (before.strength, before.knn_strength) == (self.validation.strength, self.validation.knn_strength)
        return None if same and finetuned is self.finetuned else self._accept(adapter)

    def _accept(self, adapter: Adapter) -> str:
        reason = rejection(adapter, NORM_LIMIT) or self.validation.rejection
        self.adapter = None if reason else adapter
        return reason

    def _validate(self, learner: Learner) -> Slices[None]:
        """Choose the strengths on files that are held out of the state for this purpose."""
        split = yield from learner.hold_out()
        if split is None:
            self.validation = NOT_VALIDATED
            return
        for path, digest in split.files.items():
            yield from self._validator.add_in_slices(digest, (yield from learner.text_in_slices(path)))
            yield
        adapter = split.generate()
        yield
        digests = list(split.files.values())
        self.validation = yield from self._validator.validate_in_slices(adapter, digests)
        if self.finetuned.pairs:  # the files have changed since the finetuning: is it still better?
            plain = adapter.scaled(self.validation.strength, self.validation.knn_strength)
            without = yield from self._validator.loss(plain, digests)
            with_pairs = yield from self._validator.loss(self._with_finetuned(adapter, 1.0), digests)
            if not with_pairs < without:
                note = f"dropped: by now it is {with_pairs - without:+.3f} nat/token against without it"
                self.finetuned = FinetuneResult(note=note)

    # --- what completions use ----------------------------------------------------------------------------------------

    def live(self, generation: int, folder: str, *, unusable: bool) -> LiveAdapter:
        """Return what completions run under. `unusable`: the model has no hypernetwork, so pairs cannot be checked."""
        weights, knn = self.validation.strength * self._scale, self._knn_strength * self._scale
        used = self.adapter is not None and max(weights, knn) > 0.0
        adapter = self.adapter.scaled(weights, knn) if self.adapter is not None and used else None
        if self.finetuned.pairs and self._scale > 0.0 and not unusable:
            adapter = self._with_finetuned(self.adapter, self._scale)
        if adapter is None:
            return LiveAdapter(generation, None)
        adapter.check(self._model)
        return LiveAdapter(generation, adapter, f"{folder}#{generation}" if adapter.pairs else "")

    def _with_finetuned(self, adapter: Adapter | None, scale: float) -> Adapter:
        """The generated adapter with the finetuned pairs in place of its own.

        The pairs were trained on top of the adapter's final map. The kNN memory gets the strength that was found
        beside the pairs.
        """
        pairs = {name: LoraPair(pair.A, pair.B, pair.scale * scale) for name, pair in self.finetuned.pairs.items()}
        if adapter is None:
            return Adapter(self._model.digest, "sgd", pairs=pairs)
        scaled = adapter.scaled(self.validation.strength * scale, self.finetuned.knn_strength * scale)
        return replace(scaled, pairs=pairs)
