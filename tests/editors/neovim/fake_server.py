"""The real server with the fake engine of tests/support, whose completions are determined by the text."""

from __future__ import annotations

import sys
from pathlib import Path

from c2l_lsp.server.app import serve

ENGINE = Path(__file__).resolve().parents[2] / "support" / "fake_engine.py"

if __name__ == "__main__":
    sys.exit(serve([sys.executable, str(ENGINE)]))
