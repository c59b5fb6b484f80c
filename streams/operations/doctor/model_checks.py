"""The model: is one live, can this machine read what was published, do workers use it?"""

from __future__ import annotations

from collections.abc import Iterator

from streams.contract.dead_letters import headers
from streams.contract.errors import BadRecord, Refused
from streams.contract.internal_events import LiveModel
from streams.contract.topics import MODELS
from streams.kafka.compacted_topic import Snapshot
from streams.models.registry import ENCODER, read_model
from streams.operations.doctor.finding import Diagnosis, Patient, error, warning
from streams.operations.doctor.worker_checks import statuses

_PUBLISH = "`coldstart publish` the model that is meant, under a path that every worker can read"


def live_model(patient: Patient) -> Iterator[Diagnosis]:
    """The record in ``models``, the artifact that it names, and the space that workers say they use."""
    # Its imports take as long as all other checks.
    from encoder.artifact import ArtifactError
    from streams.songs.model_swap import load_encoder

    try:
        model = _published(patient)
    except BadRecord as problem:
        yield error(f"wrong model: the record in {patient.naming.name(MODELS)} cannot be read: {problem}", _PUBLISH)
        return
    if model is None:
        yield error("no model is live: uploads wait", _PUBLISH)
        return
    try:
        load_encoder(model)
    except FileNotFoundError as problem:
        yield error(f"wrong model: {model.uri}: {problem.filename} is not there, as this machine sees it", _PUBLISH)
    except (ArtifactError, Refused, OSError) as problem:
        yield error(f"wrong model: {model.uri}: {problem}", _PUBLISH)
    for url, status in statuses(patient).items():
        used = (status.get("model") or {}).get("space_in_use")
        if used is not None and used != model.space:
            yield warning(
                f"wrong model: worker at {url} uses {used}, live since {model.published_at:%Y-%m-%d %H:%M} is "
                f"{model.space}",
                "a swap takes as long as building the new index; if it stays, the worker's log tells why",
            )


def _published(patient: Patient) -> LiveModel | None:
    """The live model; None where there is none. Raises BadRecord."""
    found = None
    snapshot = Snapshot(patient.settings.kafka, [patient.naming.name(MODELS)], patient.clock)
    try:
        for message in snapshot.read_to_end():
            if message.key() == ENCODER.encode():
                value = message.value()
                found = None if value is None else read_model(message.key(), value, headers(message))
    finally:
        snapshot.close()
    return found
