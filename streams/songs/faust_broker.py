"""How Faust is told to reach the cluster."""

from __future__ import annotations

from typing import Any

from faust.auth import SASLCredentials, SSLCredentials

from streams.runtime.settings import KafkaSettings


def broker_urls(kafka: KafkaSettings) -> list[str]:
    """What Faust's ``broker`` wants."""
    return [f"kafka://{server}" for server in kafka.bootstrap_servers.split(",")]


def credentials(kafka: KafkaSettings) -> Any:
    """What Faust's ``broker_credentials`` wants; None where the cluster asks for nothing.

    Raises:
        SettingsError: a certificate or key cannot be read.
    """
    if kafka.security_protocol == "PLAINTEXT":
        return None
    told = kafka.aiokafka()
    if "sasl_mechanism" not in told:
        return SSLCredentials(told["ssl_context"])
    return SASLCredentials(
        username=told["sasl_plain_username"],
        password=told["sasl_plain_password"],
        mechanism=told["sasl_mechanism"],
        ssl_context=told["ssl_context"],
    )
