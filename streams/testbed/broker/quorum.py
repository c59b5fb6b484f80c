"""Finds the active controller. Clients are told any broker; the quorum itself says who leads it.

One request of Kafka's protocol, DescribeQuorum version 0, which confluent-kafka does not have.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from streams.contract.errors import Unavailable
from streams.testbed.broker.loopback import HOST

_DESCRIBE_QUORUM: Final = 55
_TOPIC: Final = b"__cluster_metadata"
_ANSWER_S: Final = 5.0


def leader(port: int) -> int:
    """The node id of the active controller, asked of the broker on ``port``; -1 while there is none.

    Raises:
        Unavailable: the broker does not answer, or says that it cannot tell.
    """
    # Header: key, version, correlation, client; then one topic with partition 0. Lengths are compact: one more.
    body = struct.pack(">hhih", _DESCRIBE_QUORUM, 0, 1, -1) + b"\0"
    body += b"\x02" + bytes([len(_TOPIC) + 1]) + _TOPIC + b"\x02" + struct.pack(">i", 0) + b"\0\0\0"
    try:
        with socket.create_connection((HOST, port), timeout=_ANSWER_S) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            (size,) = struct.unpack(">i", _exactly(connection, 4))
            answer = _exactly(connection, size)
    except OSError as error:
        raise Unavailable(f"{HOST}:{port}: does not say who leads the quorum ({error})") from error
    # Correlation, tags, error; one topic, its name, one partition: index, error, leader.
    at = 4 + 1
    (failed,) = struct.unpack_from(">h", answer, at)
    at += 2 + 1 + 1 + len(_TOPIC) + 1
    if failed:
        raise Unavailable(f"{HOST}:{port}: does not say who leads the quorum (error {failed})")
    _, failed, found = struct.unpack_from(">ihi", answer, at)
    if failed:
        raise Unavailable(f"{HOST}:{port}: does not say who leads the quorum (error {failed})")
    return int(found)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("closed in the middle of an answer")
        data += more
    return data
