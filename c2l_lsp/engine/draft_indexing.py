"""Keeps the draft index of every open workspace up to date, one file at a time, behind all other work."""

from __future__ import annotations

from collections.abc import Callable

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

    def open(self, folder: str) -> None:
        """Start an empty index for a folder."""
        self._indexes[folder] = DraftIndex(self._encode)

    def close(self, folder: str) -> None:
        """Drop a folder's index."""
        self._indexes.pop(folder, None)
        self._indexed.pop(folder, None)

    def of(self, folder: str) -> DraftIndex | None:
        """Return a folder's index, None if the folder is not open."""
        return self._indexes.get(folder)

    def outdated(self, folder: str, workspace: Workspace) -> bool:
        """Whether the folder's files changed since they were indexed."""
        return self._indexed.get(folder, 0) != workspace.live.generation

    def step(self, folder: str, workspace: Workspace) -> None:
        """Index one file whose text changed, or note that the index is complete."""
        if isinstance(workspace, WorkspaceAdapter) and self._index_next(self._indexes[folder], workspace):
            return
        self._indexed[folder] = workspace.live.generation

    def _index_next(self, index: DraftIndex, workspace: WorkspaceAdapter) -> bool:
        digests = workspace.text_digests()
        try:
            path = index.next_stale(digests.items())
            if path is not None:
                index.put(path, digests[path], workspace.text(path))
        except Exception as error:  # of this folder alone: it is reported, and its index stays as it is
            workspace.fail(error)
            return False
        return path is not None
