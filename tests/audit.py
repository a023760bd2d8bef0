"""`make audit`: known vulnerabilities of the pinned dependencies, from the advisory database that pip-audit asks.

Exit code 1 if there is one. A database that is not reached, or does not know a package, is said in so many words: what
was not looked up has not been found to be well.
"""

from __future__ import annotations

import json
import subprocess
import sys

COMMAND = (
    sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--timeout", "5",
    "--requirement", "constraints.txt", "--no-deps", "--disable-pip",
)  # fmt: skip


def verdict(output: str) -> tuple[int, list[str]]:
    """Exit code and lines to print, from pip-audit's JSON; "" if it did not come to an end."""
    try:
        rows = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return 0, ["audit: the advisory database was not reached; NOTHING WAS CHECKED"]
    skipped = [row for row in rows if "skip_reason" in row]
    bad = [(row, found) for row in rows for found in row.get("vulns", [])]
    lines = [f"{row['name']} {row['version']}: {found['id']}, fixed in {found['fix_versions']}" for row, found in bad]
    looked = len(rows) - len(skipped)
    lines.append(f"audit: {looked} of {len(rows)} packages looked up, {len(bad)} known vulnerabilities")
    if not looked:
        lines.append("audit: the advisory database was not reached, or knows none of them; NOTHING WAS CHECKED")
    return int(bool(bad)), lines


def main() -> int:
    """Ask, for two minutes at most."""
    try:
        done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=120, check=False)
        code, lines = verdict(done.stdout)
    except subprocess.TimeoutExpired:
        code, lines = verdict("")
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
