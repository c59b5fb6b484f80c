"""Large matrix products on CPU or GPU, with the same code and random numbers."""

from __future__ import annotations

import os
import warnings

import torch
from scipy import sparse
from torch import Tensor

from encoder.training_config import Device

CPU = torch.device("cpu")


def chosen(name: Device) -> torch.device:
    """The named device; ``auto`` is the GPU if there is one. Each of several processes has its own GPU.

    On a GPU, results are made to depend on the seed alone.

    Raises:
        ValueError: ``cuda`` although torch sees no GPU.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        raise ValueError("device cuda: torch sees no card here; choose cpu or auto")
    # Read when cuBLAS starts: without a fixed workspace its sums differ between runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def matrix(rows: sparse.csr_matrix, device: torch.device) -> Tensor:
    """A float32 csr matrix as a sparse tensor on the device."""
    with warnings.catch_warnings():
        # Silences "Sparse CSR tensor support is in beta state", once a process.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(
            torch.from_numpy(rows.indptr),
            torch.from_numpy(rows.indices),
            torch.from_numpy(rows.data),
            rows.shape,
            device=device,
            check_invariants=False,
        )
