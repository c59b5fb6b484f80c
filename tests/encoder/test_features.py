"""What the features promise, on contents small enough to compute by hand."""

import numpy as np
import pytest

from encoder.content import ContentTable, SongContent
from encoder.features import FeatureSchema


def table(*songs: SongContent) -> ContentTable:
    return ContentTable.from_songs([f"s{i}" for i in range(len(songs))], songs)


WARM = table(
    SongContent(dense={"audio": [1.0, 0.0]}, bags={"tags": {"rock": 1, "loud": 1}}),
    SongContent(dense={"audio": [3.0, 0.0]}, bags={"tags": {"rock": 1}}),
    SongContent(dense={}, bags={"tags": {"jazz": 1}, "language": {"fr": 1}}),
)


@pytest.fixture(scope="module")
def schema() -> FeatureSchema:
    return FeatureSchema.learn(WARM)


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_that_is_not_there_is_refused(row: int) -> None:
    """Also before the first: its dense features would be the last song's, and its bags nobody's."""
    bags_alone = table(SongContent(bags={"tags": {"jazz": 1}}), SongContent(), SongContent())
    for content in (WARM, bags_alone, table(SongContent(), SongContent(), SongContent())):
        with pytest.raises(IndexError, match="of a table of 3 songs"):
            content.song(row)
    with pytest.raises(IndexError):
        WARM.rows(np.asarray([3]))


def test_every_bag_block_has_the_length_of_its_weight(schema: FeatureSchema) -> None:
    features = schema.transform(WARM)
    squares = np.asarray(features.bags.multiply(features.bags).sum(axis=1)).ravel()
    third = 1 / 3
    np.testing.assert_allclose(squares, [third, third, 2 * third], rtol=1e-6)


def test_rarer_terms_weigh_more_by_their_idf(schema: FeatureSchema) -> None:
    row = schema.transform(WARM).bags[0].toarray()[0]
    columns = {term: i for i, term in enumerate(schema.bags[0].terms + schema.bags[1].terms)}
    assert [bag.name for bag in schema.bags] == ["language", "tags"]
    ratio = row[columns["loud"]] / row[columns["rock"]]
    # idf = log((1 + n) / (1 + songs)) + 1, with n = 3, in 1 and 2 songs
    assert ratio**2 == pytest.approx((np.log(4 / 2) + 1) / (np.log(4 / 3) + 1), rel=1e-6)


def test_terms_that_share_words_are_also_compared_by_them() -> None:
    names = ["black metal", "death metal", "black death", "doom metal", "death doom"]
    schema = FeatureSchema.learn(table(*(SongContent(bags={"tags": {name: 1}}) for name in names)))
    assert [(bag.words, bag.terms) for bag in schema.bags] == [
        (False, tuple(sorted(names))),
        (True, ("black", "death", "doom", "metal")),
    ]
    known, strange = (
        schema.transform(table(SongContent(bags={"tags": {name: 1}}))) for name in ("death metal", "Metal-Death")
    )
    words = slice(5, 9)
    np.testing.assert_allclose(strange.bags[:, words].toarray(), known.bags[:, words].toarray(), rtol=1e-6)
    assert strange.bags[:, :5].nnz == 0
    assert (known.unseen.tolist(), strange.unseen.tolist()) == ([0], [1])


def test_dense_features_are_standardised_by_the_songs_that_have_them(schema: FeatureSchema) -> None:
    features = schema.transform(WARM)
    # mean 2, deviation 1; the second dimension is constant and says nothing; dimension 2, block weight 1/3
    expected = np.array([[-1, 0], [1, 0], [0, 0]]) / np.sqrt(2) / np.sqrt(3)
    np.testing.assert_allclose(features.dense, expected, rtol=1e-6)
    np.testing.assert_array_equal(features.missing, [[1, 0, 0], [1, 0, 0], [0, 0, 1]])


def test_how_much_a_bag_says_is_told_beside_what_it_says() -> None:
    songs = table(*(SongContent(bags={"tags": {f"t{i}": 2.0 for i in range(count)}}) for count in (1, 3, 8)))
    schema = FeatureSchema.learn(songs)
    features = schema.transform(songs)
    logs = np.log1p([1, 3, 8])  # in units of the usual weight, 2
    expected = (logs - logs.mean()) / logs.std()
    np.testing.assert_allclose(features.amounts, np.stack([expected, expected], axis=1), atol=1e-5)
    np.testing.assert_array_equal(schema.transform(table(SongContent())).amounts, [[0, 0]])


def test_an_outlier_is_clipped(schema: FeatureSchema) -> None:
    far = schema.transform(table(SongContent(dense={"audio": [1e6, 0.0]})))
    assert np.linalg.norm(far.dense) == pytest.approx(2 / np.sqrt(3), rel=1e-6)


def test_what_no_warm_song_has_is_ignored_and_counted(schema: FeatureSchema) -> None:
    plain = schema.transform(table(SongContent(bags={"tags": {"rock": 1}})))
    noisy = schema.transform(
        table(
            SongContent(
                bags={"tags": {"unheard of": 5, "rock": 1}, "moods": {"calm": 1, "sad": 1}},
                dense={"lyrics": [1.0]},
            )
        )
    )
    np.testing.assert_array_equal(noisy.bags.toarray(), plain.bags.toarray())
    assert plain.unseen.tolist() == [0]
    assert noisy.unseen.tolist() == [4]


def test_a_song_of_which_nothing_is_known_is_known_as_such(schema: FeatureSchema) -> None:
    features = schema.transform(
        table(SongContent(), SongContent(bags={"tags": {"unheard of": 1}}), SongContent(bags={"tags": {"jazz": 1}}))
    )
    assert features.known.tolist() == [False, False, True]


def test_a_song_is_the_same_alone_and_in_a_table(schema: FeatureSchema) -> None:
    together = schema.transform(WARM)
    for row in range(len(WARM)):
        alone = schema.transform(table(WARM.song(row)))
        np.testing.assert_allclose(alone.bags.toarray(), together.bags[row].toarray(), rtol=1e-6)
        np.testing.assert_array_equal(alone.dense[0], together.dense[row])


def test_another_dimension_is_refused_by_name(schema: FeatureSchema) -> None:
    with pytest.raises(ValueError, match="'audio' has 3 values; the encoder was trained on 2"):
        schema.transform(table(SongContent(dense={"audio": [1.0, 2.0, 3.0]})))


def test_no_content_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no warm song has any content"):
        FeatureSchema.learn(table(SongContent(), SongContent()))
