"""Large matrix products on the CPU or a GPU, by the same code and the same random numbers."""

from __future__ import annotations

import os
import warnings

import torch
from scipy import sparse
from torch import Tensor

from encoder.training_config import Device

CPU = torch.device("cpu")


def chosen(name: Device) -> torch.device:
    """The device of that name; ``auto`` is the card where there is one. Of several processes each has its own card.

    On a card, results are made to depend on the seed alone.

    Raises:
        ValueError: ``cuda`` where torch sees no card.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        raise ValueError("device cuda: torch sees no card here; choose cpu, or auto, which takes what there is")
    # Read when cuBLAS starts: without a workspace of a set size its sums differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def matrix(rows: sparse.csr_matrix, device: torch.device) -> Tensor:
    """A float32 csr matrix as a sparse tensor on the device."""
    with warnings.catch_warnings():
        # "Sparse CSR tensor support is in beta state", at each first one of a process.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(
            torch.from_numpy(rows.indptr),
            torch.from_numpy(rows.indices),
            torch.from_numpy(rows.data),
            rows.shape,
            device=device,
            check_invariants=False,
        )
