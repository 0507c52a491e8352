"""What the converter makes, in the kernel and in the NumPy oracle that reads the same file.

In: small random models as they are saved, and MiniLM where it is built.  Word pieces come from the
kernel; everything behind them is computed in NumPy.  Float sums run in another order there, and a
last bit may turn an activation over to the next whole number: what is small in one layer grows with
each, so deep models are compared with a wider bound.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bert_models import CONFIG, PIECES, random_tensors, save

from tinydancer import _kernels
from tinydancer import encoder_bert as eb
from tinydancer import encoder_file as ef
from tinydancer.encoder_convert import ModelFolder, convert

SANITIZED = "TINYDANCER_SANITIZED" in os.environ

# Hidden size, heads, inner size, layers; test_bert.py has more, packed without the converter.
SHAPES = [(64, 4, 128, 2), (384, 12, 1536, 1)]


def packed(
    folder: Path, rng: np.random.Generator, pooling: str = "mean_tokens", **config: Any
) -> bytes:
    """The encoder file of a random model."""
    tensors = random_tensors(rng, {**CONFIG, **config})
    model = convert(ModelFolder.at(save(folder, tensors, pooling=pooling, **config)))
    return model.pack("random-1", 0.4, 0.05, "random weights")


def texts(rng: np.random.Generator, count: int) -> list[str]:
    """Words of the small models' letters, of one to more word pieces than they read."""
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,?! ", " ", " "]
    some = ("".join(rng.choice(letters, rng.integers(1, 80))) for _ in range(count))
    return ["a", "?", "a" * 30, "a " * 31, *(text for text in some if text.strip())]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_embed_of_random_models_equals_the_oracle(
    tmp_path: Path, rng: np.random.Generator, shape: tuple[int, int, int, int], pooling: str
) -> None:
    names = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers")
    data = packed(tmp_path / "m", rng, pooling, **dict(zip(names, shape, strict=True)))
    kernel, oracle = _kernels.Encoder(data), eb.BertEncoder.from_bytes(data)
    kernel.verify()
    for text in texts(rng, 4 if SANITIZED else 12):
        want = oracle.embed_ids(kernel.tokenize(text))
        got = kernel.embed(text)[0]
        assert 1 - float(got @ want) < 1e-5 * 4 ** shape[3], text


def test_header_read_by_the_kernel_equals_the_oracle(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    data = packed(tmp_path / "m", rng)
    kernel, oracle = _kernels.Encoder(data), eb.BertEncoder.from_bytes(data)
    assert (kernel.id, kernel.kind) == (oracle.file.id, "bert")
    assert (kernel.dim, kernel.max_tokens) == (oracle.header.dim, oracle.header.max_tokens)
    assert (kernel.fit_mu, kernel.fit_s) == (oracle.header.fit_mu, oracle.header.fit_s)
    assert kernel.checksum == f"{oracle.file.checksum:016x}"
    assert kernel.about == "random weights"
    assert kernel.pieces() == PIECES


@pytest.mark.parametrize("size", [0, 8, 128, 1000, 20_000, -1])
def test_open_of_a_shortened_file_fails_in_both_readers_alike(
    tmp_path: Path, rng: np.random.Generator, size: int
) -> None:
    data = packed(tmp_path / "m", rng)[:size]
    with pytest.raises(ef.EncoderFileError) as expected:
        eb.BertEncoder.from_bytes(data)
    with pytest.raises(ValueError) as got:
        _kernels.Encoder(data)
    assert str(got.value).splitlines()[0] == str(expected.value)


def test_weights_that_break_the_rules_are_found_by_verify(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    file = ef.unpack_file(packed(tmp_path / "m", rng))
    pairs = {name: array.copy() for name, array in file.sections.items()}
    # Two neighbours of one channel lie side by side; the sum is made right again.
    before = int(pairs["00.up.weight"][:2].sum())
    pairs["00.up.weight"][:2] = 65, 64
    pairs["00.up.sum"][0] += 129 - before
    sums = {name: array.copy() for name, array in file.sections.items()}
    sums["01.down.sum"][5] += 1
    for sections in (pairs, sums):
        broken = _kernels.Encoder(ef.pack_file(file.kind, file.id, sections))
        with pytest.raises(ValueError, match="file is corrupt"):
            broken.verify()


@pytest.mark.skipif(SANITIZED, reason="takes long and computes what the small models compute")
def test_embed_with_minilm_is_near_the_oracle(minilm: Path) -> None:
    kernel, oracle = _kernels.Encoder(minilm), eb.BertEncoder.from_path(minilm)
    kernel.verify()
    some = [
        "Summarise this contract and flag the risks",
        "translate 'good morning' into French, please!",
        "天気 tomorrow in Tokyo?",
        "x",
        "the " * 300,
    ]
    near = [float(kernel.embed(t)[0] @ oracle.embed_ids(kernel.tokenize(t))) for t in some]
    # As near as either is to float32: roundings differ after a layer or two.
    assert min(near) > 0.995
