"""Records as nobody should send them: any bytes, and good records with something wrong in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from streams.contract.cloudevents import Record
from streams.contract.event_base import MESSAGEPACK

Headers = list[tuple[str, bytes | None]]
Parts = tuple[bytes | None, bytes | None, Headers]

_KEYS = st.none() | st.binary(max_size=40)
_ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.sampled_from(["", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "AAAA", -1, 2**53, 2**63, 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def values() -> st.SearchStrategy[bytes | None]:
    """Any bytes, JSON or not."""
    return st.none() | st.binary(max_size=200) | _ODD.map(msgspec.json.encode)


def _bent(good: Record) -> st.SearchStrategy[Parts]:
    """The record with some of its fields, headers or its key replaced."""
    codec = codec_of(good.headers)
    fields = codec.decode(good.value)

    @st.composite
    def make(draw: Callable[..., Any]) -> Parts:
        event = dict(fields)
        for name in draw(st.lists(st.sampled_from(sorted(event)), max_size=3)):
            event[name] = draw(_ODD)
        headers: Headers = list(good.headers)
        if draw(st.integers(0, 4)) == 0:
            at = draw(st.integers(0, len(headers) - 1))
            headers[at] = (headers[at][0], draw(_KEYS))
        key = draw(_KEYS) if draw(st.integers(0, 4)) == 0 else good.key
        try:
            return key, codec.encode(event), headers
        except OverflowError:  # MessagePack ends at 64 bits
            return key, msgspec.json.encode(event), headers

    return make()


def codec_of(headers: Sequence[tuple[str, bytes | None]]) -> Any:
    """The module that writes and reads a good record's value."""
    return msgspec.msgpack if ("content-type", MESSAGEPACK.encode()) in headers else msgspec.json


def records(*good: Record) -> st.SearchStrategy[Parts]:
    """Records of a topic on which such good ones travel."""
    odd = st.tuples(_KEYS, values(), st.lists(st.tuples(st.sampled_from(["ce_id", "ce_type", "x"]), _KEYS), max_size=3))
    return st.one_of(odd, *[_bent(record) for record in good])
