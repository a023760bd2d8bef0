"""Completion requests: find document and target, check eligibility, query the suggester. Uses no LSP types."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from c2l_lsp.config import Settings
from c2l_lsp.server.completion import eligibility
from c2l_lsp.server.completion.items import Selected, Target, find_target
from c2l_lsp.server.completion.suggest import Answer, Query, Suggester
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.server.transport.engine_client import EngineClient, EngineState
from c2l_lsp.server.transport.protocol import Reason
from c2l_lsp.server.workspace.documents import Document, Documents
from c2l_lsp.server.workspace.folders import Folders
from c2l_lsp.server.workspace.notebooks import Notebooks
from c2l_lsp.text import word_at_end


@dataclass(frozen=True)
class Insertion:
    """One candidate as an edit of one line, in the editor's code units.

    `word` is the part of a word before it, which starts at `word_start`.
    """

    id: str
    text: str
    line: int
    start: int
    end: int
    word: str = ""
    word_start: int = 0


@dataclass
class Completions:
    """Answers the editor's completion requests.

    `last_reasons`: why the last answered request of a document got no completion; None if it got one. Running and
    superseded requests do not change it.
    """

    documents: Documents
    notebooks: Notebooks
    folders: Folders
    switches: eligibility.Switches
    settings: Callable[[str], Settings]
    engine: EngineClient
    suggester: Suggester
    statistics: Statistics
    last_reasons: dict[str, Reason | None] = field(default_factory=dict)
    _resting: tuple[str, tuple[int, int]] | None = None

    async def at(
        self, uri: str, position: tuple[int, int], invoked: bool, selected: Selected | None = None
    ) -> list[Insertion] | None:
        """The candidates at a position, best first; None if a newer request superseded this one."""
        document = self.documents.get(uri)
        if document is None:
            self.statistics.record_no_completion(Reason.NO_DOCUMENT.value)
            return []
        target = find_target(document, position, selected)
        reason = self._ineligibility(document, target, invoked)
        if reason is not None:
            self.last_reasons[uri] = reason
            self.statistics.record_no_completion(reason.value)
            return []
        version = document.version
        answer = await self.suggester.suggest(self._query(document, target, invoked))
        if answer is None or document.version != version or self.documents.get(uri) is not document:
            return None  # the document changed meanwhile; the editor asks again
        self.last_reasons[uri] = answer.reason
        return _insertions(document, target, answer)

    def read_ahead(self, uri: str, position: tuple[int, int]) -> None:
        """Prepare a completion at a position where the cursor rests, if the document gets completions at all."""
        # Read again once only: what stands there may be what ended an engine.
        self._resting = None if self.engine.is_ready else (uri, position)
        document = self.documents.get(uri)
        if document is None or self.reason_for(uri) not in (None, Reason.STARTING, Reason.MANUAL):
            return
        self.suggester.read_ahead(self._query(document, find_target(document, position, None), invoked=False))

    def engine_ready(self) -> None:
        """Prepare a completion where the cursor rested before the engine was ready."""
        resting, self._resting = self._resting, None
        if resting is not None:
            self.read_ahead(*resting)

    def forget(self, uri: str) -> None:
        """Drop everything about a closed document."""
        self.suggester.forget(uri)
        if self._resting is not None and self._resting[0] == uri:
            self._resting = None
        self.last_reasons.pop(uri, None)

    def reason_for(self, uri: str) -> Reason | None:
        """Why a document gets no automatic completions at any position; None if it gets some."""
        document = self.documents.get(uri)
        if document is None:
            return Reason.NO_DOCUMENT
        if not document.in_step:
            return Reason.OUT_OF_STEP
        settings = self.settings(self.folders.resolve(uri).folder)
        reason = eligibility.document_ineligibility(settings, self.switches, uri, document.language, time.time())
        if reason is None and self.last_reasons.get(uri) is Reason.LEFT_OUT:
            return Reason.LEFT_OUT  # true for the whole file, and known to the engine only
        if reason is not None or self.engine.state is EngineState.READY:
            return reason
        return Reason.FAILED if self.engine.state is EngineState.FAILED else Reason.STARTING

    def _ineligibility(self, document: Document, target: Target, invoked: bool) -> Reason | None:
        settings = self.settings(self.folders.resolve(document.uri).folder)
        if not document.in_step:
            return Reason.OUT_OF_STEP
        before, after = document.split_line_at(target.line, target.cursor)
        cursor = eligibility.CursorContext(document.uri, document.language, before, after, invoked)
        reason = eligibility.ineligibility(settings, self.switches, cursor, time.time())
        return reason or (Reason.FAILED if self.engine.state is EngineState.FAILED else None)

    def _query(self, document: Document, target: Target, invoked: bool) -> Query:
        location = self.folders.resolve(document.uri)
        settings = self.settings(location.folder)
        earlier_cells, later_cells = self.notebooks.around(document)
        return Query(
            uri=document.uri,
            language=document.language,
            folder=location.folder,
            path=location.path,
            prefix=document.split_at(target.line, target.cursor)[0],
            suffix=document.split_at(target.line, max(target.cursor, target.end))[1],
            eol=document.eol,
            invoked=invoked,
            adapter=settings.adapter.enable and location.folder not in self.engine.disabled,
            settings=settings,
            must_start=target.must_start,
            earlier_cells=earlier_cells,
            later_cells=later_cells,
        )


def _insertions(document: Document, target: Target, answer: Answer) -> list[Insertion]:
    if answer.suggestion is None:
        return []
    suggestion = answer.suggestion
    insertions = []
    word = word_at_end(document.lines[target.line][: target.start])
    word_start = document.to_units(target.line, target.start - len(word))
    for name, text, replaced in zip(suggestion.ids, suggestion.texts, suggestion.replaced, strict=True):
        if not text.startswith(target.must_start):
            continue
        end = target.end if target.fixed else target.cursor + replaced
        start, stop = document.to_units(target.line, target.start), document.to_units(target.line, end)
        insertions.append(Insertion(name, target.head + text, target.line, start, stop, word, word_start))
    return insertions
