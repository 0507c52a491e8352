"""Trained models in the kernel against the readable oracle, and files that are not one."""

import dataclasses
from typing import Any

import model_specs as models
import numpy as np
import pytest

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.encoder_file import StaticEncoder, pack_file, unpack_file
from tinydancer.errors import (
    DimensionError,
    FileFormatError,
    InvalidInputError,
    NonFiniteError,
    ShapeError,
    TextEncodingError,
)
from tinydancer.model_apply import apply_model, features_of_ids, project
from tinydancer.model_file import from_safetensors, read_model, to_safetensors, write_model

LEVELS = _kernels.LEVELS[: _kernels.LEVELS.index(_kernels.BEST_LEVEL) + 1]
TEXTS = [
    "Translate this contract into French",
    "the the the the cat",
    "",
    "x",
    "日本語 text ünïcode 🙂",
    "word " * 700,
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load("static")


@pytest.fixture(scope="module")
def table(encoder: Encoder) -> Any:
    assert encoder.path is not None
    return StaticEncoder.from_path(encoder.path).table()


def vectors(n: int = len(TEXTS), dim: int = 128) -> Any:
    return models.unit_rows(np.random.default_rng(7), n, dim)


def check(spec: Any, encoder: Encoder, table: Any, with_text: bool = True) -> None:
    data = write_model(spec)
    # What was quantised is compared as it was written.
    written = read_model(data)
    x = vectors()
    ids = [encoder.tokenize(t) for t in TEXTS] if with_text else None
    expected = apply_model(written, x, ids, table)
    got = _kernels.Model(data).apply(x, TEXTS if with_text else None, encoder)
    assert got.shape == (len(x), spec.n_out)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    if spec.link == "softmax":
        np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", [*models.MEMBERS, "sequence"])
@pytest.mark.parametrize("link", ["identity", "sigmoid"])
@pytest.mark.parametrize("rank", [0, 16, 48])
def test_each_member_alone_gives_what_the_oracle_gives(
    kind: str, link: str, rank: int, encoder: Encoder, table: Any
) -> None:
    spec = models.random_model(3, (kind,), link=link, rank=rank)
    check(spec, encoder, table)
    check(spec, encoder, table, with_text=False)


@pytest.mark.parametrize(
    ("task", "link", "n_curves"),
    [
        ("classifier", "softmax", 0),
        ("classifier", "softmax", 1),
        ("capabilities", "sigmoid", 1),
        ("capabilities", "sigmoid", 5),
        ("quality", "identity", 5),
    ],
)
def test_ensembles_give_what_the_oracle_gives(
    task: str, link: str, n_curves: int, encoder: Encoder, table: Any
) -> None:
    kinds = ("linear8", "cell8", "knn", "rbf", "words")
    spec = models.random_model(11, kinds, task=task, link=link, n_curves=n_curves)
    check(spec, encoder, table)
    check(spec, encoder, table, with_text=False)


# Rows on both sides of the blocks that are summed together; outputs on both sides of sixteen.
@pytest.mark.parametrize(("n_rows", "n_out"), [(1, 1), (40, 5), (97, 14), (200, 17), (513, 40)])
def test_models_have_the_same_bits_at_every_level(
    n_rows: int, n_out: int, encoder: Encoder, table: Any
) -> None:
    for kinds in (("rbf",), ("rbf8",), ("linear8", "cell", "cell8", "knn", "rbf", "words")):
        spec = models.random_model(17, kinds, n_rows=n_rows, n_out=n_out)
        check(spec, encoder, table)
        got = {
            level: _kernels.Model(write_model(spec), level=level)
            .apply(vectors(), TEXTS, encoder)
            .tobytes()
            for level in LEVELS
        }
        assert len(set(got.values())) == 1, kinds


def test_scores_of_a_written_linear_model_are_its_formula() -> None:
    # Against arithmetic written down here, not against the oracle.
    spec = models.random_model(1, ("linear",), link="sigmoid")
    x = vectors()
    m = spec.members[0]
    total = np.asarray(m.weight) * (x @ m.matrix.T + m.bias)  # type: ignore[union-attr]
    got = _kernels.Model(write_model(spec)).apply(x)
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-total)), rtol=1e-5)


