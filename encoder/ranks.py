"""This process's part of a training, alone or under torchrun."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True, slots=True)
class Ranks:
    """Process ``rank`` of the ``size`` that train one encoder; only process 0 writes."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_environment(cls, device: torch.device) -> Ranks:
        """Read from torchrun's ``RANK`` and ``WORLD_SIZE``, otherwise one process. The first call joins the group.

        Processes communicate by gloo on CPUs and NCCL on GPUs.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not distributed.is_initialized():
            distributed.init_process_group("gloo" if device.type == "cpu" else "nccl")
            atexit.register(distributed.destroy_process_group)
        return cls(distributed.get_rank(), size)

    def share(self, rows: Tensor) -> Tensor:
        """This process's rows of a batch; all rows if there are fewer rows than processes."""
        return rows[self.rank :: self.size] if len(rows) >= self.size else rows

    def together(self, module: nn.Module) -> nn.Module:
        """The module with process 0's weights and gradients averaged over processes."""
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)
