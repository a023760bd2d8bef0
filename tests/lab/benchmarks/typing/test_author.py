"""What the simulated author accepts, and what that counts."""

from __future__ import annotations

import pytest
from c2l_lab.benchmarks.typing.author import Author, Ghost


def author(text: str, after: str = "\n") -> Author:
    return Author("", after, text)


@pytest.mark.parametrize(
    ("text", "ghost", "left", "kind"),
    [
        ("foo(a)\nb", "foo(a)", "\nb", "whole"),
        ("foo(a)\nb", "foo(a)\nc = 1", "\nb", "lines"),
        ("foo.bar", "foo.baz()", ".bar", "words"),
        ("foo", "bar", "foo", ""),
        ("foo", "f", "foo", ""),  # not worth a key
    ],
)
def test_what_agrees_with_the_text_is_accepted(text: str, ghost: str, left: str, kind: str) -> None:
    one = author(text)
    one.show(Ghost(ghost))
    assert one.accept() == bool(kind)
    assert one.text == left
    assert [name for name in ("whole", "lines", "words") if getattr(one.counts, name)] == [kind] * bool(kind)
    assert one.counts.pressed == bool(kind)


def test_shown_and_wrong_characters_count_once() -> None:
    one = author("foo = 1")
    one.show(Ghost("foo = 22"))
    one.show(Ghost("foo = 22"))
    assert (one.counts.shown, one.counts.shown_characters, one.counts.wrong) == (1, 8, 2)
    one.type("f")
    one.show(Ghost("oo = 22"))  # the rest of what is shown
    assert one.counts.shown == 1
    assert one.counts.flicker == 0
    one.show(Ghost("oo"))
    assert (one.counts.shown, one.counts.flicker) == (2, 1)


def test_a_ghost_text_that_the_author_types_over_is_gone_without_flicker() -> None:
    one = author("ab")
    one.show(Ghost("xy"))
    one.type("a")
    one.show(None)
    assert (one.ghost, one.counts.flicker) == (None, 0)


def test_the_editor_closes_brackets_and_the_author_types_over_them() -> None:
    one = author("(a)b")
    one.type("(")
    assert (one.before, one.after, one.closed) == ("(", ")\n", ")")
    one.show(Ghost("a"))
    one.type("a")
    one.type(")")
    assert (one.before, one.after, one.closed, one.text) == ("(a)", "\n", "", "b")


def test_a_text_may_replace_only_brackets_that_the_editor_added() -> None:
    one = author("(\n  a,\n)b")
    one.type("(")
    one.show(Ghost("\n  a,\n)", 1))
    assert one.accept()
    assert (one.before, one.after, one.text) == ("(\n  a,\n)", "\n", "b")
    other = author("ab)", ")\n")
    other.show(Ghost("ab)", 1))
    other.accept()
    assert other.after == ")\n"
