"""The reason why an engine ended: type and location of its last error, without text that may contain source."""

from __future__ import annotations

import subprocess
import sys

import pytest

from c2l_lsp.server.transport.connection import error_summary
from tests.server.transport.test_engine_client import completion_request, make  # noqa: F401 - a fixture

CANARY = "zq_canary = 'a line of the file'"


@pytest.mark.parametrize(
    "fails",
    [
        f"raise KeyError({CANARY!r})",
        f"raise ValueError({CANARY!r} + chr(10) + {CANARY!r})",
        f"class OwnError(Exception): pass\nraise OwnError({CANARY!r})",
        f"raise ImportError({CANARY!r})",
        f"raise SystemExit({CANARY!r})",
        f"import sys; print({CANARY!r}, file=sys.stderr); sys.exit(3)",
    ],
)
def test_text_of_an_error_is_left_out(fails: str):
    done = subprocess.run([sys.executable, "-c", fails], capture_output=True, text=True, timeout=60, check=False)
    summary = error_summary(done.stderr.splitlines())
    assert "zq_canary" in done.stderr
    assert "zq" not in summary and "line of" not in summary
    assert summary.partition(" ")[0] in ("", "KeyError", "ValueError", "OwnError", "ImportError")


def test_missing_module_is_named():
    done = subprocess.run([sys.executable, "-c", "import zq_missing"], capture_output=True, text=True, check=False)
    assert error_summary(done.stderr.splitlines()) == "No module named 'zq_missing' at <string>:1"


async def test_source_text_in_an_engine_error_is_not_logged(make, caplog):  # noqa: F811
    caplog.set_level("WARNING")
    engine = make()
    await engine.until(lambda: engine.client.is_ready)
    with pytest.raises(Exception, match=r"KeyError at worker\.py:34"):
        await engine.client.complete(completion_request(f"DIE {CANARY}"), 10.0)
    await engine.until(lambda: len(engine.states) > 4)
    assert "KeyError at worker.py:34" in repr(engine.states)
    assert "zq_canary" not in repr(engine.states) + caplog.text
