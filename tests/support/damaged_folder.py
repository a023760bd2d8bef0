"""A folder whose state directory is damaged in one way after the other, and opened by a real engine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from c2l_lsp.config import state_root
from c2l_lsp.engine.adaptation.workspace_adapter import WorkspaceAdapter
from c2l_lsp.engine.session import Session
from c2l_lsp.engine.storage.store import folder_key
from tests.support.engine_driver import question, troubles, wait
from tests.support.foreign_state import Case


class Damaged:
    """A folder whose sound state is damaged again and again, and opened by one engine."""

    def __init__(self, session: Session, folder: Path, sound: Path, *, limit_s: float, adapter: bool) -> None:
        """`sound` is a copy of the folder's state directory, `limit_s` the limit for one case.

        `adapter`: an adapter must be live. A model with random weights can reject every adapter.
        """
        self.session, self.folder, self.sound = session, folder, sound
        self.limit_s, self._needs_adapter = limit_s, adapter
        self._files = len(list(folder.rglob("*.py")))
        self.root = state_root() / folder_key(folder)

    def reset(self) -> None:
        """Close the folder and put the sound state back."""
        self.session.engine.close_folder(str(self.folder))
        for path in (self.root, *self.root.parent.glob(f"{self.root.name}*"), *self.root.parent.glob("elsewhere*")):
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif path.exists():
                shutil.rmtree(path)
        shutil.copytree(self.sound, self.root)
        self.session.events.clear()

    def faults(self, case: Case, *, rebuild: bool = False) -> Iterator[str]:
        """What is not as it must be: the folder is learned and watched, the user is told, the damage is kept aside."""
        self.reset()
        case.damage(self.root)
        if rebuild:  # all embeddings are looked up
            (self.root / "CURRENT").unlink()
        started = time.monotonic()
        info = self.session.open(self.folder, 10 * self.limit_s)
        answer = self.session.complete(question(self.folder))
        seconds = time.monotonic() - started
        if seconds > self.limit_s:
            yield f"it took {seconds:.1f} s"
        workspace = self.session.engine.workspace(str(self.folder))
        if not isinstance(workspace, WorkspaceAdapter) or workspace._reconciling._watcher is None:
            yield "the folder is not watched"
        if (info.state, info.files) != ("ready", self._files) or not self._is_sound(workspace):
            yield f"it is not learned: {info}"
        if answer.generation != info.generation:
            yield "a completion ran under another generation"
        warnings = troubles(self.session)
        if {warning.code for warning in warnings} - {"state"}:
            yield f"unexpected warnings: {warnings}"
        if not case.harmless and not warnings:
            yield "nobody was told"
        if not case.harmless and not list(self.root.glob(case.aside)):
            yield f"nothing was set aside: {sorted(path.name for path in self.root.iterdir())}"
        if not (self.root / "CURRENT").is_file():
            yield "the new state was not saved"

    def _is_sound(self, workspace: Any) -> bool:
        """Whether the state is finite and its tokens are the model's, whoever checked it before."""
        state = workspace._learner.state
        if state is None or (self._needs_adapter and workspace.live.adapter is None):
            return False
        ids = state.positions.ids
        known = int(ids.min()) >= -1 and int(ids.max()) < self.session.engine.model.vocabulary
        return known and all(bool(tensor.isfinite().all()) for tensor in state.tensors.values())

    def change_is_seen(self) -> None:
        """A change of a file leads to a new generation, which is saved."""
        workspace = self.session.engine.workspace(str(self.folder))
        before = workspace.info().generation
        (self.folder / "m0.py").write_text(f"def changed():\n    return {time.monotonic_ns()}\n")
        wait(self.session, self.folder, before + 1)
