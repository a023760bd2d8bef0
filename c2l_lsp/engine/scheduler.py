"""Adapter work of all open workspaces, one slice at a time, in turn. Completions run between two slices.

A slice is the first of these that is possible: the next stage of a workspace's generation, merging the LoRA pairs of a
new generation into the weights, the batched update of all workspaces that wait for one, indexing a file for drafts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from c2l_lsp.cooperative import Slices, timed
from c2l_lsp.engine import device
from c2l_lsp.engine.adaptation.adapter_state import UNADAPTED, LiveAdapter
from c2l_lsp.engine.adaptation.workspace_adapter import WorkspaceAdapter
from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.engine.draft_indexing import DraftIndexing
from c2l_lsp.engine.workspaces import Workspace
from c2l_lsp.model.adapter.lora import AdapterSlot


class Scheduler:
    """Decides whose slice is next. `drafts` are the draft indexes of the same folders."""

    def __init__(self, slot: AdapterSlot, decoder: Decoder, drafts: DraftIndexing) -> None:
        self._slot, self._decoder, self._drafts = slot, decoder, drafts
        self._workspaces: dict[str, Workspace] = {}
        self._turn: deque[str] = deque()
        self._merged: dict[str, LiveAdapter] = {}  # folder → the live adapter whose pairs were merged last
        self._updating: Slices[None] | None = None

    def add(self, folder: str, workspace: Workspace) -> None:
        """Schedule a workspace's work from now on."""
        self._workspaces[folder] = workspace
        self._turn.append(folder)

    def remove(self, folder: str) -> None:
        """Schedule a workspace's work no more."""
        del self._workspaces[folder]
        self._turn.remove(folder)
        self._merged.pop(folder, None)

    def due_in(self) -> float | None:
        """Return the seconds until there is work, None if there never is; 0 or less: now."""
        now = time.monotonic()
        due = [seconds for w in self._workspaces.values() if (seconds := w.due_in(now)) is not None]
        if self._updating is not None or self._undrafted() is not None:
            due.append(0.0)
        return min(due, default=None)

    def step(self) -> None:
        """Run one slice."""
        self._slot.activate(None)  # chunks are embedded by the base model, whatever the last completion ran under
        if self._step_workspace() or self._merge_pairs():
            return
        if self._updating is not None or self._waiting():
            self._step_update()
        elif (folder := self._undrafted()) is not None:
            self._drafts.step(folder, self._workspaces[folder])

    def _step_workspace(self) -> bool:
        """Run a slice of the next workspace in turn that has one; false if none has."""
        now = time.monotonic()
        for _ in range(len(self._turn)):
            self._turn.rotate(-1)
            workspace = self._workspaces[self._turn[-1]]
            if isinstance(workspace, WorkspaceAdapter) and workspace.pending_update is None:
                due = workspace.due_in(now)
                if due is not None and due <= 0:
                    workspace.step(now)
                    return True
        return False

    def _merge_pairs(self) -> bool:
        """Merge the LoRA pairs of a new generation into the weights, so that no completion waits for that."""
        for folder, workspace in self._workspaces.items():
            live = workspace.live
            if live is self._merged.get(folder, UNADAPTED):
                continue
            self._merged[folder] = live
            if live.adapter is None or not live.adapter.pairs or not isinstance(workspace, WorkspaceAdapter):
                continue
            try:
                self._slot.activate(live.adapter)
                self._decoder.prepare()
            except Exception as error:  # of this folder alone: it is reported, and other folders go on
                workspace.fail(error)
            finally:
                self._slot.activate(None)
            return True
        return False

    def _undrafted(self) -> str | None:
        """A folder whose files changed since they were indexed for drafts."""
        folders = self._workspaces.items()
        return next((folder for folder, workspace in folders if self._drafts.outdated(folder, workspace)), None)

    # --- batched updates ---------------------------------------------------------------------------------------------

    def _waiting(self) -> list[WorkspaceAdapter]:
        """The workspaces that wait for an update of their state."""
        active = (w for w in self._workspaces.values() if isinstance(w, WorkspaceAdapter))
        return [workspace for workspace in active if workspace.pending_update is not None]

    def _step_update(self) -> None:
        """Run a slice of the batched update; workspaces that begin to wait meanwhile belong to the next one."""
        work = self._updating = self._updating or update_all(self._waiting())
        try:
            next(work)
        except StopIteration:
            self._updating = None
        except Exception:
            self._updating = None
            raise


def update_all(workspaces: Iterable[WorkspaceAdapter]) -> Slices[None]:
    """Apply the pending updates of some workspaces: one batched call for each hypernetwork."""
    groups: dict[str, list[WorkspaceAdapter]] = {}
    for workspace in workspaces:
        if workspace.pending_update is not None:
            groups.setdefault(workspace.pending_update.network.digest, []).append(workspace)
    for group in groups.values():
        yield from _update_group(group)


def _update_group(group: list[WorkspaceAdapter]) -> Slices[None]:
    """Update workspaces of one hypernetwork in one call. If it fails, update each alone: one may be at fault.

    A workspace that is closed or reset between two slices no longer waits for its update.
    """
    waiting = [(workspace, update) for workspace in group if (update := workspace.pending_update) is not None]
    if not waiting:
        return
    updates = [update for _, update in waiting]
    try:
        work = updates[0].network.update_in_slices([u.state for u in updates], [u.change for u in updates])
        states, seconds = yield from timed(work)
    except Exception as error:
        if len(waiting) == 1 or device.is_lost(error):
            for workspace, _ in waiting:
                workspace.fail(error)
            return
        for workspace, update in waiting:
            if workspace.pending_update is update:
                yield from _update_group([workspace])
        return
    for (workspace, update), state in zip(waiting, states, strict=True):
        if workspace.pending_update is update:
            workspace.resume(state, sum(seconds) * 1e3)
