"""Ignore rules: which paths are off by their name alone. Patterns go in, verdicts come out; no file is opened here.

The pattern language is pathspec's translation of .gitignore lines. Which pattern wins is decided here, one path
component at a time as git does it, because a whole-path match cannot tell `foo/**` from `foo/` or honour
`*` `!*/` `!*.py` for directories.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import NamedTuple

from pathspec.patterns.gitignore.base import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

_VIA_PARENT = "ps_d"
"""pathspec's regex group that takes part when a pattern matched a parent of the path instead of the path."""

_IGNORES_CASE = sys.platform in ("win32", "darwin")


class Rule(NamedTuple):
    """One pattern line: what it matches, only directories or all, and whether it leaves out or brings back."""

    regex: re.Pattern[str]
    directories: bool
    ignores: bool


class PatternError(ValueError):
    """A line that is no pattern."""


def parse(line: str) -> Rule | None:
    """The rule of one .gitignore line; None for blank lines, comments and lines git never matches.

    Raises PatternError when the line cannot be read as a pattern.
    """
    if not line.endswith("\\ "):
        line = line.rstrip(" \r\n")
    directories = line.endswith("/")
    body = line[:-1] if directories else line
    if not body:
        return None
    try:
        pattern = GitIgnoreSpecPattern(_fold(body))
    except (GitIgnorePatternError, re.error) as error:
        raise PatternError(line) from error
    if pattern.include is None or pattern.regex is None:
        return None
    return Rule(pattern.regex, directories, pattern.include)


def parse_all(lines: Iterable[str]) -> tuple[Rule, ...]:
    """The rules of an ignore file, in order. A line that is no pattern is passed over, as git does."""
    rules = []
    for line in lines:
        try:
            rule = parse(line)
        except PatternError:
            continue
        if rule is not None:
            rules.append(rule)
    return tuple(rules)


def last_match(rules: tuple[Rule, ...], path: str, *, directory: bool) -> bool | None:
    """Whether the last rule that matches this very path ignores it; None when no rule matches.

    `path` is relative to where the rules stand. Parents are not looked at: the caller goes from the top down and
    stops at the first ignored directory, since nothing below an ignored directory can be brought back.
    """
    path = _fold(path)
    for rule in reversed(rules):
        if rule.directories and not directory:
            continue
        match = rule.regex.search(path)
        if match is not None and not match.groupdict().get(_VIA_PARENT):
            return rule.ignores
    return None


def _fold(text: str) -> str:
    return text.lower() if _IGNORES_CASE else text


# --- names that no setting can bring back ------------------------------------------------------------------------

_OFF_DIRECTORY = re.compile(
    r"\.(?:git|hg|svn|bzr|jj|sl)"
    r"|\.?(?:venv|virtualenv)|\.direnv|\.env.*|site-packages|dist-packages|__pypackages__|\.eggs|.*\.egg-info|\.tox|\.nox"
    r"|node_modules|bower_components|jspm_packages|\.yarn|\.pnpm-store|\.parcel-cache|\.next|\.nuxt"
    r"|__pycache__|\.cache|\.(?:mypy|pytest|ruff)_cache|\.pytype|\.pyre|\.hypothesis|\.ipynb_checkpoints"
    r"|\.gradle|\.cargo|\.bundle|\.terraform|bazel-.*|cmake-build-.*"
    r"|\.(?:ssh|gnupg|aws|azure|docker|kube|password-store)|\.?secrets",
    re.DOTALL,
)
_OFF_PATHS = re.compile(r"build/(?:lib|bdist)(?:[.\-/].*)?", re.DOTALL)
"""Copies that setuptools makes of the sources, seen from the root."""

_SECRET_FILE = re.compile(
    r"\.env.*|.*\.env|.*\.(?:pem|key|p12|pfx|p8|jks|keystore|kdbx|asc|gpg|pgp|ppk|ovpn|tfstate|tfvars)"
    r"|id_(?:rsa|dsa|ecdsa|ed25519).*|credentials.*|\.?secrets?(?:\..*|)|.*\.secrets?"
    r"|[._]?netrc|\.npmrc|\.pypirc|\.pgpass|\.htpasswd|\.git-credentials|\.dockercfg|\.boto|\.s3cfg"
    r"|service[-_]account.*\.json",
    re.DOTALL,
)

MARKERS = frozenset({"pyvenv.cfg", "CACHEDIR.TAG", "conda-meta", ".git"})
"""A directory below the root that holds one of these is an environment, a cache or another repository."""

VERSION = 1
"""Counts changes of the names above; part of every filter's digest."""


def is_ignored_directory(path: str) -> bool:
    """Whether a directory (relative to the root) is off whatever the settings say."""
    name = path.rsplit("/", 1)[-1].lower()
    return bool(_OFF_DIRECTORY.fullmatch(name) or _OFF_PATHS.fullmatch(path))


def is_secret_file(name: str) -> bool:
    """Whether a file's own name says that it holds secrets."""
    return _SECRET_FILE.fullmatch(name.lower()) is not None
