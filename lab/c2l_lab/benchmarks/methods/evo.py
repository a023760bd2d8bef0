"""`evo`: the paper's GRU over diffs."""

from __future__ import annotations

import time

from c2l_lab.benchmarks.methods.networked import Networked, published
from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Kit
from c2l_lab.benchmarks.repositories.cases import Case


class Evolved(Networked):
    """A hypernetwork that reads diffs: the oldest state there is, then what each later one changed."""

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """Fold the history."""
        del adapters
        self._held = None
        started = time.perf_counter()
        follower = self.follower(case)
        adapter = follower.adapter(follower.followed([case.states[age] for age in sorted(case.states, reverse=True)]))
        self._held = None  # it has read more than a state, in batches of its own
        return Fitted(adapter, seconds=time.perf_counter() - started)


def evo(kit: Kit) -> Networked:
    """The paper's GRU over diffs."""
    return Evolved(*published(kit, "evo"))
