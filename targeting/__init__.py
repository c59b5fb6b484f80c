"""Vectors -> audience: who should get a song that nobody has heard.

What a notebook needs is exported here, and loaded when it is first asked for: the wire contract takes one constant from
this package and shall not pay for scipy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from targeting.calibration import Calibration
    from targeting.catalogue.catalogue import Catalogue
    from targeting.config import TargetingConfig
    from targeting.index import ExactIndex, HnswIndex, WarmIndex
    from targeting.partition.partition import Partition, Staged
    from targeting.rules.policy import Policy
    from targeting.types import (
        Account,
        FrequencyCap,
        Listens,
        Match,
        Outcomes,
        OutsideVectors,
        PartitionInputs,
        PartitionOutputs,
        Preferences,
        Push,
        QuietSpan,
        Takedown,
    )

__all__ = [
    "Account",
    "Calibration",
    "Catalogue",
    "ExactIndex",
    "FrequencyCap",
    "HnswIndex",
    "Listens",
    "Match",
    "Outcomes",
    "OutsideVectors",
    "Partition",
    "PartitionInputs",
    "PartitionOutputs",
    "Policy",
    "Preferences",
    "Push",
    "QuietSpan",
    "Staged",
    "Takedown",
    "TargetingConfig",
    "WarmIndex",
]

_MODULES = {
    "Calibration": "calibration",
    "Catalogue": "catalogue.catalogue",
    "ExactIndex": "index",
    "HnswIndex": "index",
    "Partition": "partition.partition",
    "Policy": "rules.policy",
    "Staged": "partition.partition",
    "TargetingConfig": "config",
    "WarmIndex": "index",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'types')}"), name)


def __dir__() -> list[str]:
    return __all__
