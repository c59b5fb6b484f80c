"""Settings: where a value comes from, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import SettingsError
from streams.settings import Kafka, load_settings, user_cache_dir


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("COLDSTART_") and "__" in name:
            monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "coldstart.toml"
    path.write_text('[topics]\nprefix = "file."\naudience_partitions = 8\n[audience]\nhttp_port = 1\n')
    return path


def test_defaults_serve_without_any_configuration() -> None:
    settings = load_settings()
    assert settings.topics.audience_partitions == 16
    assert settings.kafka.confluent() == {
        "bootstrap.servers": "localhost:9092",
        "security.protocol": "PLAINTEXT",
    }
    assert settings.kafka.faust_brokers() == ["kafka://localhost:9092"]
    assert settings.kafka.faust_credentials() is None


def test_option_stands_over_environment_over_file_key_by_key(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDSTART_TOPICS__PREFIX", "env.")
    monkeypatch.setenv("COLDSTART_AUDIENCE__HTTP_PORT", "2")
    settings = load_settings(toml, {"audience": {"http_port": 3}})
    assert settings.topics.prefix == "env."
    assert settings.topics.audience_partitions == 8
    assert settings.audience.http_port == 3


@pytest.mark.parametrize(
    ("variable", "value", "parts"),
    [
        ("COLDSTART_AUDIENCE__HTTP_PORT", "99999", ["audience.http_port", "'99999'", "65535"]),
        ("COLDSTART_LOG__LEVEL", "LOUD", ["log.level", "'LOUD'", "'DEBUG'", "'ERROR'"]),
        ("COLDSTART_TOPICS__PREFIX", "a b", ["topics.prefix", "'a b'", "pattern"]),
        ("COLDSTART_TOPICS__PREFX", "x", ["topics.prefx", "'x'", "prefix", "audience_partitions"]),
        ("COLDSTART_TOPIC__PREFIX", "x", ["COLDSTART_TOPIC__PREFIX", "'x'", "topics"]),
        ("COLDSTART_KAFKA__BOOTSTRAP_SERVERS", "here", ["kafka.bootstrap_servers", "'here'", "pattern"]),
        ("COLDSTART_KAFKA__SECURITY_PROTOCOL", "SASL_SSL", ["kafka", "SASL_SSL", "sasl_username"]),
        ("COLDSTART_KAFKA__SSL_CA", "/no/such/file", ["kafka.ssl_ca", "/no/such/file", "file"]),
        ("COLDSTART_AUDIENCE__WATCHDOG_S", "5", ["audience", "watchdog_s (5.0)", "transaction_timeout_s"]),
        ("COLDSTART_KAFKA", "{", ["environment", "kafka"]),
    ],
)
def test_wrong_value_names_key_value_and_what_is_allowed(
    variable: str, value: str, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDSTART_AUDIENCE__HTTP_PORT", "-1")
    monkeypatch.setenv("COLDSTART_SONGS__BUDGET", "many")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "part"),
    [("[topics", "not TOML"), ("[tropics]\nprefix = 'x'", "tropics"), ("topics = 3", "topics = 3")],
)
def test_wrong_file_is_explained(text: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=part):
        load_settings(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml"):
        load_settings(tmp_path / "absent.toml")


def test_security_reaches_both_clients_and_the_password_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka(
        bootstrap_servers="a:1,b:2",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="me",
        sasl_password="hush",
    )
    assert kafka.confluent() == {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": "hush",
    }
    credentials = kafka.faust_credentials()
    assert credentials.protocol.value == "SASL_SSL"
    assert credentials.mechanism.value == "SCRAM-SHA-512"
    assert (credentials.username, credentials.password) == ("me", "hush")
    assert kafka.faust_brokers() == ["kafka://a:1", "kafka://b:2"]
    assert "hush" not in repr(kafka)

    monkeypatch.setenv("COLDSTART_KAFKA__SASL_PASSWORD", "hush")
    monkeypatch.setenv("COLDSTART_KAFKA__SECURITY_PROTOCOL", "SASL_SSL")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hush" not in str(caught.value)


def test_unusable_certificate_is_explained(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("not a certificate")
    with pytest.raises(SettingsError, match=r"ca\.pem"):
        Kafka(security_protocol="SSL", ssl_ca=broken).faust_credentials()


def test_cache_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / "coldstart"
    assert load_settings().paths.broker == tmp_path / "coldstart" / "kafka"
