"""Corrects the chances that pushes tell by the answers to earlier pushes.

A model's chances are those of being among a song's listeners (:mod:`targeting.calibration`); whether who is pushed
listens is another question, and its answer moves with the population. So a partition counts its own pushes and their
answers by the chance that the model gave, and fits two numbers to them: ``logit(p) = offset + slope * logit(prior)``
(Platt 1999). A push is judged once: answered is what was listened to within the wait (``answer_hours``),
the rest was not answered, and what push systems report as failed was no push. Every push counts once: weighing random
ones with the inverse of their chance would make chances right for all candidates and wrong for those who are pushed.

Who comes near later is scored on another scale, of which no model knows the chances: there the score itself stands in
for the prior, and a chance is told once enough pushes were judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64
from targeting.types import F32, F64, Mark

# Logits of priors between two bins; the first and the last bin are open. In a push's marks a bin takes four bits, 0
# says that it teaches nothing, and one more bit its scale.
_EDGES = np.linspace(-5.0, 1.0, 14)
BINS = len(_EDGES) + 1
_WIDTH = _EDGES[1] - _EDGES[0]
_CENTRES = np.concatenate([_EDGES - _WIDTH / 2, _EDGES[-1:] + _WIDTH / 2])
_BIN_SHIFT, _BIN, _LIVE = 10, 15, 1 << 14
# Where bin and scale of a push's marks are counted, among scales times bins.
_SCALE_AND_BIN = 31
_CELL = np.array([max(code % 16 - 1, 0) + code // 16 * BINS for code in range(_SCALE_AND_BIN + 1)])

# Pushes are judged by slots of this many seconds, all those of one slot together.
SLOT_S = 6 * 3600.0
# Of pushes that arrive later than this nothing is learned: so few slots wait at once.
HORIZON_S = 8 * 86_400.0

# Judged pushes after which one counts e times less than a new one, and the time in which half of all is forgotten: what
# is never pushed any more because its chance is too small gets another try.
MEMORY = 600.0
HALF_LIFE_S = 30 * 86_400.0
# Slots after which what time makes forget is written down without any push to judge.
_IDLE = 4

# Judged pushes, as they count, before a chance is told that no model gave.
ENOUGH = 250.0

# Weights of "offset 0" and "slope 1" beside the pushes; and the fit is shrunk towards them by this over its likelihood
# ratio, whose mean is 2 where nothing differs (James and Stein's rule, positive part).
_RIDGE = (1.0, 4.0)
_DOUBT = 2.0
_STEPS = 20
_MOST, _LEAST_SLOPE, _MOST_SLOPE = 8.0, 0.1, 4.0

# Of priors: a model may say 0 and 1.
_CLOSEST = 1e-4

_VERSION = b"\x01"


class Scale(IntEnum):
    """What a prior is: the chance that a model gave, or the score of who came near later."""

    MODEL = 0
    LIVE = 1


_CELLS = len(Scale) * BINS


@dataclass(frozen=True, slots=True)
class Correction:
    """``logit(chance) = offset + slope * logit(prior)``; the slope is positive, so that no order changes."""

    offset: float = 0.0
    slope: float = 1.0

    def chance(self, priors: F32) -> F32:
        """The chance of an answer for each prior, float32 (n,)."""
        if self.offset == 0 and self.slope == 1:
            return priors
        return (1 / (1 + np.exp(-self.offset - self.slope * _logits(priors)))).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Judged:
    """Pushes whose wait is over, the older ones counting less.

    Attributes:
        pushes, answers: float64 (scales, bins).
        until: the slot up to which pushes are judged; -1: none ever was.
    """

    pushes: F64 = field(default_factory=lambda: np.zeros((len(Scale), BINS)))
    answers: F64 = field(default_factory=lambda: np.zeros((len(Scale), BINS)))
    until: int = -1

    @cached_property
    def corrections(self) -> tuple[Correction, Correction | None]:
        """Of a model's chances; of the scores of who came near later, None where too little is known."""
        enough = self.pushes[Scale.LIVE].sum() >= ENOUGH
        return self._fitted(Scale.MODEL), self._fitted(Scale.LIVE) if enough else None

    def _fitted(self, scale: Scale) -> Correction:
        return fit(self.pushes[scale], self.answers[scale])


@dataclass(frozen=True, slots=True)
class Examples:
    """Which pushes of a batch teach something.

    Attributes:
        until: ``not_before`` of the last that do, Unix seconds.
        model, live: what corrects chances now; of ``live`` None: none are told.
    """

    until: float = 0.0
    model: Correction = Correction()
    live: Correction | None = None

    def marks(self, priors: F32, at: F64, scale: Scale) -> NDArray[np.uint16]:
        """What the marks of pushes with these priors and ``not_before``, (n,) each, remember."""
        bins = 1 + np.searchsorted(_EDGES, _logits(priors))
        marks = bins << _BIN_SHIFT | (_LIVE if scale is Scale.LIVE else 0)
        return np.where(at <= self.until, marks, 0).astype(np.uint16)


