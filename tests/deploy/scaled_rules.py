"""Alert rules on a clock that runs faster, so that a test need not wait for days."""

from __future__ import annotations

import math
import re
from typing import Any, Final

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WINDOW = re.compile(r"(\[|\boffset )(\d+)([smhd])")


def scaled(rules: dict[str, Any], factor: float, window_s: int, hold_s: int) -> dict[str, Any]:
    """The rules with durations divided by ``factor``: windows of queries, offsets, and ``for``. Thresholds stay.

    Args:
        window_s: no window or offset becomes shorter: it must hold a few samples.
        hold_s: no ``for`` becomes shorter.
    """

    def window(match: re.Match[str]) -> str:
        return f"{match[1]}{shorter(match[2], match[3], window_s)}s"

    def shorter(number: str, unit: str, least: int) -> int:
        return max(least, math.ceil(int(number) * _SECONDS[unit] / factor))

    def of(rule: dict[str, Any]) -> dict[str, Any]:
        made = {**rule, "expr": _WINDOW.sub(window, rule["expr"])}
        if "for" in rule:
            made["for"] = f"{shorter(rule['for'][:-1], rule['for'][-1], hold_s)}s"
        return made

    return {"groups": [{**group, "rules": [of(rule) for rule in group["rules"]]} for group in rules["groups"]]}
