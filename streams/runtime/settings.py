"""Everything that can be configured, and the defaults.

``settings_sources.py`` reads the values. Each part of the program takes its own section, never the whole.
"""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    DirectoryPath,
    Field,
    FilePath,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from streams.contract.errors import SettingsError
from streams.contract.event_time import CAMPAIGN_DAYS, LONGEST_CAMPAIGN_DAYS
from streams.contract.topics import Naming
from streams.runtime.bootstrap_servers import canonical
from streams.runtime.settings_errors import PREFIX
from targeting.campaigns.budget import AT_ONCE, GUARANTEED


def user_cache_dir() -> Path:
    """Where this platform keeps what a program can fetch or compute again.

    Raises:
        SettingsError: there is no home, and the place that is used instead is another user's.
    """
    xdg, home = Path(os.environ.get("XDG_CACHE_HOME", "")), _home()
    if sys.platform != "darwin" and xdg.is_absolute():
        return xdg / "coldstart"
    if home is not None:
        return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "coldstart"
    shared = Path("/var/tmp") / f"coldstart-{os.getuid()}"
    if shared.is_symlink() or (shared.exists() and shared.stat().st_uid != os.getuid()):
        raise SettingsError(
            f"paths.cache: this user has no home, and {shared} is another's; set COLDSTART_PATHS__CACHE to a folder"
        )
    return shared


def _home() -> Path | None:
    """None in a container whose user has neither HOME nor an entry in passwd."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_absolute() else None


def _upper(value: object) -> object:
    # As in the clients, case does not matter.
    return value.strip().upper() if isinstance(value, str) else value


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class KafkaSettings(_Section):
    """How to reach the cluster: the same for both client libraries."""

    security_protocol: Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_upper)] = (
        "PLAINTEXT"
    )
    # After the protocol, which an entry may name.
    bootstrap_servers: str = "localhost:9092"
    """host:port, several separated by commas; an IPv6 address in brackets, as [::1]:9092."""
    sasl_mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], BeforeValidator(_upper)] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca: FilePath | DirectoryPath | None = None
    """PEM file of the authorities to trust, or a folder of them as `openssl rehash` leaves it; else, the system's."""
    ssl_certificate: FilePath | None = None
    """PEM file of the client's own certificate, where the cluster asks for one."""
    ssl_key: FilePath | None = None
    request_timeout_s: float = Field(10.0, gt=0, le=300)
    """How long an administrative request may take before it is an error, and a consumer's request before its
    connection is dropped."""

    @field_validator("bootstrap_servers")
    @classmethod
    def _servers(cls, text: str, others: ValidationInfo) -> str:
        # Without a protocol that one is wrong, and said.
        return canonical(text, others.data["security_protocol"]) if "security_protocol" in others.data else text

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self._sasl and (self.sasl_username is None or self.sasl_password is None):
            raise ValueError(f"security_protocol {self.security_protocol} needs sasl_username and sasl_password")
        if (self.ssl_certificate is None) != (self.ssl_key is None):
            raise ValueError("ssl_certificate and ssl_key go together: set both or neither")
        return self

    @property
    def _sasl(self) -> bool:
        return self.security_protocol.startswith("SASL")

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.security_protocol.endswith("SSL")

    def confluent(self) -> dict[str, Any]:
        """The part of a confluent-kafka client's configuration that reaches the cluster."""
        conf: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
        }
        if self._sasl and self.sasl_password is not None:
            conf |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.username": self.sasl_username,
                "sasl.password": self.sasl_password.get_secret_value(),
            }
        if self.tls:
            files = {
                "ssl.ca.location": self.ssl_ca,
                "ssl.certificate.location": self.ssl_certificate,
                "ssl.key.location": self.ssl_key,
            }
            conf |= {key: str(path) for key, path in files.items() if path is not None}
        return conf

    def aiokafka(self) -> dict[str, Any]:
        """The arguments of an aiokafka client that reach the cluster.

        Raises:
            SettingsError: a certificate or key cannot be read.
        """
        found: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context() if self.tls else None,
        }
        if self._sasl and self.sasl_password is not None:
            found |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password.get_secret_value(),
            }
        return found

    def ssl_context(self) -> ssl.SSLContext:
        """What the standard library's clients trust and show.

        Raises:
            SettingsError: a certificate or key cannot be read.
        """
        try:
            folder = self.ssl_ca is not None and self.ssl_ca.is_dir()
            context = ssl.create_default_context(
                cafile=None if folder else self.ssl_ca, capath=self.ssl_ca if folder else None
            )
            if self.ssl_certificate is not None:
                context.load_cert_chain(self.ssl_certificate, self.ssl_key)
        except (ssl.SSLError, OSError) as error:
            files = ", ".join(str(p) for p in (self.ssl_ca, self.ssl_certificate, self.ssl_key) if p)
            raise SettingsError(f"kafka: not usable as PEM certificates: {files} ({error})") from error
        return context


