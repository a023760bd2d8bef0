"""A completion ends before a secret."""

from __future__ import annotations

import pytest

from c2l_lsp.engine.completion.secret_guard import SHORTEST_PART, without_secrets

SECRET = "q7XbN2vKz8RtYw3L" + "mPc5HsDf9JgA1bC2"


@pytest.mark.parametrize("text", ["return total\n", "items.append(item)", 'name = "warehouse"\n', "SECRET_KEY_FILE"])
def test_ordinary_text_stays(text: str) -> None:
    assert without_secrets(text, "def main():\n    ", "\n") == text


@pytest.mark.parametrize(
    ("prefix", "text", "expected"),
    [
        ('SECRET_KEY = "', f'{SECRET}"\nDEBUG = False', ""),
        ("SECRET_KEY = ", f'"{SECRET}"\n', ""),
        ("", f'DEBUG = False\nSECRET_KEY = "{SECRET}"\n', "DEBUG = False\nSECRET_KEY"),
        (f'SECRET_KEY = "{SECRET[:12]}', f'{SECRET[12:]}"', ""),
        (f'SECRET_KEY = "{SECRET[:12]}', SECRET[12:20], ""),
        ('PASSWORD = "', 'Winter2024!"\n', ""),
        ('URL = "postgres://app:', f'{SECRET[:10]}@db/shop"', ""),
        ("TOKEN = (\n    ", f'"{SECRET[:16]}"\n    "{SECRET[16:]}"\n)', ""),
    ],
)
def test_text_ends_before_a_secret(prefix: str, text: str, expected: str) -> None:
    assert without_secrets(text, prefix, "\n") == expected


@pytest.mark.parametrize("place", ["before", "after"])
def test_part_of_a_secret_of_the_open_file_is_not_repeated(place: str) -> None:
    shown = f'SECRET_KEY = "{SECRET}"\n'
    prefix, suffix = (shown + "x = '", "\n") if place == "before" else ("x = '", "\n" + shown)
    part = SECRET[4 : 4 + SHORTEST_PART]
    assert without_secrets(f"{part}'", prefix, suffix) == ""
    assert without_secrets(f"ab' + '{part}'", prefix, suffix) == "ab"
    assert without_secrets(f"{part[:-1]}'", prefix, suffix) == f"{part[:-1]}'"
