"""A block of requests becomes a block of decisions, or of matches with semantic routes.

Arrow record batches come in, Arrow record batches with one schema come out.  Columns are handed to the
kernel (``_kernels.route_block``) as buffers: texts are not copied, and no Python object is made for a
request.  Every road of ``tinydancer.etl`` decides here, and nowhere else.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tinydancer import _kernels
from tinydancer.errors import DimensionError, InvalidInputError, error_for_status
from tinydancer.etl.columns import INPUTS, Roles, wrong_type
from tinydancer.route import Router, _ceiling, _floor, _names

__all__ = ["Decider", "Options"]

# TD_ERR_EMPTY.
_BLANK = 5

# Why a request has no decision.
NO_REQUEST = "no request"
BLANK_REQUEST = "blank request"
NO_AGENT = "no eligible agent"

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """Objective and limits of all requests; names and meanings are those of ``Router.route``."""

    optimize_for: str | None = None
    required_capabilities: tuple[str, ...] | None = None
    max_cost: float | None = None
    max_latency_ms: float | None = None
    min_quality: float | None = None
    excluded_agents: tuple[str, ...] | None = None
    budget_remaining: float | None = None
    pool: str | None = None
    min_expected_quality: float | None = None


# ---------------------------------------------------------------- Arrow arrays to buffers


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _plain(array: pa.Array) -> pa.Array:
    """A dictionary or a view of texts as the texts."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _plain(array.cast(kind.value_type))
    if str(kind) == "string_view":
        return array.cast(pa.string())
    return array


def _valid(array: pa.Array) -> npt.NDArray[np.uint8]:
    return pc.is_valid(array).to_numpy(zero_copy_only=False).astype(np.uint8)


def _text_buffers(array: pa.Array) -> tuple[Any, Any, Any]:
    """Bytes, offsets and validity of texts; the bytes are those of the array."""
    width = np.int64 if pa.types.is_large_string(array.type) else np.int32
    _, offsets, data = array.buffers()
    ends = np.zeros(1, dtype=np.int64)
    if offsets is not None and len(array):
        found = np.frombuffer(offsets, dtype=width)
        ends = found[array.offset : array.offset + len(array) + 1].astype(np.int64)
    content = np.zeros(0, dtype=np.uint8) if data is None else np.frombuffer(data, dtype=np.uint8)
    return content, ends, _valid(array)