def wide_by_kernel(spec: Any, x: Any, texts: Any, encoder: Encoder) -> Any:
    """What members read: a linear member for each piece of it, with the identity as its matrix."""
    read, one = [], np.eye(spec.width)
    for first in range(0, spec.width, spec.n_out):
        matrix = np.zeros((spec.n_out, spec.width))
        part = one[first : first + spec.n_out]
        # Scores are cut to 0 .. 1: half of it, from the middle.
        matrix[: len(part)] = part / 2
        member = models.Linear(np.ones(spec.n_out), matrix, np.full(spec.n_out, 0.5))
        model = _kernels.Model(write_model(dataclasses.replace(spec, members=[member])))
        read.append((model.apply(x, texts, encoder)[:, : len(part)] - 0.5) * 2)
    return np.hstack(read)


def test_words_stand_beside_the_vector(encoder: Encoder) -> None:
    # Against arithmetic written down here, not against the oracle.
    spec = models.random_model(1, (), rank=16)
    assert spec.projection is not None and spec.width == 144
    written = read_model(write_model(dataclasses.replace(spec, members=[models.member(
        np.random.default_rng(0), "linear", {"names": spec.names, "rows": spec.rows}
    )]))).projection  # fmt: skip
    assert written is not None and written.share == 1.25
    texts = ["the cat", "the the the the cat", "a dog"]
    x = vectors(3)
    wide = wide_by_kernel(spec, x, texts, encoder)
    for i, text in enumerate(texts):
        found = features_of_ids(encoder.tokenize(text).tolist(), 256, written.features)
        columns = sum(value * written.table[bucket] for bucket, value in found.items())
        columns = columns / np.linalg.norm(columns)
        want = np.concatenate([x[i], 1.25 * columns]) / np.sqrt(1 + 1.25**2)
        np.testing.assert_allclose(wide[i], want, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(wide, axis=1), 1, rtol=1e-4)
    ids = [encoder.tokenize(text).tolist() for text in texts]
    np.testing.assert_allclose(wide, project(written, x, ids), atol=1e-5)


@pytest.mark.parametrize("texts", [None, [None, None], ["", " "]])
def test_without_words_products_are_those_of_the_vectors(texts: Any, encoder: Encoder) -> None:
    spec = models.random_model(1, (), rank=32)
    x = vectors(2) * np.float32(0.5)
    alone = wide_by_kernel(spec, x, texts, encoder)
    assert (alone[:, 128:] == 0).all()
    worded = wide_by_kernel(spec, x, ["one cat", "a dog"], encoder)
    np.testing.assert_allclose(alone @ worded.T, x @ x.T, atol=1e-5)


def test_buckets_that_are_not_read_change_nothing(encoder: Encoder) -> None:
    spec = models.random_model(3, ("knn", "rbf", "cell"), rank=16)
    assert spec.projection is not None
    silent = dataclasses.replace(
        spec.projection, table=np.zeros_like(spec.projection.table), share=0.75
    )
    x = vectors()
    model = _kernels.Model(write_model(dataclasses.replace(spec, projection=silent)))
    np.testing.assert_array_equal(model.apply(x, TEXTS, encoder), model.apply(x))


def test_model_with_a_projection_asks_for_the_text(encoder: Encoder) -> None:
    model = _kernels.Model(write_model(models.random_model(3, ("knn",), rank=16)))
    assert model.reads_text and model.dim == 128
    with pytest.raises(InvalidInputError, match="needs the encoder"):
        model.apply(vectors(1), ["one"])
    with pytest.raises(TextEncodingError):
        model.apply(vectors(1), ["\udc80"], encoder)


def test_number_of_columns_is_in_whole_blocks() -> None:
    for rank in (8, 17, 272):
        with pytest.raises(FileFormatError, match="corrupt"):
            write_model(models.random_model(3, ("knn",), rank=rank))


def test_model_without_a_projection_keeps_its_format() -> None:
    def number(rank: int) -> int:
        data = write_model(models.random_model(3, ("knn",), rank=rank))
        return int(unpack_file(data).sections["model"][0])

    assert (number(0), number(16)) == (1, 2)


