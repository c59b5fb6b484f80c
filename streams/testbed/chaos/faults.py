"""What can be broken, and how it is mended."""

from __future__ import annotations

import json
import random
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rocksdict import Options, Rdict

from streams.contract.errors import Unavailable
from streams.contract.topics import AUDIENCE_STATE, LISTENS
from streams.kafka.clients import hand_over, producer
from streams.testbed.broker import EmbeddedCluster, EmbeddedKafka
from streams.testbed.broker.process_identity import Identity
from streams.testbed.chaos.environment import Environment
from streams.testbed.chaos.traffic import listen

# Above a day more than databases may be old (streams/audience/local_store.py).
_TOO_OLD_S = 8 * 86_400.0
# A database's log reaches this with the first few dozen histories; a worker's own log does not meanwhile.
_FULL_BYTES = 16_384
# Listens a user: what keeps the workers busy for a moment.
_BACKLOG = 50
_META = b"\x00meta"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault may touch. ``choice`` picks its victims."""

    stage: Environment
    broker: EmbeddedKafka | EmbeddedCluster
    choice: random.Random

    def one_broker(self) -> EmbeddedKafka:
        """The only one, or any of a cluster."""
        return self.choice.choice(self.broker.nodes) if isinstance(self.broker, EmbeddedCluster) else self.broker

    @property
    def cluster(self) -> EmbeddedCluster:
        """Raises Unavailable where there is a single broker."""
        if not isinstance(self.broker, EmbeddedCluster):
            raise Unavailable("this fault needs three brokers: coldstart chaos --brokers 3")
        return self.broker


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break the system. The supervisor starts again what it killed.

    Attributes:
        words: what it does, for people.
        strike: breaks it.
        mend: puts back what the supervisor cannot, some seconds later.
        ends_roles: whether it takes away what a role needs, so that roles may end by themselves.
    """

    words: str
    strike: Callable[[Scene], None]
    mend: Callable[[Scene], None] = lambda _: None
    ends_roles: bool = False


def _kill_songs(scene: Scene) -> None:
    scene.stage.workers[0].kill()


def _kill_audience(scene: Scene) -> None:
    scene.choice.choice(scene.stage.audience).kill()


def _kill_all(scene: Scene) -> None:
    for worker in scene.stage.workers:
        worker.kill()


def _kill_broker(scene: Scene) -> None:
    scene.broker.kill()
    scene.broker.restart()


def _kill_both(scene: Scene) -> None:
    for worker in scene.stage.workers:
        worker.kill()
    _kill_broker(scene)


def _wipe_state(scene: Scene) -> None:
    scene.choice.choice(scene.stage.audience).kill()
    shutil.rmtree(scene.stage.state, ignore_errors=True)


def _tear_state(scene: Scene) -> None:
    """Cut files of the state in half, as a power cut or a broken disk may."""
    _kill_all_audience(scene)
    files = sorted(path for path in scene.stage.state.rglob("*") if path.is_file() and path.stat().st_size > 1)
    for path in scene.choice.sample(files, min(3, len(files))):
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)


def _age_state(scene: Scene) -> None:
    """Make the databases say that they were written long ago."""
    _kill_all_audience(scene)
    for folder in _databases(scene.stage):
        database = Rdict(str(folder), Options(raw_mode=True))
        stored = database.get(_META)
        meta = json.loads(stored) if stored else {}
        database[_META] = json.dumps({**meta, "at": meta.get("at", 0.0) - _TOO_OLD_S}).encode()
        database.close()


def _hide_state(scene: Scene) -> None:
    """Put a file where the state's folder is: what an unusable disk looks like to root, whom no mode keeps out."""
    _kill_all_audience(scene)
    scene.stage.state.rename(_hidden(scene.stage))
    scene.stage.state.write_text("in the way")
    # Mended before they came back, it would be none.
    scene.stage.wait_until_ready()


def _show_state(scene: Scene) -> None:
    scene.stage.state.unlink()
    _hidden(scene.stage).rename(scene.stage.state)


