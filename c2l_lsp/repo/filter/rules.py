"""Ignore patterns, and the names that are always ignored. Works on names; opens no files.

pathspec translates the lines of .gitignore files to regular expressions. Which pattern wins is decided here, one path
component at a time as in git: matching a whole path at once cannot tell `foo/**` from `foo/` and gets the sequence
`*`, `!*/`, `!*.py` wrong for directories.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import NamedTuple

from pathspec.patterns.gitignore.base import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

_VIA_PARENT = "ps_d"
"""The regex group in which pathspec captures when a pattern matches a parent directory of the path."""

_CASE_INSENSITIVE = sys.platform in ("win32", "darwin")


class Rule(NamedTuple):
    """One pattern line. `ignores` is False for a negated pattern (`!pattern`)."""

    regex: re.Pattern[str]
    directories_only: bool
    ignores: bool


class PatternError(ValueError):
    """A line is not a valid pattern."""


def parse(line: str) -> Rule | None:
    """Return the rule of one .gitignore line; None for a blank line, a comment or a line that git never matches.

    Raises PatternError if the line is not a valid pattern.
    """
    if not line.endswith("\\ "):
        line = line.rstrip(" \r\n")
    directories_only = line.endswith("/")
    body = line[:-1] if directories_only else line
    if not body:
        return None
    try:
        pattern = GitIgnoreSpecPattern(_normalise_case(body))
    except (GitIgnorePatternError, re.error) as error:
        raise PatternError(line) from error
    if pattern.include is None or pattern.regex is None:
        return None
    return Rule(pattern.regex, directories_only, pattern.include)


def parse_all(lines: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules of an ignore file in order. Invalid lines are skipped, as in git."""
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
    """Return whether the last matching rule ignores `path`; None if no rule matches.

    `path` is relative to the directory of the rules. Only the path itself is matched, not its parents: the caller
    descends from the root and stops at the first ignored directory, because git includes nothing below one.
    """
    path = _normalise_case(path)
    for rule in reversed(rules):
        if rule.directories_only and not directory:
            continue
        match = rule.regex.search(path)
        if match is not None and not match.groupdict().get(_VIA_PARENT):
            return rule.ignores
    return None


def _normalise_case(text: str) -> str:
    return text.lower() if _CASE_INSENSITIVE else text


# --- names that are always ignored ---------------------------------------------------------------------------------

_IGNORED_DIRECTORY = re.compile(
    r"\.(?:git|hg|svn|bzr|jj|sl)"
    r"|\.?(?:venv|virtualenv)|\.direnv|\.env.*|site-packages|dist-packages|__pypackages__|\.eggs|.*\.egg-info|\.tox|\.nox"
    r"|node_modules|bower_components|jspm_packages|\.yarn|\.pnpm-store|\.parcel-cache|\.next|\.nuxt"
    r"|__pycache__|\.cache|\.(?:mypy|pytest|ruff)_cache|\.pytype|\.pyre|\.hypothesis|\.ipynb_checkpoints"
    r"|\.gradle|\.cargo|\.bundle|\.terraform|bazel-.*|cmake-build-.*"
    r"|\.(?:ssh|gnupg|aws|azure|docker|kube|password-store)|\.?secrets",
    re.DOTALL,
)
_IGNORED_PATH = re.compile(r"build/(?:lib|bdist)(?:[.\-/].*)?", re.DOTALL)
"""Copies of the sources made by setuptools. The path is relative to the root."""

_SECRET_FILE = re.compile(
    r"\.env.*|.*\.env|.*\.(?:pem|key|p12|pfx|p8|jks|keystore|kdbx|asc|gpg|pgp|ppk|ovpn|tfstate|tfvars)"
    r"|id_(?:rsa|dsa|ecdsa|ed25519).*|credentials.*|\.?secrets?(?:\..*|)|.*\.secrets?"
    r"|[._]?netrc|\.npmrc|\.pypirc|\.pgpass|\.htpasswd|\.git-credentials|\.dockercfg|\.boto|\.s3cfg"
    r"|service[-_]account.*\.json",
    re.DOTALL,
)

MARKERS = frozenset({"pyvenv.cfg", "CACHEDIR.TAG", "conda-meta", ".git"})
"""A directory below the root with one of these entries is an environment, a cache or another repository."""

VERSION = 1
"""Version of the names above; part of every filter's digest. Increase it when they change."""


def is_ignored_directory(path: str) -> bool:
    """Return whether a directory (path relative to the root) is ignored whatever the settings say."""
    name = path.rsplit("/", 1)[-1].lower()
    return bool(_IGNORED_DIRECTORY.fullmatch(name) or _IGNORED_PATH.fullmatch(path))


def is_secret_file(name: str) -> bool:
    """Return whether a file name is one that usually holds secrets."""
    return _SECRET_FILE.fullmatch(name.lower()) is not None