def test_later_format_is_refused_by_its_version() -> None:
    later = sections()
    later["model"] = later["model"].copy()
    later["model"][0] = 3
    with pytest.raises(FileFormatError, match="version"):
        _kernels.Model(pack_file(3, "quality", later))


@pytest.mark.parametrize("name", ["words.s", "words.p"])
@pytest.mark.parametrize("value", [-1.0, np.inf, 3e38])
def test_projection_out_of_bounds_is_corrupt(name: str, value: float) -> None:
    damaged = sections()
    damaged[name] = damaged[name].copy()
    damaged[name][-1] = value
    with pytest.raises(FileFormatError, match="corrupt"):
        _kernels.Model(pack_file(3, "quality", damaged))


def test_knn_counts_the_k_nearest_and_skips_what_is_missing() -> None:
    rows = np.eye(128, dtype=np.float32)[:4]
    values = np.array([[1.0], [0.0], [np.nan], [0.0]])
    spec = dataclasses.replace(
        models.random_model(1, (), n_out=1), rows=rows, prior=np.array([0.25])
    )
    knn = models.Knn(np.ones(1), values, 3, float("inf"), 0.0)
    x = np.zeros((1, 128), np.float32)
    x[0, :4] = np.array([0.8, 0.5, 0.4, 0.3]) / np.linalg.norm([0.8, 0.5, 0.4, 0.3])
    near = _kernels.Model(write_model(dataclasses.replace(spec, members=[knn]))).apply(x)
    assert near[0, 0] == pytest.approx(0.5)
    shrunk = dataclasses.replace(knn, pseudo=2.0)
    got = _kernels.Model(write_model(dataclasses.replace(spec, members=[shrunk]))).apply(x)
    assert got[0, 0] == pytest.approx((2 * 0.25 + 1) / 4)


