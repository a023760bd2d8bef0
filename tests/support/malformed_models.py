"""A model folder damaged in some hundred ways, and a process that loads each: `python -m … FOLDER…`."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]
JSON = ("config.json", "tokenizer.json", "tokenizer_config.json")
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "0": 0,
    "-1": -1,
    "3": 3,
    "1e9": 10**9,
    "-2**63": -(2**63),
    "2**70": 2**70,
    "1.5": 1.5,
    "NaN": float("nan"),
    "1e308": 1e308,
    "text": "x",
    "list": [],
    "object": {},
    "nested": [[[{"a": [1]}]]],
}
DEEP = "[" * 100_000 + "]" * 100_000


def damages(sound: Path) -> Iterator[tuple[str, Damage]]:
    """Name and damage of every case."""
    for name in JSON:
        yield from ((f"{name}: {what}", _raw(name, content)) for what, content in _contents(sound / name).items())
    for name in ("config.json", "tokenizer_config.json"):
        for field in json.loads((sound / name).read_text()):
            for what, value in VALUES.items():
                yield f"{name}, {field}: {what}", _field(name, field, value)
    for field in ("num_hidden_layers", "text_config", "quantization_config", "auto_map", "layer_types", "rope_scaling"):
        for what in ("1e9", "text", "object", "nested"):
            yield f"config.json, new {field}: {what}", _field("config.json", field, VALUES[what])
    for field in ("model", "added_tokens", "pre_tokenizer", "decoder", "normalizer", "post_processor", "truncation"):
        for what in ("null", "2**70", "text", "list", "object", "nested"):
            yield f"tokenizer.json, {field}: {what}", _field("tokenizer.json", field, VALUES[what])
    yield "tokenizer.json, an enormous id", _vocabulary(lambda v: v.update({"zzz": 4_000_000_000}))
    yield "tokenizer.json, ids beyond the model", _vocabulary(lambda v: v.update({k: i + 5000 for k, i in v.items()}))
    yield "tokenizer.json, no letters", _vocabulary(lambda v: v.clear())
    for what, content in _weight_files(sound / "model.safetensors").items():
        yield f"model.safetensors: {what}", _raw("model.safetensors", content)
    for what, change in _tensor_changes().items():
        yield f"model.safetensors: {what}", change
    for kind, make in KINDS.items():
        for name in (*JSON, "model.safetensors", "generation_config.json"):
            yield f"{name}: {kind}", _replaced(name, make)
        yield f"the folder: {kind}", _folder(make)
    for what, index in INDEXES.items():
        yield f"index: {what}", _index(index)


def _contents(path: Path) -> dict[str, bytes]:
    text = path.read_bytes()
    return {
        "cut": text[: len(text) // 2],
        "empty": b"",
        "NUL": b"\0" * 4096,
        "not UTF-8": b"\xff" + text,
        "deep": DEEP.encode(),
        "deep value": b'{"a": ' + DEEP.encode() + b"}",
        "null": b"null",
        "list": b"[]",
        "number": b"1",
        "text": b'"x"',
        "a huge number": b'{"a": ' + b"9" * 100_000 + b"}",
        "twice": text + text,
    }


def _raw(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content) and None


def _field(name: str, field: str, value: Any) -> Damage:
    def damage(folder: Path) -> None:
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**found, field: value}))

    return damage


def _vocabulary(change: Callable[[dict[str, int]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        found = json.loads((folder / "tokenizer.json").read_text())
        change(found["model"]["vocab"])
        (folder / "tokenizer.json").write_text(json.dumps(found))

    return damage


def _weight_files(path: Path) -> dict[str, bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])

    def with_header(new: dict[str, Any]) -> bytes:
        text = json.dumps(new).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    first = next(name for name in header if name != "__metadata__")

    def entry(**more: Any) -> bytes:
        return with_header({**header, first: {**header[first], **more}})

    return {
        "cut": data[:-1000],
        "header only": data[: 8 + length],
        "empty": b"",
        "8 bytes": data[:8],
        "no header": b"\0" * 64,
        "header of 2**63 bytes": b"\xff" * 7 + b"\x7f" + data[8:],
        "header of 90 MB": (90 << 20).to_bytes(8, "little") + data,
        "deep header": len(DEEP).to_bytes(8, "little") + DEEP.encode(),
        "text": b"hello world, no weights",
        "an unknown dtype": entry(dtype="Q3"),
        "another dtype": entry(dtype="I64"),
        "float8": entry(dtype="F8_E4M3"),
        "a negative size": entry(shape=[-1, 64]),
        "a huge shape": entry(shape=[2**40, 2**40]),
        "no shape": entry(shape=None),
        "offsets beyond": entry(data_offsets=[0, 2**60]),
        "offsets backwards": entry(data_offsets=[64, 0]),
        "metadata of another type": with_header({**header, "__metadata__": {"format": "tf"}}),
        "no metadata": with_header({k: v for k, v in header.items() if k != "__metadata__"}),
        "a list for an entry": with_header({**header, first: []}),
    }


def _tensor_changes() -> dict[str, Damage]:
    def changed(change: Callable[[dict[str, Any]], Any]) -> Damage:
        def damage(folder: Path) -> None:
            from safetensors.torch import load, save_file

            tensors = load((folder / "model.safetensors").read_bytes())
            change(tensors)
            save_file({k: t.contiguous() for k, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})

        return damage

    def edit(change: Callable[[Any], Any]) -> Damage:
        return changed(lambda tensors: tensors.update({k: change(t) for k, t in sorted(tensors.items())[1:3]}))

    return {
        "no tensors": changed(lambda t: t.clear()),
        "one missing": changed(lambda t: t.popitem()),
        "one more": changed(lambda t: t.update(more=next(iter(t.values())).clone())),
        "NaN": edit(lambda t: t * float("nan")),
        "infinite": edit(lambda t: t + float("inf")),
        "transposed": edit(lambda t: t.permute(*reversed(range(t.dim())))),
        "other shapes": edit(lambda t: t[:1]),
        "no dimension": edit(lambda t: t.sum()),
        "zero size": edit(lambda t: t[:0]),
        "integers": edit(lambda t: t.int()),
        "bool": edit(lambda t: t > 0),
        "half": edit(lambda t: t.half()),
    }


KINDS: dict[str, Damage] = {
    "a FIFO": lambda path: os.mkfifo(path),
    "a directory": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link into nothing": lambda path: path.symlink_to("no"),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "missing": lambda path: None,
}
INDEXES: dict[str, Any] = {
    "outside": {"weight_map": {"a": "../elsewhere/model.safetensors"}},
    "absolute": {"weight_map": {"a": "/dev/zero"}},
    "numbers": {"weight_map": {"a": 1}},
    "no map": {},
    "a list": [],
    "a missing file": {"weight_map": {"a": "b.safetensors"}},
    "itself": {"weight_map": {"a": "model.safetensors.index.json"}},
    "an empty map": {"weight_map": {}},
}


def _replaced(name: str, make: Damage) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return damage


def _folder(make: Damage) -> Damage:
    def damage(folder: Path) -> None:
        shutil.rmtree(folder)
        make(folder)

    return damage


def _index(index: Any) -> Damage:
    def damage(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return damage


def main(folders: list[str]) -> None:
    """Load each folder; print its number, the outcome, seconds, and the most memory used so far in MiB."""
    from c2l_lsp.config import Model
    from c2l_lsp.errors import ModelError
    from c2l_lsp.model.lm import fast_loader

    for number, folder in enumerate(folders):
        print(number, "begins", flush=True)
        started = time.perf_counter()
        try:
            fast_loader.load(Model(path=folder, dtype="float32", device="cpu"))
            outcome = "loaded"
        except ModelError as error:
            outcome = f"refused {error}"
        except BaseException as error:
            outcome = f"raised {type(error).__name__}: {error}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(number, f"{time.perf_counter() - started:.2f}", peak, " ".join(outcome.split())[:300], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
