"""Models to encoder files: what is converted keeps its vectors, what cannot be is refused in words.

In: small random BERT models in the layouts that sentence-transformers writes.  What is checked: the
float32 vectors against a textbook BERT in float64, the quantised ones against those, the rules of
the file format, and every refusal.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bert_models import (
    CONFIG,
    NORMALIZE,
    PIECES,
    POOLING,
    TRANSFORMER,
    Tensors,
    pack_safetensors,
    random_tensors,
    save,
    write_json,
)

from tinydancer import encoder_bert as eb
from tinydancer import encoder_file as ef
from tinydancer.encoder_convert import ModelFolder, convert, derived_id
from tinydancer.errors import ModelFolderError
from tinydancer.safetensors_file import Tensors as SafeTensors

CLS, SEP = PIECES.index("[CLS]"), PIECES.index("[SEP]")


@pytest.fixture
def tensors(rng: np.random.Generator) -> Tensors:
    return random_tensors(rng)


@pytest.fixture
def folder(tensors: Tensors, tmp_path: Path) -> Path:
    return save(tmp_path / "model", tensors)


def textbook(tensors: Tensors, ids: list[int], cls: bool = False) -> np.ndarray:
    """Devlin et al. 2018 in float64, word by word from the saved tensors."""
    w = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    n = len(ids)
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][:n]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for i in range(CONFIG["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        q, k, v = (
            linear(x, f"{at}.attention.self.{part}").reshape(n, 4, 16).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        score = q @ k.transpose(0, 2, 1) / math.sqrt(16)
        share = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
        context = (share @ v).transpose(1, 0, 2).reshape(n, -1)
        x = norm(
            x + linear(context, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm"
        )
        inner = linear(x, f"{at}.intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    pooled = x[0] if cls else x.mean(0)
    return pooled / np.linalg.norm(pooled)


def some_ids(rng: np.random.Generator, n: int) -> list[int]:
    return [CLS, *rng.integers(5, len(PIECES), n).tolist(), SEP]


# ---------------------------------------------------------------- vectors


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_float32_vectors_equal_the_textbook(
    tensors: Tensors, tmp_path: Path, rng: np.random.Generator, pooling: str
) -> None:
    model = convert(ModelFolder.at(save(tmp_path / "m", tensors, pooling=pooling))).model
    for n in (0, 1, 5, 30):
        ids = some_ids(rng, n)
        want = textbook(tensors, ids, pooling == "cls_token")
        np.testing.assert_allclose(model.embed_tokens(np.array([ids]))[0], want, atol=2e-6)


def test_quantised_vectors_are_near_the_float32_ones(
    folder: Path, tensors: Tensors, rng: np.random.Generator
) -> None:
    data = convert(ModelFolder.at(folder)).pack("m", 0.4, 0.05, "about")
    encoder = eb.BertEncoder.from_bytes(data)
    for n in (1, 5, 30):
        ids = some_ids(rng, n)
        got = encoder.embed_ids(ids[1:-1])
        assert got.dtype == np.float32
        assert np.linalg.norm(got) == pytest.approx(1, abs=1e-6)
        assert got @ textbook(tensors, ids) > 0.995


def test_embed_ids_beyond_the_limit_reads_no_further(folder: Path) -> None:
    encoder = eb.BertEncoder.from_bytes(convert(ModelFolder.at(folder)).pack("m", 0.4, 0.05, ""))
    assert encoder.header.max_tokens == 30
    long = encoder.embed_ids([7] * 30 + [9] * 50)
    np.testing.assert_array_equal(long, encoder.embed_ids([7] * 30))


@pytest.mark.parametrize(
    "layout",
    [
        {"transformer": "0_Transformer"},
        {"prefix": "bert."},
        {"modules": [TRANSFORMER, POOLING]},
        {"pooling": "mean_sqrt_len_tokens"},
        {"architectures": None, "hidden_act": "gelu_python"},
    ],
    ids=["nested", "prefix", "without normalize", "mean over root", "other words"],
)
def test_other_layouts_give_the_same_file(
    folder: Path, tensors: Tensors, tmp_path: Path, layout: dict[str, Any]
) -> None:
    other = save(tmp_path / "other", tensors, **layout)
    want, got = (convert(ModelFolder.at(each)).pack("m", 0, 1, "") for each in (folder, other))
    assert got == want


def test_folder_without_modules_is_pooled_by_the_mean(folder: Path, tensors: Tensors) -> None:
    (folder / "modules.json").unlink()
    assert convert(ModelFolder.at(folder)).model.shape.pooling == eb.POOLING_MEAN


def test_pooling_in_one_word_is_read(folder: Path) -> None:
    write_json(folder / "1_Pooling/config.json", {"pooling_mode": "cls"})
    assert convert(ModelFolder.at(folder)).model.shape.pooling == eb.POOLING_CLS


def test_old_names_of_layer_norms_are_read(folder: Path, tensors: Tensors, tmp_path: Path) -> None:
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    other = save(tmp_path / "old", old)
    want, got = (convert(ModelFolder.at(each)).pack("m", 0, 1, "") for each in (folder, other))
    assert got == want


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_is_read_as_it_is(tensors: Tensors, tmp_path: Path, dtype: str) -> None:
    model = convert(ModelFolder.at(save(tmp_path / "m", tensors, dtype=dtype))).model
    want = tensors["embeddings.word_embeddings.weight"]
    if dtype == "BF16":
        np.testing.assert_array_equal(model.word.view(np.uint32), want.view(np.uint32) & 0xFFFF0000)
    else:
        np.testing.assert_array_equal(model.word, want.astype(np.float16))


def test_same_model_gives_the_same_bytes(folder: Path) -> None:
    first, second = (convert(ModelFolder.at(folder)).pack("m", 0.4, 0.05, "x") for _ in "ab")
    assert first == second


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("tokenizer", "flags"),
    [
        ({}, 15),
        ({"do_lower_case": False}, ef.FLAG_SPLIT_CJK | ef.FLAG_CLEAN),
        ({"do_lower_case": False, "strip_accents": True}, 15 - ef.FLAG_LOWERCASE),
        ({"strip_accents": False}, 15 - ef.FLAG_STRIP_ACCENTS),
        ({"tokenize_chinese_chars": False}, 15 - ef.FLAG_SPLIT_CJK),
    ],
)
def test_flags_are_those_of_the_tokenizer(
    folder: Path, tokenizer: dict[str, Any], flags: int
) -> None:
    write_json(folder / "tokenizer_config.json", tokenizer)
    assert convert(ModelFolder.at(folder)).flags == flags


def test_lower_case_of_sentence_transformers_counts(folder: Path) -> None:
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 16, "do_lower_case": True})
    model = convert(ModelFolder.at(folder))
    assert model.flags & ef.FLAG_LOWERCASE and not model.flags & ef.FLAG_STRIP_ACCENTS
    assert model.model.shape.max_tokens == 14


def test_limit_without_settings_is_that_of_the_positions(folder: Path) -> None:
    (folder / "sentence_bert_config.json").unlink()
    assert convert(ModelFolder.at(folder)).model.shape.max_tokens == 38


def fast_tokenizer(**changes: Any) -> dict[str, Any]:
    """A tokenizer.json with the vocabulary of the small models."""
    return {
        "added_tokens": [{"id": i, "content": PIECES[i], "special": True} for i in range(5)],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "lowercase": False},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing"},
        "model": {"type": "WordPiece", "vocab": {piece: i for i, piece in enumerate(PIECES)}},
        **changes,
    }


def test_vocabulary_of_tokenizer_json_stands_in_for_vocab_txt(folder: Path) -> None:
    want = convert(ModelFolder.at(folder)).vocab
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer_config.json").unlink()
    write_json(folder / "tokenizer.json", fast_tokenizer())
    model = convert(ModelFolder.at(folder))
    assert model.vocab == want
    assert model.flags == ef.FLAG_CLEAN | ef.FLAG_SPLIT_CJK


def test_special_tokens_of_other_names_are_found(folder: Path, tensors: Tensors) -> None:
    pieces = ["<pad>", "<unk>", "<s>", "</s>", *PIECES[4:]]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    names = {"pad_token": "<pad>", "unk_token": {"content": "<unk>"}}
    names |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "none"}
    write_json(folder / "tokenizer_config.json", names)
    specials = convert(ModelFolder.at(folder)).specials
    assert specials == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": ef.NO_ID}


def test_vocabulary_shorter_than_the_table_is_taken(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(PIECES[:60]) + "\n")
    assert len(convert(ModelFolder.at(folder)).model.word) == 60


# ---------------------------------------------------------------- the file


def test_packed_weights_lie_as_the_header_says(rng: np.random.Generator) -> None:
    values = rng.integers(-127, 128, (128, 192)).astype(np.int8)
    packed = eb.pack_weights(values)
    assert packed.shape == (2, 48, 64, 4)
    for channel, k in rng.integers(0, (128, 192), (50, 2)):
        assert packed[channel // 64, k // 4, channel % 64, k % 4] == values[channel, k]
    np.testing.assert_array_equal(eb.unpack_weights(packed.ravel(), 128, 192), values)


@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
def test_quantised_channels_keep_the_rule_and_are_near(
    rng: np.random.Generator, spread: float
) -> None:
    weight = rng.normal(size=(64, 256)) * np.exp(spread * rng.normal(size=(64, 256)))
    weight[0] = 0
    weight[1] = np.abs(weight[1]).max()  # all pairs at the limit
    weight[2, 1:] = 0
    weight[3] *= 1e-30
    weight = weight.astype(np.float32)
    values, scales = eb.quantise_channels(weight)
    assert (values.dtype, scales.dtype) == (np.int8, np.float32)
    pairs = values.reshape(64, 128, 2).astype(int)
    assert np.maximum(pairs, 0).sum(2).max() <= 128
    assert np.maximum(-pairs, 0).sum(2).max() <= 128
    assert np.abs(values.astype(int)).max() <= 127
    error = np.linalg.norm(values * scales[:, None] - weight, axis=1)
    length = np.linalg.norm(weight, axis=1)
    assert np.all(error[1:] <= 0.03 * length[1:])
    assert error[0] == 0 and np.all(values[0] == 0)


def test_clipping_a_channel_makes_its_error_no_greater(rng: np.random.Generator) -> None:
    weight = rng.normal(size=(64, 384)).astype(np.float32)
    values, scales = eb.quantise_channels(weight)
    error = ((values * scales[:, None] - weight) ** 2).sum()
    full = np.abs(weight.reshape(64, -1, 2)).sum(2).max(1, keepdims=True) / 128
    plain = ((np.rint(weight / full) * full - weight) ** 2).sum()
    assert error < plain


def test_quantised_tokens_are_within_half_a_step(rng: np.random.Generator) -> None:
    x = rng.normal(size=(20, 64)).astype(np.float32)
    x[0], x[1], x[2] = 0, np.abs(x[1]), -np.abs(x[2])
    values, scale, zero = eb.quantise_tokens(x)
    assert values.min() >= 0 and values.max() <= 255
    assert np.all(np.abs((values - zero) * scale - x) <= scale * 1.001)


def test_packed_file_read_again_is_what_was_packed(folder: Path) -> None:
    model = convert(ModelFolder.at(folder))
    encoder = eb.BertEncoder.from_bytes(model.pack("m-1", 0.25, 0.0625, "hällo"))
    # The epsilon is a float32 there.
    eps = float(np.float32(model.model.shape.norm_eps))
    assert encoder.file.id == "m-1"
    assert encoder.shape == dataclasses.replace(model.model.shape, norm_eps=eps)
    assert (encoder.header.fit_mu, encoder.header.fit_s) == (0.25, 0.0625)
    assert encoder.file.sections["about"].tobytes().decode() == "hällo"
    assert encoder.vocab.pieces == model.vocab.pieces
    for name, weight in model.model.weights.items():
        scale = encoder.file.sections[f"{name}.scale"]
        near = encoder.weights[name] * scale[:, None]
        assert np.abs(near - weight).max() <= 0.1 * np.abs(weight).max()


def damaged(data: bytes, name: str, change: Callable[[np.ndarray], Any]) -> bytes:
    """The file with a changed section and a checksum that is right again."""
    file = ef.unpack_file(data)
    sections = {n: array.copy() for n, array in file.sections.items()}
    changed = change(sections[name])
    sections[name] = sections[name] if changed is None else changed
    return ef.pack_file(file.kind, file.id, sections)


def set_to(position: int, value: float) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[position] = value

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bert", set_to(0, 25)),
        ("bert", set_to(1, 3)),
        ("bert", set_to(2, 100)),
        ("bert", set_to(3, 2)),
        ("bert", set_to(9, 1)),
        ("bert", lambda array: array[:8]),
        ("bert.word", lambda array: array[:-1]),
        ("00.qkv.scale", lambda array: array[:-1]),
        ("01.up.weight", lambda array: array[:-4]),
        ("00.out.sum", set_to(3, 1_000_000)),
        ("01.norm2", lambda array: array[:-1]),
        ("00.up.weight", lambda array: np.full_like(array, 100)),
        ("encoder", set_to(0, 128)),
        ("encoder", set_to(3, 1)),
        ("encoder", set_to(6, ef.NO_ID)),
    ],
)
def test_damaged_bert_file_is_refused_by_the_oracle(
    folder: Path, name: str, change: Callable[[np.ndarray], Any]
) -> None:
    data = convert(ModelFolder.at(folder)).pack("m", 0.4, 0.05, "")
    with pytest.raises(ef.EncoderFileError, match="corrupt"):
        eb.BertEncoder.from_bytes(damaged(data, name, change))


# ---------------------------------------------------------------- refusals


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    """Change entries of a JSON file of the folder."""

    def change(folder: Path) -> None:
        path = folder / name
        old = json.loads(path.read_text()) if path.exists() else {}
        write_json(path, {**old, **changes})

    return change


def write(name: str, content: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            write_json(path, content)

    return change


def remove(name: str, then: str | None = None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        if then is not None:
            (folder / then).write_bytes(b"")

    return change


DENSE = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
ODD = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}]}

REFUSALS: dict[str, tuple[Callable[[Path], None], str]] = {
    "roberta": (edit("config.json", model_type="roberta"), 'not BERT.*"roberta"'),
    "architecture": (
        edit("config.json", model_type=None, architectures=["T5Model"]),
        'not BERT.*"T5Model"',
    ),
    "relative positions": (
        edit("config.json", position_embedding_type="relative_key"),
        'position_embedding_type.*"relative_key"',
    ),
    "relu": (edit("config.json", hidden_act="relu"), 'hidden_act.*"relu"'),
    "tanh gelu": (edit("config.json", hidden_act="gelu_new"), 'hidden_act.*"gelu_new"'),
    "decoder": (edit("config.json", is_decoder=True), "is_decoder"),
    "code of its own": (edit("config.json", auto_map={"AutoModel": "x.py"}), "auto_map"),
    "hidden size": (edit("config.json", hidden_size=96), "idden size 96 is not a multiple of 64"),
    "inner size": (edit("config.json", intermediate_size=100), "nner size 100 is not a multiple"),
    "head size": (edit("config.json", num_attention_heads=8), "ead size 8 is not a multiple of 16"),
    "heads": (edit("config.json", num_attention_heads=5), "cannot be divided among 5 heads"),
    "layers": (edit("config.json", num_hidden_layers=25), "25 layers are not 1 to 24"),
    "no figure": (edit("config.json", hidden_size="big"), 'hidden_size = "big"'),
    "no config": (remove("config.json"), "no config.json"),
    "config not json": (write("config.json", b"{"), '"config.json" is not JSON'),
    "config a list": (write("config.json", []), '"config.json" is not a JSON object'),
    "dense module": (write("modules.json", [TRANSFORMER, POOLING, DENSE]), 'a module "Dense"'),
    "no pooling module": (write("modules.json", [TRANSFORMER, NORMALIZE]), "not a transformer and"),
    "modules odd": (write("modules.json", {"a": 1}), '"modules.json" is not a list'),
    "max pooling": (
        edit("1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True),
        "neither mean nor CLS.*max_tokens",
    ),
    "two poolings": (
        edit("1_Pooling/config.json", pooling_mode_cls_token=True),
        "neither mean nor CLS.*cls_token and mean_tokens",
    ),
    "pooling of other size": (
        edit("1_Pooling/config.json", word_embedding_dimension=32),
        "Pooling takes 32 dimensions, the transformer gives 64",
    ),
    "prompts": (
        write("config_sentence_transformers.json", {"prompts": {"query": "query: "}}),
        'words in front of a text.*query: "query: "',
    ),
    "default prompt": (
        write(
            "config_sentence_transformers.json",
            {"prompts": {"query": "", "doc": "passage: "}, "default_prompt_name": "doc"},
        ),
        'words in front of a text.*doc: "passage: "',
    ),
    "other tokenizer": (
        edit("tokenizer_config.json", tokenizer_class="XLMRobertaTokenizer"),
        'tokenizer is not BERT\'s.*"XLMRobertaTokenizer"',
    ),
    "no basic tokenizer": (edit("tokenizer_config.json", do_basic_tokenize=False), "basic_tokeniz"),
    "never split": (edit("tokenizer_config.json", never_split=["[E1]"]), "never_split"),
    "added token": (
        edit("tokenizer_config.json", added_tokens_decoder={"9": {"content": "[E1]"}}),
        'added tokens.*"\\[E1\\]"',
    ),
    "sentencepiece": (
        write("tokenizer.json", fast_tokenizer(model={"type": "Unigram"})),
        'The model of tokenizer.json is "Unigram"',
    ),
    "other normalizer": (
        write("tokenizer.json", fast_tokenizer(normalizer={"type": "NFKC"})),
        'Its normalizer is "NFKC"',
    ),
    "other splitting": (
        write("tokenizer.json", fast_tokenizer(pre_tokenizer={"type": "Whitespace"})),
        'Its pre_tokenizer is "Whitespace"',
    ),
    "no ends": (write("tokenizer.json", fast_tokenizer(post_processor=ODD)), "Its template"),
    "no vocabulary": (remove("vocab.txt"), "no vocab.txt"),
    "vocabulary too large": (
        write("vocab.txt", "\n".join(map(str, range(70_000))).encode()),
        "has 70,000 word pieces, the limit is 65,534",
    ),
    "vocabulary longer than the table": (
        write("vocab.txt", "\n".join([*PIECES, "more"]).encode()),
        f"{len(PIECES)} vectors for {len(PIECES) + 1} word pieces",
    ),
    "vocabulary with repeats": (
        write("vocab.txt", "\n".join([*PIECES[:-1], "a"]).encode()),
        "repeated pieces",
    ),
    "vocabulary not utf-8": (write("vocab.txt", b"[PAD]\n\xff"), "not UTF-8"),
    "no cls": (
        write("vocab.txt", "\n".join(["x" * 9 if p == "[CLS]" else p for p in PIECES]).encode()),
        '"\\[CLS\\]" is not among',
    ),
    "no weights": (remove("model.safetensors"), "there is no model.safetensors"),
    "pickled weights": (
        remove("model.safetensors", "pytorch_model.bin"),
        "Its weights are in pytorch_model.bin",
    ),
    "split weights": (
        remove("model.safetensors", "model.safetensors.index.json"),
        "Its weights are in model.safetensors.index.json",
    ),
    "length odd": (edit("sentence_bert_config.json", max_seq_length="long"), 'length is "long"'),
    "length too short": (edit("sentence_bert_config.json", max_seq_length=2), "limit of 2 tokens"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_model_that_cannot_be_represented_is_refused(folder: Path, what: str) -> None:
    change, sentence = REFUSALS[what]
    change(folder)
    with pytest.raises(ModelFolderError, match=f"(?s){sentence}") as caught:
        convert(ModelFolder.at(folder))
    assert caught.value.message.startswith(f'cannot build encoder from "{folder}": ')


def entries(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a JSON document stands."""
    inside: list[tuple[Any, ...]] = []
    if isinstance(value, dict):
        inside = [each for key in value for each in entries(value[key], (*path, key))]
    elif isinstance(value, list):
        inside = [each for i, one in enumerate(value) for each in entries(one, (*path, i))]
    return [path, *inside]


