"""Telling a device that refused one request from a device that is lost: after the second only a new process helps."""

from __future__ import annotations

from c2l_lsp.errors import C2LError, place

_LOST = ("CUDA error", "device-side assert", "CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED", "MPS: ")
FAULTS_IN_A_ROW = 3
"""So many failures of the model one after the other count as a lost device, whatever they say."""


def is_lost(error: BaseException) -> bool:
    """Whether an error of torch says that the device cannot be used by this process any more."""
    text = str(error)
    return not isinstance(error, MemoryError) and "out of memory" not in text and any(mark in text for mark in _LOST)


def describe(error: BaseException) -> str:
    """What failed, without text that may hold source: only of errors that are about the device the words are kept."""
    text = str(error)
    about_device = any(mark in text for mark in ("out of memory", *_LOST)) or isinstance(error, FloatingPointError)
    return text.splitlines()[0] if text and (about_device or isinstance(error, C2LError)) else place(error)
