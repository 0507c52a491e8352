"""Types of the Cython module tinydancer._kernels; its docstrings have shapes, units and errors."""

import os
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Float32: TypeAlias = npt.NDArray[np.float32]
Int8: TypeAlias = npt.NDArray[np.int8]
UInt32: TypeAlias = npt.NDArray[np.uint32]

# bytes, or what gives them without a copy.
BytesLike: TypeAlias = bytes | bytearray | memoryview | npt.NDArray[Any]

# A parameter of FastGRNN: anything NumPy can copy to float32.
Parameter: TypeAlias = npt.ArrayLike
Factored: TypeAlias = npt.ArrayLike | tuple[npt.ArrayLike, npt.ArrayLike]

AGENT_DTYPE: Final[np.dtype[np.void]]
CANDIDATE_DTYPE: Final[np.dtype[np.void]]
FILE_VERSION: Final[int]
LIMIT_NAMES: Final[tuple[str, ...]]
MAX_DIM: Final[int]
NONE: Final[int]

def status_text(status: int) -> str: ...
def dot(a: Float32, b: Float32) -> float: ...
def norm(a: Float32) -> float: ...
def cosine(a: Float32, b: Float32) -> float: ...
def normalise(a: Float32) -> Float32: ...
def quantise(a: Float32) -> tuple[Int8, float]: ...
def dot_i8(a: Int8, b: Int8) -> int: ...
def sigmoid(x: Float32) -> Float32: ...
def tanh(x: Float32) -> Float32: ...
def exp(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...
def topk_cosine(query: Float32, rows: Int8, scales: Float32, k: int) -> tuple[UInt32, Float32]: ...
def hash64(data: BytesLike, seed: int = 0) -> int: ...
def fold(text: str) -> str: ...

class Encoder:
    path: Final[str | None]
    def __init__(self, source: str | os.PathLike[str] | BytesLike) -> None: ...
    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def fit_mu(self) -> float: ...
    @property
    def fit_s(self) -> float: ...
    @property
    def checksum(self) -> str: ...
    @property
    def about(self) -> str: ...
    def pieces(self) -> list[str]: ...
    def count_tokens(self, text: str) -> int: ...
    def tokenize(self, text: str) -> UInt32: ...
    def embed(self, texts: str | Sequence[str]) -> Float32: ...
    def embed_info(self, text: str) -> tuple[Float32, int, int, int]: ...

class FastGRNN:
    def __init__(
        self,
        W: Factored,
        U: Factored,
        b_z: Parameter,
        b_h: Parameter,
        zeta: float,
        nu: float,
        W_h: Factored | None = None,
        U_h: Factored | None = None,
        int8: bool = False,
    ) -> None: ...
    @property
    def n_in(self) -> int: ...
    @property
    def n_hidden(self) -> int: ...
    @property
    def rank_w(self) -> int: ...
    @property
    def rank_u(self) -> int: ...
    @property
    def tied(self) -> bool: ...
    @property
    def int8(self) -> bool: ...
    def step(self, x: Float32, h: Float32) -> Float32: ...
    def forward(self, x: Float32, h: Float32 | None = None) -> Float32: ...
    def forward_single(self, x: Float32) -> Float32: ...
    def forward_batch(self, x: Float32) -> Float32: ...

class Registry:
    agents: Final[npt.NDArray[np.void]]
    def __init__(
        self,
        agents: npt.NDArray[Any],
        capabilities: npt.ArrayLike,
        rows: Int8,
        scales: npt.ArrayLike,
        phrases: Sequence[str],
    ) -> None: ...
    @property
    def n_agents(self) -> int: ...
    @property
    def n_phrases(self) -> int: ...
    @property
    def dim(self) -> int: ...
    def score(
        self,
        embedding: Float32,
        *,
        mu: float,
        s: float,
        cost_weight: float = 0.0,
        latency_weight: float = 0.0,
        quality_weight: float = 0.0,
        fit_weight: float = 0.0,
        per_dollar: bool = False,
        cost_scale: float = 0.001,
        latency_scale: float = 1000.0,
        input_tokens: float = 0.0,
        required: npt.ArrayLike = (),
        excluded: npt.ArrayLike = (),
        pool: int | None = None,
        max_cost: float = ...,
        budget_remaining: float = ...,
        max_latency_ms: float = ...,
        min_quality: float = ...,
        min_expected_quality: float = ...,
    ) -> Scores: ...

class Scores:
    candidates: Final[npt.NDArray[Any]]
    order: Final[UInt32]
    best: Final[int | None]
    n_eligible: Final[int]
    def reason(
        self,
        agent: int,
        objective: str,
        rank: int,
        info: tuple[int, int, int] | None = None,
    ) -> str: ...
