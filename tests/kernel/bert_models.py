"""Small random BERT models as sentence-transformers would save them, for tests of the converter.

In: a folder, a NumPy generator and what is to be different.  Out: config.json, vocab.txt,
model.safetensors and what stands beside them, and the tensors as they were before they were saved.
Used by the files of this folder
and of tests/python.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]

Tensors = dict[str, np.ndarray]

CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 40,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": len(PIECES),
}
TRANSFORMER, POOLING, NORMALIZE = (
    {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for i, (kind, path) in enumerate(
        (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    )
)


def random_tensors(rng: np.random.Generator, config: dict[str, Any] = CONFIG) -> Tensors:
    """Weights of the size that training gives."""
    dim, inner = config["hidden_size"], config["intermediate_size"]

    def matrix(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.08, shape).astype(np.float32)

    def norm(name: str) -> Tensors:
        gain = rng.normal(1, 0.1, dim).astype(np.float32)
        return {f"{name}.weight": gain, f"{name}.bias": matrix(dim)}

    tensors = {
        "embeddings.word_embeddings.weight": matrix(config["vocab_size"], dim),
        "embeddings.position_embeddings.weight": matrix(config["max_position_embeddings"], dim),
        "embeddings.token_type_embeddings.weight": matrix(config["type_vocab_size"], dim),
        **norm("embeddings.LayerNorm"),
        "pooler.dense.weight": matrix(dim, dim),
    }
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        shapes = {f"attention.self.{part}": (dim, dim) for part in ("query", "key", "value")}
        shapes |= {"attention.output.dense": (dim, dim), "intermediate.dense": (inner, dim)}
        shapes |= {"output.dense": (dim, inner)}
        for name, shape in shapes.items():
            tensors[f"{at}.{name}.weight"] = matrix(*shape)
            tensors[f"{at}.{name}.bias"] = matrix(shape[0])
        tensors |= {**norm(f"{at}.attention.output.LayerNorm"), **norm(f"{at}.output.LayerNorm")}
    return tensors


def pack_safetensors(tensors: Tensors, dtype: str = "F32") -> bytes:
    """The bytes of a file of tensors; "BF16" cuts the lower half of each float off."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, tensor in tensors.items():
        if tensor.dtype == np.int64:
            data, kind = tensor.tobytes(), "I64"
        elif dtype == "BF16":
            data, kind = (tensor.view(np.uint32) >> 16).astype("<u2").tobytes(), dtype
        else:
            data, kind = tensor.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes(), dtype
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
        body += data
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + bytes(body)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def save(
    folder: Path,
    tensors: Tensors,
    *,
    transformer: str = "",
    pooling: str = "mean_tokens",
    modules: list[dict[str, Any]] | None = None,
    dtype: str = "F32",
    prefix: str = "",
    pieces: list[str] | None = None,
    **config: Any,
) -> Path:
    """Write a model as sentence-transformers does; ``config`` changes entries of config.json."""
    inside = folder / transformer
    inside.mkdir(parents=True)
    default = [{**TRANSFORMER, "path": transformer}, POOLING, NORMALIZE]
    write_json(folder / "modules.json", default if modules is None else modules)
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": {**CONFIG, **config}["hidden_size"],
            **{f"pooling_mode_{mode}": mode == pooling for mode in modes},
        },
    )
    write_json(inside / "config.json", {**CONFIG, **config})
    write_json(inside / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    write_json(
        inside / "tokenizer_config.json",
        {"do_lower_case": True, "strip_accents": None, "tokenizer_class": "BertTokenizer"},
    )
    (inside / "vocab.txt").write_text("\n".join(PIECES if pieces is None else pieces) + "\n")
    named = {prefix + name: tensor for name, tensor in tensors.items()}
    (inside / "model.safetensors").write_bytes(pack_safetensors(named, dtype))
    return folder
