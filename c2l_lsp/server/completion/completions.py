"""A completion request from the editor's position to an answer: place, gate, query. Still without LSP types."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from c2l_lsp.config import Settings
from c2l_lsp.server.completion import eligibility
from c2l_lsp.server.completion.items import Selected, Target, covered, target
from c2l_lsp.server.completion.suggest import Answer, Query, Suggester
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.server.transport.engine_client import EngineClient, Life
from c2l_lsp.server.transport.protocol import Reason
from c2l_lsp.server.workspace.documents import Document, Documents
from c2l_lsp.server.workspace.folders import Folders
from c2l_lsp.text import word_at_end


@dataclass(frozen=True)
class Insertion:
    """One candidate as an edit of one line, in the editor's units. `word`, from `word_start` on, stands before it."""

    id: str
    text: str
    line: int
    start: int
    end: int
    word: str = ""
    word_start: int = 0


@dataclass
class Completions:
    """Answers the editor's requests.

    `last_reasons`: why the last request of a document that was answered got nothing (None: it got something), for the
    question "why do I see nothing?". A request that is under way or was overtaken says nothing about that.
    """

    documents: Documents
    folders: Folders
    switches: eligibility.Switches
    settings: Callable[[str], Settings]
    engine: EngineClient
    suggester: Suggester
    statistics: Statistics
    last_reasons: dict[str, Reason | None] = field(default_factory=dict)

    async def at(
        self, uri: str, position: tuple[int, int], invoked: bool, selected: Selected | None = None
    ) -> list[Insertion] | None:
        """What to insert at a position, best first. None: a newer request overtook this one."""
        document = self.documents.get(uri)
        if document is None:
            self.statistics.withheld(Reason.NO_DOCUMENT.value)
            return []
        goal = target(document, position, selected)
        reason = self._closed(document, goal, invoked)
        if reason is not None:
            self.last_reasons[uri] = reason
            self.statistics.withheld(reason.value)
            return []
        version = document.version
        answer = await self.suggester.suggest(self._query(document, goal, invoked))
        if answer is None or document.version != version:
            return None  # the place is not there any more; the editor asks again
        self.last_reasons[uri] = answer.reason
        return _insertions(document, goal, answer)

    def forget(self, uri: str) -> None:
        """The document was closed."""
        self.suggester.forget(uri)
        self.last_reasons.pop(uri, None)

    def reason_for(self, uri: str) -> Reason | None:
        """Why a document gets no automatic completions, as far as that does not depend on the place."""
        document = self.documents.get(uri)
        if document is None:
            return Reason.NO_DOCUMENT
        settings = self.settings(self.folders.place(uri).folder)
        reason = eligibility.closed_for_document(settings, self.switches, uri, document.language, time.time())
        if reason is None and self.last_reasons.get(uri) is Reason.LEFT_OUT:
            return Reason.LEFT_OUT  # which holds for the whole file, and only the engine knows
        if reason is not None or self.engine.life is Life.READY:
            return reason
        return Reason.FAILED if self.engine.life is Life.FAILED else Reason.STARTING

    def _closed(self, document: Document, goal: Target, invoked: bool) -> Reason | None:
        settings = self.settings(self.folders.place(document.uri).folder)
        before, after = document.line_around(goal.line, goal.cursor)
        spot = eligibility.Spot(document.uri, document.language, before, after, invoked)
        reason = eligibility.closed(settings, self.switches, spot, time.time())
        return reason or (Reason.FAILED if self.engine.life is Life.FAILED else None)

    def _query(self, document: Document, goal: Target, invoked: bool) -> Query:
        place = self.folders.place(document.uri)
        settings = self.settings(place.folder)
        return Query(
            uri=document.uri,
            language=document.language,
            folder=place.folder,
            path=place.path,
            prefix=document.around(goal.line, goal.cursor)[0],
            suffix=document.around(goal.line, max(goal.cursor, goal.end))[1],
            eol=document.eol,
            invoked=invoked,
            adapter=settings.adapter.enable and place.folder not in self.engine.disabled,
            settings=settings,
            must_start=goal.must_start,
        )


def _insertions(document: Document, goal: Target, answer: Answer) -> list[Insertion]:
    if answer.given is None:
        return []
    rest = document.line_around(goal.line, goal.cursor)[1]
    made = []
    word = word_at_end(document.lines[goal.line][: goal.start])
    word_start = document.units(goal.line, goal.start - len(word))
    for name, text in zip(answer.given.ids, answer.given.texts, strict=True):
        if not text.startswith(goal.must_start):
            continue
        end = goal.end if goal.fixed else goal.cursor + covered(text, rest)
        start, stop = document.units(goal.line, goal.start), document.units(goal.line, end)
        made.append(Insertion(name, goal.head + text, goal.line, start, stop, word, word_start))
    return made
