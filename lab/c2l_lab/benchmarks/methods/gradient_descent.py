"""`sgd` and `full`: training on the repository itself by gradient descent, the ceiling of the comparison."""

from __future__ import annotations

import time

from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, NotTrained, Setup
from c2l_lab.repositories.cases import Case
from c2l_lsp.model.adapter.finetune_lora import fit_lora

MAX_FULL_PARAMETERS = 200_000_000
"""Parameters of a base model above which `full` does not run."""


class RepositoryLora:
    """`sgd`: a LoRA of the repository, with the rank, rate and epochs of the options."""

    name, per_repository, network = "sgd", True, None

    def __init__(self, setup: Setup) -> None:
        self._model, self._options = setup.model, setup.options
        self.digest = f"1/{setup.options.rank}/{setup.options.rate}/{setup.options.epochs}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """Train the LoRA."""
        del adapters
        started, options = time.perf_counter(), self._options
        texts = [case.state[path] for path in sorted(case.state)]
        adapter = fit_lora(self._model, texts, rank=options.rank, rate=options.rate, epochs=options.epochs)
        return Fitted(adapter, seconds=time.perf_counter() - started)


class FullTuning:
    """`full`: full fine-tuning of all projections."""

    name, per_repository, network = "full", True, None

    def __init__(self, setup: Setup) -> None:
        self._model, self._options = setup.model, setup.options
        if setup.model.parameters > MAX_FULL_PARAMETERS:
            millions = f"{setup.model.parameters / 1e6:.0f}M"
            raise NotTrained(f"{millions} parameters and their optimizer state need too much memory")
        self.digest = f"1/{setup.options.full_rate}/{setup.options.epochs}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """Train all projections."""
        del adapters
        started, options = time.perf_counter(), self._options
        texts = [case.state[path] for path in sorted(case.state)]
        adapter = fit_lora(self._model, texts, rank=None, rate=options.full_rate, epochs=options.epochs)
        return Fitted(adapter, seconds=time.perf_counter() - started)
