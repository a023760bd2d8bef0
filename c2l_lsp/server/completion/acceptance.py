"""Tracks what happens to a suggestion: typed along, accepted in part, accepted in full. Only counts; shows nothing.

LSP reports full acceptance only. The rest is inferred from the document: while its text equals prefix + a head of the
suggestion + suffix, the suggestion is still active. Some editors send several keystrokes in one message, so text counts
as accepted only if one edit inserted it and it ends at a word boundary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from c2l_lsp.engine.wire import Completion
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.text import splits_word

_MAX_OUTCOMES = 200


@dataclass(frozen=True)
class Suggestion:
    """The candidate texts of one result, their ids in the editor, and how they were computed.

    `source` is engine, cache or typed. `adapter`: whether the request allowed an adapter. `replaced`: for each text the
    number of characters after the cursor that it replaces; () stands for none.
    """

    uri: str
    prefix: str
    suffix: str
    texts: tuple[str, ...]
    ids: tuple[str, ...]
    source: str
    completion: Completion
    adapter: bool = True
    replaced: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Write out what () stands for."""
        if not self.replaced:
            object.__setattr__(self, "replaced", (0,) * len(self.texts))

    @property
    def adapted(self) -> bool:
        """Whether an adapter was in effect."""
        return self.completion.generation > 0


@dataclass
class Outcome:
    """The outcome of one candidate: how many of its characters were accepted, and how many were typed."""

    suggestion: Suggestion
    text: str
    accepted_chars: int = 0
    typed_chars: int = 0
    partly_accepted: bool = False
    fully_accepted: bool = False


@dataclass
class _ActiveSuggestion:
    suggestion: Suggestion
    typed: str = ""


