"""The real server with the fake engine of tests/support, extended to publish a generation when files change."""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time
from pathlib import Path

ENGINE = Path(__file__).resolve().parents[2] / "support" / "fake_engine.py"


def engine() -> None:
    """Run the fake engine with a thread that polls for changed Python files."""
    started, fake = time.time_ns(), runpy.run_path(str(ENGINE))

    def watch() -> None:
        seen: dict[str, dict[Path, int]] = {}
        while True:
            for folder in [folder for folder, opened in list(fake["FOLDERS"].items()) if opened.trusted]:
                files = Path(folder).glob("[!.]*.py")  # not the lock files of Emacs
                now = {path: path.stat().st_mtime_ns for path in files}
                if seen.setdefault(folder, {path: at for path, at in now.items() if at < started}) != now:
                    seen[folder] = now
                    fake["learn"](folder, "diff")
            time.sleep(0.3)

    threading.Thread(target=watch, daemon=True).start()
    fake["main"]()


if __name__ == "__main__":
    if "--engine" in sys.argv:
        engine()
    else:
        from c2l_lsp.server.app import serve

        os.environ["PYTHONUNBUFFERED"] = "1"
        sys.exit(serve([sys.executable, str(Path(__file__).resolve()), "--engine"]))
