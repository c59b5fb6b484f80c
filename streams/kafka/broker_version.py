"""Which release's features a cluster has agreed on, asked over the wire: the client library does not tell.

ApiVersions is the one request that a broker answers before a client is authenticated. Its answer names the cluster's
``metadata.version``, a number that grows with every release (KIP-584, KIP-778).
"""

from __future__ import annotations

import socket
import ssl
import struct
from typing import Final

_ANSWER_S: Final = 3.0
_API_VERSIONS: Final = 18
_VERSION: Final = 3
_FINALIZED: Final = 2
"""The tag of the features that the cluster has agreed on."""

LEVEL_OF_4_0: Final = 22
"""``metadata.version`` of Kafka 4.0."""


def metadata_level(host: str, port: int, context: ssl.SSLContext | None) -> int | None:
    """The cluster's ``metadata.version``; None: it says none, as before Kafka 3.3 or with ZooKeeper.

    Args:
        context: of a listener with TLS.

    Raises:
        OSError: no answer.
        ValueError: what answers is no broker.
    """
    with socket.create_connection((host, port), timeout=_ANSWER_S) as plain:
        connection = context.wrap_socket(plain, server_hostname=host) if context else plain
        with connection:
            connection.settimeout(_ANSWER_S)
            connection.sendall(_request())
            (size,) = struct.unpack(">i", _exactly(connection, 4))
            if not 0 < size < 1 << 20:
                raise ValueError(f"an answer of {size} bytes")
            return level_in(_exactly(connection, size))


def level_in(answer: bytes) -> int | None:
    """``metadata.version`` in an answer to ApiVersions, version 3.

    Raises:
        ValueError: it is none.
    """
    try:
        at = 4 + 2  # the correlation id, the error
        keys, at = _uvarint(answer, at)
        for _ in range(keys - 1):
            at = _past_tags(answer, at + 6)
        at += 4  # the throttle time
        tags, at = _uvarint(answer, at)
        for _ in range(tags):
            tag, at = _uvarint(answer, at)
            size, at = _uvarint(answer, at)
            if tag == _FINALIZED:
                return _level(answer[at : at + size])
            at += size
    except (IndexError, struct.error) as error:
        raise ValueError(f"no answer to ApiVersions: {error}") from None
    return None


def _level(features: bytes) -> int | None:
    count, at = _uvarint(features, 0)
    for _ in range(count - 1):
        length, at = _uvarint(features, at)
        name, at = features[at : at + length - 1], at + length - 1
        (highest,) = struct.unpack_from(">h", features, at)
        if name == b"metadata.version":
            return int(highest)
        at = _past_tags(features, at + 4)
    return None


def _request() -> bytes:
    name = b"coldstart"
    text = bytes([len(name) + 1]) + name
    body = struct.pack(">hhih", _API_VERSIONS, _VERSION, 1, len(name)) + name + b"\0" + text + b"\x021\0"
    return struct.pack(">i", len(body)) + body


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            raise ConnectionResetError("the connection was closed")
        found += part
    return found


def _uvarint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _past_tags(data: bytes, at: int) -> int:
    count, at = _uvarint(data, at)
    for _ in range(count):
        _, at = _uvarint(data, at)
        size, at = _uvarint(data, at)
        at += size
    return at
