"""The device of this process, and communication between processes started by torchrun."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence

import torch
from torch import Tensor


def _leave() -> None:
    """Leave the process group before the interpreter unloads the libraries that its threads use."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Devices:
    """The device and rank of this process."""

    def __init__(self) -> None:
        """Join the process group if torchrun started several processes."""
        self.rank, self.count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        gpu = torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpu else torch.device("cpu")
        if self.count > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if gpu else "gloo")
            atexit.register(_leave)

    @property
    def name(self) -> str:
        """A description of the hardware for the model card."""
        if self.device.type == "cpu":
            return "shared CPU cores"
        return f"{self.count} × {torch.cuda.get_device_name(self.device)}"

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Sum the gradients over all processes in one all-reduce."""
        if self.count == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        torch.distributed.all_reduce(flat)
        for g, part in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
            g.copy_(part.view_as(g))

    def agree(self, decision: bool) -> bool:
        """Return the decision of rank 0 on every process.

        A decision that depends on a clock must be shared: otherwise one process could wait for another for ever.
        """
        return self.sum(float(decision and self.rank == 0)) > 0

    def wait(self) -> None:
        """Wait for all processes.

        A process that leaves closes its connections. Call this first, so that no other process is still at work then:
        gloo may abort a process whose peer has gone.
        """
        self.sum(0.0)

    def sum(self, number: float) -> float:
        """Return the sum of `number` over all processes."""
        if self.count == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return float(total)