@dataclass
class AcceptanceTracker:
    """The active suggestion of each document, and the outcomes of the last candidates by id.

    `infer_partial` False: the editor reports partial acceptance itself, so it is not inferred from edits.
    """

    statistics: Statistics
    infer_partial: bool = True
    _active: dict[str, _ActiveSuggestion] = field(default_factory=dict)
    _outcomes: OrderedDict[str, Outcome] = field(default_factory=OrderedDict)

    def track(self, suggestion: Suggestion) -> None:
        """Start tracking a suggestion that is sent to the editor; it replaces the document's previous one."""
        self._active[suggestion.uri] = _ActiveSuggestion(suggestion)
        for index, (name, text) in enumerate(zip(suggestion.ids, suggestion.texts, strict=True)):
            self._outcomes[name] = Outcome(suggestion, text)
            if index == 0:
                self.statistics.record_shown(suggestion.adapted, len(text))
        while len(self._outcomes) > _MAX_OUTCOMES:
            self._outcomes.popitem(last=False)

    def forget(self, uri: str) -> None:
        """Stop tracking the suggestion of a closed document."""
        self._active.pop(uri, None)

    def remainder(self, uri: str, prefix: str, suffix: str, adapter: bool) -> Suggestion | None:
        """The rest of the active suggestion if the text typed since is the start of it; None otherwise."""
        active = self._active.get(uri)
        if active is None or active.suggestion.adapter != adapter:
            return None
        suggestion = active.suggestion
        typed = _typed_since(suggestion, prefix, suffix)
        if typed is None:
            return None
        auto_closed = suffix[: len(suffix) - len(suggestion.suffix)]
        rows = zip(suggestion.ids, suggestion.texts, suggestion.replaced, strict=True)
        rest = [
            (name, text[len(typed) :], replaced + len(auto_closed))
            for name, text, replaced in rows
            if text != typed and _continues(text, typed, auto_closed)
        ]
        if not rest:
            return None
        ids, texts, replaces = zip(*rest, strict=True)
        return Suggestion(uri, prefix, suffix, texts, ids, "typed", suggestion.completion, adapter, replaces)

    def document_changed(self, uri: str, text: str, inserted: Sequence[int] = ()) -> None:
        """Update the document's suggestion from its new text; it ends if the text no longer matches.

        `inserted`: number of characters that each edit inserted, in order. Empty if unknown: it counts as one edit.
        """
        active = self._active.get(uri)
        if active is None:
            return
        suggestion = active.suggestion
        typed = None
        if len(text) >= len(suggestion.prefix) + len(suggestion.suffix) and text.endswith(suggestion.suffix):
            typed = _typed_since(suggestion, text[: len(text) - len(suggestion.suffix)], suggestion.suffix)
        if typed is None:
            del self._active[uri]
            return
        added = len(typed) - len(active.typed)
        inserted_at_once = min(added, sum(size for size in inserted or (added,) if size > 1))
        if inserted_at_once > 1 and not self.infer_partial:
            pass  # the editor reports it
        elif inserted_at_once > 1 and any(_ends_at_word_boundary(text, typed) for text in suggestion.texts):
            self._add_accepted(suggestion, typed, inserted_at_once)
        else:
            self._add_typed(suggestion, added, len(typed))
        active.typed = typed

    def record_accepted(self, name: str, chars: int = 0, *, partly: bool = False) -> Outcome | None:
        """Record that the editor inserted `chars` characters of a candidate (0: the whole rest).

        Returns the outcome of the candidate; None if its id is unknown.
        """
        outcome = self._outcomes.get(name)
        if outcome is None or outcome.fully_accepted:
            return outcome
        first, before = not (partly and outcome.partly_accepted), outcome.partly_accepted
        outcome.partly_accepted, outcome.fully_accepted = outcome.partly_accepted or partly, not partly
        chars = chars or len(outcome.text) - outcome.accepted_chars - outcome.typed_chars
        self._count(outcome, chars, partly=partly, first=first, rest=before)
        if not partly:
            self._active.pop(outcome.suggestion.uri, None)
        return outcome

    def explain(self, name: str) -> dict[str, object] | None:
        """How a candidate was computed, as plain JSON values without any text; None if its id is unknown."""
        outcome = self._outcomes.get(name)
        if outcome is None:
            return None
        completion, ms = outcome.suggestion.completion, outcome.suggestion.completion.ms
        return {
            "id": name,
            "uri": outcome.suggestion.uri,
            "source": outcome.suggestion.source,
            "candidates": len(outcome.suggestion.ids),
            "chars": len(outcome.text),
            "acceptedChars": outcome.accepted_chars,
            "generation": completion.generation,
            "promptTokens": completion.prompt_tokens,
            "reusedTokens": completion.reused_tokens,
            "newTokens": completion.new_tokens,
            "ms": {"prefill": ms.prefill, "decode": ms.decode, "total": ms.total},
            "stop": completion.stop,
            "reason": completion.reason,
            "meanLogprob": completion.mean_logprob,
        }

    def _add_typed(self, suggestion: Suggestion, added: int, length: int) -> None:
        """Count `added` typed characters (negative: deleted); `length` characters of the suggestion are there now."""
        for name in suggestion.ids:
            if (outcome := self._outcomes.get(name)) is not None:
                outcome.typed_chars = max(0, min(outcome.typed_chars + max(0, added), length))

    def _add_accepted(self, suggestion: Suggestion, typed: str, chars: int) -> None:
        for name, text in zip(suggestion.ids, suggestion.texts, strict=True):
            outcome = self._outcomes.get(name)
            if outcome is None or outcome.fully_accepted or not text.startswith(typed):
                continue
            if typed == text:
                outcome.fully_accepted = True
                self._count(outcome, chars, partly=False, first=True, rest=outcome.partly_accepted)
            else:
                first, outcome.partly_accepted = not outcome.partly_accepted, True
                self._count(outcome, chars, partly=True, first=first, rest=False)
            return

    def _count(self, outcome: Outcome, chars: int, *, partly: bool, first: bool, rest: bool) -> None:
        # Text that is accepted, undone and accepted again counts once.
        new_chars = max(0, min(chars, len(outcome.text) - outcome.accepted_chars))
        outcome.accepted_chars += new_chars
        self.statistics.record_accepted(outcome.suggestion.adapted, new_chars, partly=partly, first=first, rest=rest)


def _ends_at_word_boundary(text: str, typed: str) -> bool:
    """Whether `typed` is the start of `text` and does not end inside a word."""
    return text.startswith(typed) and not splits_word(typed, text[len(typed) :])


def _typed_since(suggestion: Suggestion, prefix: str, suffix: str) -> str | None:
    """The text typed since the suggestion if it is the start of a candidate; None otherwise.

    Closing brackets that the editor inserted after it are accepted if the candidate ends with them.
    """
    if not prefix.startswith(suggestion.prefix) or not suffix.endswith(suggestion.suffix):
        return None
    typed = prefix[len(suggestion.prefix) :]
    auto_closed = suffix[: len(suffix) - len(suggestion.suffix)]
    return typed if any(_continues(text, typed, auto_closed) for text in suggestion.texts) else None


def _continues(text: str, typed: str, auto_closed: str) -> bool:
    """Whether a candidate begins with the typed text and ends with the brackets that the editor inserted after it."""
    return text.startswith(typed) and (not auto_closed or text[len(typed) :].rstrip().endswith(auto_closed))
