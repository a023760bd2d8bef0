"""Offers the places of followed edits: notices edits, searches in a thread, and answers requests. Uses no LSP types.

An offer ends when no place is left, when the edit is taken back, when its document is closed, and after a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from c2l_lsp.config import Settings
from c2l_lsp.server.followup import search
from c2l_lsp.server.followup.bursts import Burst, word_change
from c2l_lsp.server.followup.recognition import FollowedEdit, recognise, stands
from c2l_lsp.server.followup.references import Place
from c2l_lsp.server.followup.search import Found, Origin
from c2l_lsp.server.followup.syntax import parse
from c2l_lsp.server.workspace.documents import Document, Documents
from c2l_lsp.server.workspace.folders import Folders

_P = ParamSpec("_P")
_T = TypeVar("_T")
SETTLE_S = 0.25
_LIFETIME_S = 900.0
_MOST_OFFERS = 4
_MOST_LINES = 20_000
_LANGUAGE = "python"


@dataclass(frozen=True)
class Change:
    """One place of an offer in the editor's positions. `version`: of the open document; None for a file on disk."""

    uri: str
    version: int | None
    line: int
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Offered:
    """What a code action does: an edit's description and its places, those of the asking document first."""

    title: str
    label: str
    changes: list[Change]


@dataclass
class _Offer:
    """An edit with its places. `versions`: the open documents' versions, `stamps`: the files', at the search."""

    uri: str
    edit: FollowedEdit
    origin: Origin
    found: Found
    made_at: float
    versions: dict[str, int]
    stamps: dict[str, tuple[int, int] | None]

    @property
    def count(self) -> int:
        return sum(map(len, self.found.places.values()))


