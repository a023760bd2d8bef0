"""Generates the settings in package.json and README.md from the server's definitions.

python editors/vscode/scripts/settings.py           write both files
python editors/vscode/scripts/settings.py --check   write nothing; exit code 1 if a file is out of date

Needs a Python with c2l_lsp installed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
sys.path.append(str(HERE.parents[1] / "docs"))
import settings_table  # noqa: E402 - a script of docs/, in no package

BEGIN, END = "<!-- settings: generated -->", "<!-- /settings -->"
TITLES = {
    "": "General",
    "completion": "Completion",
    "context": "Context",
    "adapter": "Adapter",
    "files": "Files",
    "model": "Model",
    "server": "Server",
    "remote": "Remote",
}
_COPIED = ("type", "enum", "items", "additionalProperties", "minimum", "maximum", "pattern", "default")
_ORDER = {
    "trigger": ("automatic", "manual"),
    "multiline": ("auto", "always", "never"),
    "hypernetwork": ("auto", "memory", "evo", "static", "none"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "showNotifications": ("off", "onError", "onWarning", "always"),
    "server": ("off", "messages", "verbose"),
}
"""Order of the values of an enum, by the last part of the key. The server's schema has them sorted by name."""


def rows() -> list[dict[str, Any]]:
    """Return the server's descriptions of all settings, grouped by section."""
    return sorted(settings_table.describe(), key=lambda row: list(TITLES).index(section(row["key"])))


def section(key: str) -> str:
    """Return the section of a setting; settings without a group share the section named by the empty string."""
    group = key.split(".")[1]
    return group if group in TITLES else ""


def configuration() -> list[dict[str, Any]]:
    """Return the value of `contributes.configuration`."""
    sections: dict[str, dict[str, Any]] = {}
    for order, row in enumerate(rows()):
        name = section(row["key"])
        block = sections.setdefault(name, {"title": TITLES[name], "properties": {}})
        schema = {key: row[key] for key in _COPIED if key in row}
        if "enum" in schema:
            order_of = _ORDER.get(row["key"].rsplit(".", 1)[1], ())
            schema |= {"type": "string", "enum": sorted(schema["enum"], key=lambda one: _rank(order_of, one))}
        block["properties"][row["key"]] = {
            **schema,
            "description": row["description"],
            "scope": row["scope"],
            "order": order,
        }
    return list(sections.values())


def _rank(order: tuple[str, ...], value: str) -> tuple[int, str]:
    return (order.index(value) if value in order else len(order), value)


def manifest(text: str) -> str:
    """Return the text of package.json with up-to-date settings."""
    values = json.loads(text)
    values["contributes"]["configuration"] = configuration()
    restricted = [row["key"] for row in rows() if row["scope"] == "machine"]
    values["capabilities"]["untrustedWorkspaces"]["restrictedConfigurations"] = restricted
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def readme(text: str) -> str:
    """Return the text of README.md with an up-to-date table of settings."""
    table = ["| Setting | Default | Description |", "|---|---|---|"]
    for row in rows():
        default = json.dumps(row["default"], ensure_ascii=False)
        described = row["description"].replace("|", "\\|")
        table.append(f"| `{row['key']}` | `{default}` | {described} |")
    before, rest = text.split(BEGIN)
    return "\n".join([before + BEGIN, *table, END + rest.split(END)[1]])


def main() -> int:
    """Write or compare the files; return the exit code."""
    outdated = []
    for name, make in (("package.json", manifest), ("README.md", readme)):
        path = HERE / name
        text = path.read_text(encoding="utf-8")
        if (generated := make(text)) != text:
            outdated.append(name)
            if "--check" not in sys.argv:
                path.write_text(generated, encoding="utf-8")
    if "--check" in sys.argv:
        print(f"out of date: {', '.join(outdated)}" if outdated else "up to date")
        return 1 if outdated else 0
    print(f"wrote {', '.join(outdated)}" if outdated else "up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
