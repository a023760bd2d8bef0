"""Why an engine ended is told by the type of the error and its place; no text that could be source is repeated."""

from __future__ import annotations

import subprocess
import sys

import pytest

from c2l_lsp.server.transport.connection import last_words
from tests.server.transport.test_engine_client import make, question  # noqa: F401 - a fixture

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
def test_no_text_of_an_error_is_repeated(fails: str):
    done = subprocess.run([sys.executable, "-c", fails], capture_output=True, text=True, timeout=60, check=False)
    said = last_words(done.stderr.splitlines())
    assert "zq_canary" in done.stderr
    assert "zq" not in said and "line of" not in said
    assert said.partition(" ")[0] in ("", "KeyError", "ValueError", "OwnError", "ImportError")


def test_a_module_that_is_missing_is_named():
    done = subprocess.run([sys.executable, "-c", "import zq_missing"], capture_output=True, text=True, check=False)
    assert last_words(done.stderr.splitlines()) == "No module named 'zq_missing' at <string>:1"


async def test_an_engine_that_dies_of_a_text_does_not_tell_it(make, caplog):  # noqa: F811
    caplog.set_level("WARNING")
    engine = make()
    await engine.until(lambda: engine.client.up)
    with pytest.raises(Exception, match=r"KeyError at worker\.py:34"):
        await engine.client.complete(question(f"DIE {CANARY}"), 10.0)
    await engine.until(lambda: len(engine.lives) > 4)
    assert "KeyError at worker.py:34" in repr(engine.lives)
    assert "zq_canary" not in repr(engine.lives) + caplog.text