def test_calibrated_classifier_keeps_its_choice_and_sums_to_one() -> None:
    spec = models.random_model(5, ("linear",), task="classifier", link="softmax")
    low = dataclasses.replace(spec, curve_x=np.array([[0.0, 1.0]]), curve_y=np.array([[0.0, 0.01]]))
    x = vectors(50)
    plain = _kernels.Model(write_model(spec)).apply(x)
    calibrated = _kernels.Model(write_model(low)).apply(x)
    assert (plain.argmax(axis=1) == calibrated.argmax(axis=1)).all()
    np.testing.assert_allclose(calibrated.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("features", range(1, 8))
@pytest.mark.parametrize("buckets", [256, 1 << 14])
def test_word_features_are_those_of_the_oracle(
    features: int, buckets: int, encoder: Encoder
) -> None:
    indptr, indices, values = _kernels.word_features(encoder, TEXTS, buckets, features)
    assert indptr[0] == 0 and indptr[-1] == len(indices) == len(values)
    for i, text in enumerate(TEXTS):
        expected = features_of_ids(encoder.tokenize(text).tolist(), buckets, features)
        span = slice(indptr[i], indptr[i + 1])
        assert dict(zip(indices[span].tolist(), values[span].tolist(), strict=True)) == expected


def test_number_of_buckets_must_be_a_power_of_two(encoder: Encoder) -> None:
    with pytest.raises(InvalidInputError, match="power of two"):
        _kernels.word_features(encoder, ["a"], 1000, 3)


def test_properties_tell_what_was_written() -> None:
    spec = models.random_model(2, ("knn",), encoder=("static-1", 0x0123456789ABCDEF))
    model = _kernels.Model(write_model(spec))
    assert model.task == "quality" and model.names == tuple(spec.names)
    assert model.encoder_id == "static-1" and model.encoder_checksum == "0123456789abcdef"
    assert (model.dim, model.n_out, model.n_rows) == (128, 5, 40)
    assert not model.reads_text
    np.testing.assert_array_equal(model.support, spec.support)
    np.testing.assert_allclose(model.prior, spec.prior, rtol=1e-6)


def test_safetensors_keep_every_bit() -> None:
    kinds = ("cell8", "rank", "knn", "words")
    data = write_model(models.random_model(4, kinds, n_curves=1, rank=16))
    assert from_safetensors(to_safetensors(data)) == data


@pytest.mark.parametrize("cut", [0, 5, 8, 60, 500])
def test_damaged_tensors_are_refused(cut: int) -> None:
    data = to_safetensors(write_model(models.random_model(4, ("linear",))))
    with pytest.raises(FileFormatError, match="not a tinydancer model"):
        from_safetensors(data[:cut])


def test_wrong_inputs_are_errors(encoder: Encoder) -> None:
    model = _kernels.Model(write_model(models.random_model(4, ("linear", "words"))))
    with pytest.raises(DimensionError):
        model.apply(vectors(2, 64))
    with pytest.raises(ShapeError):
        model.apply(vectors(2), ["one"], encoder)
    with pytest.raises(InvalidInputError, match="needs the encoder"):
        model.apply(vectors(1), ["one"])
    with pytest.raises(TextEncodingError):
        model.apply(vectors(1), ["\udc80"], encoder)
    bad = vectors(1)
    bad[0, 3] = np.nan
    with pytest.raises(NonFiniteError):
        model.apply(bad)


def test_encoder_file_is_no_model(encoder: Encoder) -> None:
    with pytest.raises(FileFormatError, match="wrong kind"):
        _kernels.Model(encoder.path)


def test_too_large_a_cell_is_refused() -> None:
    spec = models.random_model(4, ("tied",), dim=4096)
    wide = dataclasses.replace(
        spec.members[0], w=np.zeros((512, 4096)), u=None, b_z=np.zeros(512), b_h=np.zeros(512),
        head=np.zeros((5, 512)), steps=512,
    )  # fmt: skip
    with pytest.raises(ShapeError):
        write_model(dataclasses.replace(spec, members=[wide]))


def sections() -> dict[str, Any]:
    spec = models.random_model(4, ("cell", "knn", "rbf8", "words"), n_curves=1, rank=16)
    return dict(unpack_file(write_model(spec)).sections)


@pytest.mark.parametrize("name", sorted(sections()))
def test_model_without_a_section_is_corrupt(name: str) -> None:
    left = {k: v for k, v in sections().items() if k != name}
    with pytest.raises(FileFormatError):
        _kernels.Model(pack_file(3, "quality", left))


@pytest.mark.parametrize("name", sorted(sections()))
def test_model_with_a_section_cut_short_is_corrupt(name: str) -> None:
    damaged = sections()
    damaged[name] = damaged[name][:-1]
    with pytest.raises(FileFormatError):
        _kernels.Model(pack_file(3, "quality", damaged))


@pytest.mark.parametrize("name", [k for k, v in sorted(sections().items()) if v.dtype == "<f4"])
def test_model_with_nan_is_corrupt(name: str) -> None:
    damaged = sections()
    damaged[name] = damaged[name].copy()
    damaged[name][-1] = np.nan
    with pytest.raises(FileFormatError, match="corrupt"):
        _kernels.Model(pack_file(3, "quality", damaged))


@pytest.mark.parametrize("position", range(14))
@pytest.mark.parametrize("value", [0, 1, 3, 7, 1 << 20, 2**32 - 1])
def test_hostile_meta_is_refused_or_safe(position: int, value: int) -> None:
    damaged = sections()
    damaged["model"] = damaged["model"].copy()
    damaged["model"][position] = value
    try:
        model = _kernels.Model(pack_file(3, "quality", damaged))
    except (FileFormatError, ShapeError):
        return
    model.apply(models.unit_rows(np.random.default_rng(0), 3, model.dim))


def test_greatest_sums_are_refused_not_wrong() -> None:
    spec = models.random_model(4, ("linear",), link="sigmoid")
    huge = dataclasses.replace(spec.members[0], matrix=np.full((5, 128), 3e38), weight=np.ones(5))
    model = _kernels.Model(write_model(dataclasses.replace(spec, members=[huge])))
    with pytest.raises(NonFiniteError):
        model.apply(np.ones((1, 128), np.float32))
