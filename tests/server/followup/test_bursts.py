"""What counts as one burst of edits: one word or one `def` line, whatever the keys in between."""

from __future__ import annotations

import pytest

from c2l_lsp.server.followup.bursts import Burst, WordChange, word_change
from c2l_lsp.server.workspace.documents import split_lines

TEXT = "def total(order):\n    return order\n\n\nprint(total(3))\n"


def burst(*texts: str) -> Burst:
    first = split_lines(texts[0])
    found = Burst(first, first)
    for text in texts[1:]:
        found.feed(split_lines(text))
    return found


def changed(found: Burst) -> WordChange | None:
    return word_change(found.base, found.now)


def test_a_word_retyped_key_by_key_is_one_change() -> None:
    steps = ["total", "tota", "tot", "to", "t", "", "p", "pr", "pri", "price"]
    found = burst(*(TEXT.replace("def total", f"def {step}") for step in steps))
    assert changed(found) == WordChange(0, 4, "total", "price")


def test_a_new_word_is_no_change_of_the_word_it_began_as() -> None:
    found = burst(*(TEXT + "name"[:end] for end in range(5)))
    assert changed(found) == WordChange(5, 0, "", "name")


def test_an_edit_elsewhere_begins_a_new_burst() -> None:
    renamed = TEXT.replace("def total", "def price")
    found = burst(TEXT, renamed, renamed.replace("print(total", "print(totals"))
    assert changed(found) == WordChange(4, 6, "total", "totals")


def test_two_words_on_one_line_are_two_bursts() -> None:
    found = burst("total = order\n", "price = order\n", "price = orders\n")
    assert changed(found) == WordChange(0, 8, "order", "orders")


def test_a_second_word_of_a_def_line_is_a_burst_of_its_own() -> None:
    first = TEXT.replace("def total", "def price")
    found = burst(TEXT, first, first.replace("(order)", "()"), first.replace("(order)", "(orders)"))
    assert changed(found) == WordChange(0, 10, "order", "orders")


def test_a_change_of_several_places_at_once_begins_anew() -> None:
    """A file that was reloaded with its old text: the same rename was not noticed again."""
    renamed = TEXT.replace("def total", "def price")
    found = burst(TEXT, renamed, renamed.replace("print(total", "print(price"), TEXT, renamed)
    assert changed(found) == WordChange(0, 4, "total", "price")


def test_undoing_leaves_no_change() -> None:
    found = burst(TEXT, TEXT.replace("def total", "def price"), TEXT)
    assert not found.changed


def test_all_keys_in_a_def_line_are_one_burst() -> None:
    lines = "def send(\n    text,\n    urgent=False,\n):\n    pass\n"
    steps = [lines.replace("    urgent=False,\n", step) for step in ("    urgent=,\n", "    \n", "")]
    assert "".join(burst(lines, *steps).base) == lines


def test_the_body_is_no_part_of_the_def_line() -> None:
    found = burst(TEXT, TEXT.replace("return order", "return order + 1"))
    assert not found.changed


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("x = total\r\ny = 1\r\n", "x = price\r\ny = 1\r\n", WordChange(0, 4, "total", "price")),
        ("größe = 'ä'\n", "breite = 'ä'\n", WordChange(0, 0, "größe", "breite")),
        ("a = total\n", "a = total + price\n", None),
        ("a\nb\n", "a\n", None),
        ("same\n", "same\n", None),
        ("x" * 6000, "x" * 6001, None),
    ],
)
def test_word_change(before: str, after: str, expected: WordChange | None) -> None:
    assert word_change(split_lines(before), split_lines(after)) == expected
