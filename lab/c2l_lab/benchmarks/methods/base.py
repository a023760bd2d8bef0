"""`base`: the base model without an adapter, the baseline of every gain."""

from __future__ import annotations

from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Setup
from c2l_lab.repositories.cases import Case


class Base:
    """The base model."""

    name, digest, per_repository, network = "base", "1", False, None

    def __init__(self, setup: Setup) -> None:
        del setup

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """No adapter and no context."""
        del case, adapters
        return Fitted()