@dataclass(frozen=True, slots=True, eq=False)
class Recalibration:
    """What a partition learned of its pushes. A value: a batch makes another one.

    Attributes:
        waiting: by slot of ``not_before``, pushes and answers that are not judged yet, int32 (2, scales, bins).
        basis: of the scores of who came near later (:attr:`targeting.partition.state.State.basis`).
    """

    judged: Judged = field(default_factory=Judged)
    waiting: Mapping[int, NDArray[np.int32]] = field(default_factory=dict)
    basis: str | None = None

    def examples(self, now: float, basis: str | None) -> Examples:
        """What a batch at this time needs to know."""
        model, live = self.judged.corrections
        return Examples(now + HORIZON_S, model, live if basis == self.basis else None)

    def judge(self, now: float, wait: float) -> Recalibration:
        """The pushes whose slot ended ``wait`` seconds ago, or earlier, are judged; itself where there are none."""
        last = int((now - wait) // SLOT_S)
        due = sorted(slot for slot in self.waiting if slot < last)
        before = self.judged
        if not due and not (before.pushes.any() and last >= before.until + _IDLE):
            return self
        # The clock may go back, and then a slot may be judged in two parts.
        last = max(last, before.until)
        faded = 2 ** -((last - before.until) * SLOT_S / HALF_LIFE_S) if before.until >= 0 else 1.0
        pushes, answers = before.pushes * faded, before.answers * faded
        for slot in due:
            more = np.maximum(self.waiting[slot], 0)
            faded_by = np.exp(-more[0].sum(axis=1, keepdims=True) / MEMORY)
            pushes, answers = pushes * faded_by + more[0], answers * faded_by + more[1]
        waiting = {slot: counts for slot, counts in self.waiting.items() if slot not in due}
        return replace(self, judged=Judged(pushes, answers, last), waiting=waiting)

    def count(
        self,
        pushed: tuple[NDArray[np.uint32], NDArray[np.uint16]],
        told: tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[np.uint16]],
        erased: tuple[NDArray[np.uint32], NDArray[np.uint16]],
        basis: str | None,
    ) -> Recalibration:
        """What pushes, and what became known of them, change; itself where that is nothing.

        Whatever the order in which marks come, a push counts by those that it ends with.

        Args:
            pushed: new pushes: ``not_before`` (n,) as the push log has it, and marks (n,) as they were made.
            told: pushes that got marks: ``not_before``, marks before, and marks that were set, (m,) each.
            erased: all pushes of users who are forgotten: ``not_before`` and marks. Those that wait are taken out; of
                what was judged, sums alone are left.
            basis: of the scores in use.
        """
        told_at, before, more = told
        moved = ((*pushed, 1), (told_at, before | more, 1), (told_at, before, -1), (*erased, -1))
        # Most batches push or tell, and erase nobody.
        parts = [part for part in moved if len(part[0])]
        if not parts:
            return self
        marks = np.concatenate([part[1] for part in parts])
        some = np.flatnonzero(_teaching(marks))
        if not len(some):
            return self
        at = _slots(np.concatenate([part[0] for part in parts])[some])
        sign = np.concatenate([np.full(len(part[0]), part[2]) for part in parts])[some]
        slots = np.array(sorted(set(at.tolist())))
        place = np.searchsorted(slots, at)
        changes = _counts(place, marks[some], sign, len(slots))
        # A slot that begins holds new pushes; what is told of one that is not there was judged already.
        begin = np.zeros(len(slots), bool)
        begin[place[some < len(pushed[0])]] = True
        changed = {
            slot: self.waiting[slot] + change if slot in self.waiting else change
            for slot, change, new in zip(slots.tolist(), changes, begin.tolist(), strict=True)
            if new or (slot in self.waiting and change.any())
        }
        if not changed:
            return self
        live = bool((pushed[1] & _LIVE).any())
        judged = self.judged
        if live and basis != self.basis and judged.pushes[Scale.LIVE].any():
            # Scores mean something else now.
            known = np.array([[1.0], [0.0]])
            judged = replace(judged, pushes=judged.pushes * known, answers=judged.answers * known)
        return Recalibration(judged, {**self.waiting, **changed}, basis if live else self.basis)

    def encode(self) -> bytes:
        """The record: a version byte and MessagePack; counts are raw and little-endian."""
        stored = _RecalibrationRecord(
            until=self.judged.until,
            pushes=self.judged.pushes.astype("<f8").tobytes(),
            answers=self.judged.answers.astype("<f8").tobytes(),
            waiting=[(slot, self.waiting[slot].astype("<i4").tobytes()) for slot in sorted(self.waiting)],
            basis=self.basis,
        )
        return _VERSION + _encoder.encode(stored)


