"""Types of the Cython module tinydancer._kernels; its docstrings have shapes, units and errors."""

import os
from collections.abc import Sequence
from typing import Any, Final, TypeAlias, final

import numpy as np
import numpy.typing as npt

_Float32: TypeAlias = npt.NDArray[np.float32]
_Int8: TypeAlias = npt.NDArray[np.int8]
_UInt32: TypeAlias = npt.NDArray[np.uint32]

# bytes, or what gives them without a copy.
_BytesLike: TypeAlias = bytes | bytearray | memoryview | npt.NDArray[Any]

# A parameter of FastGRNN: anything NumPy can copy to float32.
_Parameter: TypeAlias = npt.ArrayLike
_Factored: TypeAlias = npt.ArrayLike | tuple[npt.ArrayLike, npt.ArrayLike]

AGENT_DTYPE: Final[np.dtype[np.void]]
CANDIDATE_DTYPE: Final[np.dtype[np.void]]
CHOICE_DTYPE: Final[np.dtype[np.void]]
RELEVANCE_DTYPE: Final[np.dtype[np.void]]
EXACT_ITEMS: Final[int]
MAX_NEEDS: Final[int]
MAX_TEAM: Final[int]
STRATEGIES: Final[tuple[str, ...]]
FILE_VERSION: Final[int]
LEVELS: Final[tuple[str, ...]]
BEST_LEVEL: Final[str]
BLOCK_LIMITS: Final[tuple[str, ...]]
BLOCK_WEIGHTS: Final[tuple[str, ...]]
LIMIT_NAMES: Final[tuple[str, ...]]
MAX_DIM: Final[int]
MAX_PIECES: Final[int]
NEAR_TIE: Final[float]
NONE: Final[int]
NO_REQUEST: Final[int]
ROUTE_DTYPE: Final[np.dtype[np.void]]
ROUTE_REPORT_DTYPE: Final[np.dtype[np.void]]
SCORER_NAMES: Final[tuple[str, ...]]
TASKS: Final[tuple[str, ...]]

