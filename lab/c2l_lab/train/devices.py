"""The device of this process, alone or as one of several that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor


class Devices:
    """The device of this process, and its place among others started by torchrun."""

    def __init__(self) -> None:
        """Join the group if torchrun started several processes."""
        self.rank, self.count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        gpu = torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpu else torch.device("cpu")
        if self.count > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if gpu else "gloo")

    @property
    def name(self) -> str:
        """What a model card says a run was made on."""
        if self.device.type == "cpu":
            return "shared CPU cores"
        return f"{self.count} × {torch.cuda.get_device_name(self.device)}"

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Add up gradients over all processes, in one exchange."""
        if self.count == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        torch.distributed.all_reduce(flat)
        for g, part in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
            g.copy_(part.view_as(g))

    def agree(self, wish: bool) -> bool:
        """What the first process wishes. Clocks differ: whatever leads to an exchange is decided by one."""
        return self.sum(float(wish and self.rank == 0)) > 0

    def sum(self, number: float) -> float:
        """`number` added up over all processes."""
        if self.count == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return float(total)
