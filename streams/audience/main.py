"""Starts the audience process, and ends it."""

from __future__ import annotations

import signal
import threading

import structlog
from confluent_kafka import KafkaException
from prometheus_client import CollectorRegistry

from streams.audience.catalogue_sync import CatalogueSync
from streams.audience.fetching import explained
from streams.audience.gc_tuning import tune_gc
from streams.audience.local_store import LocalStores
from streams.audience.positions import TOPIC_OF
from streams.audience.push_rules import policy_of
from streams.audience.slot_claim import SlotClaim
from streams.audience.worker import Worker, member_of
from streams.audience.worker_context import WorkerContext
from streams.contract.errors import BadBurst
from streams.contract.topics import (
    AUDIENCE_STATE,
    CAMPAIGN_REPORTS,
    DEAD_LETTERS,
    MODELS,
    PUSH_TARGETS,
    WARM_SONGS,
    Naming,
)
from streams.kafka.access import check_topics, not_authorized
from streams.kafka.clients import admin
from streams.kafka.reachability import Reachability
from streams.kafka.skipped_records import Skipped
from streams.kafka.topic_admin import check_times
from streams.kafka.topic_identity import cluster_id, topic_ids
from streams.models.registry import LiveView, model_status
from streams.runtime.bad_record_burst import BadBursts
from streams.runtime.broker_clock import BrokerClock
from streams.runtime.clock import Clock, SystemClock
from streams.runtime.exit_codes import RESTART, leave
from streams.runtime.health import Heartbeat, ObserveServer, Readiness
from streams.runtime.metrics import AudienceMetrics, free_bytes
from streams.runtime.settings import AudienceSettings, KafkaSettings, Settings
from streams.runtime.status import RoleStatus
from streams.runtime.tracing_choice import tracing_of
from targeting.campaigns.spending import Spending
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition
from targeting.ranking.scoring import Ranking, ScoreWeights
from targeting.rules.policy import Policy

# A round takes milliseconds; restoring beats once a second. Longer silence is a hang.
_LOOP_SILENCE_S = 60.0

NEEDED = (
    *TOPIC_OF.values(),
    AUDIENCE_STATE,
    PUSH_TARGETS,
    CAMPAIGN_REPORTS,
    WARM_SONGS,
    MODELS,
    DEAD_LETTERS,
)
"""The topics without which the role cannot serve."""

_log = structlog.get_logger(__name__)


