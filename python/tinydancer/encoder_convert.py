"""Turns a BERT-family sentence-transformers model into the bytes of an encoder file.

The files of a model come in (config.json, vocab.txt, model.safetensors and what stands beside
them); out come its weights as the kernel arranges them, its vocabulary, how it splits text and how
it pools.  What cannot be represented exactly is refused with the reason: a file that is built
embeds a text as sentence-transformers' ``encode()`` would, but for the rounding of int8.  Called by
tinydancer.encoder_build.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tinydancer import encoder_file
from tinydancer.encoder_bert import (
    POOLING_CLS,
    POOLING_MEAN,
    BertModel,
    BertShape,
    Float32Array,
    pack_bert_encoder,
)
from tinydancer.encoder_file import NO_ID, VOCAB_MAX, EncoderHeader, Vocab
from tinydancer.errors import ModelFolderError
from tinydancer.safetensors_file import Buffer, Tensors

__all__ = ["ConvertedModel", "ModelFolder", "convert"]

WEIGHTS = "model.safetensors"
SPECIALS = ("unk", "cls", "sep", "pad", "mask")


@dataclass(frozen=True)
class ModelFolder:
    """The files of a model, by their names relative to its folder.

    Attributes:
        name: how errors call it.
        read: the content of a file, None when there is none.
    """

    name: str
    read: Callable[[str], Buffer | None]

    @classmethod
    def at(cls, path: Path) -> ModelFolder:
        """The folder at ``path``.

        Raises:
            ModelFolderError: it is no folder.
            OSError: a file in it cannot be read.
        """
        if not path.is_dir():
            raise ModelFolderError(
                f'cannot build encoder from "{path}": there is no such folder',
                None,
                'Name a folder with config.json and model.safetensors, or "minilm" or "static".',
            )

        def read(name: str) -> Buffer | None:
            file = path / name
            if not file.is_file():
                return None
            # Weights are large and read once; an empty file cannot be mapped.
            if name.endswith(".safetensors") and file.stat().st_size:
                with file.open("rb") as opened:
                    return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
            return file.read_bytes()

        return cls(str(path), read)

    def refuse(self, why: str, detail: str | None, hint: str | None = None) -> NoReturn:
        """Raise what says that the model cannot be converted."""
        raise ModelFolderError(f'cannot build encoder from "{self.name}": {why}', detail, hint)

    def json(self, name: str) -> Any:
        """The content of a JSON file, None when there is none."""
        data = self.read(name)
        if data is None:
            return None
        try:
            return json.loads(bytes(data))
        except (ValueError, RecursionError) as error:
            self.refuse("a file is damaged", f'"{name}" is not JSON: {error}.')

    def object(self, name: str) -> dict[str, Any]:
        """A JSON file that holds an object; an empty one when there is no file."""
        found = self.json(name)
        if found is None:
            return {}
        if not isinstance(found, dict):
            self.refuse("a file is damaged", f'"{name}" is not a JSON object.')
        return found


@dataclass(frozen=True)
class ConvertedModel:
    """What an encoder file is packed from, but for its id and the constants of fit."""

    model: BertModel
    vocab: Vocab
    flags: int
    specials: Mapping[str, int] = field(repr=False)
    weights_sha256: str

    def pack(self, file_id: str, fit_mu: float, fit_s: float, about: str) -> bytes:
        """The bytes of the encoder file; see ``pack_bert_encoder``."""
        shape = self.model.shape
        header = EncoderHeader(
            dim=shape.dim,
            max_tokens=shape.max_tokens,
            vocab_size=len(self.vocab.pieces),
            first_row=0,
            flags=self.flags,
            **{f"{name}_id": self.specials[name] for name in SPECIALS},
            fit_mu=fit_mu,
            fit_s=fit_s,
        )
        return pack_bert_encoder(file_id, header, self.vocab, self.model, about)


def convert(folder: ModelFolder, without_prompts: bool = False) -> ConvertedModel:
    """Read and check a model.

    Args:
        folder: its files.
        without_prompts: take a model that has texts to be put in front of requests, without them.

    Raises:
        ModelFolderError: it is damaged or incomplete, or cannot be represented.
        OSError: a file cannot be read.
    """
    try:
        return _convert(folder, without_prompts)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # A list where a number should be, and so on: there are too many ways to name each.
        folder.refuse("its settings are not understood", f"{type(error).__name__}: {error}.")


def _convert(folder: ModelFolder, without_prompts: bool) -> ConvertedModel:
    transformer, pooling_folder = _modules(folder)
    if not without_prompts:
        _check_prompts(folder)
    config = folder.object(f"{transformer}config.json")
    _check_config(folder, config)
    tokenizer = folder.object(f"{transformer}tokenizer_config.json")
    fast = folder.object(f"{transformer}tokenizer.json")
    limits = folder.object(f"{transformer}sentence_bert_config.json")
    _check_tokenizer(folder, tokenizer, fast)
    shape = BertShape(
        dim=_whole(folder, config, "hidden_size"),
        n_layers=_whole(folder, config, "num_hidden_layers"),
        n_heads=_whole(folder, config, "num_attention_heads"),
        n_inner=_whole(folder, config, "intermediate_size"),
        max_tokens=_limit(folder, config, tokenizer, limits) - 2,
        norm_eps=_real(folder, config, "layer_norm_eps", 1e-12),
    )
    problems = "; ".join(shape.problems())
    if problems:
        folder.refuse("the kernel does not run its shape", f"{_sentence(problems)}.")
    shape = replace(shape, pooling=_pooling(folder, pooling_folder, config))
    vocab = _vocab(folder, transformer, fast)
    specials = _specials(folder, vocab, tokenizer)
    data = folder.read(transformer + WEIGHTS)
    if data is None:
        _refuse_without_weights(folder, transformer)
    model = _model(folder, Tensors(data), shape, len(vocab.pieces))
    flags = _flags(tokenizer, fast, bool(limits.get("do_lower_case")))
    return ConvertedModel(model, vocab, flags, specials, hashlib.sha256(data).hexdigest())


def _sentence(text: str) -> str:
    """``text`` with a capital at its start."""
    return text[:1].upper() + text[1:]


# ------------------------------------------------------------------------------------- what it is


def _modules(folder: ModelFolder) -> tuple[str, str | None]:
    """Where the transformer's files lie, as a prefix, and the pooling's folder if there is one."""
    modules = folder.json("modules.json")
    if modules is None:
        # A plain transformer: sentence-transformers pools its tokens by the mean.
        return "", None
    known = ("Transformer", "Pooling", "Normalize")
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        paths = [str(module.get("path", "")) for module in modules]
    except (KeyError, TypeError, AttributeError):
        folder.refuse("a file is damaged", '"modules.json" is not a list of modules.')
    for kind in kinds:
        if kind not in known:
            folder.refuse(
                f'it has a module "{kind}"',
                f"Its modules are {', '.join(kinds)}.",
                "Only a transformer, its pooling and a normalisation can be converted.",
            )
    if kinds not in (list(known[:2]), list(known)):
        folder.refuse(
            "its modules are not a transformer and a pooling",
            f"Its modules are {', '.join(kinds) or 'none'}.",
        )
    return (f"{paths[0].strip('/')}/" if paths[0].strip("/") else ""), paths[1].strip("/")


def _check_prompts(folder: ModelFolder) -> None:
    """Refuse a model that wants words put in front of a text."""
    settings = folder.object("config_sentence_transformers.json")
    prompts = settings.get("prompts")
    wanted = {k: v for k, v in prompts.items() if v} if isinstance(prompts, dict) else {}
    if wanted:
        shown = ", ".join(f'{name}: "{text}"' for name, text in sorted(wanted.items()))
        folder.refuse(
            "it puts words in front of a text",
            f"config_sentence_transformers.json has the prompts {shown}.",
            "An encoder takes texts as they are; --without-prompts builds it all the same.",
        )


def _check_config(folder: ModelFolder, config: Mapping[str, Any]) -> None:
    """Refuse another architecture than BERT, or a BERT that is computed differently."""
    if not config:
        folder.refuse(
            "there is no config.json", None, "Name the folder of a sentence-transformers model."
        )
    names = config.get("architectures") or [""]
    kind = config.get("model_type") or ("bert" if str(names[0]).startswith("Bert") else names[0])
    if kind != "bert":
        folder.refuse(
            "its architecture is not BERT",
            f'config.json says that it is "{kind}".',
            "Models that can be converted are, for instance, bge-small, e5-small and gte-small.",
        )
    wanted: dict[str, tuple[Any, ...]] = {
        "hidden_act": ("gelu", "gelu_python"),
        "position_embedding_type": ("absolute", None),
        "is_decoder": (False, None),
        "add_cross_attention": (False, None),
        "auto_map": (None,),
        "quantization_config": (None,),
    }
    for key, values in wanted.items():
        value = config.get(key, "gelu" if key == "hidden_act" else None)
        if value not in values:
            folder.refuse(
                f"the kernel does not run its {key}",
                f"config.json says {key} = {json.dumps(value)}, the kernel runs "
                f"{json.dumps(values[0])}.",
            )


def _whole(folder: ModelFolder, config: Mapping[str, Any], key: str) -> int:
    """A positive whole number of config.json."""
    value = config.get(key)
    if type(value) is not int or value < 1:
        folder.refuse("a file is damaged", f"config.json says {key} = {json.dumps(value)}.", None)
    return value


def _real(folder: ModelFolder, config: Mapping[str, Any], key: str, default: float) -> float:
    """A number of config.json."""
    value = config.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        folder.refuse("a file is damaged", f"config.json says {key} = {json.dumps(value)}.")
    return float(value)


def _limit(
    folder: ModelFolder,
    config: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    limits: Mapping[str, Any],
) -> int:
    """How many tokens are read of a text, [CLS] and [SEP] included."""
    positions = _whole(folder, config, "max_position_embeddings")
    value = limits.get("max_seq_length")
    if value is None:
        value = tokenizer.get("model_max_length", positions)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 1:
        folder.refuse("a file is damaged", f"Its greatest length is {json.dumps(value)} tokens.")
    return int(min(value, positions, 8192))


def _pooling(folder: ModelFolder, pooling: str | None, config: Mapping[str, Any]) -> int:
    """Mean or CLS."""
    if pooling is None:
        return POOLING_MEAN
    settings = folder.object(f"{pooling}/config.json" if pooling else "config.json")
    dim = settings.get("word_embedding_dimension", config.get("hidden_size"))
    if dim != config.get("hidden_size"):
        folder.refuse(
            "its parts do not fit together",
            f"Pooling takes {dim} dimensions, the transformer gives {config.get('hidden_size')}.",
        )
    prefix = "pooling_mode_"
    modes = [key[len(prefix) :] for key, on in settings.items() if key.startswith(prefix) and on]
    named = settings.get("pooling_mode")
    if named is not None:
        modes = [named] if isinstance(named, str) else list(named)
    # The sum over the root of the length has the direction of the mean, and lengths are made 1.
    known = {
        "mean_tokens": POOLING_MEAN,
        "mean": POOLING_MEAN,
        "mean_sqrt_len_tokens": POOLING_MEAN,
        "cls_token": POOLING_CLS,
        "cls": POOLING_CLS,
    }
    if len(modes) != 1 or modes[0] not in known:
        folder.refuse(
            "its pooling is neither mean nor CLS",
            f"It pools by {' and '.join(map(str, modes)) or 'nothing'}.",
        )
    return known[modes[0]]


# ------------------------------------------------------------------------------------- text


def _content(token: Any) -> Any:
    """The text of a token in a tokenizer's settings, where it stands in an object of its own."""
    return token.get("content") if isinstance(token, dict) else token


