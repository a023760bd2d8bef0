"""The closed set of things that can go wrong, each with a code, a severity and a sentence a user can act on.

Every error that leaves a package is one of these classes. `str(error)` is the sentence an editor shows; it never
holds source text, and it names the path, key or value that is at fault.
"""

from __future__ import annotations

import os
import re
import traceback
from enum import Enum
from typing import ClassVar


class Severity(str, Enum):
    """How loud an error is: INFO is a reason, WARNING leaves completions going, ERROR stops them."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_KEY = re.compile(r"\bc2l(?:\.[A-Za-z]+)+")


class C2LError(Exception):
    """Base of the closed set; only its subclasses are raised."""

    code: ClassVar[str] = "error"
    severity: ClassVar[Severity] = Severity.ERROR


class SettingError(C2LError):
    """A setting is unknown, ill-typed, out of range, or not allowed from its source. Names the key.

    `file`: the user's file that holds it; empty if an editor's settings do.
    """

    code = "setting"
    severity = Severity.WARNING

    def __init__(self, sentence: str, file: str = "") -> None:
        super().__init__(sentence)
        self.file = file

    @property
    def key(self) -> str:
        """The first key that the sentence names, such as c2l.model.id; empty if it names none."""
        named = _KEY.search(str(self))
        return named.group() if named is not None else ""


class FolderError(C2LError):
    """A workspace folder cannot be read: missing, not a directory, no permission, not a file: URI."""

    code = "folder"
    severity = Severity.WARNING


class NothingToLearn(C2LError):
    """The folder holds no file the hypernetwork may read, so completions come from the base model."""

    code = "nothing-to-learn"
    severity = Severity.INFO


class GitError(C2LError):
    """git is missing, the folder is no repository, or its history cannot be read."""

    code = "git"
    severity = Severity.WARNING


class ModelError(C2LError):
    """The base model cannot be found, read or run."""

    code = "model"


class AdapterError(C2LError):
    """An adapter or hypernetwork was refused: wrong base, shapes, not finite, no weights for this base."""

    code = "adapter"
    severity = Severity.WARNING


class CheckpointError(C2LError):
    """A checkpoint is truncated, hostile, of another shape or of another format."""

    code = "checkpoint"


class StateError(C2LError):
    """Persisted state is unreadable, corrupt, foreign or of another schema; it is set aside and rebuilt."""

    code = "state"
    severity = Severity.WARNING


class StorageError(C2LError):
    """The state directory cannot be written: disk full, read-only, no permission."""

    code = "storage"
    severity = Severity.WARNING


class EngineError(C2LError):
    """The engine process could not start, died, or does not answer."""

    code = "engine"


class WireError(C2LError):
    """A frame between server and engine is too large, malformed or against the schema."""

    code = "wire"


class CorpusError(C2LError):
    """A corpus list, repository or shard cannot be used."""

    code = "corpus"


class TrainingError(C2LError):
    """Training cannot start or go on: wrong checkpoint, no data, diverged."""

    code = "training"


class RequestError(C2LError):
    """A request's own arguments are wrong (a file outside every folder, a line past the end)."""

    code = "request"
    severity = Severity.WARNING


class RequestCancelled(C2LError):
    """The request was cancelled or superseded; nobody waits for its answer any more."""

    code = "cancelled"
    severity = Severity.INFO


BY_CODE: dict[str, type[C2LError]] = {kind.code: kind for kind in C2LError.__subclasses__()}


def from_code(code: str, sentence: str) -> C2LError:
    """The error that crossed the wire as (code, sentence); an unknown code becomes an EngineError."""
    return BY_CODE.get(code, EngineError)(sentence)


def place(error: BaseException) -> str:
    """An unforeseen error without its text, which may hold source: its type, and the file and line it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}c2l_lsp{os.sep}" in frame.filename] or frames
    return type(error).__name__ + (f" at {os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else "")  # noqa: PTH119 - a str from a traceback
