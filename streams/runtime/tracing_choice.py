"""Whether spans are wanted, and whether they can be made here."""

from __future__ import annotations

import os
from typing import Final

import structlog

from streams.contract.errors import Refused
from streams.runtime.settings import TracingSettings
from streams.runtime.tracing import Tracing

_BY_ENVIRONMENT: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXTRA: Final = "pip install 'coldstart[tracing]'"

_log = structlog.get_logger(__name__)


def tracing_of(settings: TracingSettings, role: str) -> Tracing:
    """What the settings, or OpenTelemetry's own environment variables, ask for.

    Raises:
        Refused: the settings ask for spans, and OpenTelemetry is not installed.
    """
    if not settings.endpoint and not any(os.environ.get(name) for name in _BY_ENVIRONMENT):
        return Tracing()
    try:
        # It takes a third of a second to import, and need not be installed.
        from streams.runtime.otlp_tracing import OtlpTracing
    except ImportError:
        if settings.endpoint:
            raise Refused(f"tracing.endpoint = {settings.endpoint}: OpenTelemetry is not installed; {_EXTRA}") from None
        _log.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, and OpenTelemetry is not installed: no spans", way_out=_EXTRA)
        return Tracing()
    return OtlpTracing(settings.endpoint, role)