class _RecalibrationRecord(msgspec.Struct, array_like=True):
    until: int
    pushes: bytes
    answers: bytes
    waiting: list[tuple[int, bytes]]
    basis: str | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_RecalibrationRecord)


def decode(record: bytes) -> Recalibration:
    """The inverse of :meth:`Recalibration.encode`.

    Raises:
        ValueError: a record of another version, or broken.
    """
    if record[:1] != _VERSION:
        raise ValueError(f"a recalibration record of version {record[:1]!r}")
    try:
        stored = _decoder.decode(record[1:])
    except msgspec.DecodeError as error:
        raise ValueError(f"a broken recalibration record: {error}") from error
    shape = len(Scale), BINS
    pushes, answers = (np.frombuffer(each, "<f8").reshape(shape) for each in (stored.pushes, stored.answers))
    if not (np.isfinite(pushes).all() and np.isfinite(answers).all() and (pushes >= 0).all() and (answers >= 0).all()):
        raise ValueError("a broken recalibration record: counts that are none")
    waiting = {slot: np.frombuffer(each, "<i4").reshape(2, *shape) for slot, each in stored.waiting}
    return Recalibration(Judged(pushes, answers, stored.until), waiting, stored.basis)


def fit(pushes: F64, answers: F64) -> Correction:
    """Offset and slope of the answers in each bin of priors, float64 (bins,) each: a few of Newton's steps.

    In plain numbers: over fifteen bins a call of numpy costs more than what it counts.
    """
    # Answers cannot outnumber pushes, whatever was configured in between.
    rows = [
        (x, n, min(k, n)) for x, n, k in zip(_CENTRES.tolist(), pushes.tolist(), answers.tolist(), strict=True) if n > 0
    ]
    if not rows:
        return Correction()
    offset, slope = 0.0, 1.0
    for _ in range(_STEPS):
        rise, tilt = -_RIDGE[0] * offset, -_RIDGE[1] * (slope - 1)
        curve, across, bend = _RIDGE[0], 0.0, _RIDGE[1]
        for x, n, k in rows:
            chance = 1 / (1 + math.exp(-offset - slope * x))
            left, weight = k - n * chance, n * chance * (1 - chance)
            rise, tilt = rise + left, tilt + x * left
            curve, across, bend = curve + weight, across + x * weight, bend + x * x * weight
        whole = curve * bend - across * across
        steps = (bend * rise - across * tilt) / whole, (curve * tilt - across * rise) / whole
        up, turn = (min(max(step, -1.0), 1.0) for step in steps)
        offset = min(max(offset + up, -_MOST), _MOST)
        slope = min(max(slope + turn, _LEAST_SLOPE), _MOST_SLOPE)
        if max(abs(up), abs(turn)) < 1e-9:
            break
    ratio = 2 * (_likelihood(offset, slope, rows) - _likelihood(0.0, 1.0, rows))
    kept = max(0.0, 1 - _DOUBT / ratio) if ratio > 0 else 0.0
    return Correction(kept * offset, 1 + kept * (slope - 1))


def _likelihood(offset: float, slope: float, rows: list[tuple[float, float, float]]) -> float:
    logits = [offset + slope * x for x, _, _ in rows]
    return sum(k * z - n * math.log1p(math.exp(z)) for z, (_, n, k) in zip(logits, rows, strict=True))


def _logits(priors: F32) -> F64:
    inside = np.clip(priors.astype(np.float64), _CLOSEST, 1 - _CLOSEST)
    return np.asarray(np.log(inside / (1 - inside)))


def _slots(at: NDArray[np.uint32]) -> I64:
    return (at // int(SLOT_S)).astype(np.int64)


def _teaching(marks: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Which pushes count, bool (n,): those with a bin that are not known to have failed."""
    return np.asarray((marks >> _BIN_SHIFT & _BIN > 0) & (marks & np.uint16(Mark.FAILED) == 0))


def _counts(place: I64, marks: NDArray[np.uint16], sign: I64, slots: int) -> NDArray[np.int32]:
    """What n marks add to pushes and answers, int32 (slots, 2, scales, bins); place: of each mark's slot, (n,)."""
    at = place * (2 * _CELLS) + _CELL[marks >> _BIN_SHIFT & _SCALE_AND_BIN]
    answered = np.flatnonzero(marks & np.uint16(Mark.LISTENED))
    at = np.concatenate([at, at[answered] + _CELLS])
    added = np.bincount(at, np.concatenate([sign, sign[answered]]), 2 * slots * _CELLS)
    return added.astype(np.int32).reshape(slots, 2, len(Scale), BINS)
