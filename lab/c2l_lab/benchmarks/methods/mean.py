"""`mean`: the mean of the other compared repositories' `memory` adapters, what is left of one without conditioning.

Leave-one-out: a repository's own adapter is not in the mean it is compared with.
"""

from __future__ import annotations

from c2l_lab.benchmarks.adapters import merge
from c2l_lab.benchmarks.methods.memory import Memorised
from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Kit, Method
from c2l_lab.benchmarks.repositories.cases import Case
from c2l_lsp.errors import CorpusError
from c2l_lsp.model.adapter.lora import Adapter


class Mean:
    """Of `memory`."""

    name, own, network = "mean", False, None

    def __init__(self, kit: Kit) -> None:
        self._of: Memorised = kit.once("memory", lambda: Memorised(kit))
        self.digest = f"1/{self._of.digest}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """ΔW averaged over the others."""
        return Fitted(mean_without(self._of, case.name, adapters))


def mean_without(method: Method, name: str, adapters: Adapters) -> Adapter:
    """The mean ΔW of a method over all compared repositories but `name`."""
    others = [other for other in adapters.names if other != name]
    if not others:
        raise CorpusError("At least two repositories are needed for a mean adapter.")
    found = [adapters.fitted(method, other).adapter for other in others]
    present = [adapter for adapter in found if adapter is not None]
    base = present[0].base
    return merge.combine([(1 / len(others), merge.total(present))], base, "mean")
