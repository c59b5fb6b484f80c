"""What the first byte of a changelog's key says of the record.

| key | value |
|---|---|
| ``m`` | which partition of how many this is |
| ``u`` user id | the user's history (:mod:`targeting.users.history_record`) |
| ``p`` user id | what the user was pushed, and what became of it (:mod:`targeting.users.push_log`) |
| ``i`` user id | the user's score threshold (:mod:`targeting.users.score_thresholds`) |
| ``e`` marker | a user who was erased or allows no profiling, by keyed hash (:mod:`targeting.users.erasures`) |
| ``c`` song id | a campaign's request (:mod:`targeting.campaigns.campaign`) |
| ``n`` song id | a campaign's account |
| ``k`` song id | a campaign's prototypes and their statistics (:mod:`targeting.live.incremental_cat`) |
| ``a`` | what answers to pushes taught (:mod:`targeting.ranking.recalibration`) |
"""

from __future__ import annotations

from typing import Final

META: Final = b"m"
USER: Final = b"u"
PUSHED: Final = b"p"
INTEREST: Final = b"i"
ERASED: Final = b"e"
REQUEST: Final = b"c"
ACCOUNT: Final = b"n"
SHAPE: Final = b"k"
ANSWERS: Final = b"a"
