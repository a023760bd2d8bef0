"""What the editor shows now and what became of it: typing-through, partial and full acceptance. Pure bookkeeping.

Editors tell a server only a full acceptance; that a suggestion is typed along, or taken word by word, is read off the
document: as long as it equals prefix + a head of the suggestion + suffix, the suggestion is alive. Some editors collect
keystrokes before they tell of them: an accepted word is what one edit brings and what ends where a word ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from c2l_lsp.engine.wire import Completion
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.text import splits_word

_KEPT = 200


@dataclass(frozen=True)
class Suggestion:
    """One result: candidate texts with the ids the editor knows them by, and how they came about."""

    uri: str
    prefix: str
    suffix: str
    texts: tuple[str, ...]
    ids: tuple[str, ...]
    source: str
    answer: Completion
    adapter: bool = True

    @property
    def adapted(self) -> bool:
        """Whether an adapter was in force."""
        return self.answer.generation > 0


@dataclass
class Outcome:
    """What became of one candidate: characters of it that were accepted, and that were typed by hand."""

    given: Suggestion
    text: str
    accepted: int = 0
    typed: int = 0
    partly: bool = False
    wholly: bool = False


@dataclass
class _Alive:
    given: Suggestion
    typed: str = ""


@dataclass
class AcceptanceTracker:
    """The living suggestion of each document, and the last candidates by id.

    `infers` False: the editor says itself what was accepted in part, and edits are not counted.
    """

    statistics: Statistics
    infers: bool = True
    _alive: dict[str, _Alive] = field(default_factory=dict)
    _fates: OrderedDict[str, Outcome] = field(default_factory=OrderedDict)

    def show(self, given: Suggestion) -> None:
        """A result goes to the editor."""
        self._alive[given.uri] = _Alive(given)
        for index, (name, text) in enumerate(zip(given.ids, given.texts, strict=True)):
            self._fates[name] = Outcome(given, text)
            if index == 0:
                self.statistics.shown(given.adapted, len(text))
        while len(self._fates) > _KEPT:
            self._fates.popitem(last=False)

    def forget(self, uri: str) -> None:
        """The document was closed."""
        self._alive.pop(uri, None)

    def typed_through(self, uri: str, prefix: str, suffix: str, adapter: bool) -> Suggestion | None:
        """What is left of the living suggestion here, if the text typed since agrees with it."""
        alive = self._alive.get(uri)
        if alive is None or alive.given.adapter != adapter:
            return None
        typed = _between(alive.given, prefix, suffix)
        if typed is None:
            return None
        given = alive.given
        pairs = zip(given.ids, given.texts, strict=True)
        rest = [(name, text[len(typed) :]) for name, text in pairs if text.startswith(typed) and text != typed]
        if not rest:
            return None
        ids, texts = zip(*rest, strict=True)
        return Suggestion(uri, prefix, suffix, texts, ids, "typed", given.answer, adapter)

    def changed(self, uri: str, text: str, inserted: Sequence[int] = ()) -> None:
        """A document has a new text: follow its suggestion, or let it go.

        `inserted`: how many characters each edit brought, in order; empty if nobody knows, then it was one edit.
        """
        alive = self._alive.get(uri)
        if alive is None:
            return
        given = alive.given
        typed = None
        if len(text) >= len(given.prefix) + len(given.suffix) and text.endswith(given.suffix):
            typed = _between(given, text[: len(text) - len(given.suffix)], given.suffix)
        if typed is None:
            del self._alive[uri]
            return
        gained = len(typed) - len(alive.typed)
        taken = min(gained, sum(size for size in inserted or (gained,) if size > 1))
        if taken > 1 and not self.infers:
            pass  # the editor says what it was
        elif taken > 1 and any(_ends_at_word(text, typed) for text in given.texts):
            self._took(given, typed, taken)
        else:
            self._typed(given, gained, len(typed))
        alive.typed = typed

    def accepted(self, name: str, chars: int = 0, *, partly: bool = False) -> Outcome | None:
        """The editor says it inserted `chars` characters of a candidate (0: all that was left of it)."""
        fate = self._fates.get(name)
        if fate is None or fate.wholly:
            return fate
        first, before = not (partly and fate.partly), fate.partly
        fate.partly, fate.wholly = fate.partly or partly, not partly
        self._count(fate, chars or len(fate.text) - fate.accepted - fate.typed, partly=partly, first=first, rest=before)
        if not partly:
            self._alive.pop(fate.given.uri, None)
        return fate

    def explain(self, name: str) -> dict[str, object] | None:
        """How a candidate came about; without any text."""
        fate = self._fates.get(name)
        if fate is None:
            return None
        answer, ms = fate.given.answer, fate.given.answer.ms
        return {
            "id": name,
            "uri": fate.given.uri,
            "source": fate.given.source,
            "candidates": len(fate.given.ids),
            "chars": len(fate.text),
            "acceptedChars": fate.accepted,
            "generation": answer.generation,
            "promptTokens": answer.prompt_tokens,
            "reusedTokens": answer.reused_tokens,
            "newTokens": answer.new_tokens,
            "ms": {"prefill": ms.prefill, "decode": ms.decode, "total": ms.total},
            "stop": answer.stop,
            "reason": answer.reason,
            "meanLogprob": answer.mean_logprob,
        }

    def _typed(self, given: Suggestion, gained: int, length: int) -> None:
        """By hand: `gained` characters more (negative: fewer) of a suggestion of which `length` are there."""
        for name in given.ids:
            if (fate := self._fates.get(name)) is not None:
                fate.typed = max(0, min(fate.typed + max(0, gained), length))

    def _took(self, given: Suggestion, typed: str, taken: int) -> None:
        for name, text in zip(given.ids, given.texts, strict=True):
            fate = self._fates.get(name)
            if fate is None or fate.wholly or not text.startswith(typed):
                continue
            if typed == text:
                fate.wholly = True
                self._count(fate, taken, partly=False, first=True, rest=fate.partly)
            else:
                first, fate.partly = not fate.partly, True
                self._count(fate, taken, partly=True, first=first, rest=False)
            return

    def _count(self, fate: Outcome, chars: int, *, partly: bool, first: bool, rest: bool) -> None:
        saved = max(0, min(chars, len(fate.text) - fate.accepted))  # taken back and taken again it is saved once
        fate.accepted += saved
        self.statistics.accepted(fate.given.adapted, saved, partly=partly, first=first, rest=rest)


def _ends_at_word(text: str, typed: str) -> bool:
    """Whether `typed` is the beginning of `text` and does not end inside a word."""
    return text.startswith(typed) and not splits_word(typed, text[len(typed) :])


def _between(given: Suggestion, prefix: str, suffix: str) -> str | None:
    """What was typed since, if it is a head of a candidate. An editor may have closed a bracket of its own after it."""
    if not prefix.startswith(given.prefix) or not suffix.endswith(given.suffix):
        return None
    typed = prefix[len(given.prefix) :]
    added = suffix[: len(suffix) - len(given.suffix)]
    for text in given.texts:
        if text.startswith(typed) and (not added or text.rstrip().endswith(added)):
            return typed
    return None
