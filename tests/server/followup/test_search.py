"""Which files of a folder have places: by imports, by attributes that only one class has, within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from c2l_lsp import config
from c2l_lsp.server.followup import search
from c2l_lsp.server.followup.recognition import FollowedEdit, Target
from c2l_lsp.server.workspace.documents import split_lines

PRICE = FollowedEdit(Target("module", (), "total"), "price")
FILL = FollowedEdit(Target("class", ("Box",), "pack_it"), "fill_it")
SHOP = "def price():\n    pass\n\n\ntotal()\n"
BOX = "class Box:\n    def fill_it(self):\n        self.pack_it()\n"


def found(folder: Path, edit: FollowedEdit, origin: str, text: str, **files: str) -> dict[str, list[int]]:
    """The lines of the places by file. `files`: by path without the suffix."""
    for name, content in {origin.removesuffix(".py"): text, **files}.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    done = search.search(edit, search.Origin(origin, str(folder), config.Files()), {origin: split_lines(text)})
    return {path: [place.line for place in places] for path, places in done.places.items()}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("from pkg.shop import total\ntotal()\n", [0, 1]),
        ("from pkg.shop import total as old\nold()\n", [0]),
        ("from pkg.shop import *\ntotal()\n", [1]),
        ("import pkg.shop\npkg.shop.total()\n", [1]),
        ("import pkg.shop as s\ns.total()\n", [1]),
        ("from pkg import shop\nshop.total()\ntotal()\n", [1]),
        ("from pkg.shop import total\ndef run(total):\n    total()\n", [0]),
        ("from pkg.shops import total\ntotal()\n", []),
        ("from other.shop import total\ntotal()\n", []),
        ("def total():\n    pass\ntotal()\n", []),
        ("total()\n", []),
        ("from pkg.shop import (\n", []),
    ],
)
def test_a_function_is_found_where_it_is_imported(tmp_path: Path, text: str, lines: list[int]) -> None:
    places = found(tmp_path, PRICE, "pkg/shop.py", SHOP, user=text)
    assert places.pop("pkg/shop.py") == [4]
    assert places == ({"user.py": lines} if lines else {})


def test_relative_imports_and_modules_that_pass_a_name_on_are_followed(tmp_path: Path) -> None:
    places = found(
        tmp_path, PRICE, "src/pkg/shop.py", SHOP,
        user="from pkg import total\ntotal()\n",
        **{
            "src/pkg/__init__": "from .shop import total\n",
            "src/pkg/near": "from . import shop\nshop.total()\n",
            "src/pkg/sub/deep": "from ..shop import total\n",
            "src/other/shop": "from .shop import total\n",
        },
    )  # fmt: skip
    assert places == {
        "src/pkg/shop.py": [4], "src/pkg/__init__.py": [0], "src/pkg/near.py": [1], "src/pkg/sub/deep.py": [0],
        "user.py": [0, 1],
    }  # fmt: skip


USER = "from box import Box\n\n\ndef run(one: Box):\n    one.pack_it()\n"


def test_a_method_that_one_class_has_is_found_in_files_that_name_the_class(tmp_path: Path) -> None:
    places = found(tmp_path, FILL, "box.py", BOX, user=USER, other="def run(one):\n    one.pack_it()\n")
    assert places == {"box.py": [2], "user.py": [4]}


@pytest.mark.parametrize(
    "other",
    [
        "class Bag:\n    def pack_it(self):\n        pass\n",
        "one.pack_it = 1\n",
        "def pack_it():\n    pass\n",
        "pack_it(\n",
    ],
)
def test_a_method_that_something_else_may_have_is_found_in_its_class_alone(tmp_path: Path, other: str) -> None:
    assert found(tmp_path, FILL, "box.py", BOX, user=USER, other=other) == {"box.py": [2]}


def test_a_subclass_is_found_in_any_case(tmp_path: Path) -> None:
    heir = "from box import Box\n\n\nclass Bag(Box):\n    def run(self):\n        self.pack_it()\n"
    other = "class Sack:\n    def pack_it(self):\n        self.pack_it()\n"
    assert found(tmp_path, FILL, "box.py", BOX, heir=heir, other=other) == {"box.py": [2], "heir.py": [5]}


def test_a_search_that_runs_out_of_time_finds_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "LONGEST_S", -1.0)
    assert found(tmp_path, PRICE, "shop.py", SHOP, user="from shop import total\n") == {"shop.py": [4]}


def test_the_number_of_places_is_bounded(tmp_path: Path) -> None:
    text = SHOP + "total()\n" * 300
    places = found(tmp_path, PRICE, "shop.py", text, user="from shop import total\n")
    assert sum(map(len, places.values())) == search.MOST_PLACES