def _fill_disk(scene: Scene) -> None:
    """No file of the audience workers may grow any more. Python ignores the signal, so that writes fail as on a full
    disk."""
    for worker in scene.stage.audience:
        log = scene.stage.log(worker.name)
        # The log is a file, too: it begins anew.
        with log.with_suffix(".log.before").open("ab") as kept:
            kept.write(log.read_bytes())
        log.write_bytes(b"")
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (_FULL_BYTES, resource.RLIM_INFINITY))
    now = time.time()
    users = scene.choice.sample(scene.stage.present, len(scene.stage.users) // 2)
    scene.stage.send(LISTENS, [listen(user, f"full-{now}", now) for user in users])


def _clear_disk(scene: Scene) -> None:
    for worker in scene.stage.audience:
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _freeze_broker(scene: Scene) -> None:
    """Stop the broker in mid-work for longer than a transaction may hang, then let it go on as if nothing was."""
    folder = scene.one_broker().folder
    identity = Identity.load(folder)
    process = identity.process(folder) if identity else None
    if process is None:
        raise Unavailable("the broker to freeze is not there")
    sender, now = producer(scene.stage.kafka), time.time()
    users = scene.stage.present
    backlog = [listen(user, f"frozen-{number}-{now}", now) for number in range(_BACKLOG) for user in users]
    for record in backlog:
        hand_over(sender, scene.stage.naming.name(LISTENS), record)
    # Half of it has come, so that a transaction is on its way.
    while len(sender) > len(backlog) // 2:
        sender.poll(0.01)
    process.suspend()
    try:
        scene.stage.wait(1.5 * scene.stage.settings.audience.watchdog_s)
    finally:
        process.resume()
    sender.flush(60)


def _kill_leader(scene: Scene) -> None:
    """Of a partition of the changelog: what a transaction of that partition must write to."""
    naming = scene.stage.naming
    partition = scene.choice.randrange(naming.audience_partitions)
    _kill_node(scene, scene.cluster.leader(naming.name(AUDIENCE_STATE), partition))


def _kill_coordinator(scene: Scene) -> None:
    slot = scene.choice.choice(scene.stage.audience).name
    _kill_node(scene, scene.cluster.transaction_coordinator(f"{scene.stage.naming.prefix}{slot}"))


def _kill_controller(scene: Scene) -> None:
    _kill_node(scene, scene.cluster.controller())


def _wipe_broker(scene: Scene) -> None:
    node = scene.one_broker()
    node.kill()
    shutil.rmtree(node.folder / "data")


def _kill_node(scene: Scene, id: int) -> None:
    # None leads for a moment after the last fault: then any will do.
    (scene.cluster.node(id) if id > 0 else scene.one_broker()).kill()


def _roll(scene: Scene) -> None:
    """One broker after the other is stopped and started, as for an upgrade; each only when the former is in step."""
    for node in scene.cluster.nodes:
        node.stop()
        scene.cluster.restart()
        scene.stage.wait_until(scene.cluster.in_sync, lambda: "the brokers are not in step again")


def _return(scene: Scene) -> None:
    """What was killed comes back, and the next fault waits until nothing hangs on two brokers alone."""
    scene.cluster.restart()
    scene.stage.wait_until(scene.cluster.in_sync, lambda: "the brokers are not in step again")


def _join(scene: Scene) -> None:
    slot = 1 + max(int(worker.name.partition("-")[2]) for worker in scene.stage.audience)
    scene.stage.start(f"audience-{slot}", "audience", "--slot", str(slot))


def _leave(scene: Scene) -> None:
    worker = scene.choice.choice(scene.stage.audience[:-1])
    scene.stage.workers.remove(worker)
    worker.stop()


def _swap(scene: Scene) -> None:
    scene.stage.publish(1)


def _roll_back(scene: Scene) -> None:
    scene.stage.publish(0)


def _kill_all_audience(scene: Scene) -> None:
    for worker in scene.stage.audience:
        worker.kill()


def _databases(stage: Environment) -> list[Path]:
    return sorted(path.parent for path in stage.state.rglob("CURRENT"))


def _hidden(stage: Environment) -> Path:
    return stage.state.with_name("state.hidden")


FAULTS = {
    "songs": Fault("SIGKILL of the songs worker", _kill_songs),
    "audience": Fault("SIGKILL of an audience worker", _kill_audience),
    "all": Fault("SIGKILL of every worker", _kill_all),
    "broker": Fault("SIGKILL of the broker, and its restart", _kill_broker, ends_roles=True),
    "everything": Fault("SIGKILL of every worker and of the broker, and its restart", _kill_both, ends_roles=True),
    "wiped": Fault("SIGKILL of an audience worker, its state on disk deleted", _wipe_state),
    "torn": Fault("SIGKILL of the audience workers, files of their state cut in half", _tear_state),
    "old": Fault("SIGKILL of the audience workers, their state on disk more than a week old", _age_state),
    "unusable": Fault(
        "SIGKILL of the audience workers, a file in the place of their state", _hide_state, _show_state, ends_roles=True
    ),
    "full": Fault("no file of an audience worker can grow", _fill_disk, _clear_disk, ends_roles=True),
    "frozen": Fault(
        "SIGSTOP of the broker for longer than a commit may hang, and SIGCONT", _freeze_broker, ends_roles=True
    ),
    "members": Fault("an audience worker joins, and another leaves", _join, _leave),
    "swap": Fault("another model is published, and the former one again", _swap, _roll_back),
}
"""By a short name."""

CLUSTER_FAULTS = {
    "leader": Fault("SIGKILL of the leader of a partition of the changelog", _kill_leader, _return, ends_roles=True),
    "coordinator": Fault(
        "SIGKILL of the coordinator of a worker's transactions", _kill_coordinator, _return, ends_roles=True
    ),
    "controller": Fault("SIGKILL of the active controller", _kill_controller, _return, ends_roles=True),
    "wiped-broker": Fault("SIGKILL of a broker, its disk wiped", _wipe_broker, _return, ends_roles=True),
    "roll": Fault("every broker is restarted in turn", _roll, ends_roles=True),
}
"""Of three brokers, beside those above."""
