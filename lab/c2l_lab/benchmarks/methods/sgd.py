"""`sgd`: a LoRA of the repository's own by gradient descent, the ceiling of the table."""

from __future__ import annotations

import time

from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Kit
from c2l_lab.benchmarks.repositories.cases import Case
from c2l_lsp.model.adapter.finetune_lora import fit_lora


class RepositoryLora:
    """Rank and epochs of the options on the state's text: what the cheap adapters are measured against."""

    name, own, network = "sgd", True, None

    def __init__(self, kit: Kit) -> None:
        self._model, self._options = kit.model, kit.options
        self.digest = f"1/{kit.options.rank}/{kit.options.rate}/{kit.options.epochs}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """Train it."""
        del adapters
        started, options = time.perf_counter(), self._options
        texts = [case.state[path] for path in sorted(case.state)]
        adapter = fit_lora(self._model, texts, rank=options.rank, rate=options.rate, epochs=options.epochs)
        return Fitted(adapter, seconds=time.perf_counter() - started)
