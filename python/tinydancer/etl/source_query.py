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
from psycopg.types.string import ByteaBinaryLoader

from tinydancer.errors import InvalidInputError
from tinydancer.etl.columns import resolve, wrong_type
from tinydancer.etl.source import ARROW_TYPES, Place, null_key, rows_within

__all__ = ["QuerySource"]

FIRST_ROWS = 256

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


def _float_lists(values: Sequence[bytes | None]) -> pa.Array:
    """real[] as the server sends them, as lists; one of NULLs keeps them."""
    sizes = {len(one) for one in values if one is not None}
    size = max(sizes, default=0)
    n = (size - _ARRAY_HEADER.itemsize) // _ELEMENT.itemsize
    if len(sizes) == 1 and n > 0:
        # All of one length, as vectors are: the headers and the elements lie at regular places.
        data = b"".join([one for one in values if one is not None])
        rows = np.frombuffer(data, dtype=[("header", _ARRAY_HEADER), ("element", _ELEMENT, n)])
        header = rows["header"]
        if (header["ndim"] == 1).all() and (header["dim"] == n).all():
            given = np.array([one is not None for one in values])
            ends = np.concatenate([[0], np.cumsum(given * n)]).astype(np.int32)
            floats = rows["element"]["value"].astype(np.float32).ravel()
            offsets = pa.array(ends, mask=np.append(~given, False))
            return pa.ListArray.from_arrays(offsets, pa.array(floats))
    return pa.array([_floats(one) for one in values], pa.list_(pa.float32()))


def _floats(value: bytes | None) -> list[float | None] | None:
    """One real[], whatever it holds."""
    if value is None:
        return None
    header = np.frombuffer(
        value[: _ARRAY_HEADER.itemsize].ljust(_ARRAY_HEADER.itemsize, b"\0"), dtype=_ARRAY_HEADER
    )
    if header["ndim"][0] > 1:
        raise InvalidInputError(
            "vector must have one dimension",
            f"An embedding has {header['ndim'][0]}.",
            "Pass an array of real numbers.",
        )
    floats: list[float | None] = []
    at = _ARRAY_HEADER.itemsize
    while at < len(value):
        size = int.from_bytes(value[at : at + 4], "big", signed=True)
        at += 4 + max(size, 0)
        floats.append(None if size < 0 else float(np.frombuffer(value[at - 4 : at], ">f4")[0]))
    return floats


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
            # The bytes as the server sends them.
            cursor.adapters.register_loader(_FLOAT4_ARRAY, ByteaBinaryLoader)
            cursor.execute(query)
            # Few at first: nobody knows how long texts are.
            size = FIRST_ROWS
            while rows := cursor.fetchmany(size):
                batch = self._batch(rows)
                size = rows_within(batch.nbytes, batch.num_rows)
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
