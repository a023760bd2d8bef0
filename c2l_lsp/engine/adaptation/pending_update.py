"""A change of one folder on its way from the files to the batched update and the adapter."""

from __future__ import annotations

from dataclasses import dataclass

from c2l_lsp.engine.adaptation.history_replay import ReplayedHistory
from c2l_lsp.engine.adaptation.update_plan import UpdatePlan
from c2l_lsp.model.hypernet.protocol import StateChange


@dataclass
class PendingUpdate:
    """A change that waits for the batched update, and what belongs to it. `ms` are milliseconds by stage.

    `replayed` is the history it comes from: then the files are HEAD's, and those on disk are compared next.
    """

    plan: UpdatePlan
    change: StateChange
    trigger: str
    ms: dict[str, float]
    replayed: ReplayedHistory | None = None
