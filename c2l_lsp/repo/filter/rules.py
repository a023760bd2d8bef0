"""The names that are always ignored."""

from __future__ import annotations

import re

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

MARKERS = frozenset({"pyvenv.cfg", "CACHEDIR.TAG", "conda-meta"})
"""A directory below the root with one of these entries is an environment or a cache."""

VERSION = 1
"""Version of the names above; part of every filter's digest. Increasing it rebuilds every stored state once.

A release that decides differently about single files does not need that: `Learner.reconcile` notices a file that was
indexed and is excluded now, and discards the state.
"""


def is_ignored_directory(path: str) -> bool:
    """Return whether a directory (path relative to the root) is ignored whatever the settings say."""
    name = path.rsplit("/", 1)[-1].lower()
    return bool(_IGNORED_DIRECTORY.fullmatch(name) or _IGNORED_PATH.fullmatch(path))


def is_secret_file(name: str) -> bool:
    """Return whether a file name is one that usually holds secrets."""
    return _SECRET_FILE.fullmatch(name.lower()) is not None
