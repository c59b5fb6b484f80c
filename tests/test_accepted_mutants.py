"""Each accepted change of `make mutants` is of a function that is there, and that is changed."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
ROOT = Path(__file__).parents[1]
CHANGED = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]
ACCEPTED = [
    change
    for group in tomllib.loads((ROOT / "tests" / "mutants.toml").read_text())["accepted"]
    for change in group["changes"]
]


def functions() -> set[str]:
    """All functions that are changed, by their names in `mutants.toml`."""
    found = set()
    for file in CHANGED:
        text, module = (ROOT / file).read_text(), file.removesuffix(".py").replace("/", ".")
        for each in ast.parse(text).body:
            if isinstance(each, ast.ClassDef):
                found |= {f"{module}.{each.name}.{one.name}" for one in each.body if isinstance(one, _FUNCTIONS)}
            elif isinstance(each, _FUNCTIONS):
                found.add(f"{module}.{each.name}")
    return found


def test_every_accepted_change_is_of_a_function_that_is_there() -> None:
    assert sorted({change.strip().splitlines()[0] for change in ACCEPTED} - functions()) == []


def test_a_function_is_known_by_module_and_class() -> None:
    assert {"targeting.campaigns.budget.share", "targeting.users.push_log.PushLog.within"} <= functions()
