"""The model that songs are served with, and the one that goes along while models are swapped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import structlog

from encoder import artifact
from encoder.serving import Encoder
from streams.contract.errors import Refused
from streams.contract.internal_events import LiveModel
from streams.models.registry import LiveView, WarmSpace
from streams.runtime.clock import Clock
from streams.runtime.exit_codes import RESTART, leave
from streams.runtime.metrics import SongsMetrics
from streams.songs.matcher import Matcher
from targeting.index import IndexKind
from targeting.index.recall import recall

_FOLLOW_S = 0.5
# A hundredth of a second among 20,000 songs.
_CANARY_S = 60.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """What a batch is served with: the matcher in use, and the encoder of the other space during a swap."""

    matcher: Matcher
    other: Encoder | None = None

    @property
    def space(self) -> str:
        return self.matcher.encoder.space


class LiveMatcher:
    """Follows the live model and its warm songs on a thread of its own.

    A new model's encoder is used as well as soon as it is seen; its index is built beside the one in use and replaces
    it in one assignment. The former encoder is then used as well for ``both_s`` seconds, because audience workers
    change space at their own time. Warm songs of the same model enter the index in use one by one.
    """

    def __init__(
        self,
        view: LiveView,
        metrics: SongsMetrics,
        clock: Clock,
        both_s: float,
        kind: IndexKind = IndexKind.AUTO,
    ) -> None:
        self._view = view
        self._kind = kind
        self._metrics = metrics
        self._clock = clock
        self._both_s = both_s
        self._serving: Serving | None = None
        # Until when the former encoder is used as well, monotonic seconds.
        self._both_until = 0.0
        self._broken: LiveModel | None = None
        self._canary_at = 0.0

    def __call__(self) -> Serving:
        """The model in use at this moment.

        Raises:
            Refused: none is live yet.
        """
        if self._serving is None:
            raise Refused("no model is live: `coldstart publish` makes one live")
        return self._serving

    def warm_in(self, song_id: str) -> list[str]:
        """The spaces in which a song is warm, as far as it is known here."""
        return self._view.spaces_of(song_id)

    def wait(self) -> None:
        """Block until a model is live; uploads wait in their topic meanwhile."""
        self._refresh()
        while self._serving is None:
            self._view.poll(_FOLLOW_S)
            self._refresh()

    def follow(self) -> None:
        """Follow the topics forever. Needs a thread of its own."""
        try:
            while True:
                self._view.poll(_FOLLOW_S)
                self._refresh()
                self._measure_recall()
        except Exception:  # noqa: BLE001 - the process ends, whatever it was
            _log.exception("cannot follow the live model")
            leave(RESTART, "the live model cannot be followed")

    def _refresh(self) -> None:
        model, warm, serving = self._view.model, self._view.warm(), self._serving
        if model is None:
            return
        if serving is None or serving.space != model.space:
            self._swap(model, warm, serving)
            return
        if warm is not None and (changed := warm.changes()):
            serving.matcher.follow(warm, changed)
            self._metrics.warm_songs.set(len(warm.ids))
        if serving.other is not None and self._clock.monotonic() >= self._both_until:
            self._serving = Serving(serving.matcher)

    def _measure_recall(self) -> None:
        warm, now = self._view.warm(), self._clock.monotonic()
        if warm is None or self._serving is None or now < self._canary_at:
            return
        self._canary_at = now + _CANARY_S
        self._metrics.canary_recall.set(recall(self._serving.matcher.index, warm.vectors))

    def _swap(self, model: LiveModel, warm: WarmSpace | None, serving: Serving | None) -> None:
        coming = serving.other if serving and serving.other and serving.other.space == model.space else None
        if coming is None:
            if model == self._broken:
                return
            try:
                coming = load_encoder(model)
            except (artifact.ArtifactError, Refused, OSError):
                # Without a model there is no start; but an unreadable model must not displace the one in use.
                if serving is None:
                    raise
                _log.exception("the new model cannot be read; the former one stays in use", space=model.space)
                self._broken = model
                return
            if serving is not None:
                self._serving = Serving(serving.matcher, coming)
        if warm is None:
            return
        matcher = Matcher.build(coming, warm, self._kind)
        self._both_until = self._clock.monotonic() + self._both_s
        self._serving = Serving(matcher, serving.matcher.encoder if serving else None)
        if serving is not None:
            self._metrics.model_space.labels(serving.space).set(0)
        self._metrics.model_space.labels(model.space).set(1)
        self._metrics.warm_songs.set(len(warm.ids))
        self._canary_at = 0.0
        _log.info("matcher built", space=model.space, warm_songs=len(warm.ids))


def load_encoder(model: LiveModel) -> Encoder:
    """The encoder that ``models`` names.

    Raises:
        Refused: the URI is not of a kind this worker reads, or the artifact there is another one.
        ArtifactError: the artifact is not whole, or its manifest has another checksum than the published one.
    """
    try:
        parts = urlsplit(model.uri)
        path = Path(url2pathname(parts.path))
    except ValueError as error:
        raise Refused(f"model {model.name}: {model.uri!r} is not a valid URI ({error})") from None
    if parts.scheme != "file" or "\0" in str(path):
        raise Refused(f"model {model.name}: {model.uri!r} is not a file:// address that every worker can read")
    encoder = artifact.load_encoder(path, model.manifest_sha256)
    for what, found, published in (("space", encoder.space, model.space), ("dimension", encoder.dim, model.dim)):
        if found != published:
            raise Refused(f"model {model.name}: {model.uri} holds {what} {found!r}, published was {published!r}")
    return encoder
