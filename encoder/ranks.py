"""This process's part of the training: all of it, or what torchrun made it."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process is number ``rank`` of ``size`` that train one encoder together; number 0 alone writes."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_environment(cls, device: torch.device) -> Ranks:
        """As torchrun says by ``RANK`` and ``WORLD_SIZE``; without it there is one process. The first call joins.

        The processes speak by gloo on the CPU, by NCCL on cards.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not distributed.is_initialized():
            distributed.init_process_group("gloo" if device.type == "cpu" else "nccl")
            atexit.register(distributed.destroy_process_group)
        return cls(distributed.get_rank(), size)

    def share(self, rows: Tensor) -> Tensor:
        """This process's rows of a batch; all of them where there is not one for each."""
        return rows[self.rank :: self.size] if len(rows) >= self.size else rows

    def together(self, module: nn.Module) -> nn.Module:
        """The module with its weights as process 0 has them, and gradients that are the means of all processes'."""
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)
