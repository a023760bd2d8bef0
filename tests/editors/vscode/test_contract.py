"""The extension's editor contract and settings equal the server's. Compares files; needs no editor."""

from __future__ import annotations

import importlib.util
import json
import re
import types
import typing
from enum import Enum
from pathlib import Path

import msgspec
import pytest

from c2l_lsp import config, errors
from c2l_lsp.server.reporting import statistics
from c2l_lsp.server.transport import protocol
from docs import settings_table

EXTENSION = Path(__file__).resolve().parents[3] / "editors" / "vscode"
SOURCE = (EXTENSION / "src" / "protocol.ts").read_text(encoding="utf-8")
MANIFEST = json.loads((EXTENSION / "package.json").read_text(encoding="utf-8"))
PAYLOADS = [
    protocol.Latency, protocol.AdapterStatus, protocol.Status, protocol.AdapterChange, protocol.DocumentId,
    protocol.FolderParams, protocol.SetEnabledParams, protocol.ExportParams, protocol.DeepenParams,
    protocol.ExplainParams, protocol.AcceptParams, protocol.StatisticsParams, protocol.ToggleParams,
    protocol.TrustParams, protocol.Position, protocol.CursorParams, protocol.Switched, protocol.Problem,
    statistics.Counts, statistics.Week, statistics.Totals,
]  # fmt: skip
TO_SERVER = (protocol.FolderParams, protocol.ExplainParams, protocol.StatisticsParams, protocol.ToggleParams)
TO_SERVER += (protocol.Switched,)


def table(name: str) -> dict[str, str]:
    """Parse `export const NAME = {KEY: "value"}` of protocol.ts."""
    body = re.search(rf"^export const {name} = {{\n(.*?)^}} as const;", SOURCE, re.M | re.S)
    assert body, f"protocol.ts has no table {name}"
    return dict(re.findall(r'^  (\w+): "([^"]*)",$', body[1], re.M))


def interface(name: str) -> dict[str, str]:
    """Parse an interface with inherited fields: types by name; names of optional fields end with "?"."""
    found = re.search(rf"^export interface {name}(?: extends (\w+))? {{\n(.*?)^}}", SOURCE, re.M | re.S)
    assert found, f"protocol.ts has no interface {name}"
    own = dict(re.findall(r"^  (\w+\??): (.*);$", found[2], re.M))
    return {**(interface(found[1]) if found[1] else {}), **own}


def typescript(kind: object) -> str:
    """Return a Python annotation in TypeScript's syntax."""
    plain = {str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}
    if kind in plain:
        return plain[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(typescript(one) for one in arguments if one is not msgspec.UnsetType)
    if origin is list:
        return f"{typescript(arguments[0])}[]"
    if origin is dict:
        return f"Record<{typescript(arguments[0])}, {typescript(arguments[1])}>"
    assert isinstance(kind, type) and issubclass(kind, (msgspec.Struct, Enum)), kind
    return kind.__name__


@pytest.mark.parametrize("kind", [protocol.Command, protocol.Method, protocol.State, protocol.Reason])
def test_enums_are_equal(kind: type[Enum]) -> None:
    assert table(kind.__name__) == {one.name: one.value for one in kind}


def test_constants_are_equal() -> None:
    for name in ("SECTION", "DID_CHANGE_STATUS", "ADAPTER_DID_CHANGE", "DID_CHANGE_TRUST", "PROBLEM"):
        assert re.search(rf'^export const {name} = "([^"]*)";', SOURCE, re.M)[1] == getattr(protocol, name)
    assert sorted(table("ClientCommand").values()) == sorted(protocol.CLIENT_COMMANDS)


def test_error_codes_are_equal() -> None:
    assert table("ErrorCode") == {code.upper().replace("-", "_"): code for code in errors.BY_CODE}


def test_statistics_report_has_the_same_fields(tmp_path: Path) -> None:
    report = statistics.Statistics(tmp_path / "s.json").report()
    assert set(interface("StatisticsReport")) == set(report)


def test_sentences_are_equal() -> None:
    sentences = dict(re.findall(r'^  \[Reason\.(\w+)\]: "([^"]*)",$', SOURCE, re.M))
    assert sentences == {reason.name: sentence for reason, sentence in protocol.SENTENCES.items()}


@pytest.mark.parametrize("kind", PAYLOADS, ids=lambda kind: kind.__name__)
def test_payloads_are_equal(kind: type[msgspec.Struct]) -> None:
    hints = typing.get_type_hints(kind)
    expected = {}
    for field in msgspec.structs.fields(kind):
        # A field that the server sends is optional if it may be UNSET; one that it receives, if it has a default.
        sent = not issubclass(kind, TO_SERVER)
        optional = field.default is msgspec.UNSET if sent else not field.required
        expected[field.encode_name + "?" * optional] = typescript(hints[field.name])
    assert interface(kind.__name__) == expected


def test_manifest_contributes_exactly_the_commands_of_the_contract() -> None:
    contributed = [one["command"] for one in MANIFEST["contributes"]["commands"]]
    answered = [one.value for one in protocol.Command if one is not protocol.Command.DID_ACCEPT]
    assert sorted(contributed) == sorted([*answered, *protocol.CLIENT_COMMANDS])
    registered = (EXTENSION / "src" / "commands.ts").read_text(encoding="utf-8")
    assert len(re.findall(r"^    \[(?:Client)?Command\.\w+\]:", registered, re.M)) == len(contributed)


def test_generated_settings_are_up_to_date() -> None:
    """`python editors/vscode/scripts/settings.py` updates them."""
    path = EXTENSION / "scripts" / "settings.py"
    spec = importlib.util.spec_from_file_location("vscode_settings", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, make in (("package.json", script.manifest), ("README.md", script.readme)):
        text = (EXTENSION / name).read_text(encoding="utf-8")
        assert make(text) == text, f"{name} is out of date"
    properties = [key for part in MANIFEST["contributes"]["configuration"] for key in part["properties"]]
    assert sorted(properties) == sorted(row["key"] for row in settings_table.describe())


def test_machine_settings_cannot_be_set_by_a_workspace() -> None:
    settings = (EXTENSION / "src" / "settings.ts").read_text(encoding="utf-8")
    groups = re.search(r"MACHINE_GROUPS = \[(.*?)\]", settings)[1]
    assert set(re.findall(r'"(\w+)"', groups)) == config.MACHINE_ONLY
    tightened = re.search(r"TIGHTENED = \[(.*?)\]", settings, re.S)[1]
    assert set(re.findall(r'"([\w.]+)"', tightened)) == set(config.RESTRICTIONS)
    untrusted = MANIFEST["capabilities"]["untrustedWorkspaces"]
    assert untrusted["supported"] == "limited"
    assert {key.split(".")[1] for key in untrusted["restrictedConfigurations"]} == config.MACHINE_ONLY
    for part in MANIFEST["contributes"]["configuration"]:
        for key, row in part["properties"].items():
            assert (row["scope"] == "machine") == (key.split(".")[1] in config.MACHINE_ONLY)
