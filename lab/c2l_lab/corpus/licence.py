"""Detection of a repository's licence from its own files.

Fails closed: an unrecognised text counts as no licence, and one licence that is not permissive outweighs all others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

PERMISSIVE = frozenset(
    {"MIT", "BSD", "Apache-2.0", "ISC", "PSF-2.0", "MPL-2.0", "Unlicense", "Zlib", "CC0-1.0", "0BSD", "HPND"}
)

# The first match wins, so that more specific wordings come first.
_TEXTS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        # these texts name the licence that they change to after some years
        ("proprietary", r"business source licen[cs]e|server side public licen[cs]e"),
        ("MPL-2.0", r"mozilla public licen[cs]e,? (version|v\.?) ?2\.0"),
        ("Apache-2.0", r"apache licen[cs]e,? version 2\.0|licensed under the apache licen[cs]e"),
        ("AGPL", r"gnu affero general public licen[cs]e"),
        ("LGPL", r"gnu (lesser|library) general public licen[cs]e"),
        ("GPL", r"gnu general public licen[cs]e"),
        ("EUPL", r"european union public licen[cs]e"),
        ("proprietary", r"business source licen[cs]e|server side public|commons clause|non-?commercial"),
        ("PSF-2.0", r"python software foundation licen[cs]e"),
        ("Unlicense", r"this is free and unencumbered software released into the public domain"),
        ("CC0-1.0", r"cc0 1\.0 universal"),
        ("BSD", r"redistribution and use in source and binary forms"),
        ("MIT", r"permission is hereby granted, free of charge, to any person obtaining"),
        ("ISC", r"permission to use, copy, modify, and/?(or)? ?distribute this software"),
        ("Zlib", r"this software is provided 'as-is', without any express or implied warranty"),
        ("MIT", r"\bmit licen[cs]e\b"),
        ("BSD", r"\bbsd licen[cs]e\b|\bbsd-[23]-clause\b"),
    )
)

_METADATA: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("GPL", r"osi approved :: gnu|osi approved :: .*gpl|licen[cs]e\s*=\s*[\[{]?.{0,12}['\"](a|l)?gpl"),
        ("MIT", r"osi approved :: mit|licen[cs]e\s*=\s*[\[{]?.{0,12}['\"]?(the )?mit\b"),
        ("BSD", r"osi approved :: bsd|licen[cs]e\s*=\s*[\[{]?.{0,12}['\"]?(new |3-clause |2-clause )?bsd\b"),
        ("Apache-2.0", r"osi approved :: apache|licen[cs]e\s*=\s*[\[{]?.{0,12}['\"]?apache\b"),
        ("ISC", r"osi approved :: isc|licen[cs]e\s*=\s*[\[{]?.{0,12}['\"]?isc\b"),
        ("MPL-2.0", r"osi approved :: mozilla public license 2|licen[cs]e\s*=\s*[\[{]?.{0,12}['\"]?mpl-?2"),
        ("PSF-2.0", r"osi approved :: python software foundation|licen[cs]e\s*=\s*[\[{]?.{0,12}['\"]?psf"),
        ("Unlicense", r"osi approved :: the unlicense|licen[cs]e\s*=\s*[\[{]?.{0,12}['\"]?unlicense"),
    )
)

_LICENCE_FILE = re.compile(r"^(?:licenses/)?(?:licen[cs]e|copying|unlicen[cs]e)[^/]*$", re.IGNORECASE)
_METADATA_FILE = re.compile(r"^(?:pyproject\.toml|setup\.cfg|setup\.py)$")


def is_licence_file(path: str) -> bool:
    """Return whether a file states the licence of the whole repository (top folder or `LICENSES/`)."""
    return bool(_LICENCE_FILE.match(path))


def is_metadata_file(path: str) -> bool:
    """Return whether a file is a packaging file that may contain a licence field."""
    return bool(_METADATA_FILE.match(path))


def recognise(text: str, table: tuple[tuple[str, re.Pattern[str]], ...] = _TEXTS) -> str | None:
    """Return the licence that `text` is or names; None if no known wording occurs."""
    flat = " ".join(text[:40_000].split())
    found = [(name, match.start()) for name, pattern in table if (match := pattern.search(flat))]
    # The GNU licences mention each other; the first one mentioned is the licence of the text.
    gnu = min(((at, name) for name, at in found if name.endswith("GPL")), default=None)
    return gnu[1] if gnu and found[0][0].endswith("GPL") else (found[0][0] if found else None)


def detect(files: Mapping[str, str]) -> str:
    """Return the licence stated in `files` (path → text of licence and packaging files), or "unknown".

    Packaging metadata counts only if no licence file is recognised. If several licences are stated, one that is not
    permissive is returned.
    """
    stated = [recognise(text) for path, text in sorted(files.items()) if is_licence_file(path)]
    names = [name for name in stated if name]
    if not names:
        names = [
            name
            for path, text in sorted(files.items())
            if is_metadata_file(path)
            if (name := recognise(text, _METADATA))
        ]
    return next((name for name in names if name not in PERMISSIVE), names[0] if names else "unknown")


def licence_in_metadata(text: str) -> str:
    """Return the licence in the licence fields and classifiers of a distribution's METADATA, or "unknown"."""
    lines = [line for line in text.splitlines() if line.startswith(("License-Expression:", "License:", "Classifier:"))]
    flat = re.sub(r"^License(?:-Expression)?:\s*(.*)$", r'license = "\1"', "\n".join(lines), flags=re.MULTILINE)
    if re.search(r"gpl|\bgnu\b", flat, re.IGNORECASE):
        return "GPL"
    if re.search(r"proprietary|business source|commercial", flat, re.IGNORECASE):
        return "proprietary"
    return recognise(flat, _METADATA) or "unknown"
