"""One JSON object a line on stderr: the role's own records and every library's."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import Processor

from streams.runtime.repeated_lines import RepeatedLines

# One line per outage, not thousands: these repeat for as long as the broker is away.
_CHATTY = ("aiokafka.conn", "aiokafka.consumer.fetcher")


def set_up_logs(role: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send everything that is logged in this process, by structlog or by ``logging``, to one stream.

    To be called once, first thing in a process. Faust sets logging up again unless its worker is made with
    ``override_logging=False``.

    Args:
        role: stands in every line, so that the lines of several processes can be told apart.
        level: the least that is written, a name that ``logging`` knows.
        stream: stderr, if None.
    """
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(role=role)

    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(RepeatedLines())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *common],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.captureWarnings(True)