@pytest.mark.parametrize(
    "name",
    [
        *("modules.json", "config.json", "1_Pooling/config.json", "sentence_bert_config.json"),
        *("tokenizer_config.json", "tokenizer.json", "config_sentence_transformers.json"),
    ],
)
def test_settings_of_any_type_are_understood_or_refused(
    folder: Path, rng: np.random.Generator, name: str
) -> None:
    added = {"added_tokens_decoder": {"0": {"content": "[PAD]"}}, "unk_token": "[UNK]"}
    edit("tokenizer_config.json", **added)(folder)
    write_json(folder / "tokenizer.json", fast_tokenizer(model={"type": "WordPiece"}))
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": ""}})
    whole = json.loads((folder / name).read_text())
    convert(ModelFolder.at(folder))
    odd = [None, True, 0, -1, 2.5, 1e300, float("nan"), "x", [], {}, [1], {"a": 1}]
    for path in entries(whole):
        for value in rng.permutation(np.array(odd, object))[:4]:
            changed = json.loads(json.dumps(whole))
            if path:
                place = changed
                for step in path[:-1]:
                    place = place[step]
                place[path[-1]] = value
            else:
                changed = value
            write_json(folder / name, changed)
            try:
                convert(ModelFolder.at(folder)).model.embed_tokens(np.array([[CLS, 9, SEP]]))
            except ModelFolderError as error:
                assert "cannot build encoder from" in error.message


