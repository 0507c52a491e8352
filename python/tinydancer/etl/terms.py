"""Objective and limits of requests, as the kernel takes them: for all of them, or for each.

Options and columns come in, arrays of numbers come out.  Used by ``tinydancer.etl.decide``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tinydancer import _kernels
from tinydancer.errors import InvalidInputError
from tinydancer.etl.block import is_list, is_text, plain, valid_rows
from tinydancer.etl.columns import INPUTS, Roles, wrong_type
from tinydancer.route import Router, _ceiling, _floor, _names

__all__ = ["Arrays", "Options", "Terms"]

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


class Terms:
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
            column = plain(batch.column(name))
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
        given = valid_rows(column).astype(bool)
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
        if not is_text(column.type):
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
        elif not (
            is_list(kind) and (is_text(kind.value_type) or pa.types.is_null(kind.value_type))
        ):
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
