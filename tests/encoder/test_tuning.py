"""The part of content that tells is found, the part that only makes noise is put down."""

import numpy as np
import pytest
from scipy import sparse

from encoder import supervision, tuning
from encoder.content import ContentTable
from encoder.features import FeatureSchema

N = 300
AUDIENCES = 30


@pytest.mark.parametrize("telling", ["one", "two", "three"])
def test_the_telling_feature_outweighs_the_others(telling: str) -> None:
    """One dense feature is a noisy place of the song's audience; the others are noise."""
    rng = np.random.default_rng(0)
    audience = np.arange(N) % AUDIENCES
    places = rng.normal(size=(AUDIENCES, 6))[audience] + 0.3 * rng.normal(size=(N, 6))
    values = {name: places if name == telling else rng.normal(size=(N, 6)) for name in ("one", "two", "three")}
    songs = ContentTable(tuple(map(str, range(N))), {name: value.astype(np.float32) for name, value in values.items()})
    users = np.arange(10 * AUDIENCES) % AUDIENCES
    listeners = supervision.listener_rows(
        sparse.csr_matrix((rng.random((N, len(users))) < 0.5) & (users == audience[:, None]), dtype=np.float32)
    )
    vectors = supervision.audience_vectors(listeners, AUDIENCES, rng)
    schema = FeatureSchema.learn(songs)
    found = tuning.tune(schema, schema.transform(songs), vectors, listeners, 2.0, np.full(N, 0.25, np.float32), rng)
    weights = {dense.name: float(w) for dense, w in zip(found.schema.dense, found.schema.weights, strict=True)}
    assert sum(weights.values()) == pytest.approx(1, rel=1e-6)
    assert weights.pop(telling) > 2 * max(weights.values())
