"""Installed Python distributions as training text, from a site-packages folder or a folder of unpacked wheels.

A distribution counts as a repository named `pypi/NAME`. Licence, version and home page come from its metadata. It is
skipped if its home page belongs to an owner on a list that the corpus must be disjoint from.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from c2l_lab.corpus import licence
from c2l_lab.corpus.sources import SourceProblem, read_list

OWNER = "pypi"
"""The owner part of a distribution's name in a corpus."""

SHARE = 1_500_000
"""Bytes read of one distribution, because some contain tens of megabytes in one style."""

_HOME = re.compile(r"(?:github\.com|gitlab\.com|bitbucket\.org)[/:]([\w.-]+)/([\w.-]+)", re.IGNORECASE)

_NOT_STDLIB = (
    "test/",
    "tests/",
    "site-packages/",
    "idlelib/",
    "lib2to3/",
    "config-",
    "__pycache__/",
    "turtledemo/",
    "ensurepip/",
    "pydoc_data/",
)


def _normalised_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def find_distributions(folder: Path) -> dict[str, Distribution]:
    """Return {`pypi/name`: distribution} for `folder` and its subfolders with distributions, sorted by name."""
    search_path = [folder, *sorted({info.parent for info in folder.glob("*/*.dist-info")})]
    found: dict[str, Distribution] = {}
    for distribution in distributions(path=[str(path) for path in search_path]):
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(f"{OWNER}/{_normalised_name(name)}", distribution)
    return dict(sorted(found.items()))


def licence_of(distribution: Distribution) -> str:
    """Return the licence in the distribution's licence files, else in its metadata, else "unknown".

    If the metadata name a licence that is not permissive, that one is returned.
    """
    files: dict[str, str] = {}
    for file in distribution.files or ():
        if ".dist-info" in file.parts[0] and licence.is_licence_file(file.name):
            files[file.name + str(len(files))] = _text(distribution, str(file))
    in_files, in_metadata = licence.detect(files), licence.licence_in_metadata(_metadata(distribution))
    if in_files == "unknown" or (in_metadata != "unknown" and in_metadata not in licence.PERMISSIVE):
        return in_metadata
    return in_files


def _metadata(distribution: Distribution) -> str:
    """Return the raw metadata. Some parsed metadata cannot be serialised again."""
    return distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""


def _text(distribution: Distribution, path: str) -> str:
    try:
        return Path(str(distribution.locate_file(path))).read_text("utf-8", "replace")
    except OSError:
        return ""


def conflict(distribution: Distribution, disjoint_from: Sequence[Path]) -> str | None:
    """Return why the lists in `disjoint_from` (owner/name per line) exclude a distribution; None if they do not."""
    entries = [name.lower().split("/") for file in disjoint_from for name in read_list(file) if "/" in name]
    owners, names = {parts[0] for parts in entries}, {_normalised_name(parts[-1]) for parts in entries}
    if _normalised_name(distribution.metadata["Name"]) in names:
        return "its name is on a list that the corpus must be disjoint from"
    homes = _HOME.findall(_metadata(distribution))
    if any(owner.lower() in owners for owner, _ in homes):
        return "its owner is on a list that the corpus must be disjoint from"
    return None


def distribution_files(distribution: Distribution, limit: int) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """Yield (path, size, reader) of the distribution's Python files up to about `limit` bytes, in digest order.

    Raises SourceProblem if the distribution has no list of files.
    """
    if distribution.files is None:
        raise SourceProblem("no list of files")
    paths = [str(f) for f in distribution.files if f.name.endswith(".py") and f.parts[0] != ".."]
    total = 0
    for path in sorted(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest()):
        file = Path(str(distribution.locate_file(path)))
        if total < limit and file.is_file():
            total += file.stat().st_size
            yield path, file.stat().st_size, file.read_bytes


def standard_library_files(root: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """Yield (path, size, reader) of the standard library's files in `root`, without tests and third-party code."""
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root).as_posix()
        if not any(path.startswith(part) or f"/{part}" in path for part in _NOT_STDLIB):
            yield path, file.stat().st_size, file.read_bytes
