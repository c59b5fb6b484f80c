"""``kafka.bootstrap_servers`` in the one form that both client libraries read alike."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final

_DEFAULT_PORT: Final = 9092
_SERVER: Final = re.compile(
    r"((?P<protocol>[A-Za-z][A-Za-z_]*)://)?(\[(?P<v6>[^\[\]\s]+)\]|(?P<host>[^\s:;/\[\],]+))(:(?P<port>\d{1,5}))?"
)
_SHAPE: Final = "host:port, several separated by commas; an IPv6 address in brackets, as [::1]:9092"


def canonical(text: str, security_protocol: str) -> str:
    """``host:port,...``: no blanks, no protocol, no trailing comma, each with a port, IPv6 in brackets.

    librdkafka takes all of these forms, Faust's driver reads some of them as something else without a word.

    Raises:
        ValueError: an entry names no broker, or a protocol other than ``security_protocol``.
    """
    entries = [entry for entry in (part.strip() for part in text.split(",")) if entry]
    if not entries:
        raise ValueError(f"names no broker; {_SHAPE}")
    return ",".join(_server(entry, security_protocol) for entry in entries)


def _server(entry: str, security_protocol: str) -> str:
    if _is_v6(entry):
        return f"[{entry}]:{_DEFAULT_PORT}"
    found = _SERVER.fullmatch(entry)
    if found is None or (found["v6"] is not None and not _is_v6(found["v6"])):
        raise ValueError(f"{entry!r} names no broker; {_SHAPE}")
    protocol, port = found["protocol"], int(found["port"] or _DEFAULT_PORT)
    if protocol is not None and protocol.upper() != security_protocol:
        raise ValueError(
            f"{entry!r} says {protocol}, and kafka.security_protocol is {security_protocol}; "
            "set that, and name host:port"
        )
    if not 1 <= port <= 65_535:
        raise ValueError(f"{entry!r}: a port is 1 to 65535")
    return f"[{found['v6']}]:{port}" if found["v6"] is not None else f"{found['host']}:{port}"


def _is_v6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True
