"""The documentation is true: links lead somewhere, commands run, reference pages hold what the code has."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from confluent_kafka import Producer

import encoder
import targeting
from streams.cli import app
from streams.contract.cloudevents import pack
from streams.contract.events import Campaign, PushTarget
from streams.contract.topics import TOPICS, Naming
from streams.kafka.clients import admin
from streams.kafka.topic_admin import create_topics
from streams.runtime.settings import KafkaSettings, Settings
from streams.runtime.settings_sources import load_settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- not run: (?P<reason>[^\n]*?) -->\n)?^```sh\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def module(name: str) -> Any:
    """A module of ``docs/``, which is no package."""
    spec = spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


generate, hooks = module("generate"), module("hooks")
SOURCES: dict[str, str] = hooks.sources()


def title(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", SOURCES)
def test_every_relative_link_leads_to_a_file_or_a_page(page: str) -> None:
    targets = {hooks.resolved(page, target) for target in hooks.links(SOURCES[page])}
    assert {target for target in targets if target not in SOURCES and not (ROOT / target).is_file()} == set()


@pytest.mark.parametrize("page", sorted(SOURCES.keys() - {"CHANGELOG.md"}))
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    named = re.findall(r"`((?:deploy|docs|encoder|streams|targeting|tests)/[\w./-]+\.\w+)[` ]", SOURCES[page])
    near = (ROOT / page).parent
    assert [n for n in named if not (ROOT / n).exists() and not (near / n).exists() and n not in SOURCES] == []


def test_links_turn_to_where_files_lie_in_the_site() -> None:
    code = "\n```\n[e](f.md)\n```\n"
    text = f"[a](../../encoder/README.md#x) [b](push-systems.md) [c](https://x.y) [d](../../README.md){code}"
    turned = f"[a](../code/encoder/README.md#x) [b](push-systems.md) [c](https://x.y) [d](../index.md){code}"
    assert hooks.turned(text, "docs/how-to/operators.md") == turned
    assert hooks.turned("[a](docs/tutorial.md) ![b](deploy/report.png)", "README.md") == (
        "[a](tutorial.md) ![b](code/deploy/report.png)"
    )


def test_the_reference_names_every_verb_setting_topic_and_exported_name() -> None:
    made = generate.pages()
    verbs = [name for name, _ in generate.commands(typer.main.get_command(app), "coldstart")]
    assert {"coldstart topics acls", "coldstart worker audience"} <= {*verbs}
    assert [verb for verb in verbs if f" `{verb}`\n" not in made["reference/cli.md"]] == []
    sections = {section: field.annotation for section, field in Settings.model_fields.items()}
    keys = [f"{section}.{key}" for section, inner in sections.items() for key in getattr(inner, "model_fields", {})]
    assert [key for key in keys if f'<a id="{key}"></a>' not in made["reference/settings.md"]] == []
    assert [topic.name for topic in TOPICS if f"| `{topic.name}` |" not in made["reference/events.md"]] == []
    exported = [f"::: {package.__name__}.{name}" for package in (encoder, targeting) for name in package.__all__]
    assert [name for name in exported if name not in made["reference/python.md"]] == []


def test_a_setting_is_shown_with_default_bounds_and_meaning() -> None:
    page = generate.pages()["reference/settings.md"]
    (line,) = (line for line in page.splitlines() if 'id="songs.campaign_days"' in line)
    assert "| `28` | > 0, ≤ 365 | How long a song may be pushed" in line


def test_decisions_are_numbered_one_after_the_other_and_say_what_was_decided() -> None:
    pages = sorted((DOCS / "adr").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for number, page in enumerate(pages, 1):
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {number}. "), page.name
        assert all(re.search(rf"{part}\b", text) for part in ("Context", "Options", "Decision", "Consequences")), (
            page.name
        )


def test_defaults_that_pages_mention_are_those_of_the_settings() -> None:
    songs, audience, topics = Settings().songs, Settings().audience, Settings().topics
    facts = {
        "how-to/account-service.md": f"`audience.cap_hours` ({audience.cap_pushes} in {audience.cap_hours:g})",
        "how-to/operators.md": f"(ports {songs.http_port} songs, {audience.http_port} audience)",
        "how-to/push-systems.md": f"`audience.holdout` ({audience.holdout:.0%})".replace("%", " %"),
        "explanation/how-a-song-finds-its-listeners.md": f"`audience.at_once` ({audience.at_once:.0%})".replace(
            "%", " %"
        ),
    }
    for page, fact in facts.items():
        assert fact in (DOCS / page).read_text(encoding="utf-8")
    story = (DOCS / "explanation" / "how-a-song-finds-its-listeners.md").read_text(encoding="utf-8")
    assert f"At {songs.warm_listeners} distinct listeners" in story
    assert f"gives the {songs.neighbours} warm songs" in story
    assert f"audience partitions ({topics.audience_partitions}," in (DOCS / "how-to" / "operators.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_a_block_that_is_not_run_says_why(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == len(re.findall(r"^```sh$", text, re.MULTILINE))
    assert text.count("<!-- not run:") - text.count("    <!-- not run:") == sum(b["reason"] is not None for b in blocks)
    assert all(len(block["reason"].split()) >= 3 for block in blocks if block["reason"] is not None)


def runnable(page: Path) -> str:
    blocks = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return "\n".join(block["code"] for block in blocks if block["reason"] is None)


RUNNABLE = [page for page in PAGES if runnable(page)]


def test_most_pages_with_commands_have_some_that_run() -> None:
    assert {"docs/tutorial.md", "docs/how-to/operators.md"} <= {title(page) for page in RUNNABLE}


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``coldstart`` and ``python`` are those of the tests."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, more in (("coldstart", "-m streams "), ("python", "")):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {more}"$@"\n', encoding="utf-8")
        (commands / name).chmod(0o755)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COLDSTART_")}
    more = {"PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    ports = {"COLDSTART_SONGS__HTTP_PORT": "0", "COLDSTART_AUDIENCE__HTTP_PORT": "0"}
    return plain | more | ports


def run(script: str, folder: Path, environment: dict[str, str]) -> str:
    """What a script prints; it, and whatever it leaves running, has ended afterwards."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=600)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output
    return output


