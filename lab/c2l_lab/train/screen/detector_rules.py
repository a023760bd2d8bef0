"""Converts the rules of the secret detector gitleaks (MIT) into `c2l_lsp/repo/filter/detector_rules.json`.

A rule is a regular expression in Go's syntax, with words of which a match contains at least one. The engine tests a
rule only where one of its words occurs, so that the time is linear. Kept are the rules whose matches begin there;
examples that are made from the pattern decide. The others describe random strings, or need unlimited context.
"""

from __future__ import annotations

import importlib
import json
import random
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from c2l_lab.corpus.sources import GitRepository

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_parser = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")

_RULES, _LICENCE = "config/gitleaks.toml", "LICENSE"
_ANY_NAME = re.compile(r"^\(\?i\)\[\\w\.-\]\{0,50\}\?")  # the beginning of the name that contains the word
_FLAG = re.compile(r"\(\?(-?[ims]+)\)")
_UNLIMITED = ("generic-api-key", "private-key", "curl-auth-header", "curl-auth-user", "kubernetes-secret-yaml")
"""These need a list of exceptions or several lines; `c2l_lsp/repo/filter/secret_rules.py` has its own rules instead."""

_EXAMPLES, _MOST_MISSED = 20, 5
_SAMPLES = {"CATEGORY_DIGIT": "0123456789", "CATEGORY_WORD": "abcXYZ0189", "CATEGORY_SPACE": " "}


def convert_repository(repository: GitRepository) -> str:
    """Return the JSON file for the newest commit of gitleaks. KeyError without its rules or licence."""
    commit = repository.commit()
    wanted = [blob for blob in repository.blobs(commit) if blob.path in (_RULES, _LICENCE)]
    found = {blob.path: data.decode("utf-8") for blob, data in repository.read(wanted)}
    return convert(found[_RULES], found[_LICENCE], f"gitleaks {commit}")


def convert(rules: str, licence: str, version: str) -> str:
    """Return the JSON file for a gitleaks.toml, its licence and the version that it belongs to."""
    found = []
    for rule in tomllib.loads(rules)["rules"]:
        words, pattern = rule.get("keywords", []), to_python(_ANY_NAME.sub("(?i)", rule.get("regex", "")))
        if pattern and rule["id"] not in _UNLIMITED and begins_at_a_word(pattern, words):
            found.append({"id": rule["id"], "words": words, "pattern": pattern})
    return json.dumps({"version": version, "licence": licence, "rules": found}, indent=1) + "\n"


def begins_at_a_word(pattern: str, words: Iterable[str]) -> bool:
    """Return whether almost all examples of a pattern match from an occurrence of one of the words."""
    compiled, matched = re.compile(pattern), 0
    for seed in range(_EXAMPLES):
        text = example(pattern, random.Random(seed))  # noqa: S311 - an example, no secret
        places = {found.start() for word in words for found in re.finditer(re.escape(word), text.lower())}
        matched += any(compiled.match(text, at) is not None for at in places)
    return matched >= _EXAMPLES - _MOST_MISSED


def to_python(pattern: str) -> str:
    """Return a regular expression of Go (RE2) in Python's syntax.

    A flag in the middle of a group holds up to the group's end, which Python writes as a group of its own.
    """
    pattern = pattern.replace("[:alnum:]", "a-zA-Z0-9").replace(r"\z", r"\Z").replace(r"\x60", "`")
    out, flags, in_class, at = list[str](), [0], False, 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            out.append(pattern[at : at + 2])
            at += 2
            continue
        if not in_class and (flag := _FLAG.match(pattern, at)):
            out.append(f"(?{flag[1]}:")
            flags[-1] += 1
            at = flag.end()
            continue
        if in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character == "(":
            flags.append(0)
        elif character == ")":
            out.append(")" * flags.pop())
        out.append(character)
        at += 1
    return "".join([*out, ")" * flags[0]])


def example(pattern: str, rng: random.Random) -> str:
    """Return a random text that a pattern matches; repetitions are as short as the pattern allows."""
    return _example(_parser.parse(pattern), rng)


def _example(tree: Iterable[tuple[Any, Any]], rng: random.Random) -> str:
    return "".join(_one(str(operation), argument, rng) for operation, argument in tree)


def _one(operation: str, argument: Any, rng: random.Random) -> str:  # noqa: ANN401 - a node of the parser
    if operation == "LITERAL":
        return chr(argument)
    if operation == "IN":
        return _member(argument, rng)
    if operation in ("MAX_REPEAT", "MIN_REPEAT"):
        return "".join(_example(argument[2], rng) for _ in range(argument[0]))
    if operation == "SUBPATTERN":
        return _example(argument[3], rng)
    if operation == "BRANCH":
        return _example(rng.choice(argument[1]), rng)
    return "" if operation == "AT" else "x"


def _member(items: list[tuple[Any, Any]], rng: random.Random) -> str:
    made = ""
    for operation, argument in items:
        name = str(operation)
        if name == "NEGATE":
            return "q"
        if name == "LITERAL":
            made += chr(argument)
        elif name == "RANGE":
            made += "".join(map(chr, range(argument[0], argument[1] + 1)))
        else:
            made += _SAMPLES.get(str(argument), "x")
    return rng.choice(made)


def rules_of(file: str) -> list[Mapping[str, Any]]:
    """Return the rules of a converted file."""
    found: list[Mapping[str, Any]] = json.loads(file)["rules"]
    return found