def status_text(status: int) -> str: ...
def dot(a: _Float32, b: _Float32) -> float: ...
def norm(a: _Float32) -> float: ...
def cosine(a: _Float32, b: _Float32) -> float: ...
def normalise(a: _Float32) -> _Float32: ...
def quantise(a: _Float32) -> tuple[_Int8, float]: ...
def dot_i8(a: _Int8, b: _Int8) -> int: ...
def sigmoid(x: _Float32) -> _Float32: ...
def tanh(x: _Float32) -> _Float32: ...
def exp(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...
def topk_cosine(
    query: _Float32, rows: _Int8, scales: _Float32, k: int
) -> tuple[_UInt32, _Float32]: ...
def hash64(data: _BytesLike, seed: int = 0) -> int: ...
def fold(text: str) -> str: ...

@final
class File:
    def __init__(self, source: str | os.PathLike[str] | _BytesLike) -> None: ...
    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def n_sections(self) -> int: ...
    @property
    def checksum(self) -> str: ...
    def section(self, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any] | None: ...

class Encoder:
    @property
    def path(self) -> str | None: ...
    def __init__(
        self, source: str | os.PathLike[str] | _BytesLike, *, level: str | None = None
    ) -> None: ...
    @property
    def level(self) -> str: ...
    def verify(self) -> None: ...
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
    def tokenize(self, text: str) -> _UInt32: ...
    def embed(self, texts: str | Sequence[str], *, threads: int = 1) -> _Float32: ...
    def embed_info(self, text: str) -> tuple[_Float32, int, int, int]: ...

@final
class FastGRNN:
    def __init__(
        self,
        W: _Factored,
        U: _Factored,
        b_z: _Parameter,
        b_h: _Parameter,
        zeta: float,
        nu: float,
        W_h: _Factored | None = None,
        U_h: _Factored | None = None,
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
    def step(self, x: _Float32, h: _Float32) -> _Float32: ...
    def forward(self, x: _Float32, h: _Float32 | None = None) -> _Float32: ...
    def forward_single(self, x: _Float32) -> _Float32: ...
    def forward_batch(self, x: _Float32) -> _Float32: ...

@final
class Registry:
    agents: Final[npt.NDArray[np.void]]
    def __init__(
        self,
        agents: npt.NDArray[Any],
        capabilities: npt.ArrayLike,
        rows: _Int8,
        scales: npt.ArrayLike,
        phrases: Sequence[str],
    ) -> None: ...
    @property
    def arrays(self) -> tuple[npt.NDArray[Any], ...]: ...
    @property
    def capabilities(self) -> _UInt32: ...
    @property
    def n_agents(self) -> int: ...
    @property
    def n_phrases(self) -> int: ...
    @property
    def dim(self) -> int: ...
    def score(
        self,
        embedding: _Float32,
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
        outputs: _UInt32 | None = None,
        probabilities: _Float32 | None = None,
    ) -> Scores: ...
    def relevance(
        self,
        queries: _Float32,
        phrase: npt.ArrayLike,
        names: Sequence[str],
        *,
        mu: float,
        s: float,
    ) -> npt.NDArray[Any]: ...
    def prior(self, input_tokens: float, max_latency_ms: float = ...) -> npt.NDArray[Any]: ...

@final
class Scores:
    candidates: Final[npt.NDArray[Any]]
    order: Final[_UInt32]
    best: Final[int | None]
    n_eligible: Final[int]
    def reason(
        self,
        agent: int,
        objective: str,
        rank: int,
        info: tuple[int, int, int] | None = None,
    ) -> str: ...
    def choices(self, hull_only: bool, needs_cost: bool) -> tuple[npt.NDArray[Any], Any]: ...
    def team(
        self,
        strategy: str,
        n_wanted: int,
        relevance: npt.NDArray[Any],
        names: Sequence[str],
        *,
        required: npt.ArrayLike = (),
        max_cost: float = ...,
        max_latency_ms: float = ...,
    ) -> Team: ...
    def reason_plan(
        self,
        choice: Any,
        latency: float,
        goal: str,
        plan: Plan,
        n: int,
        info: tuple[int, int, int] | None = None,
    ) -> str: ...

def team_parts(text: str) -> list[str]: ...

@final
class Team:
    def __len__(self) -> int: ...
    @property
    def is_exact(self) -> bool: ...
    @property
    def needs(self) -> list[tuple[int, bool]]: ...
    @property
    def cost(self) -> float: ...
    @property
    def latency_ms(self) -> float: ...
    def agent(self, member: int) -> int: ...
    def weight(self, member: int) -> float: ...
    def capabilities(self, member: int) -> list[int]: ...
    def role(self, member: int) -> str: ...
    def reason(
        self, member: int, objective: str, info: tuple[int, int, int] | None = None
    ) -> str: ...

@final
class Plan:
    @property
    def cost(self) -> float: ...
    @property
    def quality(self) -> float: ...
    @property
    def bound(self) -> float: ...
    @property
    def reachable(self) -> float: ...
    @property
    def limit(self) -> float: ...
    @property
    def is_feasible(self) -> bool: ...
    @property
    def is_exact(self) -> bool: ...

def solve_plan(
    first: npt.ArrayLike,
    choices: npt.NDArray[Any],
    group: npt.ArrayLike,
    goal: str,
    limit: float,
    fallback: npt.NDArray[Any] | None = None,
) -> tuple[_UInt32, Plan]: ...
def divide_budget(
    first: npt.ArrayLike,
    choices: npt.NDArray[Any],
    count: npt.ArrayLike,
    budget: float,
    n_agents: int,
) -> tuple[npt.NDArray[Any], Plan]: ...

@final
class Routes:
    def __init__(
        self,
        routes: npt.NDArray[np.void],
        rows: _Int8,
        scales: _Float32,
        negative_rows: _Int8,
        negative_scales: _Float32,
        *,
        scorer: str = "nearest",
        mu: float = 0.5,
        s: float = 0.1,
        weights: _Float32 | None = None,
    ) -> None: ...
    @property
    def routes(self) -> npt.NDArray[np.void]: ...
    @property
    def weights(self) -> _Float32 | None: ...
    @property
    def n_routes(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def arrays(self) -> tuple[npt.NDArray[Any], ...]: ...
    @property
    def n_landmarks(self) -> int: ...
    @property
    def fingerprint(self) -> int: ...
    def score(self, query: _Float32) -> _Float32: ...
    def select(
        self, scores: _Float32, k: int, open: npt.NDArray[np.bool_] | None = None
    ) -> _UInt32: ...
    def confidence(self, score: float) -> float: ...
    def tune(
        self,
        *,
        scorer: str | None = None,
        precision: float | None = None,
        coverage: float | None = None,
    ) -> tuple[dict[str, Any], npt.NDArray[np.void]]: ...

@final
class Model:
    def __init__(
        self, source: str | os.PathLike[str] | _BytesLike, *, level: str | None = None
    ) -> None: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def task(self) -> str: ...
    @property
    def encoder_id(self) -> str: ...
    @property
    def encoder_checksum(self) -> str: ...
    @property
    def checksum(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def n_out(self) -> int: ...
    @property
    def n_rows(self) -> int: ...
    @property
    def reads_text(self) -> bool: ...
    @property
    def prior(self) -> _Float32: ...
    @property
    def support(self) -> _UInt32: ...
    def apply(
        self,
        vectors: _Float32,
        texts: Sequence[str | None] | None = None,
        encoder: Encoder | None = None,
    ) -> _Float32: ...

def word_features(
    encoder: Encoder, texts: Sequence[str], n_buckets: int, features: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], _Float32]: ...

_Texts: TypeAlias = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.uint8]]
_Vectors: TypeAlias = tuple[_Float32, npt.NDArray[np.uint8]]
_Lists: TypeAlias = tuple[npt.NDArray[np.int64], _UInt32]

def route_block(
    registry: Registry,
    encoder: Encoder | None,
    *,
    texts: _Texts | None = None,
    vectors: _Vectors | None = None,
    mu: float,
    s: float,
    limits: npt.NDArray[np.float64],
    objective: _UInt32,
    objectives: Sequence[str],
    weights: npt.NDArray[np.float64],
    pool: npt.NDArray[np.int64],
    required: _Lists | None = None,
    excluded: _Lists | None = None,
    cost_scale: float = 0.001,
    latency_scale: float = 1000.0,
    reasoning: bool = False,
    model: Model | None = None,
    outputs: _UInt32 | None = None,
) -> dict[str, Any]: ...
def embed_block(
    encoder: Encoder | None,
    dim: int,
    *,
    texts: _Texts | None = None,
    vectors: _Vectors | None = None,
    quantised: bool = False,
) -> tuple[_Float32, npt.NDArray[np.int32], _Float32 | None]: ...
def match_block(
    routes: Routes,
    vectors: _Float32,
    wanted: npt.NDArray[np.uint8],
    *,
    k: int,
    open: npt.NDArray[Any] | None = None,
    shortlist: tuple[npt.NDArray[np.int64], _UInt32, _Float32] | None = None,
) -> dict[str, Any]: ...
