"""Which edits are followed, and which places of the same file need them. `<…>` marks the places in a text."""

from __future__ import annotations

import re

import pytest

from c2l_lsp.server.followup.bursts import word_change
from c2l_lsp.server.followup.recognition import FollowedEdit, recognise, stands
from c2l_lsp.server.followup.references import Surroundings, find_places, module_parts
from c2l_lsp.server.followup.syntax import Module, parse
from c2l_lsp.server.workspace.documents import split_lines


def module(text: str) -> Module:
    found = parse(split_lines(text))
    assert found is not None
    return found


def recognised(before: str, after: str) -> FollowedEdit | None:
    change = word_change(split_lines(before), split_lines(after))
    return recognise(module(before), module(after), change)


def marked(text: str, edit: FollowedEdit, *, unique: bool = False) -> str:
    """The text with its places marked."""
    known = Surroundings({module_parts("shop.py")}, unique)
    lines = split_lines(text)
    for place in reversed(find_places(module(text), edit, "shop.py", known, origin=True)):
        line = lines[place.line]
        lines[place.line] = f"{line[: place.start]}<{line[place.start : place.end]}>{line[place.end :]}"
    return "".join(lines)


def check(before: str, old: str, new: str, expected: str, *, unique: bool = False) -> None:
    """Replace the first `old` by `new`; `expected` is the text after it with its places marked."""
    after = before.replace(old, new, 1)
    edit = recognised(before, after)
    assert edit is not None
    assert re.sub("[<>]", "", expected) == after
    assert marked(after, edit, unique=unique) == expected


def test_a_renamed_function_is_followed_where_it_is_called_and_not_in_strings_and_comments() -> None:
    before = 'def total(order):\n    """total"""\n    return order.total  # total\n\n\nx = total(f"total {total(1)}")\n'
    expected = (
        'def price(order):\n    """total"""\n    return order.total  # total\n\n\nx = <total>(f"total {total(1)}")\n'
    )
    after = before.replace("total", "price", 1)
    edit = recognised(before, after)
    assert edit is not None
    found = marked(after, edit)
    assert found in (expected, expected.replace("{total(1)}", "{<total>(1)}"))  # from Python 3.12 on


def test_a_name_that_a_function_binds_itself_is_another_one() -> None:
    check(
        "def total():\n    pass\n\ndef run(total):\n    total()\n\ndef go():\n    total()\n",
        "total", "price",
        "def price():\n    pass\n\ndef run(total):\n    total()\n\ndef go():\n    <total>()\n",
    )  # fmt: skip


def test_a_local_variable_is_followed_in_its_function_alone() -> None:
    check(
        "def run(rows):\n    count = 0\n    for row in rows:\n        count += row\n    return count\n"
        "\ncount = 3\n",
        "count", "total",
        "def run(rows):\n    total = 0\n    for row in rows:\n        <count> += row\n    return <count>\n"
        "\ncount = 3\n",
    )  # fmt: skip


def test_positions_count_code_points_after_wide_characters_and_windows_line_endings() -> None:
    check(
        "größe = 1\r\nx = '😀', größe\r\n", "größe", "breite", "breite = 1\r\nx = '😀', <größe>\r\n",
    )  # fmt: skip


def test_an_attribute_of_self_is_followed_in_its_class_alone() -> None:
    check(
        "class Box:\n    def __init__(self):\n        self.wide = 1\n\n    def area(self):\n        return self.wide\n"
        "\n\nclass Bag:\n    def area(self):\n        return self.wide\n",
        "wide", "width",
        "class Box:\n    def __init__(self):\n        self.width = 1\n\n    def area(self):\n        return "
        "self.<wide>\n\n\nclass Bag:\n    def area(self):\n        return self.wide\n",
    )  # fmt: skip


METHOD = "import zip_lib\n\n\nclass Box:\n    def pack(self):\n        pass\n\n\ndef run(box):\n    box.{0}pack{1}()\n"


def test_a_method_of_another_object_is_followed_only_if_no_other_class_has_one() -> None:
    before = METHOD.format("", "") + "    zip_lib.pack()\n"
    check(before, "def pack", "def fill", before.replace("def pack", "def fill"))
    unique = METHOD.format("<", ">").replace("def pack", "def fill") + "    zip_lib.pack()\n"
    check(before, "def pack", "def fill", unique, unique=True)


