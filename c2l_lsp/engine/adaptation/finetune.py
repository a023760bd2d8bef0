"""A LoRA of one folder by gradient descent, on request: in small steps behind everything else, kept only if it wins.

It begins where the hypernetwork's adapter stands (its final map stays as it is, its pairs are trained on) and runs on a
copy of the base, one step of one window a slice, so that a completion never waits longer than for one step. It is
judged on whole files that neither it nor the adapter it is compared with has seen.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

import psutil
import torch
from torch import Tensor

from c2l_lsp.engine.adaptation.learner import Learner
from c2l_lsp.engine.adaptation.validation import ValidationResult, Validator, held_out, refuse
from c2l_lsp.errors import AdapterError, StateError
from c2l_lsp.model.adapter.finetune_lora import fit_lora, windows
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.lora_pair import LoraPair

LENGTH = 256
"""Tokens of a step's window: about 0.1 s of one core with the shipped base."""

EPOCHS = 2.0
MOST_STEPS = 600
RANK, ALPHA, RATE = 16, 32.0, 1e-3
_PREFIX, _RECALL = "deep/", "deep/recall"


@dataclass(frozen=True)
class FinetuneResult:
    """Pairs to go live (none: dropped), a sentence that says why, and the strength of what is recalled beside them.

    Keys were made without the pairs, and these move the states that are compared with them: where they move far,
    recall may be of no use any more.
    """

    pairs: Mapping[str, LoraPair] = field(default_factory=dict)
    note: str = ""
    knn_strength: float = 1.0


class FinetuneLoop:
    """Runs a function in a thread of its own, a step at a time: while nobody calls `step` the thread stands still."""

    def __init__(self, work: Callable[[Callable[[], bool]], Adapter]) -> None:
        """`work` gets a function to call between two steps; it answers whether to stop."""
        self._go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._stop = self.done = False
        self._made: Adapter | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, args=(work,), name="deep", daemon=True).start()

    def step(self) -> bool:
        """Run to the next pause or the end; whether it is the end. Raises what the work raised."""
        self._go.release()
        self._stands.acquire()
        if self._error is not None:
            raise self._error
        return self.done

    @property
    def made(self) -> Adapter:
        """What the work returned. Only when done."""
        assert self._made is not None  # noqa: S101 - set before `done`
        return self._made

    def stop(self) -> None:
        """Have the work stop at its pause, and wait for it."""
        if not self.done:
            self._stop = True
            self._go.release()
            self._stands.acquire()

    def _pause(self) -> bool:
        self._stands.release()
        self._go.acquire()
        return self._stop

    def _run(self, work: Callable[[Callable[[], bool]], Adapter]) -> None:
        self._go.acquire()
        try:
            if not self._stop:
                self._made = work(self._pause)
        except Exception as error:  # whoever calls `step` gets it
            self._error = error
        finally:
            self.done = True
            self._stands.release()


class FinetuneJob:
    """One request: `run` is its work in slices; `note` says how far it is."""

    def __init__(
        self,
        model: BaseModel,
        slot: AdapterSlot,
        learner: Learner,
        verdict: ValidationResult,
        limit: float,
        steps: int = 0,
    ) -> None:
        """`slot` is the engine's, `verdict` the gate's, `limit` the largest norm; `steps` 0 chooses them."""
        self._model, self._trial, self._learner = model, Validator(model, slot), learner
        self._verdict, self._limit, self._steps = verdict, limit, steps
        self._stepper: FinetuneLoop | None = None
        self.note = "waiting"

    def cancel(self) -> None:
        """Stop; what was trained is forgotten."""
        if self._stepper is not None:
            self._stepper.stop()
            self._stepper = None

    def run(self, tell: Callable[[int, int, bool], None]) -> Generator[None, None, FinetuneResult]:
        """The outcome. AdapterError when it cannot begin or diverges."""
        learner = self._learner
        held = held_out(learner.records)
        rest = learner.without(held) if held else None
        if rest is None or learner.network is None:
            raise AdapterError("Too few files are learned to hold some out; the deep adapter was not trained.")
        start = learner.network.generate(rest).scaled(self._verdict.strength, self._verdict.knn_strength)
        digests = [learner.records[path].entry.digest for path in held]
        for path in held:
            yield from self._trial.seeing(learner.records[path].entry.digest, learner.text(path))
            yield
        before = yield from self._trial.loss(start, digests)
        texts = []
        for path in sorted(learner.records.keys() - set(held)):
            texts.append(learner.text(path))
            yield
        made = yield from self._fit(texts, start, tell)
        if reason := refuse(made, self._limit):
            return FinetuneResult(note=f"dropped: {reason}")
        recall, after = yield from self._trial.best_knn_strength(made)
        if not after < before:
            return FinetuneResult(
                note=f"dropped: on held-out files it is {after - before:+.3f} nat/token against without it"
            )
        note = f"live: {after - before:+.3f} nat/token on held-out files against without it"
        return FinetuneResult(made.pairs, note, recall)

    def _fit(
        self, texts: Sequence[str], start: Adapter, tell: Callable[[int, int, bool], None]
    ) -> Generator[None, None, Adapter]:
        model = private_copy(self._model)
        rows = len(windows(model, texts, LENGTH))
        steps = self._steps or max(1, min(MOST_STEPS, round(EPOCHS * rows)))
        yield

        def work(pause: Callable[[], bool]) -> Adapter:
            return fit_lora(
                model, texts, rate=RATE, rank=RANK, alpha=ALPHA, steps=steps, length=LENGTH, batch=1, start=start,
                cancelled=pause,
            )  # fmt: skip

        self._stepper = stepper = FinetuneLoop(work)
        done = 0
        try:
            while not stepper.step():
                self.note = f"training, {done} of {steps} steps"
                tell(done, steps, False)
                done += 1
                yield
        finally:
            self._stepper = None
            tell(done, steps, True)
        return stepper.made


