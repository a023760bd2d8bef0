"""What became of a suggestion, read off the document."""

from __future__ import annotations

from pathlib import Path

import pytest

from c2l_lsp.engine.wire import Completion, Timing
from c2l_lsp.server.completion.acceptance import AcceptanceTracker, Suggestion
from c2l_lsp.server.reporting.statistics import Counts, Statistics

ANSWER = Completion(texts=[], generation=3, prompt_tokens=5, new_tokens=2, ms=Timing(total=9.0), stop="eos")


@pytest.fixture
def statistics(tmp_path: Path) -> Statistics:
    return Statistics(tmp_path / "statistics.json")


@pytest.fixture
def shown(statistics: Statistics) -> AcceptanceTracker:
    made = AcceptanceTracker(statistics)
    made.show(Suggestion("u", "x = ", "\nend", ("foo.bar()", "foo[0]"), ("1-0", "1-1"), "engine", ANSWER))
    return made


def test_typing_is_no_acceptance(shown: AcceptanceTracker, statistics: Statistics) -> None:
    for typed in ("f", "fo", "foo", "foo."):
        shown.changed("u", f"x = {typed}\nend")
    assert statistics.totals.with_adapter == Counts(shown=1, shown_chars=9)


def test_words_then_the_rest(shown: AcceptanceTracker, statistics: Statistics) -> None:
    shown.changed("u", "x = foo\nend")
    shown.changed("u", "x = foo.bar\nend")
    counts = statistics.totals.with_adapter
    assert (counts.partly_accepted, counts.accepted, counts.accepted_chars) == (1, 0, 7)
    shown.changed("u", "x = foo.bar()\nend")
    assert (counts.partly_accepted, counts.accepted, counts.accepted_chars) == (0, 1, 9), "one completion, one fate"


def test_the_command_and_the_edit_count_once(shown: AcceptanceTracker, statistics: Statistics) -> None:
    shown.changed("u", "x = foo[0]\nend")
    fate = shown.accepted("1-1")
    assert fate is not None
    assert fate.text == "foo[0]"
    assert statistics.totals.with_adapter.accepted == 1
    assert shown.accepted("9-9") is None


def test_keystrokes_that_arrive_together_are_no_acceptance(shown: AcceptanceTracker, statistics: Statistics) -> None:
    shown.changed("u", "x = foo\nend", inserted=[1, 1, 1])  # eglot: three edits in one message
    shown.changed("u", "x = foo.ba\nend", inserted=[3])  # Neovim: one edit, which ends inside a word
    counts = statistics.totals.with_adapter
    assert (counts.partly_accepted, counts.accepted_chars) == (0, 0)
    shown.changed("u", "x = foo.bar()\nend", inserted=[3])
    assert (counts.accepted, counts.accepted_chars) == (1, 3)


def test_a_replaced_beginning_of_a_line_is_a_keystroke(shown: AcceptanceTracker, statistics: Statistics) -> None:
    shown.changed("u", "x = f\nend", inserted=[5])
    assert statistics.totals.with_adapter.partly_accepted == 0


def test_what_was_typed_by_hand_is_not_saved(shown: AcceptanceTracker, statistics: Statistics) -> None:
    for typed in ("f", "fo", "foo", "fo", "foo"):
        shown.changed("u", f"x = {typed}\nend", inserted=[1])
    shown.accepted("1-0")
    assert statistics.totals.with_adapter.accepted_chars == len(".bar()")


def test_an_editor_that_reports_parts_is_believed(shown: AcceptanceTracker, statistics: Statistics) -> None:
    shown.infers = False
    shown.changed("u", "x = foo\nend", inserted=[3])  # collected keystrokes, and a whole word
    counts = statistics.totals.with_adapter
    assert (counts.partly_accepted, counts.accepted_chars) == (0, 0)
    shown.changed("u", "x = foo.bar\nend", inserted=[4])
    shown.accepted("1-0", 4, partly=True)
    assert (counts.partly_accepted, counts.accepted, counts.accepted_chars) == (1, 0, 4)
    shown.accepted("1-0", 2)
    shown.accepted("1-0", 2)
    assert (counts.partly_accepted, counts.accepted, counts.accepted_chars) == (0, 1, 6)


def test_any_other_edit_ends_it(shown: AcceptanceTracker, statistics: Statistics) -> None:
    shown.changed("u", "y = \nend")
    shown.changed("u", "x = foo.bar()\nend")
    assert statistics.totals.with_adapter.accepted == 0
    assert shown.typed_through("u", "x = f", "\nend", adapter=True) is None


def test_a_bracket_the_editor_closed_itself(shown: AcceptanceTracker) -> None:
    shown.changed("u", "x = foo.bar()\nend")
    rest = shown.typed_through("u", "x = foo.bar(", ")\nend", adapter=True)
    assert rest is not None
    assert rest.texts == (")",)


def test_explaining_without_text(shown: AcceptanceTracker) -> None:
    found = shown.explain("1-0")
    assert found is not None
    assert found["generation"] == 3
    assert found["ms"] == {"prefill": 0.0, "decode": 0.0, "total": 9.0}
    assert "foo" not in str(found)
    assert shown.explain("2-0") is None


def test_only_the_last_ones_are_remembered(shown: AcceptanceTracker) -> None:
    for number in range(300):
        shown.show(Suggestion(f"u{number}", "", "", ("t",), (f"n{number}",), "engine", ANSWER))
    assert shown.explain("1-0") is None
    assert shown.explain("n299") is not None
