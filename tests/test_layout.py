"""The folders are the architecture: who may import whom, and where it is written down."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("encoder", "significance", "targeting", "streams")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FOLDERS = sorted({path.parent for path in MODULES} | {ROOT / "deploy", ROOT / "tests"})

KAFKA = {"faust", "mode", "aiokafka", "confluent_kafka"}
# What training and reports need; a production image holds none of it.
TRAINING = {"torch", "sklearn", "matplotlib", "jinja2"}

LONGEST = 400
"""Lines of a file."""

# From the innermost outwards. What stands beside another in a line does not import it.
LAYERS = {
    "streams": ["contract", "runtime", "kafka", "models", "songs audience", "operations", "testbed", "cli", "__main__"],
    "streams.testbed": ["broker pages", "demo", "chaos", "simulation backtest"],
    "targeting": [
        "types",
        "arrays calibration",
        "clustering index rules",
        "campaigns catalogue",
        "users",
        "ranking",
        "live",
        "config",
        "partition",
        "evaluation",
    ],
}


@cache
def statements(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """What a file imports, at any depth of its code: full dotted modules, and the names taken from each."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            found.append((module, tuple(alias.name for alias in node.names)))
    return found


def imported(path: Path) -> Iterator[str]:
    """Every module that a file may import, by full dotted name; a name taken from one may be a module too."""
    for module, names in statements(path):
        yield module
        yield from (f"{module}.{name}" for name in names)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def graph() -> dict[str, set[str]]:
    """Which of our modules each of them imports."""
    ours = {module_name(path) for path in MODULES}

    def modules(path: Path) -> Iterator[str]:
        for module, names in statements(path):
            inner = {f"{module}.{name}" for name in names} & ours
            yield from inner
            if len(inner) < len(names) or not names:
                yield module

    return {module_name(path): set(modules(path)) & ours - {module_name(path)} for path in MODULES}


GRAPH = graph()


def breaches(folder: str, forbidden: set[str]) -> list[str]:
    """Imports in ``folder`` of anything in or under the forbidden modules."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in MODULES
        if path.is_relative_to(ROOT / folder)
        for name in imported(path)
        if any(name == module or name.startswith(f"{module}.") for module in forbidden)
    ]


def test_a_breach_would_be_seen() -> None:
    assert any("imports confluent_kafka" in breach for breach in breaches("streams", KAFKA))
    assert any("encoder/train.py imports torch" in breach for breach in breaches("encoder", TRAINING))
    assert any("imports targeting" in breach for breach in breaches("streams", {"targeting"}))


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("significance", {"encoder", "targeting", "streams"} | KAFKA | TRAINING),
        ("encoder", {"targeting", "streams"} | KAFKA),
        ("targeting", {"encoder", "streams"} | KAFKA | TRAINING),
    ],
)
def test_the_inner_folders_know_nothing_of_streams(folder: str, forbidden: set[str]) -> None:
    assert breaches(folder, forbidden) == []


def test_torch_stays_in_training() -> None:
    where = {breach.split()[0] for package in PACKAGES for breach in breaches(package, {"torch"})}
    training = ("device", "fit", "leave_one_out", "model", "optimiser", "ranks", "resemblance", "supervision", "train")
    assert where <= {*(f"encoder/{name}.py" for name in training), "encoder/evaluation/neural_baselines.py"}


def test_only_the_verbs_and_the_testbed_import_the_testbed() -> None:
    known = [
        breach
        for package in PACKAGES
        for breach in breaches(package, {"streams.testbed"})
        if not breach.startswith(("streams/testbed/", "streams/cli/"))
    ]
    assert known == []


@pytest.mark.parametrize("package", LAYERS)
def test_no_import_points_upward(package: str) -> None:
    layers = {name: level for level, names in enumerate(LAYERS[package]) for name in names.split()}

    def layer(module: str) -> str | None:
        """The part of the package that a module belongs to; the package itself is above its parts."""
        return module.removeprefix(f"{package}.").split(".")[0] if module.startswith(f"{package}.") else None

    inside = {module: part for module in GRAPH if (part := layer(module))}
    assert set(inside.values()) == set(layers), "every part of the package has its layer"
    upward = [
        f"{module} imports {name}"
        for module, part in inside.items()
        for name in GRAPH[module]
        if (name == package or name in inside)
        and (name == package or (inside[name] != part and layers[inside[name]] >= layers[part]))
    ]
    assert upward == []


def test_the_broker_stands_alone() -> None:
    own = {"streams.contract.errors", "streams.runtime.settings", "streams.runtime.clock", "streams.runtime.terminal"}
    broker = {module for module in GRAPH if module.startswith("streams.testbed.broker")}
    assert {name for module in broker for name in GRAPH[module]} - broker <= own


def circles(graph: Mapping[str, set[str]] = GRAPH) -> list[set[str]]:
    """The strongly connected components of more than one module (Tarjan 1972), in no order."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        path.append(module)
        for name in graph[module]:
            if name not in number:
                visit(name)
            if name in path:
                lowest[module] = min(lowest[module], lowest[name])
        if lowest[module] == number[module]:
            at = path.index(module)
            if len(path) - at > 1:
                found.append(set(path[at:]))
            del path[at:]

    for module in graph:
        if module not in number:
            visit(module)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles() == []


def test_a_circle_would_be_seen() -> None:
    back = GRAPH | {"encoder.serving": GRAPH["encoder.serving"] | {"encoder.artifact"}}
    assert circles(back) == [{"encoder.artifact", "encoder.serving", "encoder.trained"}]


def test_no_file_is_longer_than_it_can_be_read() -> None:
    long = {
        str(path.relative_to(ROOT)) for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST
    }
    assert long == set()


def test_no_class_has_anothers_name() -> None:
    names = Counter(
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, times in names.items() if times > 1] == []


def test_no_module_has_anothers_name() -> None:
    # A verb is called as what it starts, and a role's `main` as every program's.
    names = Counter(path.stem for path in MODULES if path.parent.name != "cli")
    assert [name for name, times in names.items() if times > 1 and name not in {"__init__", "main"}] == []


def test_where_a_clients_queue_is_full_everything_waits() -> None:
    """``Producer.produce`` raises then, so nothing calls it but what tries again."""
    calls = {
        module_name(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "produce"
    }
    # The commit calls the transaction's.
    assert calls == {"streams.kafka.clients", "streams.audience.commit"}


def test_no_role_asks_a_groups_coordinator_by_a_request_that_can_end_the_process() -> None:
    """librdkafka's issue 4605; a verb that ends so is called again."""
    risky = {"describe_consumer_groups", "list_consumer_group_offsets", "alter_consumer_group_offsets"}
    calls = {
        module_name(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in risky
    }
    # The first of these asks by another client, the second looks for `coldstart lag`.
    allowed = {"streams.kafka.group_members", "streams.kafka.consumer_lag"}
    assert {name for name in calls if not name.startswith("streams.operations.")} == allowed


def test_serving_loads_nothing_of_training() -> None:
    code = (
        "import sys, streams.cli, streams.songs.main, streams.audience.main\n"
        f"print(*sorted({TRAINING!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_every_folder_says_what_lives_there(folder: Path) -> None:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in folder.glob("*.py")} - {"__init__.py", "conftest.py"}
    if folder.name != "tests":
        assert {name for name in files if f"`{name}`" not in readme} == set()
