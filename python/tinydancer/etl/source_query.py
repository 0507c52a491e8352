"""Requests of a query, through a cursor in the server, in the order of its key.

A query comes in, Arrow record batches come out; which rows are read is what the connection's
transaction sees.  Values are cast in SQL, and vectors are taken as the bytes that the server sends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql
from psycopg.adapt import Loader

from tinydancer.errors import InvalidInputError
from tinydancer.etl.columns import resolve, wrong_type
from tinydancer.etl.source import ARROW_TYPES, BATCH_ROWS, Place, null_key

__all__ = ["QuerySource"]

_TEXTS = {"text", "varchar", "bpchar", "name"}
_NUMBERS = {"int2", "int4", "int8", "float4", "float8", "numeric"}
_KEYS: Mapping[str, pa.DataType] = {
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "text": pa.string(),
    "varchar": pa.string(),
    "uuid": pa.string(),
}
# What each kind of input is read as.
_CASTS = {"number": "float8", "text": "text", "texts": "text[]", "vector": "real[]"}
_FLOAT4_ARRAY = 1021
_ARRAY_HEADER = np.dtype(
    [("ndim", ">i4"), ("flags", ">i4"), ("type", ">u4"), ("dim", ">i4"), ("lower", ">i4")]
)
_ELEMENT = np.dtype([("size", ">i4"), ("value", ">f4")])


class _Raw(Loader):
    """Leaves a value as the bytes that the server sent."""

    format = psycopg.pq.Format.BINARY

    def load(self, data: Any) -> bytes:
        return bytes(data)


def _float_lists(values: Sequence[bytes | None]) -> pa.Array:
    """real[] as the server sends them, as lists; one of NULLs keeps them."""
    header = _ARRAY_HEADER.itemsize
    ends = np.cumsum([0, *(0 if one is None else max(len(one) - header, 0) for one in values)])
    data = b"".join([b"" if one is None else one[header:] for one in values])
    if all(
        one is None or len(one) == header + _ELEMENT.itemsize * _n_floats(one) for one in values
    ):
        elements = np.frombuffer(data, dtype=_ELEMENT)["value"].astype(np.float32)
        offsets = pa.array(
            (ends // _ELEMENT.itemsize).astype(np.int32),
            mask=np.array([one is None for one in values] + [False]),
        )
        return pa.ListArray.from_arrays(offsets, pa.array(elements))
    lists = []
    for one in values:
        if one is not None and int.from_bytes(one[:4], "big") > 1:
            raise InvalidInputError(
                "vector must have one dimension",
                f"An embedding has {int.from_bytes(one[:4], 'big')}.",
                "Pass an array of real numbers.",
            )
        floats: list[float | None] = []
        at = header
        while one is not None and at < len(one):
            size = int.from_bytes(one[at : at + 4], "big", signed=True)
            at += 4 + max(size, 0)
            floats.append(None if size < 0 else float(np.frombuffer(one[at - 4 : at], ">f4")[0]))
        lists.append(None if one is None else floats)
    return pa.array(lists, pa.list_(pa.float32()))


def _n_floats(value: bytes) -> int:
    """Elements of an array of one dimension; an empty one has no dimension."""
    ndim = int.from_bytes(value[:4], "big")
    return int.from_bytes(value[12:16], "big") if ndim == 1 else 0


class QuerySource:
    """Rows of a query, in the order of its key, through a cursor in the server.

    Args:
        conn: in a transaction of its own, which the source does not end.
        query: a SELECT of key, request and inputs.
        key: its key, None: the first column that is nothing else.
        request: its column of texts, None: see ``columns.resolve``.
        inputs: inputs there are.

    Raises:
        InvalidInputError: for columns that are missing, of a wrong type or without a role.
        psycopg.Error: for a query that fails.
    """

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        query: str,
        *,
        key: str | None = None,
        request: str | None = None,
        inputs: Mapping[str, str],
    ) -> None:
        self._conn = conn
        # The line break ends a comment that the query may end with.
        text = query.strip().rstrip(";").rstrip()
        self._query = sql.SQL("({}\n)").format(sql.SQL(text))
        probe = conn.execute(sql.SQL("SELECT * FROM {} AS q LIMIT 0").format(self._query))
        columns = [(one.name, one.type_code) for one in probe.description or ()]
        self.roles = resolve(
            [name for name, _ in columns],
            key=key,
            request=request,
            inputs=inputs,
            is_query=True,
        )
        names = self._type_names({code for _, code in columns})
        types = {name: names[code] for name, code in columns}
        self._select, fields = self._columns(types, inputs)
        self.schema = pa.schema(fields)

    def _type_names(self, codes: set[int]) -> dict[int, str]:
        rows = self._conn.execute(
            "SELECT t.oid::bigint, CASE t.typtype WHEN 'd' THEN b.typname ELSE t.typname END "
            "FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype "
            "WHERE t.oid = ANY (%s::oid[])",
            (list(codes),),
        ).fetchall()
        return {int(code): str(name) for code, name in rows}

    def _columns(
        self, types: Mapping[str, str], inputs: Mapping[str, str]
    ) -> tuple[list[sql.Composable], list[pa.Field]]:
        key, request = self.roles.key, self.roles.request
        assert key is not None
        if types[key] not in _KEYS:
            raise wrong_type(key, types[key], "key")
        cast = sql.SQL("::text") if types[key] == "uuid" else sql.SQL("")
        select: list[sql.Composable] = [sql.Identifier("q", key) + cast]
        fields = [pa.field(key, _KEYS[types[key]])]
        # Equal under another collation need not be equal, and what was done must be left out.
        is_text = types[key] in ("text", "varchar")
        self._order = sql.Identifier("q", key) + sql.SQL(' COLLATE "C"' if is_text else "")
        self._key_type = types[key]
        if request is not None:
            if types[request] not in _TEXTS:
                raise wrong_type(request, types[request], "text")
            select.append(sql.Identifier("q", request) + sql.SQL("::text"))
            fields.append(pa.field(request, pa.string()))
        for name in self.roles.inputs:
            kind = inputs[name]
            given = types[name]
            if (kind == "number" and given not in _NUMBERS) or (
                kind == "text" and given not in _TEXTS
            ):
                raise wrong_type(name, given, kind)
            if kind == "texts" and given not in {f"_{one}" for one in _TEXTS}:
                raise wrong_type(name, given, kind)
            select.append(sql.Identifier("q", name) + sql.SQL("::" + _CASTS[kind]))
            fields.append(pa.field(name, ARROW_TYPES[kind]))
        return select, fields

    def job(self) -> Mapping[str, Any]:
        """What a run that continues must have in common: query, key and request."""
        return {
            "query": self._query.as_string(self._conn),
            "key": self.roles.key,
            "request": self.roles.request,
        }

    def _behind(self, after: Place | None) -> sql.Composable:
        if after is None or after[1] is None:
            return sql.SQL("")
        last = sql.Literal(after[1]) + sql.SQL("::" + self._key_type)
        return sql.SQL(" WHERE {} > {}").format(self._order, last)

    def n_rows(self, after: Place | None = None) -> int | None:
        """How many rows the planner expects."""
        wanted = sql.SQL("EXPLAIN (FORMAT JSON) SELECT 1 FROM {} AS q").format(self._query)
        row = self._conn.execute(wanted + self._behind(after)).fetchone()
        return None if row is None else int(row[0][0]["Plan"]["Plan Rows"])

    def batches(self, after: Place | None) -> Iterator[pa.RecordBatch]:
        """Rows behind the key of a place, in the order of the key.

        Raises:
            InvalidInputError: for a key that is NULL or there twice.
            psycopg.Error: if the connection is cut or the query fails.
        """
        self._refuse_null_keys()
        # All rows will be read: a plan that begins soon is not what is wanted.
        self._conn.execute("SET LOCAL cursor_tuple_fraction = 1")
        query = sql.SQL("SELECT {} FROM {} AS q{} ORDER BY {}").format(
            sql.SQL(", ").join(self._select), self._query, self._behind(after), self._order
        )
        last = None if after is None else after[1]
        with self._conn.cursor(name="tinydancer_etl", binary=True) as cursor:
            cursor.adapters.register_loader(_FLOAT4_ARRAY, _Raw)
            cursor.execute(query)
            while rows := cursor.fetchmany(BATCH_ROWS):
                batch = self._batch(rows)
                _check_keys(batch.column(0), str(self.roles.key), last)
                last = batch.column(0)[-1].as_py()
                yield batch

    def _refuse_null_keys(self) -> None:
        """Look for rows without a key: they come last, and behind a last key there are none."""
        query = sql.SQL("SELECT 1 FROM {} AS q WHERE {} IS NULL LIMIT 1").format(
            self._query, self._order
        )
        if self._conn.execute(query).fetchone() is not None:
            raise null_key(str(self.roles.key))

    def _batch(self, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
        columns = []
        for field, values in zip(self.schema, zip(*rows, strict=True), strict=True):
            if field.type == pa.list_(pa.float32()):
                columns.append(_float_lists(values))
            else:
                columns.append(pa.array(values, field.type))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _check_keys(keys: pa.Array, name: str, last: Any) -> None:
    """Keys of a batch in order: none is there twice, none is ``last`` again.

    Raises:
        InvalidInputError: for one that is.
    """
    twice = None
    if last is not None and len(keys) and keys[0].as_py() == last:
        twice = last
    elif len(keys) > 1:
        same = pc.index(pc.equal(keys[1:], keys[:-1]), True).as_py()
        twice = None if same < 0 else keys[same].as_py()
    if twice is not None:
        raise InvalidInputError(
            f'key "{name}" is not unique',
            f"{twice!r} is there more than once.",
            "Take a unique column with --key, or write SELECT DISTINCT ON.",
        )
