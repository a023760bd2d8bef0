"""The gallery shows places and answers as text."""

from __future__ import annotations

from pathlib import Path

from c2l_lab.benchmarks.perf.typing import Key, Place
from c2l_lab.benchmarks.typing import gallery

from tests.support.editor import fake_command


def test_a_place_is_shown_with_its_answers(tmp_path: Path) -> None:
    place = Place("a.py", "x = 1\ny = ", "\nz = 3\n", tuple(Key(0.1, letter) for letter in "foo(x)"))
    command = fake_command()
    text = gallery.gallery(command, tmp_path, "c2l-nano", [place])
    assert "## 1. a.py:2" in text
    assert f"{gallery.CURSOR}" in text
    assert "z = 3" in text
    assert "- unasked: `" in text and "- requested: `" in text
    assert [(one.path, at) for one, at in gallery.spots([place])] == [
        (one.path, at) for one, at in gallery.spots([place])
    ]
