"""Which brokers bootstrap_servers names: to librdkafka and to Faust the same."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts
from faust.transport.drivers.aiokafka import server_list
from faust.utils.urls import urllist
from pydantic import ValidationError

from streams.kafka.clients import admin, topics
from streams.runtime.settings import KafkaSettings
from streams.songs.faust_broker import broker_urls


def faust_servers(kafka: KafkaSettings) -> list[str]:
    """What Faust hands to aiokafka."""
    servers: list[str] = server_list(urllist(broker_urls(kafka)), 9092)
    return servers


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("[::1]:9092", [("::1", 9092)]),
        ("[::1]", [("::1", 9092)]),
        ("::1", [("::1", 9092)]),
        ("[fe80::1%lo]:9093", [("fe80::1%lo", 9093)]),
        ("kafka_1:9092", [("kafka_1", 9092)]),
        ("KAFKA-1.Example:9092", [("kafka-1.example", 9092)]),
        ("host", [("host", 9092)]),
        ("host.:9092", [("host.", 9092)]),
        (" a:1 , b:2\n", [("a", 1), ("b", 2)]),
        ("a:1,,b:2,", [("a", 1), ("b", 2)]),
        ("PLAINTEXT://a:1,plaintext://[::1]:2", [("a", 1), ("::1", 2)]),
        ("10.0.0.1:9092,[2001:db8::7]:9092", [("10.0.0.1", 9092), ("2001:db8::7", 9092)]),
    ],
)
def test_every_form_that_librdkafka_takes_reaches_the_same_brokers_by_faust(
    written: str, meant: list[tuple[str, int]]
) -> None:
    kafka = KafkaSettings(bootstrap_servers=written)
    # The canonical form is one of those that both parsers read without a guess.
    ours = collect_hosts(kafka.confluent()["bootstrap.servers"], randomize=False)
    assert [(host.lower(), port) for host, port, _ in ours] == meant
    by_faust = collect_hosts(faust_servers(kafka), randomize=False)
    assert [(host, port) for host, port, _ in by_faust] == meant


@pytest.mark.parametrize(
    "written",
    ["", " , ", "a b:1", "a:b", "a:", "a:0", "a:65536", "http://a:1", "SSL://a:1", "[x]:1", "[::1:1", "a;b:1"],
)
def test_what_names_no_broker_is_refused(written: str) -> None:
    with pytest.raises(ValidationError, match="bootstrap_servers"):
        KafkaSettings(bootstrap_servers=written)


def test_a_protocol_may_stand_before_a_server_where_it_is_the_configured_one() -> None:
    kafka = KafkaSettings(bootstrap_servers="SSL://a:1", security_protocol="SSL")
    assert kafka.bootstrap_servers == "a:1"


def test_both_clients_reach_a_broker_by_ipv6(kafka: KafkaSettings) -> None:
    with relay_on_ipv6(kafka.bootstrap_servers) as port:
        reach = KafkaSettings(bootstrap_servers=f"[::1]:{port}")
        assert topics(admin(reach), reach) is not None

        async def bootstrap() -> int:
            client = AIOKafkaClient(bootstrap_servers=faust_servers(reach))
            await client.bootstrap()
            try:
                return len(client.cluster.brokers())
            finally:
                await client.close()

        assert asyncio.run(bootstrap()) == 1


@contextmanager
def relay_on_ipv6(target: str) -> Iterator[int]:
    """The broker, by ::1 as well, as far as the first answer: that names the broker's own address."""
    host, _, port = target.rpartition(":")
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on this machine")

    opened = [listener]
    threads: list[threading.Thread] = []

    def start(work: Callable[..., None], *args: socket.socket) -> None:
        threads.append(threading.Thread(target=work, args=args))
        threads[-1].start()

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(port)))
                opened.extend((near, far))
                start(copy, near, far)
                start(copy, far, near)

    start(serve)
    try:
        yield int(listener.getsockname()[1])
    finally:
        for each in opened:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for each in opened:
            each.close()
