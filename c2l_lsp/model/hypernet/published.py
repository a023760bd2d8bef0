"""The paper's files as published: where they are on the Hub, and how one is opened without running anything in it.

The files are pickles. Reading one can build tensors, plain values and the inert stand-ins below, and nothing else.
What the dictionaries in them mean is `checkpoint`'s.
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

Kind: TypeAlias = Literal["static", "evo"]
PUBLISHED: Mapping[Kind, tuple[str, str]] = {
    "static": ("code2lora/code2lora-direct", "code2lora_direct.pt"),
    "evo": ("code2lora/code2lora-gru", "code2lora_gru.pt"),
}
"""Hub repository and file of each kind."""
PUBLISHED_BASE = "Qwen/Qwen2.5-Coder-1.5B"
"""The base LM these files were made for; they do not say so themselves."""


def download(kind: Kind, *, offline: bool = False, **hub: Any) -> Path:  # noqa: ANN401 - passed on to hf_hub_download
    """Path of the published `.pt` of a kind, downloaded unless `offline`. AdapterError says why it cannot be had."""
    import huggingface_hub
    from huggingface_hub import errors

    repository, name = PUBLISHED[kind]
    what = f"The {kind} hypernetwork ({name} of {repository})"
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, local_files_only=offline, **hub))
    except errors.GatedRepoError as error:
        raise AdapterError(f"{what} needs permission: accept its terms on the Hub, then `hf auth login`.") from error
    except (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError, errors.RevisionNotFoundError) as error:
        raise AdapterError(f"{what} is not on the Hub; choose another c2l.adapter.hypernetwork.") from error
    except errors.LocalEntryNotFoundError as error:
        why = "c2l.model.offline is on; turn it off once to download it" if offline else "the Hub does not answer"
        raise AdapterError(f"{what} is not on this machine and {why}.") from error
    except Exception as error:  # the Hub client's transport raises kinds of its own
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AdapterError(f"{what} cannot be fetched: {first}") from error


class _Dtype:
    """Stands for numpy.dtype in a pickle: a letter, a size and a byte order, nothing that runs."""

    def __init__(self, code: str, *_flags: bool) -> None:
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


def _number(kind: _Dtype, data: bytes) -> object:
    """A pickled numpy scalar as a plain number; objects cannot be made this way."""
    return np.frombuffer(data, dtype=kind.dtype, count=1)[0].item()


_SAFE: list[Any] = [
    argparse.Namespace,
    (_Dtype, "numpy.dtype"),
    *((_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((PureWindowsPath, f"{module}.WindowsPath") for module in ("pathlib", "pathlib._local")),
]
"""What `args` may hold besides plain values: only inert stand-ins are ever built."""


def safe_unpickle(path: Path) -> object:
    """The content of a `.pt` file on the CPU; CheckpointError if it is damaged or asks for anything to be run."""
    if damaged := _bad_entry(path):
        raise CheckpointError(f"{path} is damaged in {damaged}; download it again.")
    try:
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes the reader raise is a refusal
        named = re.search(r"GLOBAL (\S+)|unrecognized function (.+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and named:
            what = named[1] or named[2]
            raise CheckpointError(f"{path} asks for {what} while it is read; it was refused and nothing ran.") from None
        raise CheckpointError(f"{path} is truncated or damaged, or no PyTorch file.") from error


def _bad_entry(path: Path) -> str | None:
    """The first entry of a zip whose checksum does not hold (torch itself does not look); None if all do, or no zip."""
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as file:
            return file.testzip()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError, zlib.error, RuntimeError):
        return "its table of contents"


def file_sha256(path: Path) -> str:
    """The digest of a file, read in parts; CheckpointError if it cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
