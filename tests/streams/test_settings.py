"""Settings: where a value comes from, and what a wrong one says."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import SecretStr
from typer.testing import CliRunner

from streams.cli import app
from streams.contract.errors import SettingsError
from streams.runtime.logging import set_up_logs
from streams.runtime.metrics import AudienceMetrics
from streams.runtime.settings import KafkaSettings, Settings, user_cache_dir
from streams.runtime.settings_errors import secrets
from streams.runtime.settings_sources import load_settings
from streams.songs.faust_broker import broker_urls, credentials


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.upper().startswith("COLDSTART_"):
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
    assert broker_urls(settings.kafka) == ["kafka://localhost:9092"]
    assert credentials(settings.kafka) is None


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
        ("COLDSTART_TOPICS__PREFX", "x", ["topics.prefx", "did you mean topics.prefix?", "audience_partitions"]),
        ("COLDSTART_TOPIC__PREFIX", "x", ["COLDSTART_TOPIC__PREFIX", "did you mean COLDSTART_TOPICS__PREFIX?"]),
        ("COLDSTART_KAFKA__BOOTSTRAP_SERVERS", "a:b", ["kafka.bootstrap_servers", "'a:b'", "host:port"]),
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
    with pytest.raises(SettingsError, match=r"absent\.toml: not a readable file .*No such file"):
        load_settings(tmp_path / "absent.toml")


@pytest.mark.parametrize(("path", "why"), [(Path("/"), "Is a directory"), (Path("/dev/null"), "a pipe or a device")])
def test_what_is_no_file_is_refused_and_not_passed_over(path: Path, why: str) -> None:
    with pytest.raises(SettingsError, match=f"not a readable file .*{why}"):
        load_settings(path)


def test_security_reaches_both_clients_and_the_password_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = KafkaSettings(
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
    found = credentials(kafka)
    assert found.protocol.value == "SASL_SSL"
    assert found.mechanism.value == "SCRAM-SHA-512"
    assert (found.username, found.password) == ("me", "hush")
    assert broker_urls(kafka) == ["kafka://a:1", "kafka://b:2"]
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
        credentials(KafkaSettings(security_protocol="SSL", ssl_ca=broken))


def test_cache_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / "coldstart"
    assert load_settings().paths.broker == tmp_path / "coldstart" / "kafka"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("COLDSTART_KAFKA_BOOTSTRAP_SERVERS", "COLDSTART_KAFKA__BOOTSTRAP_SERVERS"),
        ("coldstart_kafka_bootstrap_servers", "COLDSTART_KAFKA__BOOTSTRAP_SERVERS"),
        ("COLDSTART_BOOTSTRAP_SERVERS", "COLDSTART_KAFKA__BOOTSTRAP_SERVERS"),
        ("COLDSTART_KAFKA__BOOTSTRAP_SERVER", "kafka.bootstrap_servers"),
        ("COLDSTART_AUDIENCE_HTTP_PORT", "COLDSTART_AUDIENCE__HTTP_PORT"),
        ("COLDSTART_LOG___LEVEL", "log.level"),
        ("COLDSTART_PREFIX", "COLDSTART_TOPICS__PREFIX"),
        ("COLDSTART_X", "sections: kafka, topics"),
        ("COLDSTART_", "sections: kafka, topics"),
    ],
)
def test_a_variable_that_sets_nothing_is_refused_with_the_name_that_was_meant(
    written: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(written, "9102")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert meant in str(caught.value)


@pytest.mark.parametrize("separator", ["_", "___", "", "-"])
def test_no_setting_is_missed_for_its_underscores(separator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for section, field in Settings.model_fields.items():
        assert field.annotation is not None
        for key in field.annotation.model_fields:
            with monkeypatch.context() as only:
                only.setenv(f"COLDSTART_{section}{separator}{key}".upper(), "1")
                with pytest.raises(SettingsError, match=rf"(?i){section}(__|\.){key}\?"):
                    load_settings()


def test_variables_of_others_that_begin_alike_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes announces a service called coldstart to every pod, in these words."""
    for name, value in {
        "COLDSTART_SERVICE_HOST": "10.0.0.1",
        "COLDSTART_SERVICE_PORT": "9092",
        "COLDSTART_KAFKA_SERVICE_PORT_HTTP": "9092",
        "COLDSTART_KAFKA_PORT": "tcp://10.0.0.1:9092",
        "COLDSTART_KAFKA_PORT_9092_TCP": "tcp://10.0.0.1:9092",
        "COLDSTART_KAFKA_PORT_9092_TCP_PROTO": "tcp",
        "COLDSTART_KAFKA_PORT_9092_TCP_PORT": "9092",
        "COLDSTART_KAFKA_PORT_9092_TCP_ADDR": "10.0.0.1",
        "COLDSTART_DATA": "/data",
        "COLDSTARTED": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == Settings()


def test_case_does_not_matter_where_it_does_not_to_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("coldstart_topics__prefix", "lower.")
    monkeypatch.setenv("COLDSTART_LOG__LEVEL", "debug")
    monkeypatch.setenv("COLDSTART_KAFKA__SECURITY_PROTOCOL", "ssl")
    settings = load_settings()
    assert (settings.topics.prefix, settings.log.level) == ("lower.", "DEBUG")
    assert settings.kafka.security_protocol == "SSL"


def test_a_folder_of_authorities_is_as_good_as_a_file(tmp_path: Path) -> None:
    kafka = KafkaSettings(security_protocol="SSL", ssl_ca=tmp_path)
    assert kafka.confluent()["ssl.ca.location"] == str(tmp_path)
    assert credentials(kafka) is not None


def test_no_secret_is_in_any_message_about_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever is wrong about it or beside it: its place, its type, its name, another key."""
    file = tmp_path / "c.toml"
    hidden = secrets(Settings)
    assert {("kafka", "sasl_password"), ("audience", "erasure_key"), ("audience", "former_erasure_keys")} <= {*hidden}
    for section, key in hidden:
        for variable, value in {
            f"COLDSTART_{section}_{key}": "planted",
            f"COLDSTART_{section}__{key}S": "planted",
            f"COLDSTART_{section}X__{key}": "planted",
            f"COLDSTART_{section}": '"planted"',
            f"COLDSTART_{section.upper()}": "planted",
            f"COLDSTART_{section}__{key}": '{"planted":1}',
            f"COLDSTART_{section}__X": "planted",
        }.items():
            with monkeypatch.context() as only:
                only.setenv(variable.upper(), value)
                try:
                    found = repr(load_settings())
                except SettingsError as error:
                    found = str(error)
                assert "planted" not in found, (variable, found)
        for text in (
            f'[{section}]\n{key} = ["planted"]\n',
            f'[{section}]\n{key} = {{ a = "planted" }}\n',
            f'[{section}]\n{key}s = "planted"\n',
            f'{section} = "planted"\n',
            f'[{section}]\n{key} = "planted"\nother = 1\n',
            f'[{section}]\n{key} = "planted" x\n',
        ):
            file.write_text(text)
            try:
                found = repr(load_settings(file))
            except SettingsError as error:
                found = str(error)
            assert "planted" not in found, (text, found)


def test_no_secret_is_in_what_settings_show_of_themselves_nor_in_any_help(monkeypatch: pytest.MonkeyPatch) -> None:
    for section, key in secrets(Settings):
        monkeypatch.setenv(f"COLDSTART_{section}__{key}".upper(), '["planted"]' if key.endswith("s") else "planted")
    settings = load_settings()
    held = [getattr(getattr(settings, section), key) for section, key in secrets(Settings)]
    assert "planted" in str([each.get_secret_value() for each in held if isinstance(each, SecretStr)])
    shown = [repr(settings), str(settings), f"{settings}", settings.model_dump_json(), str(settings.model_dump())]
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        set_up_logs("audience", "DEBUG", stream)
        structlog.get_logger("x").info("settings", settings=settings, kafka=settings.kafka, audience=settings.audience)
        root.info("%s %r", settings, settings.kafka)
    finally:
        root.handlers[:], root.level = before
    shown.append(stream.getvalue())
    verbs: tuple[list[str], ...] = ([], ["worker", "audience"], ["worker", "songs"], ["up"], ["demo"])
    shown += [CliRunner().invoke(app, [*words, "--help"]).output for words in verbs]
    registry = CollectorRegistry()
    AudienceMetrics(registry)
    shown.append(generate_latest(registry).decode())
    assert "planted" not in "".join(shown)


def test_metrics_are_served_beyond_this_machine_only_when_asked_for() -> None:
    settings = load_settings()
    assert (settings.songs.http_host, settings.audience.http_host) == ("127.0.0.1", "127.0.0.1")
