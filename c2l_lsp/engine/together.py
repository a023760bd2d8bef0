"""Folders with the same hypernetwork are updated in one call; the fault of one is not another's."""

from __future__ import annotations

import time

from c2l_lsp.engine import device
from c2l_lsp.engine.adapt import FolderLife


def fold(lives: list[FolderLife]) -> None:
    """One call for some folders; if it fails, one for each, so that no folder's fault is another's."""
    started = time.perf_counter()
    try:
        states, changes = zip(*(life.update_input() for life in lives), strict=True)
        folded = lives[0].update(list(states), list(changes))
    except Exception as error:
        if len(lives) == 1 or device.lost(error):
            for life in lives:
                life.not_folded(error)
            return
        for life in lives:
            fold([life])
        return
    spent = (time.perf_counter() - started) * 1e3
    for life, state in zip(lives, folded, strict=True):
        try:
            life.folded(state, spent)
        except Exception as error:
            life.not_folded(error)
