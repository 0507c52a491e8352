"""Where requests come from: a query on a server, or a file.

A place to begin comes in, Arrow record batches in a fixed order come out, a few thousand rows at a time,
so that a source of any size takes the same memory.  A query is ordered by its key and continued behind
the last one that was done; a file is continued behind the last row.  Called by ``tinydancer.etl.runner``.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from psycopg import sql
from psycopg.adapt import Loader

from tinydancer.errors import InvalidInputError
from tinydancer.etl.columns import Roles, resolve, wrong_type

__all__ = ["BATCH_ROWS", "FileSource", "Place", "QuerySource", "Source"]

# Rows of a batch: what a call of the kernel costs is then nothing, and memory is little.
BATCH_ROWS = 8192

# How far a run has come: rows that are done, and the last of their keys.
Place = tuple[int, Any]


class Source(Protocol):
    """What requests are read from."""

    roles: Roles
    schema: pa.Schema

    def job(self) -> Mapping[str, Any]:
        """What of the source a cut run must have in common with the one that continues it."""

    def n_rows(self) -> int | None:
        """About how many rows there are, None: unknown."""

    def batches(self, after: Place | None) -> Iterator[pa.RecordBatch]:
        """Rows behind a place, None: all."""


# ---------------------------------------------------------------- a query

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
# What each kind of input is read as, and is in Arrow.
_CASTS: Mapping[str, tuple[str, pa.DataType]] = {
    "number": ("float8", pa.float64()),
    "text": ("text", pa.string()),
    "texts": ("text[]", pa.list_(pa.string())),
    "vector": ("real[]", pa.list_(pa.float32())),
}
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
    if all(one is None or len(one) == header + _ELEMENT.itemsize * _n_floats(one) for one in values):
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
            cast_to, arrow = _CASTS[kind]
            select.append(sql.Identifier("q", name) + sql.SQL("::" + cast_to))
            fields.append(pa.field(name, arrow))
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
                check_keys(batch.column(0), str(self.roles.key), last)
                last = batch.column(0)[-1].as_py()
                yield batch

    def _refuse_null_keys(self) -> None:
        """Rows without a key come last, and behind the last key there are none: look for them first."""
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


def null_key(name: str) -> InvalidInputError:
    """The error for a row without a key."""
    return InvalidInputError(
        f'key "{name}" is NULL',
        "A row without a key could not be found again in the output.",
        f"Leave such rows out, WHERE {name} IS NOT NULL, or take another key with --key.",
    )


def check_keys(keys: pa.Array, name: str, last: Any) -> None:
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


# ---------------------------------------------------------------- files


class FileSource:
    """Rows of a Parquet, CSV or JSONL file, in the order of the file.

    Args:
        path: ends in .parquet, .csv, .jsonl or .ndjson.
        key: see ``QuerySource``; it need not be unique, since a file is continued by its rows.
        request: see ``QuerySource``.
        inputs: inputs there are.

    Raises:
        InvalidInputError: for another kind of file, a damaged one, or columns that are missing.
        OSError: if it cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        key: str | None = None,
        request: str | None = None,
        inputs: Mapping[str, str],
    ) -> None:
        self.path = Path(path)
        self._inputs = inputs
        self._stat = self.path.stat()
        kinds = {
            ".parquet": self._open_parquet,
            ".csv": self._open_csv,
            ".jsonl": self._open_json,
            ".ndjson": self._open_json,
        }
        opened = kinds.get(self.path.suffix.lower())
        if opened is None:
            raise InvalidInputError(
                f'cannot tell what kind of file "{path}" is',
                f"Its name ends in \"{self.path.suffix}\".",
                f"Known endings are {', '.join(kinds)}.",
            )
        with self._errors():
            schema = opened(key, request)
        self.roles = resolve(schema.names, key=key, request=request, inputs=inputs)
        self.schema = pa.schema([schema.field(name) for name in self.roles.columns])
        self._check_types()

    def _check_types(self) -> None:
        key = self.schema.field(str(self.roles.key)).type
        if pa.types.is_dictionary(key):
            key = key.value_type
        if not (pa.types.is_integer(key) or pa.types.is_string(key) or pa.types.is_large_string(key)):
            raise wrong_type(str(self.roles.key), str(key), "key")

    class _Errors:
        def __init__(self, path: Path) -> None:
            self.path = path

        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
            # Arrow's own exceptions are ValueErrors, those of the system OSErrors.
            if isinstance(error, (pa.ArrowException, json.JSONDecodeError)) and not isinstance(
                error, MemoryError
            ):
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise InvalidInputError(
                    f'file "{self.path}" cannot be read',
                    f"The reader says: {lines[0].rstrip('.')}.",
                    "Write the file again, or leave out what cannot be read.",
                ) from error

    def _errors(self) -> _Errors:
        return self._Errors(self.path)

    # ------------------------------------------------------------ kinds

    def _open_parquet(self, key: str | None, request: str | None) -> pa.Schema:
        with pyarrow.parquet.ParquetFile(self.path) as file:
            self._n_rows: int | None = file.metadata.num_rows
            schema: pa.Schema = file.schema_arrow
        self._read = self._parquet
        return schema

    def _parquet(self, skip: int) -> Iterator[pa.RecordBatch]:
        with pyarrow.parquet.ParquetFile(self.path) as file:
            groups = list(range(file.metadata.num_row_groups))
            while groups and file.metadata.row_group(groups[0]).num_rows <= skip:
                skip -= file.metadata.row_group(groups.pop(0)).num_rows
            if groups:
                yield from _without(
                    file.iter_batches(BATCH_ROWS, groups, columns=self.roles.columns), skip
                )

    def _open_csv(self, key: str | None, request: str | None) -> pa.Schema:
        self._n_rows = None
        self._read = self._csv
        with self._csv_reader() as reader:
            schema: pa.Schema = reader.schema
        # What the first rows of these columns look like says nothing of the others.
        self._types = {
            name: pa.float64() if kind == "number" else pa.string()
            for name, kind in self._inputs.items()
        }
        names = [one for one in (request, "request") if one is not None]
        self._types |= {name: pa.string() for name in names}
        return pa.schema([field.with_type(self._types.get(field.name, field.type)) for field in schema])

    def _csv_reader(self, columns: list[str] | None = None) -> Any:
        types: Mapping[str, pa.DataType] = {} if columns is None else dict(
            zip(self.schema.names, self.schema.types, strict=True)
        )
        return pyarrow.csv.open_csv(
            self.path,
            # A row must fit into a block.
            read_options=pyarrow.csv.ReadOptions(block_size=16 << 20),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=types, include_columns=columns, strings_can_be_null=False
            ),
        )

    def _csv(self, skip: int) -> Iterator[pa.RecordBatch]:
        with self._csv_reader(self.roles.columns) as reader:
            yield from _without(_cut(reader), skip)

    def _open_json(self, key: str | None, request: str | None) -> pa.Schema:
        self._n_rows = None
        self._read = self._json
        with self.path.open(encoding="utf-8") as file:
            first = next((line for line in file if line.strip()), "{}")
        record = self._record(first, 1)
        fields = []
        for name, value in record.items():
            kind = _CASTS.get(self._inputs.get(name, ""))
            is_text = name in (request, "request") or (name != key and isinstance(value, str))
            guessed = pa.string() if is_text or value is None else pa.array([value]).type
            fields.append(pa.field(name, kind[1] if kind is not None else guessed))
        return pa.schema(fields)

    def _record(self, line: str, number: int) -> dict[str, Any]:
        record = json.loads(line)
        if not isinstance(record, dict):
            raise InvalidInputError(
                f'file "{self.path}" cannot be read',
                f"Line {number} is no JSON object.",
                'Write lines such as {"id": 1, "request": "..."}.',
            )
        return record

    def _json(self, skip: int) -> Iterator[pa.RecordBatch]:
        with self.path.open(encoding="utf-8") as file:
            lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            wanted = itertools.islice(lines, skip, None)
            while block := list(itertools.islice(wanted, BATCH_ROWS)):
                records = [self._record(line, number) for number, line in block]
                yield pa.RecordBatch.from_arrays(
                    [
                        pa.array([one.get(field.name) for one in records], field.type)
                        for field in self.schema
                    ],
                    schema=self.schema,
                )

    # ------------------------------------------------------------ all of them

    def job(self) -> Mapping[str, Any]:
        """What a run that continues must have in common: the file as it is, key and request."""
        return {
            "file": str(self.path.resolve()),
            "size": self._stat.st_size,
            "modified_ns": self._stat.st_mtime_ns,
            "key": self.roles.key,
            "request": self.roles.request,
        }

    def n_rows(self, after: Place | None = None) -> int | None:
        """How many rows are left, None: the file does not say."""
        return None if self._n_rows is None else self._n_rows - (0 if after is None else after[0])

    def batches(self, after: Place | None) -> Iterator[pa.RecordBatch]:
        """Rows behind the first ``after[0]``.

        Raises:
            InvalidInputError: if the file is damaged, a value has another type than those before, or a
                key is NULL.
        """
        with self._errors():
            for found in self._read(0 if after is None else after[0]):
                batch = found.select(self.schema.names)
                keys = batch.column(0)
                if keys.null_count:
                    raise null_key(str(self.roles.key))
                yield batch


def _cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches that are not large."""
    for batch in batches:
        for at in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(at, BATCH_ROWS)


def _without(batches: Iterable[pa.RecordBatch], skip: int) -> Iterator[pa.RecordBatch]:
    """All but the first rows."""
    for batch in batches:
        if skip < batch.num_rows:
            yield batch.slice(skip)
        skip = max(skip - batch.num_rows, 0)
