"""Searches a folder for the places that need a followed edit: open documents by their text, other files from disk.

Every file passes the path rules of the file filter before it is opened. A search runs in a thread and is bounded in
time; if it is cut short, it finds fewer places and never more.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from c2l_lsp import config, regular_files
from c2l_lsp.errors import C2LError
from c2l_lsp.repo.filter.paths import PathFilter
from c2l_lsp.repo.filter.plain_text import Refusal, decode
from c2l_lsp.server.followup.recognition import FollowedEdit, is_builtin_attribute
from c2l_lsp.server.followup.references import (
    Place,
    Surroundings,
    attribute_definitions,
    exports,
    find_places,
    module_parts,
)
from c2l_lsp.server.followup.syntax import Module, parse
from c2l_lsp.server.workspace.documents import split_lines

MOST_PLACES = 200
LONGEST_S = 2.0
_PAUSE_S = 0.001  # between files, so that the event loop gets the interpreter lock
_SUFFIXES = (".py", ".pyi")


@dataclass(frozen=True)
class Origin:
    """The document of an edit. `folder` "": it lies in no folder, and only the document itself has places."""

    path: str
    folder: str
    settings: config.Files


@dataclass
class Found:
    """The places by path. `known`: what was learned of the folder. `complete`: the search was not cut short."""

    places: dict[str, list[Place]] = field(default_factory=dict)
    known: Surroundings = field(default_factory=Surroundings)
    complete: bool = True


def search(edit: FollowedEdit, origin: Origin, texts: Mapping[str, list[str]]) -> Found:
    """The places in the whole folder. `texts`: the lines of the open documents by path.

    Nothing is found if the filter excludes the document of the edit.
    """
    found = Found(known=Surroundings({module_parts(origin.path)}))
    own = parse(texts[origin.path])
    if own is None:
        return found
    others: dict[str, Module] = {}
    if origin.folder:
        paths = _filter(origin)
        if paths is None or not _is_admitted(paths, origin.path):
            return found
        if not edit.imported and (edit.target.kind != "function" or edit.function is not None):
            found.complete = _collect(edit, origin, texts, paths, others)
    found.known.unique = found.complete and _is_unique(edit, own, others)
    while (
        more := {
            module_parts(path) for path, module in others.items() if exports(module, _needed(edit), path, found.known)
        }
        - found.known.exporters
    ):
        found.known.exporters |= more
    left = MOST_PLACES
    for path, module in {origin.path: own, **others}.items():
        places = find_places(module, edit, path, found.known, origin=path == origin.path)[:left]
        left -= len(places)
        if places:
            found.places[path] = places
    return found


def search_again(
    edit: FollowedEdit, origin: Origin, known: Surroundings, path: str, lines: list[str] | None
) -> list[Place]:
    """The places in one file after it changed. `lines`: the text of an open document; None reads the file."""
    if origin.folder:
        paths = _filter(origin)
        if paths is None or not _is_admitted(paths, path):
            return []
        lines = _read(origin, paths, path) if lines is None else lines
    module = parse(lines) if lines is not None else None
    if module is None:
        return []
    return find_places(module, edit, path, known, origin=path == origin.path)[:MOST_PLACES]


def stamp(origin: Origin, path: str) -> tuple[int, int] | None:
    """Time and size of a file, by which a change is noticed; None if it is not there."""
    try:
        status = (Path(origin.folder) / path).lstat()
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size


def _needed(edit: FollowedEdit) -> str:
    """The name by which other files refer to what was edited."""
    return edit.old if edit.function is None else edit.function.name


def _filter(origin: Origin) -> PathFilter | None:
    try:
        return PathFilter(Path(origin.folder), origin.settings)
    except (C2LError, OSError):
        return None


def _is_admitted(paths: PathFilter, path: str) -> bool:
    return paths.includes(path) and not regular_files.passes_through_link(paths.root, path)


def _collect(
    edit: FollowedEdit, origin: Origin, texts: Mapping[str, list[str]], paths: PathFilter, found: dict[str, Module]
) -> bool:
    """Parse the other files that name what was edited; returns whether all of them were parsed in time."""
    until, word, complete = time.monotonic() + LONGEST_S, _needed(edit), True
    whole_word = re.compile(rf"\b{re.escape(word)}\b")
    for path in paths.walk_in_steps():
        if time.monotonic() > until:
            return False
        if path is None or path == origin.path or not path.endswith(_SUFFIXES):
            continue
        lines = texts[path] if path in texts else _read(origin, paths, path, word)
        if not lines or not any(whole_word.search(line) for line in lines):
            continue
        module = parse(lines)
        if module is None:
            complete = False
        else:
            found[path] = module
        time.sleep(_PAUSE_S)
    return complete


def _read(origin: Origin, paths: PathFilter, path: str, word: str = "") -> list[str] | None:
    """The lines of a file; None if it cannot be read, is no text, or does not contain a word."""
    try:
        data = regular_files.read(paths.root, path, origin.settings.max_size_kb * 1024)
    except (OSError, ValueError):
        return None
    text = decode(data) if word.encode() in data else Refusal.EXCLUDED
    return None if isinstance(text, Refusal) else split_lines(text.removeprefix("\ufeff"))


def _is_unique(edit: FollowedEdit, own: Module, others: Mapping[str, Module]) -> bool:
    """Whether an attribute of the target's name, or of its function's, can only be that one."""
    name, own_definitions = _needed(edit), 0 if edit.function is None else 1
    if is_builtin_attribute(name):
        return False
    return sum(attribute_definitions(module, name) for module in [own, *others.values()]) <= own_definitions
