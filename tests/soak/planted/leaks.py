"""Leaks of canaries, one for each detector of the bar `secrets`, planted into this process."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any


def open_filter(patch: Callable[[Any, str, Any], None]) -> None:
    """Every file is embedded: ignore files, names and content are not checked."""
    from c2l_lsp.repo.filter import rules
    from c2l_lsp.repo.filter.ignore import IgnoreRules

    patch(IgnoreRules, "_is_ignored", lambda *_, **__: False)
    patch(rules, "is_secret_file", lambda name: False)
    patch(rules, "is_ignored_directory", lambda path: path.startswith((".git", "node_modules")))
    unscreened(patch)


def unscreened(patch: Callable[[Any, str, Any], None]) -> None:
    """The screen for secrets has lost one of its parts: strings that look random are taken for text."""
    from c2l_lsp.repo.filter import content, randomness

    patch(randomness, "_runs", lambda *_: [])
    patch(content, "_known", OrderedDict())  # what was found in these texts before the fault was planted


def peeks(patch: Callable[[Any, str, Any], None]) -> None:
    """A file is opened before the rules are checked, by its name relative to an open directory."""
    from c2l_lsp.repo.filter.files import FileFilter

    real: Any = FileFilter.includes

    def includes(self: FileFilter, path: str) -> bool:
        *parents, name = path.split("/")
        with contextlib.suppress(OSError):
            below = os.open(self.root.joinpath(*parents), os.O_RDONLY)
            with contextlib.suppress(OSError):
                os.close(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=below))
            os.close(below)
        return bool(real(self, path))

    patch(FileFilter, "includes", includes)


def remembers(patch: Callable[[Any, str, Any], None]) -> None:
    """The token ids of excluded buffers are stored beside the state."""
    import torch

    from c2l_lsp.engine.adaptation.workspace_adapter import WorkspaceAdapter
    from c2l_lsp.engine.storage.store import FolderStore

    texts: list[list[int]] = []
    set_buffer: Any = WorkspaceAdapter.set_buffer
    saved: Any = FolderStore.save

    def buffer(self: WorkspaceAdapter, path: str, text: str | None) -> None:
        texts.append(self._environment.model.tokenizer(text or "", add_special_tokens=False)["input_ids"])
        set_buffer(self, path, text)
        self.regenerate()

    def save(self: FolderStore, about: Any, state: Any, extra: Any) -> None:
        ids = torch.tensor([token for ids in texts for token in ids], dtype=torch.int32)
        saved(self, about, state, {**extra, "ids": ids})

    patch(WorkspaceAdapter, "set_buffer", buffer)
    patch(FolderStore, "save", save)


def prompts(patch: Callable[[Any, str, Any], None]) -> None:
    """Completions are allowed in every file."""
    from c2l_lsp.engine.adaptation.workspace_adapter import WorkspaceAdapter

    patch(WorkspaceAdapter, "permits", lambda self, path: True)


def quotes(patch: Callable[[Any, str, Any], None]) -> None:
    """A completion reply contains the prompt text."""
    import msgspec

    from c2l_lsp.engine.engine import Engine

    real: Any = Engine.complete

    def complete(self: Engine, asked: Any, cancelled: Any) -> Any:
        return msgspec.structs.replace(real(self, asked, cancelled), reason=f"nothing after {asked.prefix}")

    patch(Engine, "complete", complete)


def rereads(patch: Callable[[Any, str, Any], None]) -> None:
    """A buffer's text is read again after it was checked."""
    from dataclasses import replace

    from c2l_lsp.engine.adaptation.learner import Learner

    real: Any = Learner._plan

    def plan(self: Learner, network: Any, reconciled: Any) -> Any:
        return real(self, network, replace(reconciled, buffers=self._overlay))

    patch(Learner, "_plan", plan)


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Plant the leak of this name within the block; other names plant nothing."""
    undo: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, attribute: str, value: Any) -> None:
        undo.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, value)

    leak = {f.__name__: f for f in (open_filter, unscreened, peeks, remembers, prompts, quotes, rereads)}.get(name)
    if leak is not None:
        leak(patch)
    try:
        yield
    finally:
        for owner, attribute, value in reversed(undo):
            setattr(owner, attribute, value)