def _check_tokenizer(
    folder: ModelFolder, tokenizer: Mapping[str, Any], fast: Mapping[str, Any]
) -> None:
    """Refuse a tokenizer that is not BERT's."""

    def check(what: str, value: Any, *wanted: Any) -> None:
        if value not in wanted:
            folder.refuse(
                "its tokenizer is not BERT's",
                f"{what} is {json.dumps(value)}, not {json.dumps(wanted[0])}.",
            )

    kind = str(tokenizer.get("tokenizer_class") or "BertTokenizer").removesuffix("Fast")
    check("Its tokenizer_class", kind, "BertTokenizer", "PreTrainedTokenizer")
    check("Its do_basic_tokenize", tokenizer.get("do_basic_tokenize", True), True)
    check("Its never_split", tokenizer.get("never_split") or None, None)
    if fast:
        model = fast.get("model") or {}
        check("The model of tokenizer.json", model.get("type", "WordPiece"), "WordPiece")
        check("Its prefix", model.get("continuing_subword_prefix", "##"), "##")
        check("Its longest word", model.get("max_input_chars_per_word", 100), 100)
        check("Its normalizer", (fast.get("normalizer") or {}).get("type"), "BertNormalizer")
        check(
            "Its pre_tokenizer", (fast.get("pre_tokenizer") or {}).get("type"), "BertPreTokenizer"
        )
        check("Its clean_text", (fast.get("normalizer") or {}).get("clean_text", True), True, None)
        ends = fast.get("post_processor") or {}
        if ends.get("type") != "BertProcessing":
            check("Its post_processor", ends.get("type"), "TemplateProcessing")
            single = [next(iter(part), None) for part in ends.get("single") or [] if part]
            check("Its template", single, ["SpecialToken", "Sequence", "SpecialToken"])
    names = {_content(tokenizer.get(f"{name}_token", f"[{name.upper()}]")) for name in SPECIALS}
    added = [
        *(fast.get("added_tokens") or []),
        *(tokenizer.get("added_tokens_decoder") or {}).values(),
    ]
    for token in added:
        if _content(token) not in names:
            folder.refuse(
                "its tokenizer has added tokens",
                f'"{_content(token)}" is none of {", ".join(sorted(map(str, names)))}.',
            )
        if any(token.get(side) for side in ("lstrip", "rstrip", "single_word")):
            folder.refuse(
                "its tokenizer is not BERT's",
                f'Token "{_content(token)}" swallows what is beside it.',
            )


