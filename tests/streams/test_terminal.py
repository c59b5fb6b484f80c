"""Text from topics, files and other processes is shown as text, whatever it holds."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import structlog
import typer
from hypothesis import given
from hypothesis import strategies as st
from installation import Installation
from rich.text import Text
from typer.testing import CliRunner

from streams.cli import app, tables
from streams.cli.campaigns import _all, _one
from streams.cli.lag import _partitions, _topics
from streams.cli.options import errors_explained
from streams.contract.cloudevents import Record
from streams.contract.errors import Refused
from streams.contract.events import Campaign, CampaignCounts
from streams.contract.topics import CAMPAIGNS
from streams.kafka.consumer_lag import Lag
from streams.operations.lag_judge import PartitionState
from streams.operations.lag_window import JudgedLag
from streams.runtime.logging import set_up_logs
from streams.runtime.terminal import Bars, Table, Terminal, bold, say, say_json, shown
from streams.testbed.pages.page import environment

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOSTILE = (
    "[/x]", "[red]s[/red]", "[link=http://x]y[/link]", ":warning:", "\x1b[2J", "\x1b]52;c;eA==\x07", "\x9b31m",
    "\u202eevil", "\u2066a\u2069", "a\r\nb", "a\tb\x08\x7f", "\u2028", "\ud800", "\u200b", "<script>alert(1)</script>",
    "x" * 10_000,
)  # fmt: skip
# What a terminal obeys, or what hides or turns around other text.
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
EVERYTHING = "".join(HOSTILE)

pytestmark = pytest.mark.usefixtures("_wide")


@pytest.fixture
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")


def unfolded(text: str) -> str:
    return re.sub(r"\s", "", text)


@given(st.text(st.characters()))
def test_what_is_shown_acts_on_nothing_and_is_shown_once(text: str) -> None:
    found = shown(text)
    assert not RAW.search(found)
    assert "\n" not in found
    assert shown(found) == found
    assert not RAW.search(shown(text, lines=True))


def test_plain_text_of_any_language_is_left_as_it_is() -> None:
    for text in ("Ágætis byrjun", "夜に駆ける", "שיר", "naïve – café", "50 % [live]", "a\u00a0b", "🎵"):
        assert shown(text) == text


def everything(song_id: str) -> Iterator[Table]:
    """Every table of the verbs that show what came from topics."""
    campaign = Campaign(
        song_id=song_id, revision=1, status="active", started_at=NOW, counts=CampaignCounts(), space=song_id
    )
    yield _all([campaign], NOW)
    yield _one(campaign, NOW)
    lag = Lag(group=song_id, topic=song_id, partition=0, committed=1, end=2, records=1, seconds=1.0, served=True)
    behind = JudgedLag(lag, PartitionState.STALLED)
    yield _topics([behind])
    yield _partitions([behind])
    table = Table(song_id, title=song_id, caption=None)
    table.add_row(bold(song_id))
    table.add_row(Text(song_id))
    yield table


@pytest.mark.parametrize("song_id", HOSTILE, ids=lambda text: ascii(text)[:20])
def test_no_table_obeys_what_it_shows(song_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    for table in everything(song_id):
        tables.show(table)
        out = capsys.readouterr().out
        assert not RAW.search(out), ascii(out)
        # A long one goes on in further lines, between those of other columns.
        assert out.count("x") >= 10_000 if len(song_id) == 10_000 else unfolded(shown(song_id)) in unfolded(out)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:20])
def test_no_message_bar_or_error_obeys_what_it_shows(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = Terminal(stderr=True)
    console.print(text, style="dim")
    console.print(bold(text), Text(text))
    with console.status(f"reading {text}") as status:
        status.update(Text(text))
    with Bars(console) as bars:
        bars.update(bars.add_task(text, total=1), description=text, completed=1)
    say(text)
    say_json({"song_id": text, text: 1})
    with pytest.raises(typer.Exit), errors_explained():
        raise Refused(text)
    with pytest.raises(typer.Exit), errors_explained():
        Path(f"/no/{text[:50]}".replace("\ud800", "")).read_bytes()
    out, err = capsys.readouterr()
    assert not RAW.search(out + err), ascii(out + err)
    if "\n" not in text and "\t" not in text:
        assert unfolded(shown(text)) in unfolded(err)
        assert unfolded(shown(text)) in unfolded(out)


def test_what_is_printed_for_programs_is_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    text = EVERYTHING.replace("\ud800", "")
    say_json({"id": text})
    assert json.loads(capsys.readouterr().out) == {"id": text}


def test_no_page_obeys_what_it_shows() -> None:
    page = environment().from_string('<p title="{{ text }}">{{ text }}</p>').render(text=EVERYTHING)
    assert not RAW.search(page)
    assert "<script" not in page


def test_no_log_line_obeys_what_it_holds() -> None:
    stream, text = io.StringIO(), EVERYTHING.replace("\x7f", "")
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        set_up_logs("audience", stream=stream)
        structlog.get_logger("x").info(text, song_id=text)
        logging.getLogger("y").warning("refused %s", text)
    finally:
        root.handlers[:], root.level = before
    lines = stream.getvalue()
    assert not RAW.search(lines)
    assert lines.count("\n") == 2


def test_one_hostile_campaign_ends_no_verb(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDSTART_TOPICS__PREFIX", here.naming.prefix)
    names = [text[:128] for text in HOSTILE if "\ud800" not in text]
    for name in names:
        value = msgspec.json.encode(
            Campaign(song_id=name, revision=1, status="active", started_at=NOW, counts=CampaignCounts(), space="s")
        )
        here.send(CAMPAIGNS, Record(name.encode(), value, []))
    server = ["--bootstrap-servers", here.kafka.bootstrap_servers]
    for words in ([], ["--json"], ["--lift"], *(["--", name] for name in names)):
        found = CliRunner().invoke(app, ["campaigns", *server, *words])
        assert found.exit_code == 0, found.output
        assert not RAW.search(found.output)


# rich's own, to which a string is markup; and what writes past the mechanism.
ELSEWHERE = {
    "rich.console.Console", "rich.table.Table", "rich.progress.Progress", "rich.markup", "rich.print",
}  # fmt: skip


def past_the_mechanism(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
            yield from names & ELSEWHERE
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "typer.echo", "typer.secho", "click.echo") or called.endswith("from_markup"):
                yield called
            if called.endswith("TextColumn") and not any(
                word.arg == "markup" and ast.unparse(word.value) == "False" for word in node.keywords
            ):
                yield called


def test_nothing_is_printed_past_the_mechanism() -> None:
    allowed = {
        # Entry points of `python -m`, which print what is generated from the code alone.
        "streams/contract/asyncapi.py": {"print"}, "streams/runtime/metrics.py": {"print"},
        # To the process that reads it.
        "streams/testbed/broker/keeper.py": {"print"},
    }  # fmt: skip
    for path in (ROOT / "streams").rglob("*.py"):
        name = str(path.relative_to(ROOT))
        if name != "streams/runtime/terminal.py":
            found = set(past_the_mechanism(ast.parse(path.read_text(encoding="utf-8"))))
            assert found <= allowed.get(name, set()), f"{name}: use streams.runtime.terminal instead of {found}"


def test_what_goes_past_the_mechanism_would_be_seen() -> None:
    code = "from rich.table import Table\nfrom rich.markup import escape\nprint(1)\nTextColumn('x')"
    assert set(past_the_mechanism(ast.parse(code))) == {"rich.table.Table", "rich.markup", "print", "TextColumn"}
