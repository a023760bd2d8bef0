"""Which hardware to compute on: the device, the number format, the number of threads."""

from __future__ import annotations

import os

import psutil
import torch

from c2l_lsp.errors import ModelError
from c2l_lsp.model.runtime import kernel


def thread_count() -> int:
    """Threads an engine computes with: OMP_NUM_THREADS if set, else all usable cores but one."""
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return int(setting) if setting.isdecimal() and int(setting) else max(1, core_count() - 1)


def core_count() -> int:
    """Physical cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


def has_fast_cores() -> bool:
    """Whether one core is fast enough for `c2l-small`: by native bf16 products, or by int8 products in the kernel."""
    return torch.cpu._is_avx512_bf16_supported() or (kernel.is_available() and has_avx2())


def has_avx2() -> bool:
    """Whether the CPU has AVX2 or AVX-512 registers, with which int8 pays off."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def pick_device(wanted: str) -> torch.device:
    """The device that `c2l.model.device` names; "auto" prefers CUDA, then MPS, then the CPU.

    Raises ModelError if this machine does not have the device.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(wanted)
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not available.get(device.type, False):
        raise ModelError(f"c2l.model.device is {wanted}, which this machine does not have; use auto or cpu.")
    return device


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """The dtype that `c2l.model.dtype` names; "auto" is bf16 where the device multiplies it natively, else fp32.

    CUDA devices without bf16 get fp16.
    """
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu":
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    return torch.float32
