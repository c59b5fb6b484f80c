"""Authentication and authorization on an embedded broker.

Clients come over TLS with a name and a password (SASL_SSL, SCRAM-SHA-512); brokers reach each other's controllers by
their certificate. Nobody may do anything that is not granted, but the administrator. One certificate, signed by itself,
serves all brokers of a folder: clients trust exactly it.
"""

from __future__ import annotations

import secrets
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streams.contract.errors import BrokerFailed
from streams.testbed.broker.loopback import HOST

ADMIN: Final = "admin"
"""Who may do everything, and grants to others what they may."""

_BROKER: Final = "broker"
_NAME: Final = "CN=coldstart-broker"
_KEYTOOL_S: Final = 60.0
_DAYS: Final = 3650
_MECHANISM: Final = "SCRAM-SHA-512"


@dataclass(frozen=True, slots=True)
class Security:
    """What brokers and their administrator must know; its files lie in ``folder``, for their owner alone."""

    folder: Path

    @classmethod
    def prepare(cls, folder: Path, java: Path) -> Security:
        """Make the certificate and the passwords in ``folder``, or take those that are there.

        Args:
            java: the runtime's ``java``, beside which ``keytool`` lies.

        Raises:
            BrokerFailed: the certificate cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        security = cls(folder)
        for name in (ADMIN, _BROKER, "store"):
            secret = folder / f"{name}.password"
            if not secret.exists():
                secret.touch(mode=0o600)
                secret.write_text(secrets.token_urlsafe(24))
        if not security.certificate.exists():
            security._certify(java.with_name("keytool"))
        return security

    @property
    def certificate(self) -> Path:
        """PEM file of what clients are to trust (``kafka.ssl_ca``)."""
        return self.folder / "ca.pem"

    def password(self, name: str = ADMIN) -> str:
        return (self.folder / f"{name}.password").read_text()

    def settings(self, port: int, controller_port: int) -> dict[str, str]:
        """Of a broker's ``server.properties``."""
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
        store = self.password("store")
        return {
            "listeners": f"SASL_SSL://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": f"SASL_SSL://{HOST}:{port}",
            "inter.broker.listener.name": "SASL_SSL",
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:SSL",
            "listener.name.controller.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": _MECHANISM,
            "sasl.mechanism.inter.broker.protocol": _MECHANISM,
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                f'{login} username="{_BROKER}" password="{self.password(_BROKER)}";'
            ),
            "ssl.keystore.type": "PKCS12",
            "ssl.keystore.location": str(self.folder / "key.p12"),
            "ssl.keystore.password": store,
            "ssl.truststore.type": "PKCS12",
            "ssl.truststore.location": str(self.folder / "trust.p12"),
            "ssl.truststore.password": store,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": f"User:{_NAME};User:{_BROKER};User:{ADMIN}",
        }

    def credentials(self) -> list[str]:
        """Of Kafka's format command: who is known before anybody could be made known."""
        return [
            option
            for name in (ADMIN, _BROKER)
            for option in ("--add-scram", f"{_MECHANISM}=[name={name},password={self.password(name)}]")
        ]

    def client(self, name: str = ADMIN, password: str | None = None) -> dict[str, Any]:
        """Of a confluent-kafka client that comes as ``name``."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": _MECHANISM,
            "sasl.username": name,
            "sasl.password": self.password(name) if password is None else password,
            "ssl.ca.location": str(self.certificate),
        }

    def environment(self, name: str = ADMIN) -> dict[str, str]:
        """What makes coldstart's own clients come as ``name``, for a shell; the password stays in its file."""
        return {
            "COLDSTART_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "COLDSTART_KAFKA__SASL_MECHANISM": _MECHANISM,
            "COLDSTART_KAFKA__SASL_USERNAME": name,
            "COLDSTART_KAFKA__SASL_PASSWORD": f"$(cat {shlex.quote(str(self.folder / f'{name}.password'))})",
            "COLDSTART_KAFKA__SSL_CA": str(self.certificate),
        }

    def _certify(self, keytool: Path) -> None:
        key, trust, alias = str(self.folder / "key.p12"), str(self.folder / "trust.p12"), "broker"
        # Read from its file: a command line is everybody's to see.
        store = ["-storetype", "PKCS12", "-storepass:file", str(self.folder / "store.password"), "-noprompt"]
        new = self.folder / "new.pem"
        for path in (Path(key), Path(trust), new):
            path.unlink(missing_ok=True)
        for command in (
            ["-genkeypair", "-alias", alias, "-keyalg", "EC", "-dname", _NAME, "-validity", str(_DAYS),
             "-ext", f"SAN=ip:{HOST},dns:localhost", "-keystore", key],
            ["-exportcert", "-rfc", "-alias", alias, "-keystore", key, "-file", str(new)],
            ["-importcert", "-alias", alias, "-file", str(new), "-keystore", trust],
        ):  # fmt: skip
            try:
                done = subprocess.run(
                    [str(keytool), *command, *store],
                    stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_KEYTOOL_S, check=False,
                )  # fmt: skip
            except (OSError, subprocess.TimeoutExpired) as error:
                raise BrokerFailed(f"{self.folder}: the broker's certificate cannot be made ({error})") from None
            if done.returncode:
                raise BrokerFailed(f"{self.folder}: the broker's certificate cannot be made: {done.stdout.strip()}")
        for path in (Path(key), Path(trust)):
            path.chmod(0o600)
        # Last: what is there is whole.
        new.rename(self.certificate)