SEND = "def send(text, urgent=False):\n    return text, urgent\n\n\nsend('a', urgent=True)\nsent(urgent=True)\n"


def test_a_renamed_parameter_is_followed_in_the_body_and_in_keyword_arguments() -> None:
    check(
        SEND, "urgent", "quick",
        "def send(text, quick=False):\n    return text, <urgent>\n\n\nsend('a', <urgent>=True)\nsent(urgent=True)\n",
    )  # fmt: skip


def test_a_renamed_parameter_of_a_constructor_is_followed_where_the_class_is_called() -> None:
    check(
        "class Box:\n    def __init__(self, wide):\n        self.w = wide\n\n\nBox(wide=3)\n",
        "wide", "width",
        "class Box:\n    def __init__(self, width):\n        self.w = <wide>\n\n\nBox(<wide>=3)\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("call", "marked_call"),
    [
        ("send('a', urgent=True)", "send('a'<, urgent=True>)"),
        ("send(urgent=True, text='a')", "send(<urgent=True, >text='a')"),
        ("send(urgent=True)", "send(<urgent=True>)"),
        ("send('a', urgent=(1,\n  2))", "send('a', urgent=(1,\n  2))"),
        ("send('a', True)", "send('a', True)"),
    ],
)
def test_a_removed_parameter_is_followed_in_keyword_arguments(call: str, marked_call: str) -> None:
    head = "def send(text, urgent=False):\n    pass\n\n\n"
    after = head.replace(", urgent=False", "")
    edit = recognised(head + call + "\n", after + call + "\n")
    assert edit is not None
    assert marked(after + call + "\n", edit) == after + marked_call + "\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("total = 1\nprint(total)\n", "total = 1\nprint(price)\n"),  # where it is used
        ("price = 2\ntotal = 1\nprint(total)\n", "price = 2\nprice = 1\nprint(total)\n"),  # to an existing name
        ("total = 1\ntotal = 2\nprint(total)\n", "total = 1\nprice = 2\nprint(total)\n"),  # a later assignment
        ("no = 1\nprint(no)\n", "yes = 1\nprint(no)\n"),  # too short
        ("if x:\n    pass\n", "while x:\n    pass\n"),  # keywords
        (
            "def run():\n    pass\ndef run():\n    pass\n",
            "def go():\n    pass\ndef run():\n    pass\n",
        ),  # still defined
        ("x.total = 1\nprint(x.total)\n", "x.price = 1\nprint(x.total)\n"),  # of an unknown object
        ("def send(text): pass\nsend(text=1)\n", "def send(text, urgent): pass\nsend(text=1)\n"),  # an added one
        ("def send(text, **more): pass\nsend(text=1)\n", "def send(**more): pass\nsend(text=1)\n"),  # still accepted
        ("def __init__(self): pass\n", "def __call__(self): pass\n"),  # a name with a meaning of its own
        ("print('total')\n", "print('price')\n"),
        ("# total\n", "# price\n"),
    ],
)
def test_what_is_no_certain_rename_is_not_followed(before: str, after: str) -> None:
    assert recognised(before, after) is None


def test_an_edit_stands_until_it_is_taken_back_or_the_old_name_is_defined_again() -> None:
    before = "def total():\n    pass\n\ntotal()\n"
    after = before.replace("def total", "def price")
    edit = recognised(before, after)
    assert edit is not None
    assert stands(module(after), edit)
    assert not stands(module(before), edit)
    assert not stands(module(after + "def total():\n    pass\n"), edit)
    assert not stands(module(after + "def price():\n    pass\n" + "class total: pass\n"), edit)


@pytest.mark.parametrize("text", ["def f(:\n", "\0", "x = '\\d'\n" * 2 + "(" * 500, "\ufeffx = 1\n", "x" * 600_000])
def test_what_is_no_python_has_no_names(text: str) -> None:
    assert parse(split_lines(text)) is None


def test_an_invalid_escape_is_no_warning() -> None:
    assert parse(["x = '\\d'\n", ""]) is not None
