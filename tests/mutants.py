"""The score of `make mutants`: how many changes to the code a test noticed, and which none did.

Fails below the least score, and where a change survived that `mutants.toml` does not accept with a reason. There a
change is named by its function and by the lines it changes, so that other work on the file leaves it known.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections import Counter
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

LEAST = 0.9
ACCEPTED = Path(__file__).with_name("mutants.toml")

# A test that runs for ever has noticed, too.
NOTICED = {"killed", "timeout", "segfault", "caught by type check"}


def survivors(path: Path, codes: dict[str, int | None]) -> list[str]:
    """Function and changed lines of each change that no test noticed."""
    found = []
    for name, code in codes.items():
        if status_by_exit_code[code] not in NOTICED:
            diff = get_diff_for_mutant(name, path=path).splitlines()
            lines = [line[0] + " " + line[1:].strip() for line in diff[2:] if line[:1] in "+-"]
            function = name.rpartition("__mutmut_")[0].replace("x_", "", 1).replace("xǁ", "").replace("ǁ", ".")
            found.append("\n".join([function, *lines]))
    return found


def main() -> int:
    listed = tomllib.loads(ACCEPTED.read_text(encoding="utf-8"))["accepted"]
    known = {change.strip(): 0 for group in listed for change in group["changes"]}
    total, noticed, unlisted, whole = Counter[str](), Counter[str](), [], []
    for meta in sorted(Path("mutants").rglob("*.py.meta")):
        path = meta.relative_to("mutants").with_suffix("")
        codes = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        tried = {name: code for name, code in codes.items() if code is not None}
        if not tried:
            continue
        left = survivors(path, tried)
        total[str(path)], noticed[str(path)] = len(tried), len(tried) - len(left)
        if len(tried) < len(codes):
            print(f"{path}: {len(codes) - len(tried)} changes were not tried")
        else:
            whole.append(".".join(path.with_suffix("").parts) + ".")
        for change in left:
            if change in known:
                known[change] += 1
            else:
                unlisted.append(change)
    for name, count in total.items():
        print(f"{noticed[name] / count:7.1%} of {count:5} noticed  {name}")
    if not total:
        print("no change was tried: run mutmut first")
        return 1
    score = noticed.total() / total.total()
    accepted = sum(known.values())
    print(f"{score:7.1%} of {total.total():5} noticed; of those left, {accepted} are accepted in {ACCEPTED.name}")
    for change in unlisted:
        print(f"\nno test notices, and it is not accepted: {change}")
    for change in (change for change, times in known.items() if not times and change.startswith(tuple(whole))):
        print(f"\naccepted, and not met: {change}")
    return 1 if unlisted or score < LEAST else 0


if __name__ == "__main__":
    sys.exit(main())
