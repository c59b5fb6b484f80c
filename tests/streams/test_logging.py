"""Every log line of a process is one JSON object."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from streams.runtime.logging import set_up_logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    set_up_logs("songs", "INFO", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_own_and_foreign_records_have_one_form(stream: io.StringIO) -> None:
    structlog.get_logger("streams.songs").info("served", song_id="s1", partitions=16)
    logging.getLogger("faust.worker").warning("lost %s of %d", "x", 3)
    own, foreign = lines(stream)
    assert own["event"] == "served"
    assert own["song_id"] == "s1"
    assert own["partitions"] == 16
    assert foreign["event"] == "lost x of 3"
    assert foreign["level"] == "warning"
    assert foreign["logger"] == "faust.worker"
    assert own["role"] == foreign["role"] == "songs"
    assert own["timestamp"].endswith("Z")


def test_exception_stays_on_one_line(stream: io.StringIO) -> None:
    try:
        raise KeyError("gone")
    except KeyError:
        logging.getLogger("aiokafka").exception("failed")
    (line,) = lines(stream)
    assert "Traceback" in line["exception"]
    assert "KeyError: 'gone'" in line["exception"]


def test_level_is_the_least_that_is_written(stream: io.StringIO) -> None:
    structlog.get_logger("streams").debug("quiet")
    logging.getLogger("faust").debug("quiet")
    logging.getLogger("aiokafka.conn").error("still away")
    assert stream.getvalue() == ""


def test_warnings_and_odd_values_are_lines_too(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    structlog.get_logger("streams").info("odd", value={1, 2}, blob=b"\xff")
    warned, odd = lines(stream)
    assert "old" in warned["event"]
    assert odd["blob"] == "b'\\xff'"
