"""Chunking: no text is lost, and an edit changes few chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from c2l_lsp.model.hypernet.chunking import MAX_CHARS, key, split


@given(st.text(alphabet="ab \n\t\r\f\x85def:()#\U0001f600", max_size=400))
def test_chunks_join_to_the_text(text):
    assert "".join(split(text)) == text


def test_chunks_of_real_files_are_bounded(sources):
    for text in sources:
        parts = split(text)
        assert "".join(parts) == text
        assert all(len(part) <= 2 * MAX_CHARS for part in parts)


def test_inserted_function_changes_few_chunks(sources):
    text = "\n\n".join(sources[:40])
    before = split(text)
    cut = text.index("\n\n\ndef ", len(text) // 3) + 2
    after = split(text[:cut] + "\ndef fresh(a):\n    return a + 1\n\n" + text[cut:])
    changed = len({key(c) for c in after} - {key(c) for c in before})
    assert len(before) > 40
    assert changed <= 6


def test_changed_line_changes_one_chunk(sources):
    text = max(sources[:40], key=len)
    middle = text.index("\n    ", len(text) // 2)
    after = split(text[:middle] + " # touched" + text[middle:])
    assert len({key(c) for c in after} - {key(c) for c in split(text)}) <= 2


def test_keys_depend_on_the_rule():
    assert key("a", "one") != key("a", "two")
    assert key("a", "one") == key("a", "one")