def private_copy(model: BaseModel) -> BaseModel:
    """The base once more, without anything plugged in. AdapterError if there is no room for it."""
    size = sum(p.numel() * p.element_size() for p in model.lm.parameters())
    free = psutil.virtual_memory().available
    if model.device.type == "cpu" and 2 * size > free:
        raise AdapterError(
            f"The deep adapter needs the model a second time ({size / 2**30:.1f} GiB), and too little memory is free."
        )
    lm = copy.deepcopy(model.lm)
    for module in lm.modules():
        module._forward_hooks.clear()
    return dataclasses.replace(model, lm=lm)


def to_tensors(outcome: FinetuneResult) -> dict[str, Tensor]:
    """What is live as named tensors, to be kept with a state; none if nothing is."""
    found: dict[str, Tensor] = {}
    if outcome.pairs:
        found[_RECALL] = torch.tensor(outcome.knn_strength, dtype=torch.float64)
    for name, pair in outcome.pairs.items():
        scale = torch.tensor(pair.scale, dtype=torch.float64)
        found |= {f"{_PREFIX}{name}/A": pair.A, f"{_PREFIX}{name}/B": pair.B, f"{_PREFIX}{name}/scale": scale}
    return found


def split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], FinetuneResult]:
    """(other tensors, what was live) of what was kept with a state. StateError if parts of it are missing."""
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(_PREFIX)}
    if _RECALL not in tensors:
        return rest, FinetuneResult()
    kept = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
    try:
        recall = float(kept.pop(_RECALL.removeprefix(_PREFIX)))
        pairs = {
            name: LoraPair(kept[f"{name}/A"], kept[f"{name}/B"], float(kept[f"{name}/scale"]))
            for name in sorted({name.rpartition("/")[0] for name in kept})
        }
    except (KeyError, RuntimeError, ValueError) as error:
        raise StateError("the deep adapter is not whole") from error
    if len(kept) != 3 * len(pairs):
        raise StateError("the deep adapter holds what does not belong to it")
    return rest, FinetuneResult(pairs, "live: trained before the last start", recall)


def check(outcome: FinetuneResult, model: BaseModel) -> None:
    """StateError unless what was live fits the model and is finite."""
    numbers = [outcome.knn_strength, *(pair.scale for pair in outcome.pairs.values())]
    if not all(map(math.isfinite, numbers)) or outcome.knn_strength < 0:
        raise StateError("the deep adapter has a strength that is none")
    for name, pair in outcome.pairs.items():
        if any(factor.dim() != 2 or factor.dtype != torch.float32 for factor in (pair.A, pair.B)):
            raise StateError(f"the deep adapter's factors for {name} are no matrices of fp32")
    try:
        Adapter(model.digest, "sgd", pairs=outcome.pairs).check(model)
    except (AdapterError, AttributeError) as error:
        raise StateError(f"the deep adapter does not fit the model: {error}") from error