def run(settings: Settings, slot: int, obey: bool, resume: bool = False) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        obey: False: no preferences, caps, holdout or exploration (to measure targeting alone).
        resume: whether a burst of bad records is gone through (:mod:`streams.runtime.bad_record_burst`).

    Raises:
        Refused, Unavailable: the process cannot start; the message says why.
        MustRestart: the process cannot go on; a new one can.
        BadBurst: it stopped cleanly, because no source sends good records.
    """
    tune_gc()
    clock = SystemClock()
    naming = settings.topics.naming()
    registry = CollectorRegistry()
    metrics = AudienceMetrics(registry)
    metrics.disk_free_bytes.set_function(lambda: free_bytes(settings.paths.cache))
    metrics.partitions_declared.set(naming.audience_partitions)
    readiness = Readiness(metrics.condition)
    heartbeat = Heartbeat(clock, _LOOP_SILENCE_S)
    restored = readiness.condition("restored", "no partitions assigned yet")
    inputs = [naming.name(topic) for topic in TOPIC_OF.values()]
    needed = [naming.name(topic) for topic in NEEDED]
    reachable = Reachability(settings.kafka, readiness.condition("kafka", "not asked yet"), clock, inputs, needed)
    broker_clock = BrokerClock(clock, readiness.condition("clock", "not known yet"))
    tracing = tracing_of(settings.tracing, "audience")
    context = WorkerContext(settings.kafka, naming, settings.audience, clock, metrics, heartbeat, tracing)
    status = RoleStatus(
        "audience", naming.prefix, clock, metrics, readiness, heartbeat, context.letters, context.held, slot
    )
    with ObserveServer(
        settings.audience.http_host, settings.audience.http_port, registry, readiness, {"loop": heartbeat},
        status.document,
    ) as server:  # fmt: skip
        _log.info("serving HTTP", url=server.url)
        reachable.start()
        client = admin(settings.kafka)
        check_topics(client, settings.kafka, naming, NEEDED)
        check_times(client, naming, [*TOPIC_OF.values(), AUDIENCE_STATE])
        member = member_of(naming, slot)
        mine = SlotClaim(settings.paths.cache / "slots" / cluster_id(client, settings.kafka), member)
        mine.wait_until_free(
            settings.kafka, f"{naming.prefix}audience", clock, settings.audience.session_timeout_s, restored.fails
        )
        restored.fails("no partitions assigned yet")
        view = LiveView(settings.kafka, naming, clock, Skipped(metrics.skipped_records, readiness))
        songs, config = Catalogue(), targeting_config(settings.audience, obey)
        status.model = lambda: model_status(view.model, songs.space)
        worker = Worker(
            context,
            slot,
            CatalogueSync(view, songs, settings.audience.objective),
            lambda number: Partition(number, naming.audience_partitions, songs, config),
            stores(settings, clock),
            restored,
            experiment=f"holdout-{config.policy.salt}" if config.policy.holdout else None,
            client_id=mine.client_id,
            bursts=BadBursts(
                settings.audience.stop_at_bad_share, settings.audience.stop_at_bad_of, "audience.stop_at_bad_share",
                clock, resume, metrics.bad_bursts, readiness,
            ),
            broker_clock=broker_clock,
        )  # fmt: skip
        # Until now a signal ended the process at once: nothing was begun.
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        burst: BadBurst | None = None
        try:
            while not stop.is_set():
                worker.round()
        except KafkaException as error:
            raise not_authorized(settings.kafka, error) or explained(error) from error
        except BadBurst as error:
            burst = error
        restored.fails("stopping")
        _log.info("stopping")
        # One deadline for the whole shutdown; everything committed is safe already.
        deadline = threading.Timer(
            settings.audience.shutdown_s,
            leave,
            (RESTART, f"shutdown took longer than {settings.audience.shutdown_s} s"),
        )
        deadline.daemon = True
        deadline.start()
        worker.close()
        tracing.close()
        reachable.close()
        mine.close()
        view.close()
        deadline.cancel()
    if burst is not None:
        raise burst


def targeting_config(settings: AudienceSettings, obey: bool) -> TargetingConfig:
    """How partitions decide, as the settings say; see :func:`run`."""
    return TargetingConfig(
        policy=policy_of(settings) if obey else Policy(enabled=False),
        relevance=ScoreWeights(ranking=Ranking(settings.ranking)),
        at_once=settings.at_once,
        spending=Spending(settings.spending),
        guaranteed=settings.guaranteed,
        half=settings.half_vectors,
        answer_hours=settings.answer_hours,
        erasure_key=settings.erasure_keys[0],
        former_erasure_keys=settings.erasure_keys[1:],
    )


def stores(settings: Settings, clock: Clock) -> LocalStores:
    """What this machine's disk keeps of the installation's changelog.

    Raises:
        Unavailable: the broker does not answer.
    """
    naming = settings.topics.naming()
    return LocalStores(settings.paths.state / naming.prefix, changelog_identity(settings.kafka, naming), clock)


def changelog_identity(kafka: KafkaSettings, naming: Naming) -> str:
    """What no other topic shares, not even a later one of the same name: cluster, name and the broker's id of it.

    Raises:
        Unavailable: the broker does not answer.
    """
    name = naming.name(AUDIENCE_STATE)
    client = admin(kafka)
    topic_id = topic_ids(client, [name], kafka.request_timeout_s)[name]
    return f"{cluster_id(client, kafka)}/{name}/{topic_id}"
