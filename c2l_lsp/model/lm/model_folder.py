"""Checks of a model folder before transformers parses it, and of the model that came out of it.

A folder can be malformed in any way. What could block, read outside the folder or ask for memory without bound is
refused by name before it is parsed. Errors of the parsers become ModelError in `foreign_files`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil
import torch

from c2l_lsp.errors import ModelError

_READ = (".json", ".jsonl", ".jinja", ".model", ".safetensors", ".txt")
"""Suffixes of the files that are read from a model folder."""

_INDEX = "model.safetensors.index.json"
_MAX_ENTRIES = 10_000
_MAX_JSON_BYTES = 16 << 20  # of every JSON file but the tokenizer's
_MAX_TOKENIZER_BYTES = 256 << 20
_LIMITS = {"layer": 1 << 12, "head": 1 << 16}  # by a part of the name
_MAX_SIZE = 1 << 40  # no number of a configuration is larger
_MAX_CONTEXT = 1 << 24
_WEIGHTS_A_BYTE = 8  # of the densest quantisation
_SAMPLE = "def first(items):\n    return items[0]  # é\n"


@contextlib.contextmanager
def foreign_files(error_of: Callable[[Exception], ModelError]) -> Iterator[None]:
    """Within the block, files of a model are parsed by other libraries: whatever they raise becomes `error_of(it)`."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise error_of(error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of a library in Rust; no subclass of Exception
            raise
        raise error_of(ValueError("a parser failed")) from error


def check(folder: Path) -> None:
    """Raise ModelError, with the file named, unless the files of a folder can be parsed without harm."""
    names = _names(folder)
    for name in names:
        _require_regular(folder / name)
    for name in names:
        if name.endswith(".json") and name != "tokenizer.json":
            _check_json(folder / name)
    if "tokenizer.json" in names and (folder / "tokenizer.json").stat().st_size > _MAX_TOKENIZER_BYTES:
        raise ModelError(f"{folder / 'tokenizer.json'} is larger than {_MAX_TOKENIZER_BYTES >> 20} MiB.")


def weight_limit(folder: Path) -> int:
    """Return the largest number of weights that the files of a folder can hold."""
    sizes = ((folder / name).stat().st_size for name in _names(folder) if name.endswith(".safetensors"))
    return _WEIGHTS_A_BYTE * sum(sizes)


def quantisation(folder: Path) -> str:
    """Return the name of the method by which the weights of a folder are quantised; "" if they are not."""
    try:
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Any])
    except (OSError, ValueError):
        return ""
    about = config.get("quantization_config")
    return str(about.get("quant_method", "an unnamed method"))[:40] if isinstance(about, dict) else ""


def require_memory(folder: Path, needed: int, device: torch.device) -> None:
    """Raise ModelError if a device has less memory than the weights of a model take."""
    if device.type == "cuda":
        total, name = torch.cuda.get_device_properties(device).total_memory, "GPU"
    else:
        total, name = psutil.virtual_memory().total, "machine"
    if needed > total:
        raise ModelError(
            f"The weights of {folder} take {needed / 1e9:.1f} GB; this {name} has {total / 1e9:.1f} GB of memory. "
            "Choose a smaller model, or c2l.model.dtype bfloat16."
        )


def require_complete(info: Mapping[str, Any], where: str) -> None:
    """Raise ModelError if weights were missing: transformers fills them with random numbers."""
    missing = sorted(map(str, info.get("missing_keys") or ()))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"The model in {where} lacks the weights {missing[0]}{more}.")


def max_context(config: object) -> int:
    """Return the number of positions of a model; ModelError if its configuration has none that is possible."""
    found = getattr(config, "max_position_embeddings", None) or 2048
    if isinstance(found, bool) or not isinstance(found, int) or not 1 < found <= _MAX_CONTEXT:
        raise ModelError(f"The model's max_position_embeddings is {found!r:.60}.")
    return found


@torch.inference_mode()
def require_working(model: Any) -> None:  # noqa: ANN401 - a BaseModel, whose module imports this one
    """Raise ModelError unless a loaded model computes finite logits for a line of text and its tokens are its own."""
    ids = model.encode(_SAMPLE)
    own = [*ids, model.start_id, *model.stops, *_fim_ids(model)]
    if not ids or not all(0 <= index < model.vocabulary for index in own):
        raise ModelError(f"The tokenizer of {model.id} gives token ids that the model does not have.")
    logits = model.logits(model.hidden(torch.tensor([ids], device=model.device)))
    if tuple(logits.shape) != (1, len(ids), model.vocabulary) or not bool(logits.isfinite().all()):
        raise ModelError(f"The model {model.id} computes numbers that are not finite.")


def _fim_ids(model: Any) -> list[int]:  # noqa: ANN401
    return [] if model.fim is None else [model.fim.prefix, model.fim.suffix, model.fim.middle]


def _names(folder: Path) -> list[str]:
    """The names of the files that loading may read."""
    found: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= _MAX_ENTRIES:
                    raise ModelError(f"{folder} holds too many files for a model.")
                if entry.name.endswith(_READ):
                    found.append(entry.name)
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror}.") from error
    return sorted(found)


def _require_regular(path: Path) -> None:
    """Links are followed: the Hub's own cache consists of them."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    if not regular:
        raise ModelError(f"{path} is not a regular file.")


def _check_json(path: Path) -> None:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ModelError(f"{path} is larger than {_MAX_JSON_BYTES >> 20} MiB.")
    try:
        content = msgspec.json.decode(path.read_bytes())
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {str(error)[:200]}") from error
    if path.name in ("config.json", "tokenizer_config.json", _INDEX) and not isinstance(content, dict):
        raise ModelError(f"{path} is no JSON object.")
    if path.name == "config.json":
        _check_sizes(path, content)
    if path.name == _INDEX:
        _check_index(path, content)


def _check_sizes(path: Path, config: dict[str, Any], depth: int = 0) -> None:
    """Refuse numbers that make the construction of an empty model take for ever."""
    for key, value in config.items():
        numbers = value if isinstance(value, list) else [value]
        for number in numbers:
            limit = next((most for part, most in _LIMITS.items() if part in key), _MAX_SIZE)
            if isinstance(number, int | float) and not abs(number) <= limit:
                raise ModelError(f"{path}: {key[:60]} is {str(number)[:40]}, which no model has.")
            if isinstance(number, dict) and depth < 8:
                _check_sizes(path, number, depth + 1)


def _check_index(path: Path, index: dict[str, Any]) -> None:
    names = index.get("weight_map")
    if not isinstance(names, dict):
        raise ModelError(f"{path} has no weight_map.")
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(f"{path} names {str(name)[:80]!r}, which is no weight file of the folder.")