class TopicSettings(_Section):
    """How the topics of this installation are named and divided."""

    prefix: str = Field("coldstart.", pattern=r"^[a-zA-Z0-9._-]*$", max_length=200)
    """Stands before every topic, group and transactional id: two prefixes are two installations."""
    audience_partitions: int = Field(16, ge=1, le=1024)
    """Into how many parts users are divided. Fixed for the life of a prefix."""
    songs_partitions: int = Field(4, ge=1, le=1024)
    replication_factor: int = Field(1, ge=1, le=32)
    """3 on a cluster; the embedded broker is one."""

    def naming(self) -> Naming:
        """The topics of this installation: their names and partitions."""
        return Naming(self.prefix, self.audience_partitions, self.songs_partitions)


_PLACES = r"^(\d{1,6}:\d{1,18}(,\d{1,6}:\d{1,18})*)?$"


def _places(text: str) -> dict[int, frozenset[int]]:
    """Partition -> offsets, of ``partition:offset[,partition:offset...]``."""
    found: dict[int, set[int]] = {}
    for place in filter(None, text.split(",")):
        partition, _, offset = place.partition(":")
        found.setdefault(int(partition), set()).add(int(offset))
    return {partition: frozenset(offsets) for partition, offsets in found.items()}


class SongsSettings(_Section):
    """The songs role."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(9101, ge=0, le=65535)
    """Of /metrics, /livez, /readyz and /status; 0 takes a free one."""
    index: Literal["auto", "hnsw", "exact"] = "auto"
    """How warm songs are searched: "auto" is hnswlib where it is installed, otherwise the exact index."""
    neighbours: int = Field(50, ge=1, le=1000)
    """How many warm songs are retrieved for a new one."""
    budget: int = Field(1000, ge=0)
    """Pushes per song, unless the upload says otherwise."""
    campaign_days: float = Field(CAMPAIGN_DAYS, gt=0, le=LONGEST_CAMPAIGN_DAYS)
    """How long a song may be pushed, unless the upload says otherwise."""
    warm_listeners: int = Field(20, ge=1)
    """Distinct listeners that make a song warm. Fewer may be chance; a prototype needs ten."""
    swap_both_s: float = Field(60.0, ge=0, le=3600)
    """How long after a model swap requests also carry the song's vector in the former space: longer than audience
    workers take to follow."""
    batch_uploads: int = Field(64, ge=1, le=10_000)
    batch_wait_ms: float = Field(5.0, ge=0, le=1000)
    """How long an upload waits for others, to be encoded with them."""
    session_timeout_s: float = Field(10.0, ge=6, le=300)
    """After this silence a worker counts as dead; the broker accepts no less than 6."""
    commit_interval_s: float = Field(0.5, gt=0, le=10)
    shutdown_s: float = Field(20.0, gt=0, le=300)
    """One deadline for the whole shutdown."""
    stop_at_bad_share: float = Field(0.5, ge=0, lt=1)
    """The role stops once more than this share of an input's records within a minute was bad and no source's records
    are good; 0: it never does."""
    stop_at_bad_of: int = Field(1000, ge=1)
    """The share is judged only once this many records of an input have come within the minute."""
    skip_ledger_records: str = Field("", pattern=_PLACES)
    """Records of ``songs-ledger`` to leave out, as ``partition:offset,...``: a start that meets one that cannot be read
    is refused, and names it. To be emptied once they are compacted away."""

    def left_out(self) -> dict[int, frozenset[int]]:
        """``skip_ledger_records`` by partition."""
        return _places(self.skip_ledger_records)


class AudienceSettings(_Section):
    """The audience role."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(9102, ge=0, le=65535)
    """Of /metrics, /livez, /readyz and /status; 0 takes a free one."""
    batch_records: int = Field(10_000, ge=1, le=100_000)
    """Records of each input in a batch, at most, and twice as many vectors from outside. That many take a tenth of a
    second, for which requests wait."""
    batch_wait_ms: float = Field(5.0, ge=0, le=1000)
    """How long the first record of a batch waits for others."""
    session_timeout_s: float = Field(30.0, ge=6, le=300)
    """Of a static group member: a worker that is back within this time keeps its partitions."""
    transaction_timeout_s: float = Field(10.0, ge=1, le=60)
    """After this the broker aborts a dead worker's open transaction; until then readers wait behind it."""
    watchdog_s: float = Field(30.0, ge=2, le=600)
    """A transaction that takes longer counts as hung, and the process exits."""
    start_wait_s: float = Field(60.0, ge=0, le=3600)
    """At a start, requests wait until the listens that were already there are read, but no longer than this."""
    cap_pushes: int = Field(3, ge=0)
    """Pushes per user in any ``cap_hours``, unless the user's preferences say otherwise; 0: no pushes at all."""
    cap_hours: float = Field(24.0, gt=0, le=8760)
    artist_cap_pushes: int = Field(1, ge=0)
    """Pushes per user of songs by one primary artist in any ``artist_cap_hours``."""
    artist_cap_hours: float = Field(24.0, gt=0, le=8760)
    holdout: float = Field(0.05, ge=0, lt=1)
    """Share of (user, song) pairs that are held out at random and only counted, to measure the effect of pushes."""
    holdout_salt: str = Field("1", min_length=1, max_length=64)
    """Salt of that draw: another one holds out other users. It names the experiment in pushes."""
    exploration: float = Field(0.02, ge=0, le=1)
    """Share of a song's pushes that go to random candidates, to learn."""
    fair: bool = True
    """A user whose cap is partly used is open to a song by random draw alone, so that late songs find users;
    false: first come, first served."""
    ranking: Literal["default", "evidence", "i2i2u", "cat", "random"] = "default"
    """How a request ranks users; all but the default are baselines."""
    objective: Literal["answers", "liking"] = "answers"
    """Whom the default ranking looks for: users who will listen, so that activity counts as much as the live model has
    learned; or users who will like the song, however much they listen."""
    answer_hours: float = Field(24.0, ge=0, le=168)
    """A push counts as unanswered after so many hours without a listen, up to 6 more. Answers correct the chances that
    pushes carry; 0: they do not."""
    at_once: float = Field(AT_ONCE, ge=0, le=1)
    """Share of a song's budget for the request itself; the rest is for users who come near it later. 1: no rest."""
    spending: Literal["bandit", "pace"] = "bandit"
    """What sets how fast that rest is spent: also the answers so far (Thompson sampling on each campaign's chance of a
    listen; needs push-outcomes), or only the time that is left."""
    guaranteed: float = Field(GUARANTEED, ge=0, le=1)
    """Share of a song's budget that is pushed within a day of its request whatever the answers, if enough users who may
    be pushed come near; for spending = "bandit"."""
    erasure_key: SecretStr = SecretStr("coldstart")
    """Erased users are remembered by a hash with this key, 1 to 64 bytes: choose one, keep it secret, and the same on
    all workers. A worker with a key that does not find them again refuses to start."""
    former_erasure_keys: tuple[SecretStr, ...] = ()
    """Keys used before this one, such as ["old"]. Users remembered with one of them are remembered with the current key
    once their preferences are read. Drop a key once workers start without it."""
    half_vectors: bool = False
    """Keeps user vectors in 16-bit floats, in half the memory."""
    stop_at_bad_share: float = Field(0.5, ge=0, lt=1)
    """The role stops once more than this share of an input's records within a minute was bad and no source's records
    are good; 0: it never does."""
    stop_at_bad_of: int = Field(1000, ge=1)
    """The share is judged only once this many records of an input have come within the minute."""
    skip_state_records: str = Field("", pattern=_PLACES)
    """Records of ``audience-state`` to leave out, as ``partition:offset,...``: a start that meets one that cannot be
    read is refused, and names it. To be emptied once they are compacted away."""
    digest_at_stop: bool = False
    """A clean stop logs each partition's digest and input offsets; some 2 s for 250,000 users."""
    shutdown_s: float = Field(20.0, gt=0, le=300)
    """One deadline for the whole shutdown."""

    def left_out(self) -> dict[int, frozenset[int]]:
        """``skip_state_records`` by partition."""
        return _places(self.skip_state_records)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.watchdog_s <= self.transaction_timeout_s:
            raise ValueError(
                f"watchdog_s ({self.watchdog_s}) must be above transaction_timeout_s "
                f"({self.transaction_timeout_s}): else a slow commit is taken for a hung one"
            )
        if not all(1 <= len(key) <= 64 for key in self.erasure_keys):
            raise ValueError("erasure_key and former_erasure_keys must have 1 to 64 bytes each")
        return self

    @property
    def erasure_keys(self) -> tuple[bytes, ...]:
        """The keys of erased users, the current one first."""
        return tuple(key.get_secret_value().encode() for key in (self.erasure_key, *self.former_erasure_keys))


