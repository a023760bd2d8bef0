"""Mutation testing of state and framing: `make mutation`. Fails if more than a fifth of the planted faults live on.

mutmut changes one operator, constant or argument at a time and runs the tests that reach it. A mutant that no test
reaches, or that was never tried, counts as one that lives. The figures go to build/mutation.json, the survivors' names
beside them; `mutmut show NAME` prints one as a diff.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PARTS = {
    "framing": ("c2l_lsp/server/stdio.py",),
    "state": ("c2l_lsp/engine/store.py", "c2l_lsp/engine/cache.py", "c2l_lsp/engine/claim.py"),
}
LEAST = 0.8
KILLED = {1, 3, -24, 24, 36, 152, 255}  # tests failed or broke; or the time ran out


def main() -> int:
    """Run, count, write, judge."""
    ran = subprocess.run([sys.executable, "-m", "mutmut", "run", *sys.argv[1:]], check=False)
    report: dict[str, dict[str, object]] = {}
    for part, files in PARTS.items():
        codes: dict[str, int | None] = {}
        for file in files:
            meta = Path("mutants") / f"{file}.meta"
            if not meta.is_file():
                print(f"{file}: no mutants were made (mutmut ended with {ran.returncode})", file=sys.stderr)
                return 1
            codes |= json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        report[part] = count(codes)
        print("{0}: {killed} of {mutants} killed ({share:.1%}), {untried} not tried".format(part, **report[part]))
    Path("build").mkdir(exist_ok=True)
    Path("build/mutation.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(float(str(one["share"])) >= LEAST for one in report.values()) else 1


def count(codes: dict[str, int | None]) -> dict[str, object]:
    """The figures of one part from each mutant's exit code; None: not tried."""
    killed = sum(code in KILLED for code in codes.values())
    return {
        "mutants": len(codes),
        "untried": sum(code is None for code in codes.values()),
        "killed": killed,
        "share": killed / max(len(codes), 1),
        "alive": sorted(name for name, code in codes.items() if code not in KILLED),
    }


if __name__ == "__main__":
    sys.exit(main())
