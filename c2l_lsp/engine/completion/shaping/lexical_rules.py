"""What a string and a comment look like in each language, as far as brackets and quotes need it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache


@dataclass(frozen=True)
class Delimiter:
    """A string or comment.

    `opening`: regular expression of its start. `body`: a compiled expression that matches from there to the end; it has
    a group, which is set if the end is there. `closing`: its end. `multiline`: it may hold line breaks. `comment`: it
    is no string.
    """

    opening: str
    body: re.Pattern[str]
    closing: str = ""
    multiline: bool = False
    comment: bool = False


@dataclass(frozen=True)
class LexicalRules:
    """The delimiters of a language and the expression that finds the next delimiter or bracket.

    `reset` names a group of that expression: at such a place no bracket is open, whatever stands before it.
    """

    delimiters: tuple[Delimiter, ...]
    token: re.Pattern[str]


def _string(quote: str, *, opening: str = "", multiline: bool = False, escape: bool = True) -> Delimiter:
    """A string between two quotes of one or three characters."""
    one = re.escape(quote[0])
    stop = one + ("" if multiline else r"\n") + (r"\\" if escape else "")
    more = [r"\\."] if escape else []
    if len(quote) > 1:
        more.append(f"{one}(?!{re.escape(quote[1:])})")
    again = f"(?:(?:{'|'.join(more)})[^{stop}]*)*" if more else ""
    body = re.compile(f"[^{stop}]*{again}({re.escape(quote)})?", re.DOTALL)
    return Delimiter(opening or re.escape(quote), body, quote, multiline)


def _until(opening: str, closing: str, *, comment: bool = True) -> Delimiter:
    """Text up to a fixed end, over line breaks, without escapes."""
    first, others = re.escape(closing[0]), re.escape(closing[1:])
    body = re.compile(f"[^{first}]*(?:{first}(?!{others})[^{first}]*)*({re.escape(closing)})?", re.DOTALL)
    return Delimiter(re.escape(opening), body, closing, multiline=True, comment=comment)


def _line(opening: str) -> Delimiter:
    return Delimiter(opening, re.compile(r"[^\n]*(?:(?=\n)())?"), comment=True)


def _whole(pattern: str) -> Delimiter:
    """A literal that counts only if it is complete."""
    return Delimiter(f"(?:{pattern})", re.compile("()"), "the literal itself")


_DOUBLE, _SINGLE = _string('"'), _string("'")
_C_COMMENTS = (_until("/*", "*/"), _line("//"))
_CHARACTER = _whole(r"'(?:\\[^'\n]+|[^'\\\n])'")
_BACKTICK = _string("`", multiline=True)
_TEXT_BLOCK = _string('"""', multiline=True)
_HASH = _line(r"(?<![^\s;])#")
_REGEX = _whole(
    r"(?<![\w)\]])(?<![\w)\]] )/(?![/*\s])(?:[^/\\\n\[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/[a-z]*(?=\s*[.,;)\]}\n])"
)
_RAW_RUST = tuple(replace(_until("", '"' + "#" * n, comment=False), opening=rf'\bb?r{"#" * n}"') for n in (3, 2, 1, 0))
_PYTHON_PREFIX = r"(?:\b[a-zA-Z]{1,2})?"

_FAMILIES: dict[tuple[str, ...], tuple[Delimiter, ...]] = {
    ("python",): (
        _string('"""', opening=_PYTHON_PREFIX + '"""', multiline=True),
        _string("'''", opening=_PYTHON_PREFIX + "'''", multiline=True),
        _string('"', opening=_PYTHON_PREFIX + '"'),
        _string("'", opening=_PYTHON_PREFIX + "'"),
        _line("#"),
    ),
    ("javascript", "javascriptreact", "typescript", "typescriptreact"): (
        *_C_COMMENTS, _BACKTICK, _DOUBLE, _SINGLE, _REGEX,
    ),
    ("go",): (*_C_COMMENTS, _string("`", multiline=True, escape=False), _DOUBLE, _CHARACTER),
    ("rust",): (*_C_COMMENTS, *_RAW_RUST, _string('"', multiline=True), _CHARACTER),
    ("c", "objective-c"): (*_C_COMMENTS, _DOUBLE, _CHARACTER),
    ("cpp",): (*_C_COMMENTS, replace(_until("", ')"', comment=False), opening=r'R"\('), _DOUBLE, _CHARACTER),
    ("csharp",): (
        *_C_COMMENTS, _TEXT_BLOCK, _string('"', opening=r'(?:\$?@|@\$)"', multiline=True, escape=False), _DOUBLE,
        _CHARACTER,
    ),
    ("java", "kotlin", "swift", "scala"): (*_C_COMMENTS, _TEXT_BLOCK, _DOUBLE, _CHARACTER),
    ("dart",): (*_C_COMMENTS, _TEXT_BLOCK, _string("'''", multiline=True), _DOUBLE, _SINGLE),
    ("php",): (*_C_COMMENTS, _line(r"#(?!\[)"), _string('"', multiline=True), _string("'", multiline=True)),
    ("ruby", "perl", "r", "elixir"): (_HASH, _TEXT_BLOCK, _string('"', multiline=True), _SINGLE),
    ("julia",): (_until("#=", "=#"), _HASH, _TEXT_BLOCK, _DOUBLE, _CHARACTER),
    ("shellscript",): (_HASH, _string('"', multiline=True), _string("'", multiline=True, escape=False)),
    ("lua",): (_until("--[[", "]]"), _line("--"), _until("[[", "]]", comment=False), _DOUBLE, _SINGLE),
    ("sql",): (_until("/*", "*/"), _line("--"), _DOUBLE, _string("'", multiline=True, escape=False)),
    ("haskell",): (_until("{-", "-}"), _line(r"--+(?![!#$%&*+./<=>?@^|~:])"), _DOUBLE, _CHARACTER),
    ("css", "scss", "less"): (_until("/*", "*/"), _DOUBLE, _SINGLE),
    ("toml", "yaml"): (_HASH, _DOUBLE, _string("'", opening=r"(?<![^\s:,\[{=])'", escape=False)),
    ("json", "jsonc"): (*_C_COMMENTS, _DOUBLE),
    ("html", "markdown", "restructuredtext", "plaintext", "latex"): (_until("<!--", "-->"),),
}  # fmt: skip
_OTHER = (_DOUBLE,)
_RESETS = {"python": r"^(?:(?=@)|(?:async[ \t]+)?def\b|class\b|import\b|from\b)"}
"""Starts of lines at column 0 that never stand inside brackets."""


@cache
def rules_of(language: str) -> LexicalRules:
    """Return the rules of an LSP language id; for an unknown language only double quotes delimit a string."""
    delimiters = next((rows for names, rows in _FAMILIES.items() if language in names), _OTHER)
    parts = [f"(?P<d{number}>{one.opening})" for number, one in enumerate(delimiters)]
    parts += [r"(?P<open>[(\[{])", r"(?P<close>[)\]}])"]
    if language in _RESETS:
        parts.insert(0, f"(?P<reset>{_RESETS[language]})")
    return LexicalRules(delimiters, re.compile("|".join(parts), re.MULTILINE))
