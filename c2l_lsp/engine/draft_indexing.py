"""Keeps the draft index of every open workspace up to date, one file at a time, behind all other work."""

from __future__ import annotations

from collections.abc import Callable

from c2l_lsp.cooperative import Slices
from c2l_lsp.engine.adaptation.workspace_adapter import WorkspaceAdapter
from c2l_lsp.engine.completion.draft_index import DraftIndex
from c2l_lsp.engine.workspaces import Workspace


class DraftIndexing:
    """The draft indexes by folder, and the adapter generation whose files each of them contains."""

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        """`encode` turns a text into token ids."""
        self._encode = encode
        self._indexes: dict[str, DraftIndex] = {}
        self._indexed: dict[str, int] = {}
        self._reading: dict[str, Slices[None]] = {}

    def open(self, folder: str) -> None:
        """Start an empty index for a folder."""
        self._indexes[folder] = DraftIndex(self._encode)

    def close(self, folder: str) -> None:
        """Drop a folder's index."""
        self._indexes.pop(folder, None)
        self._indexed.pop(folder, None)
        self._reading.pop(folder, None)

    def of(self, folder: str) -> DraftIndex | None:
        """Return a folder's index, None if the folder is not open."""
        return self._indexes.get(folder)

    def outdated(self, folder: str, workspace: Workspace) -> bool:
        """Whether the folder's files changed since they were indexed."""
        return self._indexed.get(folder, 0) != workspace.live.generation

    def step(self, folder: str, workspace: Workspace) -> None:
        """Index one file whose text changed, or a slice of it, or note that the index is complete."""
        if not isinstance(workspace, WorkspaceAdapter):
            self._indexed[folder] = workspace.live.generation
            return
        try:
            if folder not in self._reading:
                self._start(folder, workspace)
            elif _is_done(self._reading[folder]):
                del self._reading[folder]
        except Exception as error:  # of this folder alone: it is reported, and its index stays as it is
            self._reading.pop(folder, None)
            self._indexed[folder] = workspace.live.generation
            workspace.fail(error)

    def _start(self, folder: str, workspace: WorkspaceAdapter) -> None:
        index, digests = self._indexes[folder], workspace.text_digests()
        path = index.next_stale(digests.items())
        if path is None:
            self._indexed[folder] = workspace.live.generation
        else:
            self._reading[folder] = _put(index, workspace, path, digests[path])


def _put(index: DraftIndex, workspace: WorkspaceAdapter, path: str, digest: bytes) -> Slices[None]:
    index.put(path, digest, (yield from workspace.text_in_slices(path)))


def _is_done(work: Slices[None]) -> bool:
    """Run one slice; true at the end."""
    try:
        next(work)
    except StopIteration:
        return True
    return False
