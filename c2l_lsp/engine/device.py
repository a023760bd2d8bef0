"""Classifies errors of the model: one request failed, or this process can no longer use its device."""

from __future__ import annotations

from c2l_lsp.errors import C2LError, type_and_location

_LOST = ("CUDA error", "device-side assert", "CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED", "MPS: ")
"""Parts of torch's messages after which every later call fails too."""

FAULTS_IN_A_ROW = 3
"""Consecutive failures of the model after which the device counts as lost, whatever the messages are."""


def is_lost(error: BaseException) -> bool:
    """Return whether an error of torch means that only a new process can use the device again."""
    text = str(error)
    return not isinstance(error, MemoryError) and "out of memory" not in text and any(mark in text for mark in _LOST)


def describe(error: BaseException) -> str:
    """Return a description of an error that cannot contain source text.

    The message is used only if it is about the device, about NaN, or one of our own; otherwise type and code location.
    """
    text = str(error)
    about_device = any(mark in text for mark in ("out of memory", *_LOST)) or isinstance(error, FloatingPointError)
    return text.splitlines()[0] if text and (about_device or isinstance(error, C2LError)) else type_and_location(error)
