"""Random and damaged states: kNN memories with any token ids, and saved generations with changed bytes."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

import torch

from c2l_lsp.engine.storage import disk
from c2l_lsp.engine.storage.store import FolderStore
from c2l_lsp.errors import C2LError
from c2l_lsp.model.adapter.key_index import check_entries
from c2l_lsp.model.adapter.knn_lm import KnnMemory
from c2l_lsp.model.adapter.token_index import TokenIndex
from c2l_lsp.model.runtime.kernel import ALIGNMENT
from tests.sanitize.shapes import numbers
from tests.soak.harness import saver
from tests.support.gates import constant_gate

VOCABULARY = 40
EXTREME = (-(2**31), -3, -2, -1, 0, VOCABULARY, 2**31 - 2, 2**31 - 1)
refused = {"memory": 0, "saved": 0}
"""Cases that were refused with an error. A fuzz that is always refused tests nothing."""


def memory(rng: random.Random) -> None:
    """Look-ups in a kNN memory whose ids and keys need not be valid, after tails that need not be either."""
    width, inner = rng.choice((4, 16, 16, 64, 512)), rng.choice((16, 48, 100))
    ids = [-1]
    for _ in range(rng.randint(0, 400)):
        ids.append(rng.choice(EXTREME) if not rng.randrange(12) else rng.randrange(6))
    tokens = torch.tensor(ids, dtype=torch.int32)
    places = int(((tokens[:-1] != -1) & (tokens[1:] != -1)).sum())
    count = places if rng.randrange(8) else rng.randint(0, 2 * places + 1)
    keys = torch.randint(-128, 128, (count, width), dtype=torch.int8)
    z = (rng.choice((-6.9, 30.0)), rng.choice((-6.9, 30.0)))
    gate = constant_gate(*z, rng.choice((0.07, 1e-30)), rng.choice((0.6, -0.6, 0.0)))
    chunks = {bytes([n]) * 16: [0, *(rng.randrange(6) for _ in range(rng.randint(0, 200)))] for n in range(4)}
    index = TokenIndex().updated(chunks).updated({b"x" * 16: [0, *(VOCABULARY + n for n in range(9))]}, [b"\1" * 16])
    rows = rng.randint(1, 6)
    before = [
        [rng.choice(EXTREME) if not rng.randrange(6) else rng.randrange(6) for _ in range(rng.randint(1, 80))]
        for _ in range(rows)
    ]
    logits = numbers(rng, rows, VOCABULARY)
    try:
        found = KnnMemory.of(tokens, keys, numbers(rng, width, inner), gate, rng.choice((1.0, 0.0, 50.0)), index)
        mixer = found._kernel_mixer
    except C2LError:
        refused["memory"] += 1
        return
    if mixer is not None:  # else the shapes are refused, and NumPy does the work
        mixer.mix(numbers(rng, rows, inner), logits, before)


def saved(rng: random.Random) -> None:
    """A saved datastore with changed bytes under a right checksum is refused, or what is loaded can be used."""
    ids = torch.tensor([-1, *(rng.randrange(VOCABULARY) for _ in range(rng.randint(2, 60)))], dtype=torch.int32)
    keys = torch.randint(-127, 128, (len(ids) - 2, ALIGNMENT), dtype=torch.int8)
    about, state, extra = saver.content(1)
    state.tensors = {"ids": ids, "keys": keys}
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        try:
            store.save(about, state, extra)
            _damage(rng, Path(folder))
            loaded = store.load()
            if loaded is None:
                raise AssertionError("the state is gone")
            tensors = loaded[1].tensors
            if set(tensors) != {"ids", "keys"} or tensors["ids"].shape != ids.shape:
                raise C2LError("other tensors")
            if tensors["ids"].dtype != ids.dtype or (tensors["keys"].dtype, tensors["keys"].shape) != (
                keys.dtype,
                keys.shape,
            ):
                raise C2LError("other types")
            check_entries(tensors, ALIGNMENT, VOCABULARY)
        except C2LError:
            refused["saved"] += 1
            return
        finally:
            store.close()
    basis = torch.randn(ALIGNMENT, 32)
    found = KnnMemory.of(tensors["ids"], tensors["keys"], basis, constant_gate(0.0, 0.0))
    found.interpolate(torch.randn(1, 32), torch.randn(1, VOCABULARY), [[int(ids[1])]])


def _damage(rng: random.Random, folder: Path) -> None:
    """Change some bytes of one file of the generation, mostly with its checksum, sometimes of the manifest itself."""
    generation = folder / (folder / "CURRENT").read_text(encoding="ascii")
    name = rng.choice(("state.safetensors", "state.safetensors", "saved.msgpack", "extra.safetensors", "manifest.json"))
    data = bytearray((generation / name).read_bytes())
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data))
        kind = rng.randrange(3)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 8)]
        else:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
    (generation / name).write_bytes(data)
    manifest = generation / "manifest.json"
    if name != "manifest.json":
        plain = json.loads(manifest.read_bytes())
        plain["sums"][name] = disk.checksum(bytes(data)).hex()
        manifest.write_text(json.dumps(plain), encoding="ascii")
