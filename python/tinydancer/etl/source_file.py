"""Requests of a Parquet, CSV or JSONL file, in the order of the file.

A path comes in, Arrow record batches come out, of the columns that count.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tinydancer.errors import InvalidInputError
from tinydancer.etl.columns import resolve, wrong_type
from tinydancer.etl.source import ARROW_TYPES, BATCH_BYTES, BATCH_ROWS, Place, null_key, rows_within

__all__ = ["FileSource"]


class FileSource:
    """Rows of a Parquet, CSV or JSONL file, in the order of the file.

    Args:
        path: ends in .parquet, .csv, .jsonl or .ndjson.
        key: as for a query; it need not be unique, since a file is continued by its rows.
        request: its column of texts; None: "request".
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
                f'Its name ends in "{self.path.suffix}".',
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
        if not (
            pa.types.is_integer(key) or pa.types.is_string(key) or pa.types.is_large_string(key)
        ):
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
            for group in groups:
                facts = file.metadata.row_group(group)
                size = rows_within(facts.total_byte_size, facts.num_rows)
                found = file.iter_batches(size, [group], columns=self.roles.columns)
                yield from _without(found, skip)
                skip = 0

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
        return pa.schema(
            [field.with_type(self._types.get(field.name, field.type)) for field in schema]
        )

    def _csv_reader(self, columns: list[str] | None = None) -> Any:
        types: Mapping[str, pa.DataType] = (
            {} if columns is None else dict(zip(self.schema.names, self.schema.types, strict=True))
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
            kind = ARROW_TYPES.get(self._inputs.get(name, ""))
            is_text = name in (request, "request") or (name != key and isinstance(value, str))
            guessed = pa.string() if is_text or value is None else pa.array([value]).type
            fields.append(pa.field(name, guessed if kind is None else kind))
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
            while block := _lines(wanted):
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
            InvalidInputError: if the file is damaged, a value has another type than those before,
                or a key is NULL.
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


def _lines(wanted: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
    """The next lines with their numbers, few where they are long."""
    block: list[tuple[int, str]] = []
    size = 0
    while size < BATCH_BYTES and len(block) < BATCH_ROWS:
        line = next(wanted, None)
        if line is None:
            break
        block.append(line)
        size += len(line[1])
    return block
