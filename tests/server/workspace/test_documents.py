"""Documents compared with an independent model, in every encoding, with characters that break `str.splitlines`."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from c2l_lsp.server.workspace.documents import Document, Documents, Edit, split_lines, to_engine_text

ENCODINGS = {"utf-8": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}
UNIT = {"utf-8": 1, "utf-16": 2, "utf-32": 4}
ALPHABETS = {
    "plain": "ab(\n ",
    "controls": "ab\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029",
    "endings": "a\r\n",
    "astral": "aé𝄞👩\u200d🚀\n",
    "combining": "e\u0301ñ\u0303\n漢\r",
    "everything": "aé漢𝄞e\u0301 \t\r\n\x0b\x0c\x1c\x85\u2028",
}


class Model:
    """The editor's view: the whole text, with positions computed from the encoded bytes."""

    def __init__(self, text: str, encoding: str) -> None:
        self.text, self.codec, self.unit = text, ENCODINGS[encoding], UNIT[encoding]

    def starts(self) -> list[int]:
        found, at = [0], 0
        while at < len(self.text):
            ends = self.text[at] == "\n" or (self.text[at] == "\r" and self.text[at : at + 2] != "\r\n")
            found += [at + 1] if ends else []
            at += 1
        return found

    def offset(self, line: int, units: int) -> int:
        starts = self.starts()
        if line >= len(starts):
            return len(self.text)
        at = starts[line]
        while at < len(self.text) and self.text[at] not in "\r\n":
            size = len(self.text[at].encode(self.codec)) // self.unit
            if size > units:
                break
            units -= size
            at += 1
        return at

    def apply(self, edit: Edit) -> None:
        if edit.start is None:
            self.text = edit.text
            return
        start, end = sorted((self.offset(*edit.start), self.offset(*edit.end)))
        self.text = self.text[:start] + edit.text + self.text[end:]


@st.composite
def sequences(draw: st.DrawFn) -> tuple[str, str, list[Edit]]:
    """An encoding, a text and 50 edits, some of them past the end, in the middle of a character, or backwards."""
    alphabet = st.text(st.sampled_from(ALPHABETS[draw(st.sampled_from(sorted(ALPHABETS)))]), max_size=12)
    start = "".join(draw(st.lists(alphabet, max_size=8)))
    random = draw(st.randoms(use_true_random=False))
    chunks = draw(st.lists(alphabet, min_size=4, max_size=8))
    edits = []
    for _ in range(50):
        if random.random() < 0.03:
            edits.append(Edit(random.choice(chunks)))
            continue
        line, units = random.randrange(8), random.randrange(14)
        down, right = random.choice([(0, random.randrange(4)), (random.randrange(3), random.randrange(14) - units)])
        edits.append(Edit(random.choice(chunks), (line, units), (line + down, max(0, units + right))))
    return draw(st.sampled_from(sorted(ENCODINGS))), start, edits


def compare_with_model(encoding: str, text: str, edits: list[Edit]) -> None:
    document, model = Document.from_text("file:///x", "python", 0, text, encoding), Model(text, encoding)
    for number, edit in enumerate(edits, 1):
        document.apply([edit], number)
        model.apply(edit)
        assert document.text == model.text
        assert document.lines == split_lines(model.text)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(sequences())
def test_edits_match_the_model(case: tuple[str, str, list[Edit]]) -> None:
    compare_with_model(*case)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(sequences())
def test_edits_match_the_model_at_length(case: tuple[str, str, list[Edit]]) -> None:
    compare_with_model(*case)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("a", ["a"]),
        ("a\n", ["a\n", ""]),
        ("a\rb\r\nc\n\rd", ["a\r", "b\r\n", "c\n", "\r", "d"]),
        ("a\x0cb\x0bc\x1cd\x85e\u2028f\u2029", ["a\x0cb\x0bc\x1cd\x85e\u2028f\u2029"]),
    ],
)
def test_lines_end_where_lsp_specifies(text: str, lines: list[str]) -> None:
    assert split_lines(text) == lines
    assert "".join(split_lines(text)) == text


@pytest.mark.parametrize(("encoding", "units"), [("utf-8", 5), ("utf-16", 3), ("utf-32", 2)])
def test_columns_in_each_encoding(encoding: str, units: int) -> None:
    document = Document.from_text("file:///x", "python", 0, "a𝄞b", encoding)
    assert document.locate(0, units) == (0, 2)
    assert document.to_units(0, 2) == units
    assert document.locate(0, 99) == (0, 3)
    assert document.locate(7, 0) == (0, 3)
    assert document.split_at(0, 2) == ("a𝄞", "b")


def test_position_inside_a_character_is_moved_to_its_start() -> None:
    assert Document.from_text("u", "", 0, "a𝄞b", "utf-16").locate(0, 2) == (0, 1)
    assert Document.from_text("u", "", 0, "é", "utf-8").locate(0, 1) == (0, 0)


def test_surrogates_from_two_edits_are_joined() -> None:
    document = Document.from_text("u", "", 0, "ab", "utf-16")
    document.apply([Edit("\ud834", (0, 1), (0, 1))], 1)
    document.apply([Edit("\udd1e", (0, 2), (0, 2))], 2)
    assert document.text == "a𝄞b"


def test_engine_text_can_be_encoded() -> None:
    assert to_engine_text("a\r\nb\rc\ud834") == "a\nb\nc\ufffd"


def test_line_ending_is_that_of_the_first_line() -> None:
    assert Document.from_text("u", "", 0, "a\r\nb\n").eol == "\r\n"
    assert Document.from_text("u", "", 0, "a").eol == "\n"


def test_edit_of_an_unknown_document_is_dropped() -> None:
    documents = Documents()
    assert documents.change("file:///never", 1, [Edit("x")]) is None
    assert documents.close("file:///never") is None
    documents.open("file:///a", "python", 1, "x")
    assert [document.uri for document in documents] == ["file:///a"]
