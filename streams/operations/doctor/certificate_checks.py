"""Certificates: ours in their files, and the brokers' as they show them; until when?"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from streams.operations.doctor.finding import Diagnosis, Patient, error, warning

_SOON_S: Final = 30 * 86_400.0
_ANSWER_S: Final = 3.0
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"


def files(patient: Patient) -> Iterator[Diagnosis]:
    """The client's own certificate, and the authorities that it trusts."""
    kafka = patient.settings.kafka
    if not kafka.tls:
        return
    for key, path in (("kafka.ssl_certificate", kafka.ssl_certificate), ("kafka.ssl_ca", kafka.ssl_ca)):
        if path is None or path.is_dir():
            continue
        for at, number in _ends(path):
            yield from _judged(f"certificate {number} of {path} ({key})", at, patient.clock.now())


def brokers(patient: Patient) -> Iterator[Diagnosis]:
    """What each bootstrap server shows."""
    kafka = patient.settings.kafka
    if not kafka.tls:
        return
    context = kafka.ssl_context()
    for server in kafka.bootstrap_servers.split(","):
        host, _, port = server.rpartition(":")
        name = host.strip("[]")
        try:
            with (
                socket.create_connection((name, int(port)), timeout=_ANSWER_S) as plain,
                context.wrap_socket(plain, server_hostname=name) as secure,
            ):
                shown = secure.getpeercert() or {}
        except ssl.SSLCertVerificationError as problem:
            yield error(
                f"broker {server}: its certificate is not accepted: {problem.verify_message}",
                "expired: renew it on the broker; unknown issuer: set kafka.ssl_ca to the authority that signed it",
            )
        except OSError:
            # That it does not answer is another check's finding.
            continue
        else:
            if isinstance(until := shown.get("notAfter"), str):
                at = ssl.cert_time_to_seconds(until)
                yield from _judged(f"broker {server}: its certificate", at, patient.clock.now())


def _judged(what: str, at: float, now: float) -> Iterator[Diagnosis]:
    day = datetime.fromtimestamp(at, UTC)
    if at <= now:
        yield error(f"expired certificate: {what} ended on {day:%Y-%m-%d %H:%M} UTC", "renew it, and restart its users")
    elif at - now < _SOON_S:
        yield warning(f"{what} expires on {day:%Y-%m-%d %H:%M} UTC, in {(at - now) / 86_400:.0f} days", "renew it")


def _ends(path: Path) -> Iterator[tuple[float, int]]:
    """When each certificate of a PEM file ends, Unix seconds, and its number in the file."""
    blocks = path.read_text(encoding="ascii", errors="replace").split(_BEGIN)[1:]
    for number, block in enumerate(blocks, 1):
        pem = _BEGIN + block.partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
        yield end_of(ssl.PEM_cert_to_DER_cert(pem)), number


def end_of(der: bytes) -> float:
    """``notAfter`` of a certificate (RFC 5280, 4.1), Unix seconds.

    The standard library shows it of a peer's certificate only, and of a file's not at all.
    """
    at, _ = _content(der, _content(der, 0)[0])
    if der[at] == 0xA0:
        # The version.
        at = _content(der, at)[1]
    for _part in ("serial number", "algorithm", "issuer"):
        at = _content(der, at)[1]
    not_before, _ = _content(der, at)
    at = _content(der, not_before)[1]
    begin, end = _content(der, at)
    text = der[begin:end].decode("ascii")
    if len(text) == 13:
        # UTCTime: two digits of the year, from 1950 to 2049.
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Begin and end of the content of the element at a place."""
    length, begin = der[at + 1], at + 2
    if length >= 0x80:
        size = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + size], "big"), begin + size
    return begin, begin + length
