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

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SECRETS = frozenset({"secrets", "passwords", "passwds", "credentials", "creds", "passphrases"})
_TOKEN_KINDS = frozenset({"api", "auth", "access", "bearer", "deploy", "prod", "production", "staging", "dev", "my"})
_CODE_WORDS = frozenset(
    """test tests spec get set put make create delete update check find detect scan list load loader read
    reader write parse hash mask redact filter validate validator validators verify reset forgot change
    generate generator rotate sync manager collection helper helpers util utils tool tools provider
    providers service services client store form forms view views model models type types schema schemas
    scanner detector rule rules base handler handlers middleware backend backends engine plugin command
    commands error errors exception exceptions interface factory resolver controller component page with
    no without potential""".split()  # noqa: SIM905
)
"""Words of names of code that handles secrets."""

MARKERS = frozenset({"pyvenv.cfg", "CACHEDIR.TAG", "conda-meta"})
"""A directory below the root with one of these entries is an environment or a cache."""

VERSION = 2
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
    return _SECRET_FILE.fullmatch(name.lower()) is not None or _names_secrets(name.lstrip(".").partition(".")[0])


def _names_secrets(stem: str) -> bool:
    """Whether the words of a name say that a file lists secrets, not that it is code which handles them.

    `passwords`, `secrets_prod` and `db_passwords` list them; `password_validators`, `get_secrets` and `tokenizer` do
    not. `tokens` alone lists them, or after the kind of token: `api_tokens`, not `semantic_tokens`. A name in camel
    case, such as `AwsCredentials`, is that of a type.
    """
    words = [word.lower() for word in _WORD.findall(stem)]
    if not words or _CODE_WORDS.intersection(words):
        return False
    if words[-1] == "tokens":
        return _TOKEN_KINDS.issuperset(words[:-1])
    return words[0] in _SECRETS or (words[-1] in _SECRETS and stem == stem.lower())
