"""A real Apache Kafka on this machine, for as long as it is wanted."""

from __future__ import annotations

import subprocess
import sys
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import IO, Any, Final, Self

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.contract.errors import BrokerFailed
from streams.runtime.clock import Clock, SystemClock
from streams.runtime.settings import PathSettings
from streams.runtime.terminal import Terminal
from streams.testbed.broker import keeper
from streams.testbed.broker.broker_config import Node, write_config
from streams.testbed.broker.jars import fetch, java
from streams.testbed.broker.loopback import HOST, free_ports, is_free
from streams.testbed.broker.process_identity import Identity, end
from streams.testbed.broker.with_folder import WithFolder

# A stopping broker hands over in under a second (measured); one that takes longer is stuck.
_STOP_S: Final = 20.0
_FORMAT_S: Final = 60.0
# A free port can be taken between the question and the start; three times in a row is no accident.
_PORT_ATTEMPTS: Final = 3
_TAIL_LINES: Final = 15
# Serial collector and the first compiler alone: the smallest and the fastest to start (measured against G1 and C2).
_JVM: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError")


class EmbeddedKafka(WithFolder):
    """One broker in combined KRaft mode.

    >>> with EmbeddedKafka() as kafka:  # doctest: +SKIP
    ...     kafka.bootstrap_servers
    '127.0.0.1:38407'

    Args:
        data_dir: where its log, topics and configuration live; without one, a temporary folder that goes with it.
        cache: where the jars are kept.
        port: for clients; 0 takes the one that ``data_dir`` had before, if it is free, or any.
        node: its place in a cluster (:class:`streams.testbed.broker.cluster.EmbeddedCluster`); alone, if not given.
        controller_port: of ``node`` in a cluster, where the others look for it; 0 takes any.
        leashed: it ends with this process, however that ends. Without, it runs until it is stopped by its folder.
        console: where a download shows its progress.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        cache: Path | None = None,
        port: int = 0,
        controller_port: int = 0,
        node: Node = Node(),  # noqa: B008 - frozen
        heap_mb: int = 256,
        start_timeout_s: float = 60.0,
        leashed: bool = True,
        console: Terminal | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(data_dir, "kafka")
        self._cache = cache or PathSettings().broker
        self._wanted_port = port
        self._controller_port = controller_port
        self._node = node
        self._heap_mb = heap_mb
        self._start_timeout_s = start_timeout_s
        self._leashed = leashed
        self._console = console
        self._clock = clock or SystemClock()
        self._identity: Identity | None = None
        self._process: psutil.Process | None = None
        self._keeper: subprocess.Popen[str] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "kafka.log"

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and _alive(self._process)

    @property
    def bootstrap_servers(self) -> str:
        """Raises BrokerFailed before the first start."""
        return f"{HOST}:{self.port}"

    @property
    def port(self) -> int:
        """Of clients. Raises BrokerFailed before the first start."""
        if self._identity is None:
            raise BrokerFailed("the embedded broker was not started")
        return self._identity.port

    def start(self) -> Self:
        """Start and return when it serves.

        Raises:
            BrokerFailed: no Java, no jars, no free port, no space, damaged data, another broker in the folder.
        """
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self.launch()
            if self.serves(last=attempt == _PORT_ATTEMPTS):
                break
        return self

    def launch(self) -> None:
        """Start without waiting until it serves: brokers of a cluster wait for each other.

        Raises:
            BrokerFailed: as :meth:`start`.
        """
        runtime, jars = java(), fetch(self._cache, self._console)
        with self._or_killed():
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                self._take(lock)
                ports = self._ports()
                config, logging = write_config(self.folder, ports, self._node)
                base = [str(runtime), f"-Xmx{self._heap_mb}m", *_JVM]
                base += [f"-Dlog4j2.configurationFile={logging}", "-cp", ":".join(map(str, jars))]
                self._format([*base, "kafka.tools.StorageTool", "format", "-c", str(config)])
                self._launch([*base, "kafka.Kafka", str(config)], ports, lock)

    def serves(self, *, last: bool = True) -> bool:
        """Wait until a launched broker answers; False when it lost its port to another process and is to try again.

        Args:
            last: a lost port is a failure.

        Raises:
            BrokerFailed: it ended, or does not answer in time.
        """
        with self._or_killed():
            return self._serves(last=last)

    @contextmanager
    def _or_killed(self) -> Iterator[None]:
        """What fails on the way leaves no broker behind."""
        try:
            yield
        except OSError as error:
            self.kill()
            raise self._failure(f"the embedded Kafka cannot use {self.folder}: {error}") from error
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Let it close its files, then end; at once when it does not react."""
        if self._process is not None:
            end(self._process, _STOP_S)
            self._gone()

    def kill(self) -> None:
        """SIGKILL: what a power cut does."""
        if self._process is not None:
            with suppress(psutil.NoSuchProcess):
                self._process.kill()
                self._process.wait(_STOP_S)
            self._gone()

    def restart(self) -> None:
        """Start again on the same data and the same port, after ``stop`` or ``kill``."""
        self.start()

    def _gone(self) -> None:
        self._process = None
        if self._keeper is not None:
            self._keeper.communicate("stopped", timeout=_STOP_S)
            self._keeper = None
        Identity.forget(self.folder)

    def _take(self, lock: IO[str]) -> None:
        """The lock is inherited by the broker and freed by its death, however that comes."""
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            other = Identity.load(self.folder)
            who = f"pid {other.pid}, {HOST}:{other.port}" if other else "starting or stopping"
            raise BrokerFailed(f"a broker runs in {self.folder} already ({who})") from None

    def _ports(self) -> tuple[int, ...]:
        before = self._identity or Identity.load(self.folder) or Identity(0, 0.0, 0, 0)
        fixed = self._wanted_port or (self._identity.port if self._identity else 0)
        if fixed and not is_free(fixed):
            raise BrokerFailed(f"port {fixed} of {HOST} is in use: stop the process that uses it, or choose another")
        port = fixed or (before.port if is_free(before.port) else 0)
        if self._controller_port and not is_free(self._controller_port):
            raise BrokerFailed(f"port {self._controller_port} of {HOST} is in use: stop the process that uses it")
        controller = self._controller_port or (before.controller_port if is_free(before.controller_port) else 0)
        return free_ports(port, controller)

    def _format(self, command: list[str]) -> None:
        if (self.folder / "data" / "meta.properties").exists():
            return
        cluster = self._node.cluster_id or new_cluster_id()
        credentials = self._node.security.credentials() if self._node.security else []
        try:
            done = subprocess.run(
                [*command, f"--cluster-id={cluster}", "--ignore-formatted", *credentials],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_FORMAT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BrokerFailed(f"formatting {self.folder} took more than {_FORMAT_S:.0f} s") from None
        if done.returncode:
            with self.log.open("a", encoding="utf-8") as log:
                log.write(done.stdout + done.stderr)
            raise self._failure(f"formatting {self.folder} failed (Java ended with {done.returncode})")

    def _launch(self, command: list[str], ports: tuple[int, ...], lock: IO[str]) -> None:
        mode = "leash" if self._leashed else "free"
        remove = str(self.folder) if self._temporary else ""
        with self.log.open("a", encoding="utf-8") as log:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(keeper.__file__), mode, remove, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                pass_fds=(lock.fileno(),),
                # A session of its own: Ctrl-C in the terminal is for the owner, who then stops the broker last.
                start_new_session=True,
            )
        pid = child.stdout.readline().strip() if child.stdout is not None else ""
        if self._leashed and pid:
            self._keeper = child
        else:
            child.communicate(timeout=_STOP_S)
        if not pid:
            raise self._failure("Java could not be started")
        self._process = psutil.Process(int(pid))
        self._identity = Identity(self._process.pid, self._process.create_time(), *ports)
        self._identity.save(self.folder)

    def _serves(self, *, last: bool) -> bool:
        """Wait until the broker answers; False when it lost its port to another process and is to try again."""
        conf: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 200,
            # Refused connections are what is expected here.
            "log_level": 0,
        } | (self._node.security.client() if self._node.security else {})
        admin = AdminClient(conf)
        deadline = self._clock.monotonic() + self._start_timeout_s
        while self._clock.monotonic() < deadline:
            if self._process is None or not _alive(self._process):
                taken = self._identity is not None and not is_free(self._identity.port)
                if taken and not last and not self._wanted_port:
                    self.kill()
                    self._identity = None
                    return False
                raise self._failure(f"the embedded Kafka in {self.folder} ended at its start")
            try:
                if admin.list_topics(timeout=0.5).brokers:
                    return True
            except KafkaException:
                continue
        raise self._failure(f"the embedded Kafka did not answer within {self._start_timeout_s:g} s")

    def _failure(self, what: str) -> BrokerFailed:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        except OSError:
            lines = []
        tail = "".join(f"\n  {line}" for line in lines)
        return BrokerFailed(f"{what}; the end of {self.log}:{tail}" if tail else what)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def new_cluster_id() -> str:
    """As Kafka's own tool makes one."""
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
