"""Quality filters of the corpus: which Python files are used for training, and the cleaned text of each.

A refusal has a short reason, which the corpus manifest counts. Independent of git and of tokenizers.
"""

from __future__ import annotations

import ast
import re
import warnings

MAX_BYTES = 200_000
MIN_BYTES = 80

_VENDORED = re.compile(
    r"(^|/)(_?vendor(ed)?|third[_-]?party|3rdparty|extern(al)?s?|_?bundled|node_modules|site-packages|_vendored?"
    r"|migrations|\.?venv)/|(^|/)(ez_setup|distribute_setup|versioneer|_version|get-pip|six|appdirs)\.py$|_pb2(_grpc)?\.py$",
    re.IGNORECASE,
)
_GENERATED = re.compile(
    r"@generated|(auto[- _]?|automatically |was |file )generated\b|generated (by|from|with|using)\b"
    r"|do not (edit|modify)|machine generated|created by: the resource compiler",
    re.IGNORECASE,
)
_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{40,}"
    r"|\bxox[abprs]-[0-9A-Za-z-]{10,}|\bsk-[A-Za-z0-9]{32,}|\bAIza[0-9A-Za-z_-]{35}\b|\bglpat-[\w-]{20}"
    r"|\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\."
    r"|(?i:(password|passwd|secret|api_?key|auth_?token|access_?key)\s*[:=]\s*[\"'](?=[^\"']*\d)[A-Za-z0-9+/_-]{24,}={0,2}[\"'])"
)
_OTHER_LICENCE = re.compile(
    r"gnu (affero |lesser |library )?general public licen[cs]e|\bSPDX-[\w-]+: [AL]?GPL", re.IGNORECASE
)
_HEADER_WORDS = re.compile(r"copyright|licen[cs]e|all rights reserved|spdx-", re.IGNORECASE)
_KEEP_COMMENT = re.compile(r"^#!|coding[:=]")


def skip_reason_by_path(path: str, size: int) -> str | None:
    """Return the reason why a file is skipped by its path or its size in bytes; None to read it."""
    if _VENDORED.search(path):
        return "vendored or generated path"
    if size > MAX_BYTES:
        return "larger than 200 kB"
    return "too small" if size < MIN_BYTES else None


def _layout_refusal(text: str) -> str | None:
    lines = text.split("\n")
    if max(map(len, lines)) > 1_000 or len(text) > 110 * len(lines):
        return "minified or data"
    letters = sum(map(str.isalpha, text))
    digits = sum(map(str.isdigit, text))
    return "minified or data" if letters < 0.25 * len(text) or digits > 0.2 * len(text) else None


def skip_reason_by_text(text: str) -> str | None:
    """Return the reason why a file's text is not used; None to use it."""
    head = text[:3_000]
    if _GENERATED.search("\n".join(line for line in head.split("\n")[:25] if line.lstrip()[:1] in {"#", '"', "'"})):
        return "generated"
    if _OTHER_LICENCE.search(head):
        return "another licence in the file"
    if reason := _layout_refusal(text):
        return reason
    if _SECRET.search(text):
        return "looks like it holds a secret"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as invalid escape sequences in the parsed file
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "not valid Python 3"
    return None


def strip_header(text: str) -> str:
    """Return `text` without the licence comment at its top and without shebang and coding lines there."""
    lines = text.split("\n")
    end = 0
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith("#")):
        end += 1
    kept: list[str] = []
    block: list[str] = []
    for line in [*lines[:end], ""]:
        if line.strip() and not _KEEP_COMMENT.match(line):
            block.append(line)
            continue
        if block and not _HEADER_WORDS.search("\n".join(block)):
            kept += [*block, ""]
        block = []
    return "\n".join([*kept, *lines[end:]]).strip("\n") + "\n"


def clean(raw: bytes) -> tuple[str, str | None]:
    """Return (cleaned text, None), or ("", reason) if the file is refused."""
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        return "", "invalid UTF-8"
    if "\0" in text:
        return "", "binary"
    if reason := skip_reason_by_text(text):
        return "", reason
    text = strip_header(text)
    return (text, None) if len(text) >= MIN_BYTES else ("", "too small")
