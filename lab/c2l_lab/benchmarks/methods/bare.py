"""`base`: the model as it is."""

from __future__ import annotations

from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Kit
from c2l_lab.benchmarks.repositories.cases import Case


class Bare:
    """Nothing is added."""

    name, digest, own, network = "base", "1", False, None

    def __init__(self, kit: Kit) -> None:
        del kit

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """Nothing."""
        del case, adapters
        return Fitted()