def _vocab(folder: ModelFolder, transformer: str, fast: Mapping[str, Any]) -> Vocab:
    """The word pieces, of vocab.txt or else of tokenizer.json."""
    data = folder.read(f"{transformer}vocab.txt")
    if data is not None:
        try:
            text = bytes(data).decode("utf-8")
        except UnicodeDecodeError as error:
            folder.refuse("a file is damaged", f'"vocab.txt" is not UTF-8: {error}.')
        pieces = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    else:
        by_piece = (fast.get("model") or {}).get("vocab")
        if not isinstance(by_piece, dict):
            folder.refuse("there is no vocab.txt", None)
        if sorted(by_piece.values()) != list(range(len(by_piece))):
            folder.refuse("a file is damaged", '"tokenizer.json" leaves out ids of its vocabulary.')
        pieces = sorted(by_piece, key=by_piece.__getitem__)
    if len(pieces) > VOCAB_MAX:
        folder.refuse(
            "its vocabulary is too large",
            f"It has {len(pieces):,} word pieces, the limit is {VOCAB_MAX:,}.",
        )
    try:
        vocab = Vocab.from_text("\n".join(pieces))
        vocab.sections()
    except ValueError as error:
        folder.refuse("its vocabulary cannot be represented", f"{_sentence(str(error))}.")
    return vocab


