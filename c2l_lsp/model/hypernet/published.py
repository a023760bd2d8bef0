"""The published Code2LoRA files: where they are on the Hugging Face Hub, and how they are loaded safely.

The files are pickles. Loading one can construct tensors, plain values and the inert stand-ins below, and nothing else.
`checkpoint` interprets the dictionaries in them.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from c2l_lsp.errors import AdapterError, CheckpointError

PublishedKind: TypeAlias = Literal["static", "evo"]
PUBLISHED: Mapping[PublishedKind, tuple[str, str]] = {
    "static": ("code2lora/code2lora-direct", "code2lora_direct.pt"),
    "evo": ("code2lora/code2lora-gru", "code2lora_gru.pt"),
}
"""Hub repository and file name of each kind."""

PUBLISHED_BASE = "Qwen/Qwen2.5-Coder-1.5B"
"""The base model of these files, which do not name it."""


def download(kind: PublishedKind, *, offline: bool = False, **hub: Any) -> Path:  # noqa: ANN401 - passed on to hf_hub_download
    """Path of the published `.pt` file of a kind, downloaded unless it is in the Hub cache.

    Raises AdapterError with the reason if the file is not available. With `offline` nothing is downloaded.
    """
    import huggingface_hub
    from huggingface_hub import errors

    repository, name = PUBLISHED[kind]
    what = f"The {kind} hypernetwork ({name} of {repository})"
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, local_files_only=offline, **hub))
    except errors.GatedRepoError as error:
        raise AdapterError(f"{what} needs permission: accept its terms on the Hub, then `hf auth login`.") from error
    except (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError, errors.RevisionNotFoundError) as error:
        raise AdapterError(f"{what} is not on the Hub; set c2l.adapter.hypernetwork to another value.") from error
    except errors.LocalEntryNotFoundError as error:
        why = "c2l.model.offline is on; turn it off once to download it" if offline else "the Hub does not answer"
        raise AdapterError(f"{what} is not on this machine and {why}.") from error
    except Exception as error:  # the Hub client also raises the exceptions of its transport
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AdapterError(f"{what} cannot be downloaded: {first}") from error


class _Dtype:
    """Replaces numpy.dtype in a pickle: it holds a letter, a size and a byte order, and runs no code."""

    def __init__(self, code: str, *_flags: bool) -> None:
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


def _number(kind: _Dtype, data: bytes) -> object:
    """A pickled numpy scalar as a plain number; it cannot construct objects."""
    return np.frombuffer(data, dtype=kind.dtype, count=1)[0].item()


_SAFE: list[Any] = [
    argparse.Namespace,
    (_Dtype, "numpy.dtype"),
    *((_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((PureWindowsPath, f"{module}.WindowsPath") for module in ("pathlib", "pathlib._local")),
]
"""Types that a file may contain besides tensors and plain values, each with its inert replacement."""


def safe_unpickle(path: Path) -> object:
    """The content of a `.pt` file, on the CPU. Raises CheckpointError if it is damaged or would run code."""
    if damaged := _bad_entry(path):
        raise CheckpointError(f"{path} is damaged in {damaged}; download it again.")
    try:
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can make the loader raise anything
        named = re.search(r"GLOBAL (\S+)|unrecognized function (.+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and named:
            what = named[1] or named[2]
            raise CheckpointError(f"{path} tries to run {what} when loaded; it was refused and nothing ran.") from None
        raise CheckpointError(f"{path} is truncated, damaged or not a PyTorch file.") from error


def _bad_entry(path: Path) -> str | None:
    """The first entry of a zip file with a wrong checksum, which torch does not verify; None for any other file."""
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as file:
            return file.testzip()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError, zlib.error, RuntimeError):
        return "its table of contents"


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file. Raises CheckpointError if it cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
