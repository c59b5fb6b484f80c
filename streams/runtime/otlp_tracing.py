"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP. Needs the extra ``tracing``."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from streams.contract.trace_context import TRACEPARENT
from streams.runtime.status import instance, package_version
from streams.runtime.tracing import NOTHING, Attributes, Hop, Tracing

_PROPAGATOR = TraceContextTextMapPropagator()


class OtlpTracing(Tracing):
    """Spans of one role's process.

    What the settings do not say is OpenTelemetry's to say: ``OTEL_EXPORTER_OTLP_*``, ``OTEL_TRACES_SAMPLER``,
    ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_BSP_*``, ``OTEL_SDK_DISABLED``.

    Args:
        endpoint: of the collector, ``http://host:4318``; empty: the environment's.
    """

    def __init__(self, endpoint: str, role: str) -> None:
        own = {
            "service.name": f"coldstart-{role}",
            "service.version": package_version(),
            "service.instance.id": instance(),
        }
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces") if endpoint else OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("coldstart", package_version())

    def begin(self, name: str, parent: bytes | None, started: float, attributes: Attributes) -> Hop:
        context = _PROPAGATOR.extract({TRACEPARENT: parent.decode()}) if parent else None
        span = self._tracer.start_span(name, context, SpanKind.CONSUMER, attributes, start_time=_nanoseconds(started))
        if not span.get_span_context().is_valid:
            return Hop(parent)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
        return _SpanHop(carrier[TRACEPARENT].encode(), span, self._tracer)

    def close(self) -> None:
        self._provider.shutdown()


class _SpanHop(Hop):
    __slots__ = ("_span", "_tracer")

    def __init__(self, traceparent: bytes, span: Span, tracer: Tracer) -> None:
        super().__init__(traceparent)
        self._span = span
        self._tracer = tracer

    def step(self, name: str, started: float, ended: float) -> None:
        context = trace.set_span_in_context(self._span)
        self._tracer.start_span(name, context, start_time=_nanoseconds(started)).end(_nanoseconds(ended))

    def end(self, error: str | None = None, attributes: Attributes = NOTHING) -> None:
        if not self._span.is_recording():
            return
        self._span.set_attributes(attributes)
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
