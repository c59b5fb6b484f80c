"""Look for bytes at which a decoder neither reads nor refuses, led by which lines they reach (libFuzzer, by atheris).

``make fuzz`` runs it in an environment of its own, for ``FUZZ_SECONDS``. What it learns stays in ``.fuzz/corpus``. At a
finding it ends with the question that led there in ``.fuzz``: ``python tests/streams/fuzz.py .fuzz/crash-...`` asks it
again, and it belongs into ``test_decoders.py``.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from typing import Any

import atheris  # type: ignore[import-not-found]

# What is imported here tells which of its lines were reached.
with atheris.instrument_imports(include=["streams", "targeting", "encoder"]):
    from decoders import NAMES, NOW, SPACE, ask, packed, seeds, unpacked
    from hostile import codec_of
    from hostile_traffic import ODD, Sent, Traffic

FOLDER = Path(".fuzz")
# Of a question: the largest of the seeds many times over.
LARGEST = 8192
# What is not a record: the mutator of the library alone.
PLAIN = {"vector", "answer", "batch"}
BINARY = {"vectors", "audience-state"}
TRAFFIC = Traffic(0, lambda: NOW, (SPACE.name, SPACE.dimension))


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """Another question of the same decoder."""
    pick = random.Random(seed)
    name = NAMES[data[0] % len(NAMES)] if data else pick.choice(NAMES)
    body = data[1:]
    if name in PLAIN:
        body = bytes(atheris.Mutate(body, most - 1))
    else:
        body = packed(_record(pick, unpacked(body), most // 2, name in BINARY))
    return (bytes([NAMES.index(name)]) + body)[:most]


def _record(pick: random.Random, sent: Sent, most: int, binary: bool) -> Sent:
    key, value, headers = sent
    what = pick.random()
    if what < 0.3:
        TRAFFIC.reseed(pick.getrandbits(32))
        # Fields are changed below, wherever they stand.
        return TRAFFIC.bent(sent, binary=True)
    if what < 0.65 and value is not None:
        if not binary and (other := _elsewhere(pick, value, codec_of(headers))) is not None:
            return key, other, headers
        return key, bytes(atheris.Mutate(value, most)), headers
    if what < 0.8:
        return (None if pick.random() < 0.1 else bytes(atheris.Mutate(key or b"", 200))), value, headers
    if headers:
        at = pick.randrange(len(headers))
        headers = list(headers)
        headers[at] = headers[at][0], bytes(atheris.Mutate(headers[at][1] or b"", 200))
        return key, value, headers
    return key, bytes(atheris.Mutate(value or b"", most)), headers


def _elsewhere(pick: random.Random, value: bytes, codec: Any) -> bytes | None:
    """The value with something else at one place, at any depth."""
    try:
        whole = [codec.decode(value)]
        places: list[tuple[Any, Any]] = []
        _places(whole, places)
        holder, at = pick.choice(places)
        if pick.random() < 0.1:
            del holder[at]
        elif pick.random() < 0.3 and isinstance(holder[at], str):
            holder[at] = bytes(atheris.Mutate(holder[at].encode(), 300)).decode("utf-8", "replace")
        elif pick.random() < 0.2:
            holder[at] = pick.choice(places)[0]
        else:
            holder[at] = pick.choice(ODD)
        return bytes(codec.encode(whole[0]))
    except (ValueError, IndexError, RecursionError, OverflowError):
        return None


def _places(holder: Any, places: list[tuple[Any, Any]]) -> None:
    for at, each in holder.items() if isinstance(holder, dict) else enumerate(holder):
        places.append((holder, at))
        if isinstance(each, dict | list):
            _places(each, places)


def main() -> None:
    """Arguments are libFuzzer's; a file among them is asked alone."""
    corpus = FOLDER / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        (corpus / sha1(seed).hexdigest()).write_bytes(seed)
    alone = any(Path(each).is_file() for each in sys.argv[1:])
    more = [f"-max_len={LARGEST}", "-timeout=20", f"-artifact_prefix={FOLDER}/", *([] if alone else [str(corpus)])]
    mutator: Callable[[bytes, int, int], bytes] = mutated
    atheris.Setup([sys.argv[0], *more, *sys.argv[1:]], ask, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
