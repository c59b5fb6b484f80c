"""Each accepted change of `make mutants` is of a line that is there, in a function that is changed."""

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


def functions() -> dict[str, set[str]]:
    """The lines of all functions that are changed, by their names in `mutants.toml`."""
    found = {}
    for file in CHANGED:
        text, module = (ROOT / file).read_text(), file.removesuffix(".py").replace("/", ".")
        lines = [line.strip() for line in text.splitlines()]
        for each in ast.parse(text).body:
            inside = each.body if isinstance(each, ast.ClassDef) else [each]
            prefix = f"{module}.{each.name}." if isinstance(each, ast.ClassDef) else f"{module}."
            for one in inside:
                if isinstance(one, _FUNCTIONS):
                    found[prefix + one.name] = set(lines[one.lineno - 1 : one.end_lineno])
    return found


def test_every_accepted_change_is_of_a_line_that_is_there() -> None:
    known, gone = functions(), []
    for change in ACCEPTED:
        name, *lines = change.strip().splitlines()
        removed = {line[1:].strip() for line in lines if line.startswith("-")}
        if not removed or not removed <= known.get(name, set()):
            gone.append(change)
    assert gone == []


def test_a_function_is_known_by_module_and_class() -> None:
    assert {"targeting.campaigns.budget.share", "targeting.users.push_log.PushLog.within"} <= functions().keys()