class BrokerSettings(_Section):
    """The embedded Apache Kafka."""

    heap_mb: int = Field(256, ge=128, le=65536)
    """Of the Java process, which takes about 100 MB more."""
    start_timeout_s: float = Field(60.0, gt=0, le=600)


class PathSettings(_Section):
    """Where files live."""

    cache: Path = Field(default_factory=user_cache_dir)
    """What can be fetched or computed again: Kafka's jars, the embedded broker's data."""

    @property
    def state(self) -> Path:
        """What audience workers keep of their changelogs."""
        return self.cache / "state"

    @property
    def broker(self) -> Path:
        """The embedded broker: jars, data, log."""
        return self.cache / "kafka"


class LogSettings(_Section):
    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"


class TracingSettings(_Section):
    """OpenTelemetry. What is not set here is as OpenTelemetry's own OTEL_* variables say."""

    endpoint: str = Field("", pattern=r"^(https?://\S+)?$", max_length=1024)
    """Collector to which spans go by OTLP over HTTP, as http://collector:4318; needs the extra `tracing`. Empty:
    OTEL_EXPORTER_OTLP_ENDPOINT; without either, traces that uploads bring are passed on and no spans are made."""


class Settings(BaseSettings):
    """Everything that can be configured. Hand out sections, not this."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    songs: SongsSettings = SongsSettings()
    audience: AudienceSettings = AudienceSettings()
    broker: BrokerSettings = BrokerSettings()
    paths: PathSettings = Field(default_factory=PathSettings)
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
