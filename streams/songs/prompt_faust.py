"""Faust's worker and table manager without their waits of a second, in which a restarted role would serve nobody.

For faust-streaming 0.15.3 with mode-streaming; a test fails if the internals used here change.
"""

from __future__ import annotations

import asyncio

import faust
from faust.tables import TableManager


class PromptWorker(faust.Worker):
    """Ends as soon as the application has stopped: by then everything is committed and the group is left."""

    def _gather_all(self) -> None:
        # Faust looks ten times, a tenth of a second apart, whether tasks end that nothing ends.
        for task in asyncio.all_tasks(self.loop):
            task.cancel()

    async def _sentinel_task(self) -> None:
        # Faust sleeps here for a second; one turn is enough for tasks to see that they are cancelled.
        await asyncio.sleep(0)


class NoTables(TableManager):
    """The table manager of an application that has no table, and need not wait for one to be declared."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()
