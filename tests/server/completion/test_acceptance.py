"""Acceptance of a suggestion, inferred from the document's text or reported by the editor."""

from __future__ import annotations

from pathlib import Path

import pytest

from c2l_lsp.engine.wire import Completion, Timing
from c2l_lsp.server.completion.acceptance import AcceptanceTracker, Suggestion
from c2l_lsp.server.reporting.statistics import Counts, Statistics

COMPLETION = Completion(texts=[], generation=3, prompt_tokens=5, new_tokens=2, ms=Timing(total=9.0), stop="eos")


@pytest.fixture
def statistics(tmp_path: Path) -> Statistics:
    return Statistics(tmp_path / "statistics.json")


@pytest.fixture
def tracker(statistics: Statistics) -> AcceptanceTracker:
    tracker = AcceptanceTracker(statistics)
    tracker.track(Suggestion("u", "x = ", "\nend", ("foo.bar()", "foo[0]"), ("1-0", "1-1"), "engine", COMPLETION))
    return tracker


def test_typing_along_does_not_count_as_acceptance(tracker: AcceptanceTracker, statistics: Statistics) -> None:
    for typed in ("f", "fo", "foo", "foo."):
        tracker.document_changed("u", f"x = {typed}\nend")
    assert statistics.totals.with_adapter == Counts(shown=1, shown_chars=9)


def test_partial_acceptances_become_one_full_acceptance(tracker: AcceptanceTracker, statistics: Statistics) -> None:
    tracker.document_changed("u", "x = foo\nend")
    tracker.document_changed("u", "x = foo.bar\nend")
    counts = statistics.totals.with_adapter
    assert (counts.partly_accepted, counts.accepted, counts.accepted_chars) == (1, 0, 7)
    tracker.document_changed("u", "x = foo.bar()\nend")
    assert (counts.partly_accepted, counts.accepted, counts.accepted_chars) == (0, 1, 9), "counted once"


def test_acceptance_seen_in_the_edit_and_reported_by_command_counts_once(
    tracker: AcceptanceTracker, statistics: Statistics
) -> None:
    tracker.document_changed("u", "x = foo[0]\nend")
    outcome = tracker.record_accepted("1-1")
    assert outcome is not None
    assert outcome.text == "foo[0]"
    assert statistics.totals.with_adapter.accepted == 1
    assert tracker.record_accepted("9-9") is None


def test_keystrokes_sent_in_one_message_do_not_count_as_acceptance(
    tracker: AcceptanceTracker, statistics: Statistics
) -> None:
    tracker.document_changed("u", "x = foo\nend", inserted=[1, 1, 1])  # eglot sends three edits in one message
    tracker.document_changed("u", "x = foo.ba\nend", inserted=[3])  # Neovim sends one edit, which ends inside a word
    counts = statistics.totals.with_adapter
    assert (counts.partly_accepted, counts.accepted_chars) == (0, 0)
    tracker.document_changed("u", "x = foo.bar()\nend", inserted=[3])
    assert (counts.accepted, counts.accepted_chars) == (1, 3)


def test_edit_that_replaces_the_start_of_the_line_counts_as_typing(
    tracker: AcceptanceTracker, statistics: Statistics
) -> None:
    tracker.document_changed("u", "x = f\nend", inserted=[5])
    assert statistics.totals.with_adapter.partly_accepted == 0


def test_typed_characters_are_not_counted_as_accepted(tracker: AcceptanceTracker, statistics: Statistics) -> None:
    for typed in ("f", "fo", "foo", "fo", "foo"):
        tracker.document_changed("u", f"x = {typed}\nend", inserted=[1])
    tracker.record_accepted("1-0")
    assert statistics.totals.with_adapter.accepted_chars == len(".bar()")


def test_partial_acceptance_is_not_inferred_if_the_editor_reports_it(
    tracker: AcceptanceTracker, statistics: Statistics
) -> None:
    tracker.infer_partial = False
    tracker.document_changed("u", "x = foo\nend", inserted=[3])  # several keystrokes, which end at a word boundary
    counts = statistics.totals.with_adapter
    assert (counts.partly_accepted, counts.accepted_chars) == (0, 0)
    tracker.document_changed("u", "x = foo.bar\nend", inserted=[4])
    tracker.record_accepted("1-0", 4, partly=True)
    assert (counts.partly_accepted, counts.accepted, counts.accepted_chars) == (1, 0, 4)
    tracker.record_accepted("1-0", 2)
    tracker.record_accepted("1-0", 2)
    assert (counts.partly_accepted, counts.accepted, counts.accepted_chars) == (0, 1, 6)


def test_other_edit_ends_the_suggestion(tracker: AcceptanceTracker, statistics: Statistics) -> None:
    tracker.document_changed("u", "y = \nend")
    tracker.document_changed("u", "x = foo.bar()\nend")
    assert statistics.totals.with_adapter.accepted == 0
    assert tracker.remainder("u", "x = f", "\nend", adapter=True) is None


def test_bracket_inserted_by_the_editor_keeps_the_suggestion(tracker: AcceptanceTracker) -> None:
    tracker.document_changed("u", "x = foo.bar()\nend")
    rest = tracker.remainder("u", "x = foo.bar(", ")\nend", adapter=True)
    assert rest is not None
    assert rest.texts == (")",)


def test_explanation_contains_no_text(tracker: AcceptanceTracker) -> None:
    explanation = tracker.explain("1-0")
    assert explanation is not None
    assert explanation["generation"] == 3
    assert explanation["ms"] == {"prefill": 0.0, "decode": 0.0, "total": 9.0}
    assert "foo" not in str(explanation)
    assert tracker.explain("2-0") is None


def test_outcomes_of_old_suggestions_are_dropped(tracker: AcceptanceTracker) -> None:
    for number in range(300):
        tracker.track(Suggestion(f"u{number}", "", "", ("t",), (f"n{number}",), "engine", COMPLETION))
    assert tracker.explain("1-0") is None
    assert tracker.explain("n299") is not None
