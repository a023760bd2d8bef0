"""The tools behind `make licences`, `make audit` and `make mutation`: how they count. No network, no mutants."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"c2l_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("licence", "accepted"),
    [
        ("MIT License", True), ("BSD-3-Clause", True), ("Apache-2.0 OR BSD-2-Clause", True), ("MPL-2.0", True),
        ("GPL-3.0-only", False), ("GNU Affero General Public License v3", False), ("UNKNOWN", False), ("", False),
        ("GPL-2.0 OR MIT", True), ("Proprietary", False),
    ],
)  # fmt: skip
def test_only_permissive_licences_are_accepted(licence: str, accepted: bool) -> None:
    refused = script("licences").refused([{"Name": "some", "Version": "1", "License": licence}])
    assert (refused == []) is accepted


def test_packages_that_were_not_looked_up_are_reported() -> None:
    result = script("audit").result
    skipped = {"name": "a", "skip_reason": "not found"}
    clean = {"name": "b", "version": "1", "vulns": []}
    bad = {"name": "c", "version": "2", "vulns": [{"id": "X-1", "fix_versions": ["3"]}]}
    assert result("")[0] == 0
    assert "NOTHING WAS CHECKED" in result("")[1][-1]
    assert "NOTHING WAS CHECKED" in result(json.dumps({"dependencies": [skipped]}))[1][-1]
    assert result(json.dumps({"dependencies": [skipped, clean]}))[1] == [
        "audit: 1 of 2 packages looked up, 0 known vulnerabilities"
    ]
    code, lines = result(json.dumps({"dependencies": [clean, bad]}))
    assert code == 1
    assert lines[0] == "c 2: X-1, fixed in ['3']"


def test_untried_mutant_counts_as_alive() -> None:
    figures = script("mutation").count({"a": 1, "b": 0, "c": None, "d": 33})  # failed, passed, untried, no test
    assert (figures["mutants"], figures["killed"], figures["untried"], figures["share"]) == (4, 1, 1, 0.25)
    assert figures["alive"] == ["b", "c", "d"]


def test_mutated_files_are_those_of_pyproject() -> None:
    pyproject = Path(__file__).resolve().parent.parent.joinpath("pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"only_mutate = \[(.*?)\]", pyproject, re.DOTALL)
    assert listed is not None
    files = [file for part in script("mutation").PARTS.values() for file in part]
    assert sorted(re.findall(r'"(.+?)"', listed[1])) == sorted(files)
    assert [file for file in files if not (Path(__file__).resolve().parent.parent / file).is_file()] == []
