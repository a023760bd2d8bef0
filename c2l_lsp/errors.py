"""All errors of this package: each has a code, a severity and a message for the user.

Only these classes leave a package. `str(error)` is one sentence that an editor can show: it names the path, key or
value at fault and never contains source text. Codes are part of the editor contract and of the engine's wire format.
"""

from __future__ import annotations

import os
import re
import traceback
from enum import Enum
from typing import ClassVar


class Severity(str, Enum):
    """Effect of an error: INFO has none, WARNING leaves completions working, ERROR stops them."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_KEY = re.compile(r"\bc2l(?:\.[A-Za-z]+)+")


class C2LError(Exception):
    """Base class. Only its subclasses are raised."""

    code: ClassVar[str] = "error"
    severity: ClassVar[Severity] = Severity.ERROR


class SettingError(C2LError):
    """A setting is unknown, has a wrong type or value, or may not be set by its source. The message names the key.

    `file` is the user's file that contains the setting; empty if the setting comes from an editor.
    """

    code = "setting"
    severity = Severity.WARNING

    def __init__(self, sentence: str, file: str = "") -> None:
        super().__init__(sentence)
        self.file = file

    @property
    def key(self) -> str:
        """The first setting named in the message, such as c2l.model.id; empty if there is none."""
        match = _KEY.search(str(self))
        return match.group() if match is not None else ""


class FolderError(C2LError):
    """A workspace folder cannot be read: missing, not a directory, no permission, not a file: URI."""

    code = "folder"
    severity = Severity.WARNING


class NothingToLearn(C2LError):
    """A folder contains no file to adapt to, so the base model answers without adapter."""

    code = "nothing-to-learn"
    severity = Severity.INFO


class GitError(C2LError):
    """git is not installed, the folder is not a repository, or its history cannot be read."""

    code = "git"
    severity = Severity.WARNING


class ModelError(C2LError):
    """The base model cannot be found, loaded or run."""

    code = "model"


class AdapterError(C2LError):
    """An adapter or hypernetwork cannot be used: other base model, wrong shapes, not finite, no weights."""

    code = "adapter"
    severity = Severity.WARNING


class CheckpointError(C2LError):
    """A checkpoint is truncated, malicious, or has an unexpected shape or format."""

    code = "checkpoint"


class StateError(C2LError):
    """Saved state is unreadable, corrupt or of another schema. It is moved aside and built again."""

    code = "state"
    severity = Severity.WARNING


class StorageError(C2LError):
    """The state directory cannot be written: disk full, read-only, no permission."""

    code = "storage"
    severity = Severity.WARNING


class EngineError(C2LError):
    """The engine process did not start, ended, or does not answer."""

    code = "engine"


class WireError(C2LError):
    """A frame between server and engine is too large, malformed or does not match the schema."""

    code = "wire"


class CorpusError(C2LError):
    """A corpus list, repository or shard cannot be used."""

    code = "corpus"


class TrainingError(C2LError):
    """Training cannot start or continue: wrong checkpoint, no data, loss diverged."""

    code = "training"


class RequestError(C2LError):
    """The arguments of a request are invalid (a file outside every folder, a line past the end)."""

    code = "request"
    severity = Severity.WARNING


class RequestCancelled(C2LError):
    """The request was cancelled or superseded by a newer one."""

    code = "cancelled"
    severity = Severity.INFO


BY_CODE: dict[str, type[C2LError]] = {kind.code: kind for kind in C2LError.__subclasses__()}


def from_code(code: str, sentence: str) -> C2LError:
    """The error for a (code, message) pair from the wire. An unknown code becomes an EngineError."""
    return BY_CODE.get(code, EngineError)(sentence)


def type_and_location(error: BaseException) -> str:
    """Type of an unexpected error with file and line, such as "KeyError at store.py:41".

    The text of the error is left out because it may contain source.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}c2l_lsp{os.sep}" in frame.filename] or frames
    return type(error).__name__ + (f" at {os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else "")  # noqa: PTH119 - a str from a traceback
