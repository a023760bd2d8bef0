"""Folders with the same hypernetwork are updated in one call; the fault of one is not another's."""

from __future__ import annotations

from collections.abc import Iterable

from c2l_lsp.engine import device
from c2l_lsp.engine.adaptation.workspace_adapter import WorkspaceAdapter
from c2l_lsp.model.runtime.cooperative import Slices, timed


def fold(lives: Iterable[WorkspaceAdapter]) -> Slices[None]:
    """Fold all changes that wait: one update for each hypernetwork, whatever the number of folders."""
    groups: dict[str, list[WorkspaceAdapter]] = {}
    for life in lives:
        if life.ready is not None:
            groups.setdefault(life.network_digest, []).append(life)
    for group in groups.values():
        if waiting := [life for life in group if life.ready is not None]:
            yield from _fold(waiting)


def _fold(lives: list[WorkspaceAdapter]) -> Slices[None]:
    """One call for some folders; if it fails, one for each, so that no folder's fault is another's.

    A folder that was closed or reset between two slices waits for this change no more.
    """
    waiting = [(life, life.ready) for life in lives]
    try:
        states, changes = zip(*(life.update_input() for life in lives), strict=True)
        folded, slices = yield from timed(lives[0].update_in_slices(list(states), list(changes)))
    except Exception as error:
        if len(lives) == 1 or device.is_lost(error):
            for life in lives:
                life.not_folded(error)
            return
        for life, ready in waiting:
            if life.ready is ready:
                yield from _fold([life])
        return
    for (life, ready), state in zip(waiting, folded, strict=True):
        if life.ready is not ready:
            continue
        try:
            life.folded(state, sum(slices) * 1e3)
        except Exception as error:
            life.not_folded(error)
