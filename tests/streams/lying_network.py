"""A network that lies: a TCP proxy between Kafka's clients and the broker, with faults aimed at requests by their kind.

It reads what stands before every request (size, api key, version, correlation id) and passes the rest on unseen. The
addresses that the broker tells are replaced by the proxy's own, so that clients come back to it.
"""

from __future__ import annotations

import asyncio
import random
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, Self, get_args
from weakref import WeakSet

Kind = Literal[
    "slow request",
    "slow answer",
    "no request",
    "no answer",
    "cut request",
    "cut answer",
    "lost answer",
    "late request",
    "half-open",
]
"""What is done to a request.

slow request, slow answer: it comes ``seconds`` later, and everything behind it on its connection.
no request, no answer: it never comes, nor does anything behind it; the connection stays open.
cut request, cut answer: half of its bytes come, then the connection is closed.
lost answer: the broker executes it; the connection is closed instead of the answer.
late request: the client sees its connection closed; the broker gets the request all the same, once it is released or
``seconds`` later.
half-open: from this request on nothing comes on any connection, neither way, old or new, for ``seconds``.
"""

KINDS: tuple[Kind, ...] = get_args(Kind)


class Api(IntEnum):
    """Kafka's numbers of the requests that faults are aimed at."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    LIST_GROUPS = 16
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS = 24
    ADD_OFFSETS = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_CONFIGS = 32
    OFFSET_COMMIT = 8


# Their answers tell addresses: Metadata, FindCoordinator, DescribeCluster.
_TELL_ADDRESSES = {3, 10, 60}


@dataclass
class Fault:
    """One thing that goes wrong with one request; ``skip`` requests of the kind are let through first."""

    kind: Kind
    api: Api
    skip: int = 0
    seconds: float = 0.0
    struck: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    """Set it to let a late request go on, or to end a wait before its time."""
    delivered: threading.Event = field(default_factory=threading.Event)
    """The broker has answered a late request."""


class LyingNetwork:
    """The proxy, from start to close.

    Args:
        bootstrap_servers: one broker, host:port.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._host, port = bootstrap_servers.rsplit(":", 1)
        self._port = int(port)
        self._chance: Callable[[Api, int], Fault | None] | None = None
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []
        self._seen: Counter[int] = Counter()
        self.struck: Counter[tuple[Kind, Api]] = Counter()
        self._silent_until = 0.0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: WeakSet[asyncio.WriteTransport] = WeakSet()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lying network", daemon=True)

    @property
    def bootstrap_servers(self) -> str:
        return f"{self._host}:{self._own}"

    def __enter__(self) -> Self:
        self._thread.start()
        start = asyncio.start_server(self._accept, self._host, 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self._own = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def lie(self, kind: Kind, api: Api, skip: int = 0, seconds: float = 0.0) -> Fault:
        """Let something go wrong once, from now on."""
        fault = Fault(kind, api, skip, seconds)
        with self._lock:
            self._waiting.append(fault)
        return fault

    def take_chances(self, chance: Callable[[Api, int], Fault | None]) -> None:
        """Ask for every request from now on what is to go wrong with it, if no fault waits for it.

        Args:
            chance: given the kind of a request and how many of them there were before. To be deterministic it looks at
                nothing else.
        """
        with self._lock:
            self._chance = chance
            self._seen.clear()

    def be_honest(self) -> None:
        """Nothing goes wrong any more; what was begun takes its course."""
        with self._lock:
            self._waiting.clear()
            self._chance = None

    def _fault_of(self, api: int) -> Fault | None:
        with self._lock:
            before = self._seen[api]
            self._seen[api] += 1
            if api not in list(Api):
                return None
            for fault in self._waiting:
                if fault.api == api:
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    self._waiting.remove(fault)
                    break
            else:
                drawn = self._chance(Api(api), before) if self._chance else None
                if drawn is None:
                    return None
                fault = drawn
            self.struck[fault.kind, fault.api] += 1
            fault.struck.set()
            return fault

    # -- on the loop ---------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self) -> None:
        # Who was accepted a moment ago must not meet a server that is closed.
        await asyncio.sleep(0.05)
        self._server.close()
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transport in self._transports:
            # One that waits for a peer to read would wait for ever.
            transport.abort()
        # Sockets close in a later turn of the loop.
        await asyncio.sleep(0.05)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._transports.add(writer.transport)
        self._spawn(self._serve(reader, writer))

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            broker, to_broker = await asyncio.open_connection(self._host, self._port)
        except OSError:
            to_client.close()
            return
        self._transports.add(to_broker.transport)
        line = _Line(client, to_client, broker, to_broker)
        both = [self._loop.create_task(self._requests(line)), self._loop.create_task(self._answers(line))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            if line.late is not None:
                # The client is gone; the broker still gets what was sent.
                to_client.close()
                await _patience(line.late)
                to_broker.write(line.late_bytes)
                await to_broker.drain()
                await _frame(broker)
                line.late.delivered.set()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for task in both:
                task.cancel()
            to_client.close()
            to_broker.close()

    async def _speaks(self) -> None:
        while (silent := self._silent_until - self._loop.time()) > 0:
            await asyncio.sleep(silent)

    async def _requests(self, line: _Line) -> None:
        while True:
            frame = await _frame(line.client)
            await self._speaks()
            api, _, number = struct.unpack_from(">hhi", frame, 4)
            fault = self._fault_of(api)
            line.sent[number] = (api, fault)
            if fault is None:
                line.to_broker.write(frame)
            elif fault.kind == "slow request":
                await _patience(fault)
                line.to_broker.write(frame)
            elif fault.kind == "half-open":
                self._silent_until = self._loop.time() + fault.seconds
                await self._speaks()
                line.to_broker.write(frame)
            elif fault.kind == "no request":
                # Until the client gives it up.
                while await line.client.read(65_536):
                    pass
                return
            elif fault.kind == "cut request":
                line.to_broker.write(frame[: len(frame) // 2])
                await line.to_broker.drain()
                return
            elif fault.kind == "late request":
                line.late, line.late_bytes = fault, frame
                return
            else:
                line.to_broker.write(frame)
            await line.to_broker.drain()

    async def _answers(self, line: _Line) -> None:
        while True:
            frame = await _frame(line.broker)
            (number,) = struct.unpack_from(">i", frame, 4)
            api, fault = line.sent.pop(number)
            if api in _TELL_ADDRESSES:
                host = self._host.encode()
                frame = frame.replace(host + struct.pack(">i", self._port), host + struct.pack(">i", self._own))
            if fault is not None and fault.kind == "slow answer":
                await _patience(fault)
            elif fault is not None and fault.kind == "no answer":
                await asyncio.Event().wait()
            elif fault is not None and fault.kind == "lost answer":
                return
            elif fault is not None and fault.kind == "cut answer":
                line.to_client.write(frame[: len(frame) // 2])
                await line.to_client.drain()
                return
            await self._speaks()
            line.to_client.write(frame)
            await line.to_client.drain()


@dataclass
class _Line:
    """One client's connection, through to the broker."""

    client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    broker: asyncio.StreamReader
    to_broker: asyncio.StreamWriter
    sent: dict[int, tuple[int, Fault | None]] = field(default_factory=dict)
    late: Fault | None = None
    late_bytes: bytes = b""


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(struct.unpack(">i", size)[0])


async def _patience(fault: Fault) -> None:
    """Until the fault is released or its time is over; without a time, until it is released."""
    loop = asyncio.get_running_loop()
    end = loop.time() + fault.seconds if fault.seconds else float("inf")
    while not fault.released.is_set() and loop.time() < end:
        await asyncio.sleep(0.005)


def seeded(seed: int, odds: dict[Api, float], seconds: float) -> Callable[[Api, int], Fault | None]:
    """A chance that does the same to the n-th request of a kind in every run of a seed.

    Args:
        odds: how probable a fault is, by kind of request.
        seconds: how long what comes late is late, at most.
    """

    def chance(api: Api, number: int) -> Fault | None:
        draw = random.Random(f"{seed}/{api}/{number}")
        if draw.random() >= odds.get(api, 0.0):
            return None
        return Fault(draw.choice(KINDS), api, seconds=draw.uniform(0.01, seconds))

    return chance