@pytest.fixture
def installed(kafka: KafkaSettings, prefix: str, shell: dict[str, str]) -> dict[str, str]:
    """A shell on an installation of its own."""
    return shell | {
        "COLDSTART_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "COLDSTART_TOPICS__PREFIX": prefix,
        "COLDSTART_TOPICS__AUDIENCE_PARTITIONS": "2",
        "COLDSTART_TOPICS__SONGS_PARTITIONS": "2",
    }


@pytest.mark.parametrize("page", [page for page in RUNNABLE if page.name != "tutorial.md"], ids=title)
def test_the_commands_of_a_page_run(
    page: Path, kafka: KafkaSettings, prefix: str, installed: dict[str, str], tmp_path: Path
) -> None:
    script = runnable(page)
    if "coldstart topics create" not in script:
        create_topics(admin(kafka), Naming(prefix, 2, 2), 1)
    run(script, tmp_path / "work", installed)


@pytest.mark.usefixtures("kafka")  # It has fetched Kafka's jars.
def test_the_tutorial_runs_from_data_to_pushes(shell: dict[str, str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "kafka").mkdir(parents=True)
    (cache / "kafka" / "jars").symlink_to(load_settings().paths.broker / "jars")
    environment = shell | {"COLDSTART_PATHS__CACHE": str(cache)}
    try:
        output = run(runnable(DOCS / "tutorial.md"), tmp_path / "work", environment)
    finally:
        subprocess.run(["coldstart", "kafka", "down"], env=environment, capture_output=True, check=True)
    (pushes,) = re.findall(r"^(\d+) pushes$", output, re.MULTILINE)
    assert 0 < int(pushes) <= 35


@pytest.mark.parametrize("page", [page for page in SOURCES if "\n--8<--" in SOURCES[page]])
def test_a_file_that_a_page_shows_is_there_and_linked_beside(page: str) -> None:
    """Where pages are read as they lie in the repository, only the link leads to what is shown."""
    shown = re.findall(r'^--8<-- "(.+)"$', SOURCES[page], re.MULTILINE)
    assert len(shown) == SOURCES[page].count("\n--8<--")
    assert [name for name in shown if not (ROOT / name).is_file()] == []
    assert set(shown) <= {hooks.resolved(page, target) for target in hooks.links(SOURCES[page])}


def test_an_encoder_is_trained_and_inspected(shell: dict[str, str], tmp_path: Path) -> None:
    assert "listeners reached" in run(f"python {DOCS}/examples/train_an_encoder.py", tmp_path, shell)


def test_a_song_is_targeted_without_kafka(shell: dict[str, str], tmp_path: Path) -> None:
    assert "s0" in run(f"python {DOCS}/examples/target_without_kafka.py", tmp_path, shell)


def test_a_running_system_is_read_into_pandas(
    kafka: KafkaSettings, prefix: str, installed: dict[str, str], tmp_path: Path
) -> None:
    create_topics(admin(kafka), Naming(prefix, 2, 2), 1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for cls in (PushTarget, Campaign):
        event = msgspec.json.decode(cls.EXAMPLE, type=cls)
        record = pack(event, ce_type=cls.TYPES[0], id="1", source="test", time=time.time())
        producer.produce(f"{prefix}{cls.TOPIC.name}", record.value, record.key, headers=list(record.headers))
    assert producer.flush(60) == 0
    output = run(f"python {DOCS}/examples/read_a_running_system.py", tmp_path, installed)
    assert re.search(r"s-81 +evidence +1 +0\.41", output)
    assert re.search(r"s-81 +active +1 .* 812 +350", output)
