"""`map` and `recall`: the two halves of `memory`, each alone."""

from __future__ import annotations

from dataclasses import replace

from c2l_lab.benchmarks.methods.memory import Memorised
from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Kit
from c2l_lab.benchmarks.repositories.cases import Case


class Half:
    """One half of `memory`; the seconds are those of both."""

    own, network = False, None  # the diagnostics are memory's

    def __init__(self, kit: Kit, name: str) -> None:
        self.name = name
        self._memory: Memorised = kit.once("memory", lambda: Memorised(kit))
        self.digest = self._memory.digest

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """What is left of the adapter without the other half."""
        whole = adapters.fitted(self._memory, case.name)
        if whole.adapter is None:
            return whole
        half = whole.adapter.without_knn() if self.name == "map" else replace(whole.adapter, final_map=None)
        return replace(whole, adapter=half)