def test_model_with_prompts_is_taken_without_them_when_asked(folder: Path) -> None:
    want = convert(ModelFolder.at(folder)).pack("m", 0, 1, "")
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    write_json(folder / "config_sentence_transformers.json", prompts)
    got = convert(ModelFolder.at(folder), without_prompts=True).pack("m", 0, 1, "")
    assert got == want


def test_empty_prompts_are_none(folder: Path) -> None:
    settings = {"prompts": {"query": "", "document": ""}, "default_prompt_name": None}
    write_json(folder / "config_sentence_transformers.json", settings)
    convert(ModelFolder.at(folder))


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="there is no such folder"):
        ModelFolder.at(tmp_path / "nothing")


def test_every_missing_tensor_is_named(tensors: Tensors, tmp_path: Path) -> None:
    needed = [name for name in tensors if not name.startswith("pooler")]
    for i, name in enumerate(needed):
        without = {n: tensor for n, tensor in tensors.items() if n != name}
        with pytest.raises(ModelFolderError, match="a tensor is missing") as caught:
            convert(ModelFolder.at(save(tmp_path / str(i), without)))
        assert f'"{name}"' in str(caught.value.detail)


def test_every_tensor_of_another_shape_is_named(tensors: Tensors, tmp_path: Path) -> None:
    needed = [name for name in tensors if not name.startswith("pooler")]
    for i, name in enumerate(needed):
        wrong = {**tensors, name: tensors[name][..., :-1].copy()}
        with pytest.raises(ModelFolderError, match="a tensor has the wrong shape") as caught:
            convert(ModelFolder.at(save(tmp_path / str(i), wrong)))
        assert f'"{name}" is {list(wrong[name].shape)}' in str(caught.value.detail)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(
    tensors: Tensors, tmp_path: Path, value: float
) -> None:
    tensors["encoder.layer.1.output.dense.weight"][3, 5] = value
    with pytest.raises(ModelFolderError, match="NaN or infinity") as caught:
        convert(ModelFolder.at(save(tmp_path / "m", tensors)))
    assert 'of tensor "encoder.layer.1.output.dense.weight" is' in str(caught.value.detail)