class FollowUps:
    """The follow-up edits of one session. `on`: whether they may be offered in a folder at all.

    `shows_replacements`: whether the editor shows inline completions that replace the text of their range.
    """

    def __init__(
        self, documents: Documents, folders: Folders, settings: Callable[[str], Settings], on: Callable[[str], bool]
    ) -> None:
        self._documents, self._folders, self._settings, self._on = documents, folders, settings, on
        self.shows_replacements = False
        self._bursts: dict[str, Burst] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._offers: list[_Offer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._worker: ThreadPoolExecutor | None = None

    # --- the editor's documents ---

    def opened(self, document: Document) -> None:
        """Handle an opened document, or one whose earlier changes cannot be compared with."""
        lines = list(document.lines)
        self._bursts[document.uri] = Burst(lines, lines)
        if self._offers:
            self._schedule(document)

    def edited(self, document: Document) -> None:
        """Handle a change of a document."""
        burst = self._bursts.get(document.uri)
        if burst is None or document.language != _LANGUAGE or len(document.lines) > _MOST_LINES or not document.in_step:
            self.opened(document)
            return
        burst.feed(list(document.lines))
        if burst.changed or self._offers:
            self._schedule(document)

    def closed(self, uri: str) -> None:
        """Forget a document, and the offers of edits in it."""
        self._bursts.pop(uri, None)
        timer = self._timers.pop(uri, None)
        if timer is not None:
            timer.cancel()
        self._offers = [offer for offer in self._offers if offer.uri != uri]

    def stop(self) -> None:
        """End all work. A running search ends by itself within seconds."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)

    # --- requests ---

    def inline(self, document: Document, position: tuple[int, int]) -> Change | None:
        """The edit of a place on the line of a position, in a form that the editor shows; None if there is none.

        Ghost text is inserted text: an editor that shows nothing else gets only a place whose new text contains the old
        one around the cursor. Its range is then empty, at the cursor.
        """
        line, cursor = document.locate(*position)
        for offer in self._current(document):
            near = [place for place in self._places(offer, document) if place.line == line and place.text]
            place = min(near, key=lambda one: max(one.start - cursor, cursor - one.end), default=None)
            change = (place.start, place.end, place.text) if place is not None else None
            if place is not None and not self.shows_replacements:
                change = _insertion(place, cursor)
            if change is not None:
                units = document.to_units(line, change[0]), document.to_units(line, change[1])
                return Change(document.uri, document.version, line, *units, change[2])
        return None

    async def action(self, uri: str, first: int, last: int) -> Offered | None:
        """All places of the offer that concerns lines first..last of a document; None if there is none."""
        document = self._documents.get(uri)
        if document is None:
            return None
        for offer in self._current(document):
            if any(first <= place.line <= last for place in self._places(offer, document)):
                await self._refresh(offer)
                return self._offered(offer, document) if offer.count else None
        return None

    # --- noticing edits ---

    def _schedule(self, document: Document) -> None:
        timer = self._timers.pop(document.uri, None)
        if timer is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[document.uri] = loop.call_later(SETTLE_S, self._settled, document)

    def _settled(self, document: Document) -> None:
        self._timers.pop(document.uri, None)
        task = asyncio.ensure_future(self._examine(document))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _examine(self, document: Document) -> None:
        """Look for a followed edit in a document that is quiet, and bring the offers in it up to date."""
        burst = self._bursts.get(document.uri)
        folder = self._folders.resolve(document.uri).folder
        if not self._on(folder):
            self._offers = [offer for offer in self._offers if offer.origin.folder != folder]
            return
        if burst is None or document.language != _LANGUAGE:
            return
        base, now, version = burst.base, burst.now, document.version
        edit = await self._run(_recognise, base, now) if burst.changed else None
        if edit is not None and document.version == version:
            await self._search(document, edit)
        if document.version == version:
            for offer in list(self._offers):
                await self._refresh(offer)

    async def _search(self, document: Document, edit: FollowedEdit) -> None:
        place = self._folders.resolve(document.uri)
        origin = Origin(place.path or document.uri, place.folder, self._settings(place.folder).files)
        if any((offer.uri, offer.edit) == (document.uri, edit) for offer in self._offers):
            return
        opened = dict(self._open_near(origin))
        versions = {path: one.version for path, one in opened.items()}
        texts = {path: list(one.lines) for path, one in opened.items()}
        found = await self._run(search.search, edit, origin, texts)
        stamps = {path: search.stamp(origin, path) for path in found.places if path not in versions}
        earlier = [
            offer for offer in self._offers
            if (offer.uri, offer.edit.target, offer.edit.function) != (document.uri, edit.target, edit.function)
        ]  # fmt: skip
        offer = _Offer(document.uri, edit, origin, found, time.monotonic(), versions, stamps)
        self._offers = [offer, *earlier][:_MOST_OFFERS] if offer.count else earlier

    # --- keeping offers right ---

    def _current(self, document: Document) -> Iterator[_Offer]:
        """The offers that are alive in the folder of a document, newest first."""
        folder = self._folders.resolve(document.uri).folder
        if not document.in_step or not self._on(folder):
            return
        since = time.monotonic() - _LIFETIME_S
        self._offers = [offer for offer in self._offers if offer.made_at > since and offer.count]
        yield from [offer for offer in self._offers if offer.origin.folder == folder]

    def _places(self, offer: _Offer, document: Document) -> list[Place]:
        """The places in a document; none while it has changed since the search."""
        path = self._path(document)
        return offer.found.places.get(path, []) if offer.versions.get(path) == document.version else []

    async def _refresh(self, offer: _Offer) -> None:
        """Search again in the files and documents that changed, and drop the offer if its edit was taken back."""
        opened = dict(self._open_near(offer.origin))
        for path, document in opened.items():
            if offer.versions.get(path) != document.version:
                await self._search_again(offer, path, document)
        for path in [path for path in offer.found.places if path not in opened]:
            offer.versions.pop(path, None)
            stamp = search.stamp(offer.origin, path)
            if offer.stamps.get(path) != stamp:
                await self._search_again(offer, path, None)
                offer.stamps[path] = stamp
        if not offer.count:
            self._offers = [one for one in self._offers if one is not offer]

    async def _search_again(self, offer: _Offer, path: str, document: Document | None) -> None:
        lines = list(document.lines) if document is not None else None
        version = document.version if document is not None else 0
        places = await self._run(_places_again, offer.edit, offer.origin, offer.found, path, lines)
        if places is None:
            offer.found.places.clear()
            return
        offer.found.places.pop(path, None)
        if places:
            offer.found.places[path] = places
        if document is not None:
            offer.versions[path] = version

    def _offered(self, offer: _Offer, document: Document) -> Offered:
        own = self._path(document)
        opened = dict(self._open_near(offer.origin))
        changes: list[Change] = []
        for path in sorted(offer.found.places, key=lambda path: (path != own, path)):
            found = opened.get(path)
            uri = found.uri if found else (Path(offer.origin.folder) / path).as_uri()
            for place in offer.found.places[path]:
                line = Document(uri, _LANGUAGE, 0, [place.line_text], self._documents.encoding)
                units = line.to_units(0, place.start), line.to_units(0, place.end)
                changes.append(Change(uri, found.version if found else None, place.line, *units, place.text))
        number = len(changes)
        edit = offer.edit
        label = f"{edit.old} → {edit.new}" if edit.new else f"remove {edit.old}="
        return Offered(f"Apply the same edit here ({number} place{'s' * (number != 1)}): {label}", label, changes)

    def _open_near(self, origin: Origin) -> Iterator[tuple[str, Document]]:
        """The open Python documents of the origin's folder by path; outside of every folder the origin alone."""
        for document in self._documents:
            path = self._path(document)
            near = self._folders.resolve(document.uri).folder == origin.folder and (
                origin.folder or path == origin.path
            )
            if near and document.language == _LANGUAGE and document.in_step and not document.notebook:
                yield path, document

    def _path(self, document: Document) -> str:
        return self._folders.resolve(document.uri).path or document.uri

    async def _run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """The result of a function, called in a thread of its own, one after the other."""
        self._worker = self._worker or ThreadPoolExecutor(1, "c2l-followup")
        return await asyncio.get_running_loop().run_in_executor(self._worker, partial(function, *args, **kwargs))


def _insertion(place: Place, cursor: int) -> tuple[int, int, str] | None:
    """A place's edit as an insertion at the cursor: both ends of it and the text; None if it is none."""
    old = place.line_text[place.start : place.end]
    before, after = old[: max(0, cursor - place.start)], old[max(0, cursor - place.start) :]
    inside = place.start <= cursor <= place.end and len(place.text) > len(old)
    if not inside or not place.text.startswith(before) or not place.text.endswith(after):
        return None
    return cursor, cursor, place.text[len(before) : len(place.text) - len(after)]


def _recognise(base: list[str], now: list[str]) -> FollowedEdit | None:
    before, after = parse(base), parse(now)
    return recognise(before, after, word_change(base, now)) if before is not None and after is not None else None


def _places_again(
    edit: FollowedEdit, origin: Origin, found: Found, path: str, lines: list[str] | None
) -> list[Place] | None:
    """The places in a file; None if it shows that the edit was taken back."""
    if path == origin.path and lines is not None:
        module = parse(lines)
        if module is not None and not stands(module, edit):
            return None
    return search.search_again(edit, origin, found.known, path, lines)
