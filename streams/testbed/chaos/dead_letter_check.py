"""Checks that every bad record, and no other, has its dead letter, whole and once."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from streams.contract.topics import Naming, Plane
from streams.testbed.chaos.evidence import Evidence, Place, TopicRecord
from streams.testbed.chaos.promises import Judged

# The headers that a dead letter adds.
_ADDED = "dl_"


def judge(evidence: Evidence, naming: Naming) -> Iterator[Judged]:
    """Every record that was buried, or should have been, and what is wrong with that.

    What must become of a record is known of those that say so themselves (``evidence.EXPECTS``); of the others only
    what cannot be decoded must be buried, and what is buried is not judged.
    """
    yield from (("unburied", what) for what in evidence.unburied)
    by_name = naming.by_name()

    def where(place: Place) -> str:
        topic, partition, offset = place
        known = by_name[topic].name if topic in by_name else repr(topic)
        return f"{known}[{partition}] at {offset}"

    for place, expected in evidence.expected.items():
        letters = evidence.dead.get(place)
        if expected == "buried":
            yield "refused-unburied", None if letters else f"{where(place)}: to be refused, and has no dead letter"
        if expected == "kept":
            why = dict(letters[0].headers or ()).get("dl_message") if letters else None
            yield "good-buried", f"{where(place)}: as the contract has it, and refused ({why!r})" if letters else None
    for place, letters in evidence.dead.items():
        if place[0] in by_name and by_name[place[0]].plane is Plane.AUDIENCE:
            count = len(letters)
            yield "dead-letter-twice", f"{where(place)}: {count} dead letters" if count > 1 else None
        found = evidence.bad.get(place)
        if found is None:
            yield "dead-letter-wrong", f"{where(place)}: has a dead letter, and is not there"
            continue
        yield "unburied", None
        altered = list({each: None for letter in letters for each in _altered(found, letter)})
        for what in altered:
            yield "dead-letter-wrong", f"{where(place)}: its dead letter has another {what}"
        if not altered:
            yield "dead-letter-wrong", None


def _altered(bad: TopicRecord, letter: TopicRecord) -> Iterator[str]:
    said = {name: (value or b"").decode("utf-8", "replace") for name, value in letter.headers or ()}
    if "dl_value_size" in said:
        for what, whole, part in (("key", bad.key, letter.key), ("value", bad.value, letter.value)):
            if (said[f"dl_{what}_size"], said[f"dl_{what}_sha256"]) != (str(len(whole or b"")), _sum(whole)):
                yield f"size or SHA-256 of its {what}"
            if not (whole or b"").startswith(part or b""):
                yield what
        return
    if bad.key != letter.key:
        yield "key"
    if bad.value != letter.value:
        yield "value"
    own = [header for header in letter.headers or () if not header[0].startswith(_ADDED)]
    if bad.headers is not None and own != [header for header in bad.headers if not header[0].startswith(_ADDED)]:
        yield "header"


def _sum(whole: bytes | None) -> str:
    return sha256(whole or b"").hexdigest()