def test_weights_of_whole_numbers_are_refused(tensors: Tensors, tmp_path: Path) -> None:
    name = "encoder.layer.0.output.dense.bias"
    tensors[name] = tensors[name].astype(np.int64)
    with pytest.raises(ModelFolderError, match="element type that cannot be read"):
        convert(ModelFolder.at(save(tmp_path / "m", tensors)))


# ---------------------------------------------------------------- safetensors


def test_truncated_weights_are_refused_wherever_they_end(folder: Path, tmp_path: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for size in (0, 1, 7, 8, 9, 100, 2000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelFolderError, match="file of weights is damaged"):
            convert(ModelFolder.at(folder))


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"dtype": "F32", "shape": [2], "data_offsets": [0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]},
        {"dtype": 5, "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 8]},
    ],
)
def test_tensor_with_an_impossible_place_is_refused(entry: Any) -> None:
    header = json.dumps({"x": entry}).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(8)
    with pytest.raises(ModelFolderError, match="file of weights is damaged"):
        SafeTensors(data)


@pytest.mark.parametrize("header", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_header_that_is_no_object_is_refused(header: bytes) -> None:
    with pytest.raises(ModelFolderError, match="file of weights is damaged"):
        SafeTensors(struct.pack("<Q", len(header)) + header)


def test_random_damage_to_weights_is_refused_or_read(
    tensors: Tensors, rng: np.random.Generator
) -> None:
    whole = pack_safetensors({n: t for n, t in tensors.items() if "layer.0.output" in n})
    length = struct.unpack_from("<Q", whole)[0]
    for _ in range(2000):
        data = bytearray(whole)
        for at in rng.integers(0, 8 + length, rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        try:
            read = SafeTensors(bytes(data))
            for name in read:
                assert read.float32(name).shape == read[name]
        except ModelFolderError:
            continue


# ---------------------------------------------------------------- ids


@pytest.mark.parametrize(
    ("name", "file_id"),
    [
        ("bge-small-en-v1.5", "bge-small-en-v1.5"),
        ("All MiniLM (L6) v2", "all-minilm-l6-v2"),
        (".hidden", "hidden"),
        ("x" * 50, "x" * 32),
        ("a" * 31 + "-b", "a" * 31),
        ("日本語", ""),
    ],
)
def test_id_made_of_a_folder_name(name: str, file_id: str) -> None:
    assert derived_id(name) == file_id
