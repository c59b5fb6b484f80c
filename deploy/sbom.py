"""Writes what a release's image holds, as CycloneDX: ``python deploy/sbom.py MADE OUT``.

MADE comes from ``cyclonedx-py requirements``, which gives each part the address of a registry and the text of the lock.
Whoever reads the list has a registry of their own: a part's package URL names it, and its hashes stay.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(made: Path, out: Path) -> None:
    bom = json.loads(made.read_text(encoding="utf-8"))
    for tool in bom["metadata"]["tools"]["components"]:
        tool.pop("externalReferences", None)
    for part in bom["components"]:
        part.pop("description")
        part["externalReferences"] = [
            {"type": each["type"], "url": part["purl"], "hashes": each["hashes"]} for each in part["externalReferences"]
        ]
    out.write_text(json.dumps(bom, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
