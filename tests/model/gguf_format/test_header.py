"""No damaged GGUF file does anything but load or give a ModelError, quickly."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path

from c2l_lsp.errors import ModelError
from c2l_lsp.model.gguf_format import conversion
from tests.model.gguf_format.test_conversion import load, write

CASES = 150
LONGEST_S = 10.0
"""Of one file, on a busy machine. One takes 0.05 s."""


def test_random_damage_loads_or_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", tiny_folder, kind="Q8_0")
    sound, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(CASES):
        content = bytearray(sound)
        for _ in range(rng.choice((1, 4, 32))):
            area = rng.choice((1000, len(content)))  # the first entries, or anything
            content[rng.randrange(area)] = rng.randrange(256)
        path.write_bytes(content[: rng.choice((len(content), rng.randrange(len(content))))])
        started = time.monotonic()
        try:
            load(path)
        except ModelError:
            refused += 1
        assert time.monotonic() - started < LONGEST_S
    assert refused > CASES // 2
    with contextlib.suppress(FileNotFoundError):
        assert not list(conversion.converted_root().glob("*.partial"))
