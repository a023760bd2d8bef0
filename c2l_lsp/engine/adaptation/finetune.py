"""LoRA pairs trained by gradient descent on request, behind all other work, and published only if they help.

Training starts from the generated adapter: its final map stays, its pairs are trained on. It runs on a copy of the base
model, one step of one window a slice, so that a completion waits for one step at most. The result is scored on whole
files that neither the training nor the adapter it is compared with contains.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil
import torch
from torch import Tensor

from c2l_lsp.cooperative import Slices
from c2l_lsp.engine.adaptation.learner import Learner
from c2l_lsp.engine.adaptation.validation import ValidationResult, Validator, rejection
from c2l_lsp.errors import AdapterError, StateError
from c2l_lsp.model.adapter.finetune_lora import fit_lora, windows
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.lora_pair import LoraPair
from c2l_lsp.redaction import pieces

LENGTH = 256
"""Tokens in the window of one training step: about 0.1 s on one core with a shipped model."""

EPOCHS = 2.0
MAX_STEPS = 600
RANK, ALPHA, RATE = 16, 32.0, 1e-3
_PREFIX, _KNN_STRENGTH = "deep/", "deep/recall"  # names of tensors on disk


@dataclass(frozen=True)
class FinetuneResult:
    """The pairs to publish (empty: none), a note that says why, and the strength of the kNN memory beside them.

    The keys of the kNN memory were computed without the pairs. Pairs that change the hidden states a lot can make the
    memory useless; its strength is found again for them.
    """

    pairs: Mapping[str, LoraPair] = field(default_factory=dict)
    note: str = ""
    knn_strength: float = 1.0


class FinetuneLoop:
    """Runs a function in a thread, one step at a time: the thread is blocked except during `step`."""

    def __init__(self, work: Callable[[Callable[[], bool]], Adapter]) -> None:
        """`work(pause)` returns the trained adapter. It calls `pause()` between steps, and stops if that is true."""
        self._go, self._blocked = threading.Semaphore(0), threading.Semaphore(0)
        self._stop = self.done = False
        self._adapter: Adapter | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, args=(work,), name="finetune", daemon=True).start()

    def step(self) -> bool:
        """Run to the next pause or to the end; true at the end. Raises what `work` raised."""
        self._go.release()
        self._blocked.acquire()
        if self._error is not None:
            raise self._error
        return self.done

    @property
    def adapter(self) -> Adapter:
        """The trained adapter. RuntimeError before the end."""
        if self._adapter is None:
            raise RuntimeError("the training has not ended")
        return self._adapter

    def stop(self) -> None:
        """Stop at the current pause, and wait until the thread has ended its step."""
        if not self.done:
            self._stop = True
            self._go.release()
            self._blocked.acquire()

    def _pause(self) -> bool:
        self._blocked.release()
        self._go.acquire()
        return self._stop

    def _run(self, work: Callable[[Callable[[], bool]], Adapter]) -> None:
        self._go.acquire()
        try:
            if not self._stop:
                self._adapter = work(self._pause)
        except Exception as error:  # raised by `step`
            self._error = error
        finally:
            self.done = True
            self._blocked.release()


class FinetuneJob:
    """One training on request. `run` is its work in slices; `note` says how far it is, for the status."""

    def __init__(
        self,
        model: BaseModel,
        slot: AdapterSlot,
        learner: Learner,
        validation: ValidationResult,
        norm_limit: float,
        steps: int = 0,
    ) -> None:
        """`validation` has the strengths of the live adapter; `steps` 0: two epochs, at most `MAX_STEPS`."""
        self._model, self._validator, self._learner = model, Validator(model, slot), learner
        self._validation, self._norm_limit, self._steps = validation, norm_limit, steps
        self._loop: FinetuneLoop | None = None
        self.note = "waiting"

    def cancel(self) -> None:
        """Stop; the pairs trained so far are dropped."""
        if self._loop is not None:
            self._loop.stop()
            self._loop = None

    def run(self, progress: Callable[[int, int, bool], None]) -> Slices[FinetuneResult]:
        """Train and compare. AdapterError with too few files, too little memory, or if the training diverges."""
        learner, validator = self._learner, self._validator
        split = yield from learner.hold_out()
        if split is None:
            raise AdapterError("Too few files are learned to hold some out for validation; no adapter was finetuned.")
        start = split.generate().scaled(self._validation.strength, self._validation.knn_strength)
        for path, digest in split.files.items():
            yield from validator.add_in_slices(digest, (yield from learner.text_in_slices(path)))
            yield
        before = yield from validator.loss(start, list(split.files.values()))
        texts = list[str]()
        for path in sorted(learner.records.keys() - split.files.keys()):
            texts += pieces((yield from learner.text_in_slices(path)))
            yield
        trained = yield from self._train(texts, start, progress)
        if reason := rejection(trained, self._norm_limit):
            return FinetuneResult(note=f"dropped: {reason}")
        knn_strength = yield from validator.best_knn_strength(trained)
        mixed = trained.scaled(1.0, knn_strength)  # compared on the positions that `before` is of
        after = yield from validator.loss(mixed, list(split.files.values()))
        if not after < before:
            note = f"dropped: on held-out files it is {after - before:+.3f} nat/token against without it"
            return FinetuneResult(note=note)
        note = f"live: {after - before:+.3f} nat/token on held-out files against without it"
        return FinetuneResult(trained.pairs, note, knn_strength)

    def _train(
        self, texts: Sequence[str], start: Adapter, progress: Callable[[int, int, bool], None]
    ) -> Slices[Adapter]:
        model = private_copy(self._model)
        rows = len(windows(model, texts, LENGTH))
        steps = self._steps or max(1, min(MAX_STEPS, round(EPOCHS * rows)))
        yield

        def work(pause: Callable[[], bool]) -> Adapter:
            return fit_lora(
                model, texts, rate=RATE, rank=RANK, alpha=ALPHA, steps=steps, length=LENGTH, batch=1, start=start,
                cancelled=pause,
            )  # fmt: skip

        self._loop = loop = FinetuneLoop(work)
        done = 0
        try:
            while not loop.step():
                self.note = f"training, {done} of {steps} steps"
                progress(done, steps, False)
                done += 1
                yield
        finally:
            self._loop = None
            progress(done, steps, True)
        return loop.adapter


def private_copy(model: BaseModel) -> BaseModel:
    """Return a copy of the base model without adapter hooks. AdapterError if too little memory is free."""
    size = sum(p.numel() * p.element_size() for p in model.lm.parameters())
    free = psutil.virtual_memory().available
    if model.device.type == "cpu" and 2 * size > free:
        raise AdapterError(
            f"Finetuning needs a second copy of the model ({size / 2**30:.1f} GiB), and too little memory is free."
        )
    lm = copy.deepcopy(model.lm)
    for module in lm.modules():
        module._forward_hooks.clear()
    return dataclasses.replace(model, lm=lm)


def to_tensors(result: FinetuneResult) -> dict[str, Tensor]:
    """Return the published pairs as named tensors, to be saved with a state; empty without pairs."""
    found: dict[str, Tensor] = {}
    if result.pairs:
        found[_KNN_STRENGTH] = torch.tensor(result.knn_strength, dtype=torch.float64)
    for name, pair in result.pairs.items():
        scale = torch.tensor(pair.scale, dtype=torch.float64)
        found |= {f"{_PREFIX}{name}/A": pair.A, f"{_PREFIX}{name}/B": pair.B, f"{_PREFIX}{name}/scale": scale}
    return found


def split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], FinetuneResult]:
    """Separate the tensors saved with a state: (other tensors, published pairs). StateError if some are missing."""
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(_PREFIX)}
    if _KNN_STRENGTH not in tensors:
        return rest, FinetuneResult()
    kept = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
    try:
        knn_strength = float(kept.pop(_KNN_STRENGTH.removeprefix(_PREFIX)))
        pairs = {
            name: LoraPair(kept[f"{name}/A"], kept[f"{name}/B"], float(kept[f"{name}/scale"]))
            for name in sorted({name.rpartition("/")[0] for name in kept})
        }
    except (KeyError, RuntimeError, ValueError) as error:
        raise StateError("tensors of the finetuned adapter are missing") from error
    if len(kept) != 3 * len(pairs):
        raise StateError("the finetuned adapter has unknown tensors")
    return rest, FinetuneResult(pairs, "live: trained before the last start", knn_strength)


def check(result: FinetuneResult, model: BaseModel) -> None:
    """Raise StateError unless the saved pairs fit the model and are finite."""
    numbers = [result.knn_strength, *(pair.scale for pair in result.pairs.values())]
    if not all(map(math.isfinite, numbers)) or result.knn_strength < 0:
        raise StateError("the finetuned adapter has a strength that is not a number")
    for name, pair in result.pairs.items():
        if any(f.dim() != 2 or f.dtype != torch.float32 or not f.numel() for f in (pair.A, pair.B)):
            raise StateError(f"the finetuned adapter's factors of {name} are not fp32 matrices")
    try:
        Adapter(model.digest, "sgd", pairs=result.pairs).check(model)
    except (AdapterError, AttributeError) as error:
        raise StateError(f"the finetuned adapter does not fit the model: {error}") from error
