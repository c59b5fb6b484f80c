"""Stops a role when so many records are bad that going on would do harm.

One producer's bad records go to ``dead-letters`` while everyone else's are served. If no source sends good records any
more, this installation probably misreads them (an old version, another topic's records), and continuing would only
fill ``dead-letters`` with good ones.

Each input is judged alone, over the last minute. When enough records came and more than a set share of them was bad,
the role stops, unless some source (``ce_source``) sends mostly good ones. If any source's records are good, the role
is not what is broken: it logs the burst and continues. So one producer's burst cannot stop the others, however many
names it uses.

A role started with ``--resume-with-bad`` keeps sending them to dead-letters until a minute passes without a burst; then
the rule applies again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import structlog
from prometheus_client import Counter as Metric

from streams.contract.dead_letters import DeadLetter
from streams.contract.errors import BadBurst
from streams.runtime.clock import Clock
from streams.runtime.health import Readiness

WINDOW_S: Final = 60.0
# The window moves on by a tenth of itself.
_SLICE_S: Final = WINDOW_S / 10
# A source with fewer good records in the window says nothing about the others.
_SAY_SOMETHING: Final = 10
# Further sources in a slice are counted together: senders choose their names, and could choose millions.
_MOST_SOURCES: Final = 100
_FURTHER: Final = "further sources"
_UNNAMED: Final = "no ce_source"

_log = structlog.get_logger(__name__)


class Bad(NamedTuple):
    """One bad record: who sent it, the step that refused it, the class of the error and its text."""

    source: str
    stage: str
    error: str
    text: str


@dataclass(slots=True)
class _Slice:
    since: float
    good: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    example: dict[tuple[str, str], str] = field(default_factory=dict)


def _name(source: str, among: Counter[str]) -> str:
    """Good and bad records have separate room: names that only bad records use cannot displace those of good ones."""
    return source if source in among or len(among) < _MOST_SOURCES else _FURTHER


class BadBursts:
    """Counts the records of a role's inputs and judges them.

    Args:
        share: of bad records among an input's, beyond which the role stops; 0: it never does.
        records: of an input within the window, at least, before their share says anything.
        setting: the name of ``share`` among the settings.
        resume: whether a burst is gone through for now.
        metric: counts bursts by topic and what was done.
        readiness: shows those that are going on.
    """

    def __init__(
        self,
        share: float,
        records: int,
        setting: str,
        clock: Clock,
        resume: bool = False,
        metric: Metric | None = None,
        readiness: Readiness | None = None,
    ) -> None:
        self._share = share
        self._records = records
        self._setting = setting
        self._clock = clock
        self._resume = resume
        self._metric = metric
        self._readiness = readiness
        self._slices: dict[str, deque[_Slice]] = {}
        self._changed: set[str] = set()
        self._said: dict[str, float] = {}
        self._burst_at = clock.monotonic()

    def note(self, topic: str, good: int, sources: Collection[str], bad: Sequence[Bad]) -> None:
        """A batch of an input was committed.

        Args:
            topic: full name of the input.
            good: how many records of it were good; ``sources``: who sent them, as if each had sent as many.
            bad: the others, in order.
        """
        if not self._share or not (good or bad):
            return
        now = self._clock.monotonic()
        slices = self._slices.setdefault(topic, deque())
        if not slices or now >= slices[-1].since + _SLICE_S:
            slices.append(_Slice(now))
        while slices[0].since <= now - WINDOW_S:
            slices.popleft()
        last = slices[-1]
        named = list(sources) or [_UNNAMED]
        for number, source in enumerate(named):
            last.good[_name(source, last.good)] += good // len(named) + (number < good % len(named))
        for each in bad:
            last.bad[_name(each.source, last.bad)] += 1
            reason = each.stage, each.error
            last.reasons[reason] += 1
            last.example.setdefault(reason, each.text)
        self._changed.add(topic)

    def judge(self) -> None:
        """Look at the inputs that were told of since the last call.

        Raises:
            BadBurst: the role must stop; whatever was told of is committed.
        """
        now = self._clock.monotonic()
        for topic in sorted(self._changed):
            self._judge(topic, now)
        self._changed.clear()
        if self._resume and now > self._burst_at + WINDOW_S:
            self._resume = False
            _log.info("a minute without a burst of bad records: another one stops this role")

    def _judge(self, topic: str, now: float) -> None:
        good, bad, reasons = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
        for each in self._slices[topic]:
            good.update(each.good)
            bad.update(each.bad)
            reasons.update(each.reasons)
        total = good.total() + bad.total()
        if total < self._records or bad.total() <= self._share * total:
            self._show(topic, None)
            return
        self._burst_at = now
        healthy = [source for source, count in good.most_common() if count >= _SAY_SOMETHING and count > bad[source]]
        (stage, error), most = reasons.most_common(1)[0]
        example = next(each.example[stage, error] for each in self._slices[topic] if (stage, error) in each.example)
        what = (
            f"{topic}: {bad.total():,} of the last {total:,} records were bad, from {_listed(bad)}; most often in "
            f"{stage}: {error} ({most:,}), such as {example[:200]!r}"
        )
        if healthy or self._resume:
            why = f"the records of {_listed(good, healthy)} are good" if healthy else "it was told to resume"
            self._go_on(topic, f"{what}. The role goes on, because {why}", "resumed" if not healthy else "went-on", now)
            return
        self._count(topic, "stopped")
        raise BadBurst(
            f"{what}; no source's records are good. All of them are in dead-letters, and what came before is committed."
            " Fix what sends or what reads them, then start again; to have them in dead-letters and go on, start with"
            f" --resume-with-bad (`coldstart worker` or `coldstart up`), or set {self._setting} = 0"
        )

    def _go_on(self, topic: str, said: str, outcome: str, now: float) -> None:
        self._show(topic, said)
        if now >= self._said.get(topic, -WINDOW_S) + WINDOW_S:
            self._said[topic] = now
            self._count(topic, outcome)
            _log.warning("a burst of bad records", reason=said)

    def _count(self, topic: str, outcome: str) -> None:
        if self._metric is not None:
            self._metric.labels(topic, outcome).inc()

    def _show(self, topic: str, said: str | None) -> None:
        if self._readiness is not None:
            self._readiness.note(f"bad records of {topic}", said)


def source_of(headers: Sequence[tuple[str, bytes | None]]) -> str:
    """Who sent a record, by its first ``ce_source``."""
    found = next((value for name, value in headers if name == "ce_source"), None)
    return found[:100].decode("utf-8", "backslashreplace") if found else _UNNAMED


def bad_of(letter: DeadLetter, stage: str, error: str) -> Bad:
    """What a dead letter tells."""
    text = next((value for name, value in reversed(letter.headers) if name == "dl_message"), b"") or b""
    return Bad(source_of(letter.headers), stage, error, text.decode("utf-8", "replace"))


def _listed(counts: Counter[str], only: Sequence[str] | None = None) -> str:
    """The largest few, with their counts."""
    names = [name for name, _ in counts.most_common() if only is None or name in only]
    shown = ", ".join(f"{name!r} ({counts[name]:,})" for name in names[:3])
    return shown + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