def _vectors(
    array: pa.Array, dim: int, name_row: Callable[[int], str]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Rows of float32, zeros for NULL, and validity."""
    valid = _valid(array)
    rows = np.zeros((len(array), dim), dtype=np.float32)
    lengths = pc.fill_null(pc.list_value_length(array), dim).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != dim)
    if wrong.size:
        raise DimensionError(
            _kernels.status_text(3),
            f"The encoder makes {dim}, {name_row(int(wrong[0]))} has {lengths[wrong[0]]}.",
            "Pass vectors of the encoder that the registry's were made with.",
        )
    # list_flatten leaves NULL lists out, also where they have elements beneath.
    flat = pc.list_flatten(array)
    if flat.null_count:
        rest = np.flatnonzero(~pc.is_valid(flat).to_numpy(zero_copy_only=False))
        row = int(np.flatnonzero(valid)[rest[0] // dim])
        raise InvalidInputError(
            "vector must not contain NULL", f"That of {name_row(row)} does.", "Pass real numbers."
        )
    values = flat.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    rows[valid.astype(bool)] = values.reshape(-1, dim)
    return rows, valid


# ---------------------------------------------------------------- terms of each request


def _checked_numbers(
    name: str, values: npt.NDArray[np.float64], name_row: Callable[[int], str]
) -> None:
    """Limits of each request, without NULL; raises what ``Router.route`` raises."""
    if name in ("min_quality", "min_expected_quality"):
        wrong = ~((values == -math.inf) | ((values >= 0.0) & (values <= 1.0)))
    elif name == "budget_remaining":
        wrong = np.isnan(values)
    else:
        wrong = ~(values >= 0.0)
    for row in np.flatnonzero(wrong)[:1].tolist():
        try:
            _number(name, float(values[row]))
        except InvalidInputError as error:
            raise InvalidInputError(
                error.message, f"{error.detail} It is that of {name_row(row)}.", error.hint
            ) from None


def _number(name: str, value: float | None) -> float:
    """The limit of all requests."""
    if name in ("min_quality", "min_expected_quality"):
        return _floor(name, value)
    return _ceiling(name, value, may_be_negative=name == "budget_remaining")


class _Terms:
    """Objective and limits as the kernel takes them, for all requests or for each."""

    def __init__(self, router: Router, options: Options) -> None:
        self.router = router
        self.options = options
        self.objectives = sorted(router.policies)
        policies = [router.policies[name] for name in self.objectives]
        self.weights = np.array(
            [[float(getattr(one, name)) for name in _kernels.BLOCK_WEIGHTS] for one in policies]
        )
        self.pool_numbers = {**router._pools}
        # All requests alike.
        self.common: Arrays = {
            "limits": np.array(
                [[_number(name, getattr(options, name)) for name in _kernels.BLOCK_LIMITS]]
            ),
            "objective": np.array([self._objective(options.optimize_for)], dtype=np.uint32),
            "pool": np.array([self._pool(options.pool)], dtype=np.int64),
            "required": self._list(self._required(options.required_capabilities)),
            "excluded": self._list(self._excluded(options.excluded_agents)),
        }

    def _objective(self, name: str | None) -> int:
        return self.objectives.index(self.router._policy(name)[0])

    def _pool(self, name: str | None) -> int:
        return -1 if name is None else self.pool_numbers.get(name, _kernels.NONE)

    def _required(self, names: Any) -> list[int]:
        return [
            self.router._capabilities.get(_kernels.fold(name), _kernels.NONE)
            for name in _names("required_capabilities", names)
        ]

    def _excluded(self, names: Any) -> list[int]:
        numbers = self.router._numbers
        return [numbers[name] for name in _names("excluded_agents", names) if name in numbers]

    @staticmethod
    def _list(ids: list[int]) -> Any:
        if not ids:
            return None
        return np.array([0, len(ids)], dtype=np.int64), np.array(ids, dtype=np.uint32)

    def of(self, batch: pa.RecordBatch, roles: Roles, name_row: Callable[[int], str]) -> Arrays:
        """The terms of the requests of a batch: a NULL means what the options say."""
        own = [name for name in roles.inputs if name != "embedding"]
        if not own:
            return self.common
        n = batch.num_rows
        terms: Arrays = {
            "limits": np.repeat(self.common["limits"], n, axis=0),
            "objective": np.repeat(self.common["objective"], n),
            "pool": np.repeat(self.common["pool"], n),
        }
        for name in ("required", "excluded"):
            terms[name] = self._repeated(self.common[name], n)
        for name in own:
            column = _plain(batch.column(name))
            if INPUTS[name] == "number":
                place = _kernels.BLOCK_LIMITS.index(name)
                self._take_numbers(name, column, terms["limits"][:, place], name_row)
            elif name == "optimize_for":
                self._take_names(name, column, terms["objective"], self._objective, name_row)
            elif name == "pool":
                self._take_names(name, column, terms["pool"], self._pool, name_row)
            elif name == "required_capabilities":
                terms["required"] = self._take_lists(name, column, self._required, name_row)
            else:
                terms["excluded"] = self._take_lists(name, column, self._excluded, name_row)
        return terms

    @staticmethod
    def _repeated(ids: Any, n: int) -> Any:
        if ids is None:
            return None
        one = ids[1]
        return np.arange(n + 1, dtype=np.int64) * len(one), np.tile(one, n)

    @staticmethod
    def _take_numbers(
        name: str, column: pa.Array, out: npt.NDArray[np.float64], name_row: Callable[[int], str]
    ) -> None:
        kind = column.type
        if pa.types.is_null(kind):
            return
        if not (
            pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)
        ):
            raise wrong_type(name, str(kind), "number")
        given = _valid(column).astype(bool)
        values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        _checked_numbers(name, np.where(given, values, 0.0), name_row)
        out[given] = values[given]

    @staticmethod
    def _take_names(
        name: str,
        column: pa.Array,
        out: npt.NDArray[Any],
        number_of: Callable[[str], int],
        name_row: Callable[[int], str],
    ) -> None:
        if pa.types.is_null(column.type):
            return
        if not _is_text(column.type):
            raise wrong_type(name, str(column.type), "text")
        coded = column.dictionary_encode()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        for code, text in enumerate(coded.dictionary.to_pylist()):
            rows = codes == code
            try:
                out[rows] = number_of(text)
            except InvalidInputError as error:
                row = name_row(int(np.flatnonzero(rows)[0]))
                raise type(error)(
                    error.message, f"{error.detail} It is that of {row}.", error.hint
                ) from None

    def _take_lists(
        self,
        name: str,
        column: pa.Array,
        numbers_of: Callable[[Any], list[int]],
        name_row: Callable[[int], str],
    ) -> Any:
        kind = column.type
        common = list(getattr(self.options, name) or ())
        if pa.types.is_null(kind):
            column = pa.nulls(len(column), pa.list_(pa.string()))
        elif not (_is_list(kind) and (_is_text(kind.value_type) or pa.types.is_null(kind.value_type))):
            raise wrong_type(name, str(kind), "texts")
        known: dict[tuple[str, ...], list[int]] = {}
        ids: list[int] = []
        ends = [0]
        for row, names in enumerate(column.to_pylist()):
            names = common if names is None else names
            if None in names:
                if name == "required_capabilities":
                    raise InvalidInputError(
                        f"{name} must not contain NULL", f"That of {name_row(row)} does."
                    )
                names = [one for one in names if one is not None]
            if tuple(names) not in known:
                known[tuple(names)] = numbers_of(names)
            ids.extend(known[tuple(names)])
            ends.append(len(ids))
        return np.array(ends, dtype=np.int64), np.array(ids, dtype=np.uint32)


# ---------------------------------------------------------------- blocks


class Block:
    """The requests of a batch as the kernel takes them."""

    def __init__(self, batch: pa.RecordBatch, roles: Roles, encoder: Any) -> None:
        self.batch = batch
        self.roles = roles
        self.texts: Any = None
        self.vectors: Any = None
        self.array: pa.Array | None = None
        n = batch.num_rows
        if roles.request is not None:
            self.array = _plain(batch.column(roles.request))
            if pa.types.is_null(self.array.type):
                self.array = self.array.cast(pa.string())
            if not _is_text(self.array.type):
                raise wrong_type(roles.request, str(self.array.type), "text")
            self.texts = _text_buffers(self.array)
        if "embedding" in roles.inputs:
            column = batch.column("embedding")
            if pa.types.is_null(column.type):
                column = pa.nulls(n, pa.list_(pa.float32()))
            if not (_is_list(column.type) and _is_number(column.type.value_type)):
                raise wrong_type("embedding", str(column.type), "vector")
            self.vectors = _vectors(column, encoder.dim, self.name_row)
        # What makes vectors, or only counts word pieces where callers pass every vector.
        self.encoder = getattr(encoder, "counter", encoder) if self.texts is not None else None
        if self.texts is not None and hasattr(encoder, "counter"):
            given = np.zeros(n, dtype=np.uint8) if self.vectors is None else self.vectors[1]
            if (self.texts[2] > given).any():
                encoder.embed_info("")

    def name_row(self, row: int) -> str:
        """The words for a row in an error."""
        if self.roles.key is None:
            return f"row {row + 1}"
        return f"the row with {self.roles.key} {self.batch.column(self.roles.key)[row]}"

    def raise_failures(self, status: npt.NDArray[np.int32]) -> None:
        """Raise for the first request that is neither absent nor blank and has no vector."""
        failed = np.flatnonzero((status > 0) & (status != _BLANK))
        if failed.size:
            number = int(status[failed[0]])
            raise error_for_status(
                number,
                _kernels.status_text(number),
                f"It is in {self.name_row(int(failed[0]))}.",
                "Correct the row, or leave it out of the query.",
            )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind))


def problems(
    status: npt.NDArray[np.int32], missing: npt.NDArray[np.bool_], why: str | None
) -> pa.Array:
    """Why requests have no answer, NULL where they have one."""
    codes = np.full(len(status), 3, dtype=np.int8)
    codes[missing] = 2
    codes[status == _kernels.NO_REQUEST] = 0
    codes[status == _BLANK] = 1
    words = pa.array([NO_REQUEST, BLANK_REQUEST, why, None], pa.string())
    return words.take(pa.array(codes))


def key_fields(roles: Roles, schema: pa.Schema) -> list[pa.Field]:
    """The key's field in an output, if there is a key."""
    if roles.key is None:
        return []
    kind = schema.field(roles.key).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return [pa.field(roles.key, kind)]


class Decider:
    """Decides blocks of requests with one registry, one set of options.

    Args:
        router: the registry.
        options: objective and limits of all requests, where columns say nothing else.
        reasoning: whether decisions carry their sentence.
        cost_scale: USD at which cost_utility is 0.5.
        latency_scale: ms at which latency_utility is 0.5.

    Raises:
        InvalidInputError: for an unknown objective or a limit that is none.
    """

    inputs = INPUTS

    def __init__(
        self,
        router: Router,
        options: Options | None = None,
        *,
        reasoning: bool = False,
        cost_scale: float = 0.001,
        latency_scale: float = 1000.0,
    ) -> None:
        self.router = router
        self.options = Options() if options is None else options
        self.reasoning = reasoning
        self.cost_scale = cost_scale
        self.latency_scale = latency_scale
        self._terms = _Terms(router, self.options)
        self._agents = pa.array([agent.name for agent in router.agents], pa.string())

    def schema(self, roles: Roles, source: pa.Schema) -> pa.Schema:
        """What comes out of batches of a schema: the key, the columns of route_results, problem."""
        taken = key_fields(roles, source)
        taken.append(pa.field("agent_name", pa.string()))
        for name in (
            "confidence",
            "estimated_cost",
            "estimated_latency_ms",
            "expected_quality",
            "similarity",
        ):
            taken.append(pa.field(name, pa.float64()))
        if self.reasoning:
            taken.append(pa.field("reasoning", pa.large_string()))
        taken.append(pa.field("problem", pa.string()))
        _check_fields(taken)
        return pa.schema(taken)

    def block(self, batch: pa.RecordBatch, roles: Roles) -> pa.RecordBatch:
        """Decide a batch: one row for each of its rows, in its order.

        Raises:
            InvalidInputError: for a limit, a vector or a text that is none, and its subclasses; the
                detail names the row.
        """
        block = Block(batch, roles, self.router.encoder)
        terms = self._terms.of(batch, roles, block.name_row)
        spread = None
        if terms is self._terms.common and block.vectors is None and block.array is not None:
            # Where texts repeat, each different one is decided once.
            coded = block.array.dictionary_encode()
            if len(coded.dictionary) < 0.9 * len(coded) and coded.null_count == 0:
                spread = coded.indices.to_numpy(zero_copy_only=False)
                block.texts = _text_buffers(coded.dictionary)
        found = self._decide(block, terms)
        if spread is not None:
            found["spread"] = spread
        return self._rows(block, found, self.schema(roles, batch.schema))

    def _decide(self, block: Block, terms: Arrays) -> Arrays:
        """The one call that decides."""
        router = self.router
        found: Arrays = _kernels.route_block(
            router._registry,
            block.encoder,
            texts=block.texts,
            vectors=block.vectors,
            mu=router.encoder.fit_mu,
            s=router.encoder.fit_s,
            objectives=self._terms.objectives,
            weights=self._terms.weights,
            cost_scale=self.cost_scale,
            latency_scale=self.latency_scale,
            reasoning=self.reasoning,
            **terms,
        )
        return found

    def _rows(self, block: Block, found: Arrays, schema: pa.Schema) -> pa.RecordBatch:
        spread = found.pop("spread", None)
        sentences = found.pop("reasoning")
        if sentences is not None:
            offsets, data = sentences
            texts = pa.LargeStringArray.from_buffers(
                len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data)
            )
        if spread is not None:
            found = {name: values[spread] for name, values in found.items()}
            if sentences is not None:
                texts = texts.take(pa.array(spread))
        block.raise_failures(found["status"])
        missing = found["agent"] == _kernels.NONE
        chosen = pa.array(np.where(missing, 0, found["agent"]).astype(np.int64), mask=missing)
        quality = pa.array(found["expected_quality"], mask=missing)
        columns = [block.batch.column(field.name) for field in key_fields(block.roles, schema)]
        columns = [_plain(column) for column in columns]
        columns += [
            self._agents.take(chosen),
            quality,
            pa.array(found["cost"], mask=np.isnan(found["cost"])),
            pa.array(found["latency"], mask=np.isnan(found["latency"])),
            quality,
            pa.array(found["similarity"].astype(np.float64), mask=missing),
        ]
        if sentences is not None:
            columns.append(pc.if_else(pa.array(missing), pa.scalar(None, pa.large_string()), texts))
        columns.append(problems(found["status"], missing, NO_AGENT))
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def fingerprint(self) -> str:
        """What decisions depend on besides request and options, as 64 hexadecimal digits."""
        router = self.router
        hashed = hashlib.sha256()
        registry = router._registry
        facts = [
            router.encoder.id,
            router.encoder.checksum,
            router.encoder.fit_mu,
            router.encoder.fit_s,
            self.cost_scale,
            self.latency_scale,
            [agent.name for agent in router.agents],
            sorted(router._pools),
            sorted(router._capabilities),
            router._phrases,
            [(name, asdict(policy)) for name, policy in sorted(router.policies.items())],
        ]
        hashed.update(repr(facts).encode("utf-8", "surrogatepass"))
        for array in registry.arrays:
            hashed.update(array.tobytes())
        return hashed.hexdigest()

    def job(self) -> Arrays:
        """What of the decider a cut run must have in common with the one that continues it."""
        options = {one.name: getattr(self.options, one.name) for one in fields(Options)}
        return {"command": "route", "options": options, "reasoning": self.reasoning}


def _check_fields(taken: list[pa.Field]) -> None:
    names = [field.name for field in taken]
    if names.count(names[0]) > 1:
        raise InvalidInputError(
            f'the key cannot be called "{names[0]}"',
            "A column of the decisions has this name.",
            "Give it another one: SELECT x AS id, ...",
        )
