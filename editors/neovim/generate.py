"""Writes what repeats the server's own definitions: the editor contract, the settings' types and their help.

python editors/neovim/generate.py           write lua/c2l/protocol.lua, lua/c2l/settings.lua and doc/c2l.txt
python editors/neovim/generate.py --check   exit code 1 if they differ from what would be written
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec

from c2l_lsp import config, errors
from c2l_lsp.server.transport import protocol

FOLDER = Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parents[1] / "docs"))
import settings_table  # noqa: E402 - a script of docs/, in no package

HELP = FOLDER / "doc" / "c2l.txt"
_BEGIN, _END = "-- settings: made by generate.py --", "-- end of settings --"
PAYLOADS = (
    protocol.Latency,
    protocol.AdapterStatus,
    protocol.Status,
    protocol.AdapterChange,
    protocol.FolderParams,
    protocol.SetEnabledParams,
    protocol.ExportParams,
    protocol.DeepenParams,
    protocol.ExplainParams,
    protocol.AcceptParams,
    protocol.StatisticsParams,
    protocol.ToggleParams,
    protocol.Problem,
    protocol.Switched,
)
_PLAIN = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean", "null": "nil"}


def protocol_lua() -> str:
    """The contract: names as values, payloads as LuaLS classes."""
    lines = [
        "--- The editor contract: every name that is ours and crosses between Neovim and the server.",
        "--- Made from c2l_lsp/server/protocol.py by generate.py; a test keeps the two equal.",
        "local M = {}",
        "",
        f"M.SECTION = {_quoted(protocol.SECTION)}",
        f"M.DID_CHANGE_STATUS = {_quoted(protocol.DID_CHANGE_STATUS)}",
        f"M.ADAPTER_DID_CHANGE = {_quoted(protocol.ADAPTER_DID_CHANGE)}",
        f"M.PROBLEM = {_quoted(protocol.PROBLEM)}",
        f"M.DID_CHANGE_TRUST = {_quoted(protocol.DID_CHANGE_TRUST)}",
        "",
        "--- Commands of `workspace/executeCommand`.",
        *_table("Command", {one.name: one.value for one in protocol.Command}),
        "",
        "--- Commands that only an editor can carry out.",
        *_list("CLIENT_COMMANDS", protocol.CLIENT_COMMANDS),
        "",
        "--- Requests beyond the standard.",
        *_table("Method", {one.name: one.value for one in protocol.Method}),
        "",
        "--- What the whole is doing, in one word.",
        *_table("State", {one.name: one.value for one in protocol.State}),
        "",
        "--- Why no completion is given, and how to say it.",
        *_table("Reason", {one.name: one.value for one in protocol.Reason}),
        *_table("SENTENCES", {one.value: text for one, text in protocol.SENTENCES.items()}),
        "",
        "--- Kinds of errors: the `code` of a problem.",
        *_table("ErrorCode", {code.upper().replace("-", "_"): code for code in errors.BY_CODE}),
        "",
        "--- Groups of settings that only a user may set, never a workspace.",
        *_list("MACHINE_GROUPS", sorted(config.MACHINE_ONLY)),
        "",
        "--- Settings of what may be read: a workspace may only tighten them.",
        *_list("TIGHTENED", config.RESTRICTIONS),
    ]
    for payload in PAYLOADS:
        lines += ["", *_class(payload)]
    return "\n".join([*lines, "", "return M", ""])


def settings_lua() -> str:
    """The settings as LuaLS classes, one per group, with defaults and descriptions."""
    groups: dict[str, list[str]] = {"": []}
    for row in settings_table.describe():
        *path, name = row["key"].split(".")[1:]
        group = ".".join(path)
        groups.setdefault(group, [])
        groups[group] += [
            f"--- {row['description']} Default: `{_value(row['default'])}`.",
            f"---@field {name}? {_type(row)}",
        ]
    lines = [
        "---@meta c2l.settings",
        "--- Types of the `settings` option; every one is also `c2l.*` in the server's documentation.",
        "--- Made from c2l_lsp/config.py by generate.py; a test keeps the two equal.",
    ]
    for group in [name for name in groups if name]:
        scope = " Machine scope: a change starts the server anew." if group in config.MACHINE_ONLY else ""
        lines += ["", f"--- `{group}`.{scope}", f"---@class c2l.settings.{group}", *groups[group]]
    lines += ["", "---@class c2l.Settings", *groups[""]]
    lines += [f"---@field {group}? c2l.settings.{group}" for group in groups if group]
    return "\n".join([*lines, ""])


def help_text() -> str:
    """The help file with its list of settings between the two marks; the rest of it is written by hand."""
    text = HELP.read_text(encoding="utf-8")
    head, rest = text.split(_BEGIN)
    lines = []
    for row in settings_table.describe():
        mark = "*" if row["scope"] == "machine" else ""
        kind, default = _type(row).replace("|", " or "), _value(row["default"])
        first = f"{row['key'].removeprefix('c2l.')}{mark}  {kind}, default {default}"
        lines += textwrap.wrap(first, 78, subsequent_indent="        ", break_on_hyphens=False)
        indent = {"initial_indent": "    ", "subsequent_indent": "    "}
        lines += textwrap.wrap(row["description"], 78, break_on_hyphens=False, **indent)
    return head + "\n".join([_BEGIN, *lines, _END]) + rest.split(_END)[1]


def _class(payload: type[msgspec.Struct]) -> list[str]:
    doc = (payload.__doc__ or "").strip().splitlines()[0]
    schema = msgspec.json.schema(payload)["$defs"][payload.__name__]
    required = schema.get("required", [])
    fields = [
        f"---@field {name}{'' if name in required else '?'} {_type(one).removesuffix('|nil')}"
        for name, one in schema["properties"].items()
    ]
    return [f"--- {doc}", f"---@class c2l.{payload.__name__}", *fields]


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return {"State": "string", "DocumentId": "{ uri: string }"}.get(name, f"c2l.{name}")
    if "anyOf" in schema:
        return "|".join(_type(one) for one in schema["anyOf"])
    if "allOf" in schema:
        return _type(schema["allOf"][0])
    if "enum" in schema:
        return "|".join(_quoted(one) for one in schema["enum"])
    if schema.get("type") == "array":
        return f"{_type(schema['items'])}[]"
    if schema.get("type") == "object":
        return f"table<string, {_type(schema['additionalProperties'])}>"
    return _PLAIN[schema["type"]]


def _table(name: str, values: dict[str, str]) -> list[str]:
    rows = [
        f"  {key if key.isidentifier() else f'[{_quoted(key)}]'} = {_quoted(text)}," for key, text in values.items()
    ]
    return [f"M.{name} = {{", *rows, "}"]


def _list(name: str, values: Any) -> list[str]:  # noqa: ANN401 - any iterable of strings
    return [f"M.{name} = {{ {', '.join(map(_quoted, values))} }}"]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"[{_quoted(key)}] = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "{ " + ", ".join(map(_value, value)) + " }" if value else "{}"
    return _quoted(value) if isinstance(value, str) else str(value)


FILES = {FOLDER / "lua/c2l/protocol.lua": protocol_lua, FOLDER / "lua/c2l/settings.lua": settings_lua, HELP: help_text}


def main() -> int:
    """Write or check; the exit code."""
    different = []
    for path, make in FILES.items():
        text = make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        different.append(path.name)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    print(", ".join(different) or "up to date")
    return 1 if different and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