def _specials(folder: ModelFolder, vocab: Vocab, tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """The ids of the special tokens."""
    ids = {piece: i for i, piece in enumerate(vocab.pieces)}
    found = {}
    for name in SPECIALS:
        token = str(_content(tokenizer.get(f"{name}_token")) or f"[{name.upper()}]")
        found[name] = ids.get(token.encode(), NO_ID)
        if found[name] == NO_ID and name in ("unk", "cls", "sep"):
            folder.refuse(
                "its vocabulary lacks a special token", f'"{token}" is not among its word pieces.'
            )
    return found


def _flags(tokenizer: Mapping[str, Any], fast: Mapping[str, Any], lowered: bool) -> int:
    """How text is prepared; tokenizer_config.json counts before tokenizer.json."""
    normalizer = fast.get("normalizer") or {}
    lower = tokenizer.get("do_lower_case", normalizer.get("lowercase", True))
    strip = tokenizer.get("strip_accents", normalizer.get("strip_accents"))
    split = tokenizer.get("tokenize_chinese_chars", normalizer.get("handle_chinese_chars", True))
    flags = encoder_file.FLAG_CLEAN
    flags |= encoder_file.FLAG_LOWERCASE if lower or lowered else 0
    # Where nothing is said accents go with the capitals.
    flags |= encoder_file.FLAG_STRIP_ACCENTS if (lower if strip is None else strip) else 0
    flags |= encoder_file.FLAG_SPLIT_CJK if split else 0
    return flags


# ------------------------------------------------------------------------------------- weights


def _refuse_without_weights(folder: ModelFolder, transformer: str) -> NoReturn:
    """Say what is there in the place of model.safetensors."""
    for other in (f"{WEIGHTS}.index.json", "pytorch_model.bin", "tf_model.h5"):
        if folder.read(transformer + other) is not None:
            folder.refuse(
                f"there is no {WEIGHTS}",
                f"Its weights are in {other}, which is not read.",
                f"Save the model again with safe_serialization: it writes one {WEIGHTS}.",
            )
    folder.refuse(f"there is no {WEIGHTS}", None)


def _model(folder: ModelFolder, tensors: Tensors, shape: BertShape, n_pieces: int) -> BertModel:
    """The weights, each with the shape that it must have."""
    marker = "embeddings.word_embeddings.weight"
    prefixes = [name.removesuffix(marker) for name in tensors if name.endswith(marker)]
    if len(prefixes) != 1:
        folder.refuse(
            "a tensor is missing",
            f'There are {len(prefixes)} tensors "{marker}" in {WEIGHTS}, with or without "bert.".',
        )
    prefix = prefixes[0]

    def take(name: str, *wanted: int | None) -> Float32Array:
        # Old files call gain and bias of a layer norm gamma and beta.
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old = old.replace("LayerNorm.bias", "LayerNorm.beta")
        found = next((prefix + n for n in (name, old) if prefix + n in tensors), None)
        if found is None:
            folder.refuse("a tensor is missing", f'There is no "{prefix}{name}" in {WEIGHTS}.')
        given = tensors[found]
        if len(given) != len(wanted) or any(
            w is not None and g != w for g, w in zip(given, wanted, strict=True)
        ):
            shown = [side if side is not None else "n" for side in wanted]
            folder.refuse(
                "a tensor has the wrong shape",
                f'"{found}" is {list(given)}, config.json asks for {shown}.'.replace("'", ""),
            )
        return tensors.float32(found)

    def norm(name: str) -> Float32Array:
        return np.stack([take(f"{name}.weight", dim), take(f"{name}.bias", dim)])

    dim, inner = shape.dim, shape.n_inner
    word = take(marker, None, dim)
    position = take("embeddings.position_embeddings.weight", None, dim)
    kind = take("embeddings.token_type_embeddings.weight", None, dim)
    if len(word) < n_pieces or len(position) < shape.max_tokens + 2 or len(kind) < 1:
        folder.refuse(
            "a tensor has the wrong shape",
            f"There are {len(word)} vectors for {n_pieces} word pieces, {len(position)} for "
            f"{shape.max_tokens + 2} positions and {len(kind)} for token types.",
        )
    root = np.float32(np.sqrt(shape.head_size))
    weights: dict[str, Float32Array] = {}
    biases: dict[str, Float32Array] = {}
    norms: dict[str, Float32Array] = {}
    for i in range(shape.n_layers):
        at, to = f"encoder.layer.{i}", f"{i:02}"
        parts = [f"{at}.attention.self.{part}" for part in ("query", "key", "value")]
        weight = [take(f"{part}.weight", dim, dim) for part in parts]
        bias = [take(f"{part}.bias", dim) for part in parts]
        weights[f"{to}.qkv"] = np.concatenate([weight[0] / root, *weight[1:]])
        biases[f"{to}.qkv"] = np.concatenate([bias[0] / root, *bias[1:]])
        for product, name, shape_ in (
            ("out", f"{at}.attention.output.dense", (dim, dim)),
            ("up", f"{at}.intermediate.dense", (inner, dim)),
            ("down", f"{at}.output.dense", (dim, inner)),
        ):
            weights[f"{to}.{product}"] = take(f"{name}.weight", *shape_)
            biases[f"{to}.{product}"] = take(f"{name}.bias", shape_[0])
        norms[f"{to}.norm1"] = norm(f"{at}.attention.output.LayerNorm")
        norms[f"{to}.norm2"] = norm(f"{at}.output.LayerNorm")
    return BertModel(
        shape,
        word[:n_pieces],
        position[: shape.max_tokens + 2] + kind[0],
        norm("embeddings.LayerNorm"),
        weights,
        biases,
        norms,
    )


def derived_id(name: str) -> str:
    """An id made of a folder's name: "bge-small-en-v1.5" for "BGE small en v1.5"."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")
    return plain[: encoder_file.ID_SIZE].rstrip("-._")
