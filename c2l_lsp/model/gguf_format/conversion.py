"""Converts a GGUF file once into a Hugging Face folder in the state root, which is then loaded like any other model.

Weights are written one tensor at a time: fp16 for quantised tensors, whose rounding is far coarser, and otherwise as
they are in the file. The folder appears with one rename, so it is complete or absent. A stamp of the source (path,
size, modification time) decides whether it is still valid.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from c2l_lsp.config import state_root
from c2l_lsp.errors import ModelError
from c2l_lsp.model.gguf_format import families, tensors, tokenizer
from c2l_lsp.model.gguf_format.header import Header, open_regular, read_header

_VERSION = 1
"""Of the conversion; a folder made by another one is made again."""
_SOURCE, _WEIGHTS = "source.json", "model.safetensors"
_SPARE_BYTES = 64 << 20
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf\Z")


class Source(msgspec.Struct, frozen=True):
    """What a converted folder was made from."""

    path: str
    size: int
    modified_ns: int
    version: int = _VERSION


def converted_root() -> Path:
    """The directory of all converted models."""
    return state_root() / "models"


def converted_folder(path: Path) -> Path:
    """The folder that the conversion of a GGUF file goes to, whether it exists or not."""
    real = os.path.realpath(path)
    stem = re.sub(r"[^\w.-]", "_", path.stem)[:60]
    return (
        converted_root()
        / f"{stem}-{hashlib.blake2b(real.encode('utf-8', 'surrogateescape'), digest_size=6).hexdigest()}"
    )


def is_converted(path: Path) -> bool:
    """Whether a converted folder of the file exists and the file is unchanged since."""
    try:
        stored = msgspec.json.decode((converted_folder(path) / _SOURCE).read_bytes(), type=Source)
        return stored == _source_of(path)
    except (OSError, ModelError, msgspec.DecodeError):
        return False


def converted(path: Path) -> Path:
    """The converted folder of a GGUF file, made now unless it exists.

    Raises ModelError with a sentence if the file is damaged or not supported, if the `gguf` package is missing, or if
    the disk or the memory is too small. What was converted before stays until the new folder is complete.
    """
    if is_converted(path):
        return converted_folder(path)
    source, header = _source_of(path), read_header(path)
    if part := _SPLIT.search(path.name):
        raise ModelError(f"{path} is one of {int(part[2])} parts; join them with llama-gguf-split --merge.")
    folder = converted_folder(path)
    _remove_unfinished(folder)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True, mode=0o700)
        _convert(header, partial)
        (partial / _SOURCE).write_bytes(msgspec.json.encode(source))
        if _source_of(path) != source:
            raise ModelError(f"{path} changed while it was converted; try again when it is complete.")
        _publish(partial, folder)
    except OSError as error:
        raise _storage_error(header, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _source_of(path: Path) -> Source:
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
    return Source(os.path.realpath(path), status.st_size, status.st_mtime_ns)


def _remove_unfinished(folder: Path) -> None:
    """Delete what killed processes left of the conversion of this file."""
    for left in folder.parent.glob(f"{folder.name}.*.partial"):
        number = left.name.rsplit(".", 2)[1]
        if not (number.isdecimal() and psutil.pid_exists(int(number))):
            shutil.rmtree(left, ignore_errors=True)


def _publish(partial: Path, folder: Path) -> None:
    """Rename the complete folder into place. If another process was faster, its folder stays."""
    old = folder.with_name(f"{folder.name}.{os.getpid()}.old.partial")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _storage_error(header: Header, error: OSError) -> ModelError:
    if error.errno == errno.ENOSPC:
        gigabytes = tensors.converted_bytes(header) / 1e9
        return ModelError(
            f"The disk is full: {header.path} needs {gigabytes:.1f} GB as a converted model in {converted_root()}. "
            "Free space, or set C2L_STATE_DIR to a folder on another disk."
        )
    return ModelError(f"{header.path} cannot be converted into {converted_root()}: {error.strerror or error}.")


def _convert(header: Header, folder: Path) -> None:
    family = families.family_of(header)
    if "token_embd.weight" not in header.tensors:
        raise ModelError(f"{header.path} holds no token_embd.weight, so it is no complete model.")
    _require_space(header, folder)
    dequantize = tensors.dequantizer()
    tokenizer_json, tokenizer_config = tokenizer.tokenizer_files(header)
    with open_regular(header.path) as file:
        values = tensors.Values(header, family, file, dequantize)
        rows = header.tensors["token_embd.weight"].shape[0]
        config = families.configuration(header, rows)
        if len(tokenizer.tokens_of(header)) > rows:
            raise ModelError(f"{header.path} is damaged: its tokenizer has more tokens than the model.")
        names = _parameter_names(header, family)
        if "output.weight" in header.tensors and values.are_equal("token_embd.weight", "output.weight"):
            config["tie_word_embeddings"] = True  # the file holds one matrix twice; the finer one is kept
            names = {tensor: name for tensor, name in names.items() if tensor != "token_embd.weight"}
            names["output.weight"] = "model.embed_tokens.weight"
        if "rope_freqs.weight" in header.tensors:
            config["rope_parameters"] = _with_factor(
                header, config["rope_parameters"], values.read("rope_freqs.weight")
            )
        tensors.write_weights(folder / _WEIGHTS, header, names, values)
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    (folder / "tokenizer_config.json").write_bytes(msgspec.json.encode(tokenizer_config))
    (folder / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(config)))


def _parameter_names(header: Header, family: families.Family) -> dict[str, str]:
    names = {}
    for tensor in header.tensors:
        if families.is_ignored(tensor):
            continue
        name = family.parameter_name(tensor)
        if name is None:
            raise ModelError(f"{header.path} holds {tensor[:60]}, which no {header.architecture} model has.")
        names[tensor] = name
    return names


def _with_factor(header: Header, rope: dict[str, Any], factors: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Llama 3's scaling, whose factor is the largest in the file. ModelError if the others do not follow from it."""
    factor, count = float(factors.max()), len(factors)
    turns = rope["original_max_position_embeddings"] / (
        2 * np.pi * rope["rope_theta"] ** (np.arange(count) / count)
    )  # within the trained context
    smooth = np.clip((turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"]), 0, 1)
    if not np.allclose(factors, 1 / ((1 - smooth) / factor + smooth), rtol=1e-3):
        raise ModelError(f"{header.path} scales positions by factors of its own, which c2l-lsp cannot convert.")
    return {**rope, "factor": factor}


def require_memory(header: Header) -> None:
    """Raise ModelError if the converted weights of a file are larger than the memory of this machine."""
    needed, memory = tensors.converted_bytes(header), psutil.virtual_memory().total
    if needed > memory:
        raise ModelError(
            f"{header.path} has {header.weights / 1e9:.1f} billion weights, {needed / 1e9:.1f} GB when computed; this "
            f"machine has {memory / 1e9:.1f} GB of memory. Choose a smaller model."
        )


def _require_space(header: Header, folder: Path) -> None:
    require_memory(header)
    needed = tensors.converted_bytes(header) + _SPARE_BYTES
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
