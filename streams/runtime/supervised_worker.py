"""A worker of ``coldstart up``: started again whatever ends it, at growing intervals, while the others go on."""

from __future__ import annotations

import re
from typing import Final

from streams.runtime.clock import Clock
from streams.runtime.exit_codes import BAD_INPUT, REFUSED
from streams.runtime.supervisor import RoleProcess

# Imports and the first question to Kafka on a machine that is busy with something else.
_START_S: Final = 60.0

# After an end: at once, then after 1, 2, 4 ... 60 seconds. A refusal takes a person, so it begins at 5.
_LONGEST_S: Final = 60.0
_REFUSED_S: Final = 5.0
_REFUSALS: Final = 10

_COUNTS: Final = re.compile(r"[\d,]+ of [\d,]+|\(\d+ s\)|[\d,]+ s to go|for \d+ s")


class SupervisedWorker:
    """Watches one worker, starts it again when it ends or hangs, and says each piece of news once.

    - An end by a signal, or with any code but 2 and 65: at once, then after 1, 2, 4 seconds and so on, up to a minute,
      for as long as it takes: Kafka may be away for an hour. Once it was ready and ran for a minute, this starts over.
    - Code 2, a refusal: said once, and tried again after 5, 10, 20 seconds and so on, ten times. Then it stays down.
    - Code 65, bad records: it stays down.
    - No sign of life on its own port for ``silence_s``: killed and started again.

    Args:
        silence_s: how long it may be silent once it has answered; before that, at least a minute.
    """

    def __init__(self, process: RoleProcess, clock: Clock, silence_s: float) -> None:
        self.process = process
        self._clock = clock
        self._silence_s = silence_s
        # Since it last was ready and ran for a minute.
        self._ends = 0
        self._was_ready = False
        # When it is started again, monotonic seconds; None while it runs.
        self._due: float | None = None
        self._killed = ""
        self._last_end = ""
        self._said = ""
        self._down: int | None = None

    @property
    def down(self) -> int | None:
        """The exit code with which it stays down; None while it runs, or is to be started again."""
        return self._down

    def look(self) -> str | None:
        """Do what is due; what is new, to be told."""
        if self._down is not None:
            return None
        code = self.process.exit_code()
        if code is None:
            return self._running()
        if self._due is None:
            return self._ended(code)
        if self._clock.monotonic() >= self._due:
            self._due = None
            self.process.start_again()
        return None

    def _running(self) -> str | None:
        reasons = self.process.readiness()
        if not reasons:
            self._was_ready, self._last_end = True, ""
        silent = self.process.silent_s
        if silent > (self._silence_s if self.process.answered else max(self._silence_s, _START_S)):
            self._killed = f"no answer for {silent:.0f} s: killed"
            self.process.kill()
            return None
        if self._no_news(reasons, silent):
            return None
        state = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "ready"
        # A growing count is no news.
        if (news := f"{self.process.pid} {_COUNTS.sub('', state)}") == self._said:
            return None
        self._said = news
        return f"pid {self.process.pid}  {self.process.url}  {state}"

    def _no_news(self, reasons: dict[str, str], silent: float) -> bool:
        """Whether it starts once more after an end that was told, or may only be busy."""
        starting = bool(self._last_end) and reasons == {"process": "starting"}
        return starting or ("process" in reasons and self.process.answered and silent < self._silence_s / 2)

    def _ended(self, code: int) -> str | None:
        how, self._killed = self._killed or self.process.end(), ""
        now = self._clock.monotonic()
        if self._was_ready and now - self.process.started_at > _LONGEST_S:
            self._ends = 0
        self._ends += 1
        self._was_ready = False
        if code == BAD_INPUT or (code == REFUSED and self._ends > _REFUSALS):
            self._down = code
            return f"{how}\nIt stays down, the others go on"
        pause = 0.0 if self._ends == 1 else 2.0 ** (self._ends - 2)
        if code == REFUSED:
            pause = _REFUSED_S * 2.0 ** (self._ends - 1)
        pause = min(pause, _LONGEST_S)
        self._due = now + pause
        if how == self._last_end:
            return None
        self._last_end = how
        if code == REFUSED:
            return f"{how}\nIt is tried again for some minutes, the others go on"
        return f"{how}; started again" + (f" in {pause:g} s" if pause else "")
