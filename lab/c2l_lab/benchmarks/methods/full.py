"""`full`: all weights of all projections on the state's text."""

from __future__ import annotations

import time

from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Kit, NotTrained
from c2l_lab.benchmarks.repositories.cases import Case
from c2l_lsp.model.adapter.finetune_lora import fit_lora

LARGEST = 200_000_000
"""Weights of a base above which full fine-tuning is left out."""


class FullTuning:
    """All weights of all projections on the state's text: what a LoRA is the cheap form of."""

    name, own, network = "full", True, None

    def __init__(self, kit: Kit) -> None:
        self._model, self._options = kit.model, kit.options
        if kit.model.parameters > LARGEST:
            raise NotTrained(f"{kit.model.parameters / 1e6:.0f}M weights with their moments do not fit every machine")
        self.digest = f"1/{kit.options.full_rate}/{kit.options.epochs}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """Train it."""
        del adapters
        started, options = time.perf_counter(), self._options
        texts = [case.state[path] for path in sorted(case.state)]
        adapter = fit_lora(self._model, texts, rank=None, rate=options.full_rate, epochs=options.epochs)
        return Fitted(adapter, seconds=time.perf_counter() - started)
