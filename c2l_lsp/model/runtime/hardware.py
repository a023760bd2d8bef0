"""What a model computes with: the device, the number format, the threads."""

from __future__ import annotations

import os

import psutil
import torch

from c2l_lsp.errors import ModelError
from c2l_lsp.model.runtime import kernel


def thread_count() -> int:
    """Threads an engine computes with: OMP_NUM_THREADS, else the cores this process may use, but for one."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) else max(1, core_count() - 1)


def core_count() -> int:
    """Cores this process may use; two threads of one count once."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


def has_fast_cores() -> bool:
    """Whether one core multiplies as fast as `c2l-small` needs it: bf16, or whole numbers by our own kernel."""
    return torch.cpu._is_avx512_bf16_supported() or (kernel.is_available() and has_avx2())


def has_avx2() -> bool:
    """Whether the CPU has registers that make int8 pay (measured on AVX2)."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def pick_device(wanted: str) -> torch.device:
    """The device a setting names; auto takes CUDA, then MPS, then the CPU. ModelError if it is not there."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(wanted)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not there.get(device.type, False):
        raise ModelError(f"c2l.model.device is {wanted}, which this machine does not have; use auto or cpu.")
    return device


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """The number format a setting names; auto is bf16 where the device multiplies it natively, else fp32."""
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu":
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    return torch.float32
