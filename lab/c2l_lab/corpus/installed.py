"""Installed Python distributions as training text: a site-packages folder, or a folder of unpacked wheels.

Licence, version and home come from the distribution's own metadata. A distribution counts as a repository named
`pypi/NAME`, and is left out when its home belongs to an owner on a list that must stay apart.
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
"""The first half of a distribution's name in a corpus."""

SHARE = 1_500_000
"""Bytes read of one distribution: some hold tens of megabytes of one style."""

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


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def found_in(folder: Path) -> dict[str, Distribution]:
    """{`pypi/name`: distribution} of `folder` and of the folders in it that hold one, in the order of names."""
    places = [folder, *sorted({info.parent for info in folder.glob("*/*.dist-info")})]
    made: dict[str, Distribution] = {}
    for distribution in distributions(path=[str(place) for place in places]):
        name = distribution.metadata["Name"]
        if name:
            made.setdefault(f"{OWNER}/{_plain(name)}", distribution)
    return dict(sorted(made.items()))


def licence_of(distribution: Distribution) -> str:
    """The licence that its licence files state, else its metadata; "unknown" where neither says one.

    What is not permissive by either of the two is not permissive.
    """
    files: dict[str, str] = {}
    for file in distribution.files or ():
        if ".dist-info" in file.parts[0] and licence.is_licence_file(file.name):
            files[file.name + str(len(files))] = _text(distribution, str(file))
    stated, said = licence.detect(files), licence.of_metadata(_metadata(distribution))
    if stated == "unknown" or (said != "unknown" and said not in licence.PERMISSIVE):
        return said
    return stated


def _metadata(distribution: Distribution) -> str:
    """As written: the parsed form of some can't be written again."""
    return distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""


def _text(distribution: Distribution, path: str) -> str:
    try:
        return Path(str(distribution.locate_file(path))).read_text("utf-8", "replace")
    except OSError:
        return ""


def refuse(distribution: Distribution, apart: Sequence[Path]) -> str | None:
    """Why a distribution is left out for the lists in `apart` (owner/name a line), None when it is not."""
    entries = [name.lower().split("/") for file in apart for name in read_list(file) if "/" in name]
    owners, names = {parts[0] for parts in entries}, {_plain(parts[-1]) for parts in entries}
    if _plain(distribution.metadata["Name"]) in names:
        return "its name is on a list that must stay apart"
    homes = _HOME.findall(_metadata(distribution))
    if any(owner.lower() in owners for owner, _ in homes):
        return "its owner is on a list that must stay apart"
    return None


def files_of(distribution: Distribution, limit: int) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """(path, bytes, reader) of its Python files, of about `limit` bytes of them where it has more, drawn by digest.

    Raises SourceProblem when it doesn't say which files it has.
    """
    if distribution.files is None:
        raise SourceProblem("no list of files")
    paths = [str(f) for f in distribution.files if f.name.endswith(".py") and f.parts[0] != ".."]
    total = 0
    for path in sorted(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest()):
        where = Path(str(distribution.locate_file(path)))
        if total < limit and where.is_file():
            total += where.stat().st_size
            yield path, where.stat().st_size, where.read_bytes


def files_of_library(root: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """(path, bytes, reader) of the standard library's files in `root`, without its tests and what is not its own."""
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root).as_posix()
        if not any(path.startswith(part) or f"/{part}" in path for part in _NOT_STDLIB):
            yield path, file.stat().st_size, file.read_bytes
