"""Tables and streams of Arrow, and files, without a server: the decisions of Router, to the bit.

In: requests in pyarrow tables and in files of each kind.  What is checked: every way in gives what
``Router.route`` gives for each row alone, with its own limits; damaged, odd and misnamed input is a
clear error; faiss changes no match.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tinydancer import Encoder, Route, RouteMatcher, Router, _kernels, cli
from tinydancer.errors import (
    DimensionError,
    InvalidInputError,
    NonFiniteError,
    TextEncodingError,
    TinyDancerError,
    UnknownObjectiveError,
)
from tinydancer.etl import FileSource, FileTarget, match_table, route_batches, route_table
from tinydancer.etl.columns import INPUTS, resolve
from tinydancer.etl.matches import MatchDecider
from tinydancer.etl.source import BATCH_ROWS

DEMO = Path(cli.__file__).parent / "demo"
COLUMNS = (
    "agent_name",
    "confidence",
    "estimated_cost",
    "estimated_latency_ms",
    "expected_quality",
    "similarity",
)


@pytest.fixture(scope="module")
def router() -> Router:
    return Router.demo()


@pytest.fixture(scope="module")
def bodies() -> list[str]:
    log = (DEMO / "request_log.jsonl").read_text().splitlines()
    return [json.loads(line)["body"] for line in log]


def alone(router: Router, text: str | None, **limits: Any) -> tuple[Any, ...]:
    """What Router says of one request."""
    decision = router.route(text, **limits)
    if decision is None:
        return (None,) * (len(COLUMNS) + 1)
    return tuple(getattr(decision, name) for name in (*COLUMNS, "reasoning"))


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.select([*COLUMNS, "reasoning"]).to_pylist()]


# ---------------------------------------------------------------- tables


def test_table_has_the_decisions_of_router_in_its_order(
    router: Router, bodies: list[str], rng: Any
) -> None:
    limits: dict[str, list[Any]] = {
        "optimize_for": ["cost", None, "quality", "latency", "quality_per_dollar"],
        "max_cost": [None, 0.0002, 0.01, float("inf"), 0.0],
        "max_latency_ms": [None, 800, 5000, None],
        "min_quality": [None, 0.8, None, float("-inf")],
        "budget_remaining": [None, -1.0, 1.0, None, None, None],
        "pool": [None, None, None, "no such pool"],
        "min_expected_quality": [None, 0.3],
        "required_capabilities": [None, [], ["CODE-generation"], ["translation", "nothing has it"]],
        "excluded_agents": [None, ["fast-llm"], ["code-llm", "nobody"], []],
    }
    n = 2000
    texts = [bodies[i] for i in rng.integers(len(bodies), size=n)]
    chosen = {
        name: [values[i] for i in rng.integers(len(values), size=n)]
        for name, values in limits.items()
    }
    table = pa.table({"id": range(n), "request": texts, **chosen})
    found = route_table(table, router, reasoning=True)
    assert found["id"].to_pylist() == list(range(n))
    wanted = [
        alone(router, texts[i], **{name: values[i] for name, values in chosen.items()})
        for i in range(n)
    ]
    assert rows_of(found) == wanted
    reasons = {row[0] for row in wanted}
    assert None in reasons
    assert len(reasons) > 5


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_texts_of_each_kind_of_arrow_and_slices_of_them_are_routed(
    router: Router, bodies: list[str], kind: pa.DataType
) -> None:
    texts = [*bodies[:40], None, "", *bodies[:40]]
    column = pa.array(texts, pa.string()).cast(kind).slice(3, 70)
    found = route_table(pa.table({"request": column}), router, reasoning=True)
    wanted = [alone(router, text or None) for text in texts[3:73]]
    assert rows_of(found) == wanted
    assert found["problem"].to_pylist().count("no request") == 1
    assert found["problem"].to_pylist().count("blank request") == 1


def test_repeated_texts_are_decided_as_each_of_them(router: Router, bodies: list[str]) -> None:
    texts = bodies[:7] * 300
    found = route_table(pa.table({"request": texts}), router, reasoning=True)
    assert rows_of(found) == [alone(router, text) for text in bodies[:7]] * 300


def test_options_are_what_a_null_in_a_column_means(router: Router, bodies: list[str]) -> None:
    table = pa.table({"request": bodies[:20], "max_cost": [None, 0.01] * 10})
    found = route_table(table, router, reasoning=True, max_cost=0.0, optimize_for="quality")
    wanted = [
        alone(router, text, max_cost=0.01 if i % 2 else 0.0, optimize_for="quality")
        for i, text in enumerate(bodies[:20])
    ]
    assert rows_of(found) == wanted


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 128)])
def test_vectors_go_before_texts_which_then_only_count(
    router: Router, bodies: list[str], kind: pa.DataType
) -> None:
    vectors = (router.encoder.embed(bodies[:50]) * 3).tolist()
    texts = list(reversed(bodies[:50]))
    vectors[7] = None
    table = pa.table({"request": texts, "embedding": pa.array(vectors, kind)})
    found = route_table(table, router, reasoning=True)
    wanted = [
        alone(router, text, embedding=None if vector is None else np.float32(vector))
        for text, vector in zip(texts, vectors, strict=True)
    ]
    assert rows_of(found) == wanted
    alone_found = route_table(table.select(["embedding"]), router, reasoning=True)
    assert alone_found["problem"].to_pylist()[7] == "no request"


def test_stream_is_decided_batch_by_batch(router: Router, bodies: list[str]) -> None:
    table = pa.table({"id": range(200), "request": bodies[:200]})
    taken = []

    def source() -> Any:
        for batch in table.to_batches(max_chunksize=50):
            taken.append(batch.num_rows)
            yield batch

    reader = route_batches(source(), router, schema=table.schema, max_cost=0.001)
    assert isinstance(reader, pa.RecordBatchReader)
    first = reader.read_next_batch()
    assert (first.num_rows, taken) == (50, [50])
    rest = pa.Table.from_batches([first, *reader])
    assert rest.equals(route_table(table, router, max_cost=0.001))
    with pytest.raises(InvalidInputError, match="batches have no schema"):
        route_batches(table.to_batches(), router)


def test_table_without_rows_has_the_columns(router: Router) -> None:
    table = pa.table({"id": pa.array([], pa.int32()), "request": pa.array([], pa.string())})
    found = route_table(table, router)
    assert found.schema.names == ["id", *COLUMNS, "problem"]
    assert found.schema.field("id").type == pa.int32()
    assert found.num_rows == 0


def test_huge_text_is_truncated_as_everywhere(router: Router) -> None:
    text = "translate this sentence, please; " * 40_000
    found = route_table(pa.table({"request": [text]}), router, reasoning=True)
    assert len(text) > 1_000_000
    assert rows_of(found) == [alone(router, text)]


def test_router_without_agents_decides_nothing() -> None:
    found = route_table(pa.table({"request": ["x"]}), Router([]))
    assert found["problem"].to_pylist() == ["no eligible agent"]


# ---------------------------------------------------------------- bad tables


@pytest.mark.parametrize(
    ("columns", "error", "sentence"),
    [
        ({"body": ["x"]}, InvalidInputError, "there must be a request"),
        ({"request": [1]}, InvalidInputError, 'column "request" has the wrong type'),
        ({"request": ["x"], "max_cost": ["1"]}, InvalidInputError, 'column "max_cost" has'),
        ({"request": ["x"], "pool": [1]}, InvalidInputError, 'column "pool" has the wrong type'),
        ({"request": ["x"], "embedding": ["1"]}, InvalidInputError, 'column "embedding" has'),
        (
            {"request": ["x"], "excluded_agents": ["a"]},
            InvalidInputError,
            'column "excluded_agents" has the wrong type',
        ),
        ({"request": ["x"], "max_cots": [1.0]}, InvalidInputError, 'Perhaps you meant "max_cost"'),
        ({"request": ["x"], "min_quality": [2.0]}, InvalidInputError, "must be between 0 and 1"),
        ({"request": ["x"], "max_cost": [float("nan")]}, InvalidInputError, "must not be NaN"),
        ({"request": ["x"], "budget_remaining": [float("nan")]}, InvalidInputError, "not be NaN"),
        (
            {"request": ["x"], "required_capabilities": [["a", None]]},
            InvalidInputError,
            "required_capabilities must not contain NULL",
        ),
        ({"request": ["x"], "optimize_for": ["cheap"]}, UnknownObjectiveError, "unknown optim"),
        ({"embedding": [[1.0, 2.0]]}, DimensionError, "row 1 has 2"),
        ({"embedding": [[float("inf")] * 128]}, NonFiniteError, "It is in row 1"),
        ({"embedding": [[None] * 128]}, InvalidInputError, "vector must not contain NULL"),
        ({"agent_name": [1], "request": ["x"]}, InvalidInputError, 'cannot be called "agent_name"'),
    ],
)  # fmt: skip
def test_bad_column_is_a_clear_error(
    router: Router, columns: dict[str, list[Any]], error: type[TinyDancerError], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        route_table(pa.table(columns), router)
    assert sentence in str(caught.value)


def test_bad_options_are_clear_errors(router: Router) -> None:
    table = pa.table({"request": ["x"]})
    with pytest.raises(InvalidInputError, match="max_cost must not be negative"):
        route_table(table, router, max_cost=-1.0)
    with pytest.raises(UnknownObjectiveError, match="unknown optimization target"):
        route_table(table, router, optimize_for="cheap")
    with pytest.raises(InvalidInputError, match='unknown option "max_cots"'):
        route_table(table, router, max_cots=1.0)


def test_text_that_is_no_utf8_is_named(router: Router) -> None:
    column = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.int32([0, 1, 3])), pa.py_buffer(b"a\xff\xfe")]
    )
    with pytest.raises(TextEncodingError) as caught:
        route_table(pa.table({"id": ["good", "bad"], "request": column}), router)
    assert "the row with id bad" in str(caught.value)


def test_columns_are_found_by_name_and_place() -> None:
    roles = resolve(["id", "body", "max_cost"], is_query=True)
    assert (roles.key, roles.request, list(roles.inputs)) == ("id", "body", ["max_cost"])
    roles = resolve(["request", "n"], is_query=True)
    assert (roles.key, roles.request) == ("n", "request")
    roles = resolve(["pool", "text", "id"], key="id", request="text")
    assert list(roles.inputs) == ["pool"]
    with pytest.raises(InvalidInputError, match='column "di" does not exist'):
        resolve(["id", "request"], key="di")
    assert set(INPUTS) >= set(_kernels.BLOCK_LIMITS)


# ---------------------------------------------------------------- semantic routes


def one_by_one(matcher: RouteMatcher, texts: list[str | None], **how: Any) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for i, text in enumerate(texts):
        matches = matcher.match(text, **how) if text and text.strip() else []
        rows += [
            (i, place, one.route_name, one.similarity, one.target_agent, one.confidence)
            for place, one in enumerate(matches, 1)
        ] or [(i, None, None, None, None, None)]
    return rows


@pytest.mark.parametrize("scorer", ["nearest", "centroid", "top3", "ridge"])
def test_matches_are_those_of_the_matcher(bodies: list[str], scorer: str) -> None:
    routes = [
        Route(
            f"r{i}",
            f"a{i}",
            tuple(bodies[i:200:9]),
            negatives=(bodies[200 + i],),
            threshold=0.3 if i % 2 else None,
            priority=i % 3,
            time_start=datetime.time(9) if i % 4 == 0 else None,
            user_tiers=("gold",) if i % 5 == 4 else (),
        )
        for i in range(9)
    ]
    matcher = RouteMatcher(routes, scorer=scorer)
    texts = [*bodies[150:], None, "  ", "x"]
    table = pa.table({"id": range(len(texts)), "request": pa.array(texts)})
    for how in (
        {"top_k": 3, "at": datetime.time(8)},
        {"top_k": 1, "at": datetime.time(10), "user_tier": "gold"},
        {"top_k": 20, "at": datetime.time(10)},
    ):
        found = match_table(table, matcher, **how)
        assert [tuple(row.values())[:-1] for row in found.to_pylist()] == one_by_one(
            matcher, texts, **how
        )
    problems = {row["id"]: row["problem"] for row in found.to_pylist()}
    assert [problems[len(texts) - i] for i in (3, 2)] == ["no request", "blank request"]


def small_vectors(rng: Any, n: int, dim: int = 16) -> Any:
    return rng.standard_normal((n, dim)).astype(np.float32)


@pytest.fixture(scope="module")
def large_set(request: pytest.FixtureRequest) -> tuple[RouteMatcher, Any]:
    """3,000 routes of 20 utterances: 60,000 vectors of 16 dimensions, and 400 queries."""
    rng = np.random.default_rng(request.config.getoption("--seed"))
    centres = small_vectors(rng, 3000)
    routes = [
        Route(
            f"route {i:04}",
            embedding=None,
            utterances=(f"route {i}",),
            priority=i % 3,
            threshold=0.9 if i % 7 == 0 else None,
        )
        for i in range(3000)
    ]
    matcher = RouteMatcher.__new__(RouteMatcher)
    matcher.encoder = SmallEncoder()  # type: ignore[assignment]
    matcher.routes = routes
    matcher.scorer, matcher.mu, matcher.s = "nearest", 0.5, 0.1
    near = centres[:, np.newaxis] + 0.5 * rng.standard_normal((3000, 20, 16)).astype(np.float32)
    unit = [[_kernels.normalise(vector) for vector in one] for one in near]
    away = [[_kernels.normalise(centres[i] + 0.1)] if i % 4 == 0 else [] for i in range(3000)]
    matcher._positive = matcher._pack(unit)
    matcher._negative = matcher._pack(away)
    matcher._view = matcher._packed(None)
    queries = centres[rng.integers(3000, size=400)] + 0.5 * small_vectors(rng, 400)
    return matcher, queries


class SmallEncoder:
    """Vectors of 16 dimensions come from the test."""

    id = "small"
    checksum = ""
    dim = 16


@pytest.mark.parametrize("scorer", ["nearest", "top3", "centroid"])
@pytest.mark.parametrize("top_k", [1, 5])
def test_large_set_with_faiss_has_the_matches_without_it(
    large_set: tuple[RouteMatcher, Any], scorer: str, top_k: int
) -> None:
    matcher, queries = large_set
    matcher.scorer = scorer
    matcher._view = matcher._packed(None)
    table = pa.table({"id": range(400), "embedding": list(queries)})
    roles = resolve(table.schema.names, inputs=MatchDecider.inputs)
    batch = table.to_batches()[0]
    quick = MatchDecider(matcher, top_k=top_k)
    slow = MatchDecider(matcher, top_k=top_k, many=10**9)
    assert quick.has_index == (scorer != "centroid")
    assert not slow.has_index
    assert quick.block(batch, roles).equals(slow.block(batch, roles))
    assert slow.n_whole == 400
    if scorer == "nearest":
        # Else faiss was of no use.
        assert quick.n_whole < 100


def test_list_that_does_not_suffice_is_noticed(large_set: tuple[RouteMatcher, Any]) -> None:
    matcher, queries = large_set
    matcher.scorer = "nearest"
    view = matcher._view = matcher._packed(None)
    vectors = np.stack([_kernels.normalise(one) for one in queries])
    wanted = np.ones(400, dtype=np.uint8)
    right = _kernels.match_block(view, vectors, wanted, k=3)
    # A list of wrong routes, and the honest word that others may be nearer.
    ids = np.tile(np.uint32([5, 6, 7]), 400)
    offsets = np.arange(401, dtype=np.int64) * 3
    poor = (offsets, ids, np.full(400, 1.0, dtype=np.float32))
    found = _kernels.match_block(view, vectors, wanted, k=3, shortlist=poor)
    assert found["n_whole"] == 400
    for name in ("offsets", "route", "score", "confidence"):
        assert found[name].tobytes() == right[name].tobytes()
    with pytest.raises(InvalidInputError, match="takes no shortlist"):
        matcher.scorer = "centroid"
        _kernels.match_block(matcher._packed(None), vectors, wanted, k=3, shortlist=poor)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_batches_of_long_texts_are_small(tmp_path: Path, ending: str) -> None:
    texts = [f"{i} " + "word " * 200_000 for i in range(80)]
    table = pa.table({"id": range(80), "request": texts})
    path = written(tmp_path / f"long{ending}", table)
    batches = list(FileSource(path, inputs=INPUTS).batches((3, None)))
    assert [key for batch in batches for key in batch["id"].to_pylist()] == list(range(3, 80))
    assert max(batch.num_rows for batch in batches) < 50


def written(path: Path, table: pa.Table) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=1000)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return path


@pytest.fixture
def requests(bodies: list[str]) -> pa.Table:
    n = BATCH_ROWS + 1000
    texts = [f"{bodies[i % len(bodies)]}\n{i}" for i in range(n)]
    prices = [[0.0005, 0.01, None][i % 3] for i in range(n)]
    return pa.table({"id": range(n), "request": texts, "max_cost": prices, "other": ["y"] * n})


def route_file(*more: str | Path) -> int:
    return cli.main(["etl", "route", "--agents", str(DEMO / "agents.json"), *map(str, more)])


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_file_of_each_kind_gives_the_decisions_of_its_table(
    router: Router, requests: pa.Table, tmp_path: Path, ending: str, capsys: Any
) -> None:
    path = written(tmp_path / f"requests{ending}", requests)
    assert route_file("--in", path, "--out", tmp_path / "out.parquet", "--part-rows", "3000") == 0
    assert "9,192 requests" in capsys.readouterr().out
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.equals(route_table(requests, router))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out.parquet", path.name]


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_file_is_continued_behind_the_rows_that_are_done(
    requests: pa.Table, tmp_path: Path, ending: str, monkeypatch: Any, router: Router
) -> None:
    path = written(tmp_path / f"requests{ending}", requests)
    out = tmp_path / "out.parquet"
    command = ["--in", path, "--out", out, "--part-rows", "3000"]
    write = FileTarget.write

    def interrupted(self: FileTarget, rows: pa.Table, place: Any) -> None:
        if place[0] > 5000:
            raise KeyboardInterrupt
        write(self, rows, place)

    monkeypatch.setattr(FileTarget, "write", interrupted)
    assert route_file(*command) == 130
    assert not out.exists()
    monkeypatch.setattr(FileTarget, "write", write)
    assert route_file(*command) == 0
    assert pq.read_table(out).equals(route_table(requests, router))


def test_file_that_changed_since_the_cut_is_not_continued(
    requests: pa.Table, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    path = written(tmp_path / "requests.parquet", requests)
    command = ["--in", path, "--out", tmp_path / "out.parquet", "--part-rows", "3000"]
    finish = FileTarget.finish

    def interrupted(self: FileTarget, schema: pa.Schema) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FileTarget, "finish", interrupted)
    assert route_file(*command) == 130
    monkeypatch.setattr(FileTarget, "finish", finish)
    written(path, requests.slice(1))
    capsys.readouterr()
    assert route_file(*command) == 1
    assert "the run that was cut was another one" in capsys.readouterr().err
    assert route_file(*command, "--restart") == 0
    assert pq.read_table(tmp_path / "out.parquet").num_rows == requests.num_rows - 1


def test_doubled_keys_of_a_file_are_rows_of_their_own(
    router: Router, bodies: list[str], tmp_path: Path
) -> None:
    table = pa.table({"id": [7, 7, 3], "request": bodies[:3]})
    path = written(tmp_path / "requests.parquet", table)
    assert route_file("--in", path, "--out", tmp_path / "out.parquet") == 0
    assert pq.read_table(tmp_path / "out.parquet").equals(route_table(table, router))


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_row(**columns: Any) -> Callable[[Path], Any]:
    return lambda path: written(path, pa.table({name: list(v) for name, v in columns.items()}))


def text(content: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(content)


def half(path: Path) -> None:
    damaged(written(path, pa.table({"id": [1], "request": ["x"]})))


TWO_TYPES = '{"id": 1, "request": "x"}\n{"id": "a", "request": "y"}\n'


@pytest.mark.parametrize(
    ("name", "make", "more", "sentence"),
    [
        ("a.txt", text("x"), [], "cannot tell what kind of file"),
        ("a.parquet", text("x"), [], "cannot be read"),
        ("a.parquet", half, [], "cannot be read"),
        ("a.parquet", one_row(id=[1], body=["x"]), [], "--request"),
        ("a.parquet", one_row(id=[1], body=["x"]), ["--request", "bodi"], 'meant "body"'),
        ("a.parquet", one_row(id=[1.5], request=["x"]), [], 'column "id" has the wrong type'),
        ("a.parquet", one_row(id=[1, None], request=["x", "y"]), [], 'key "id" is NULL'),
        ("a.parquet", one_row(id=[1], request=[b"x"]), [], 'column "request" has the wrong'),
        ("a.csv", text(""), [], "cannot be read"),
        ("a.csv", text("id,request\n1,x,y\n"), [], "cannot be read"),
        ("a.csv", text("id,request,max_cost\n1,x,dear\n"), [], "cannot be read"),
        ("a.jsonl", text('{"id": 1, "request": "x"}\n{'), [], "cannot be read"),
        ("a.jsonl", text("[1]\n"), [], "Line 1 is no JSON object"),
        ("a.jsonl", text(TWO_TYPES), [], "cannot be read"),
        ("a.jsonl", text(""), [], "there must be a key and a request"),
    ],
)
def test_bad_file_is_a_clear_error(
    name: str,
    make: Callable[[Path], Any],
    more: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: Any,
) -> None:
    path = tmp_path / name
    make(path)
    assert route_file("--in", path, "--out", tmp_path / "out.parquet", *more) == 1
    said = capsys.readouterr()
    assert sentence in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "out.parquet").exists()
    assert not (tmp_path / "out.parquet.parts").exists()


def test_missing_file_is_named(tmp_path: Path, capsys: Any) -> None:
    assert route_file("--in", tmp_path / "no.csv", "--out", tmp_path / "out.csv") == 1
    assert "No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["out.txt", "there.csv", "no folder/out.csv"])
def test_output_that_cannot_be_is_refused_at_once(tmp_path: Path, out: str, capsys: Any) -> None:
    (tmp_path / "there.csv").write_text("mine")
    path = written(tmp_path / "a.jsonl", pa.table({"id": [1], "request": ["x"]}))
    assert route_file("--in", path, "--out", tmp_path / out) == 1
    said = capsys.readouterr().err
    words = {
        "out.txt": "cannot tell what",
        "there.csv": "exists already",
        "no folder/out.csv": "could not write",
    }
    assert words[out] in said
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_damaged_part_is_noticed(requests: pa.Table, tmp_path: Path) -> None:
    path = written(tmp_path / "requests.parquet", requests)
    target = FileTarget(tmp_path / "out.parquet")
    source = FileSource(path, inputs=INPUTS)
    target.resume(source.job(), "registry", False)
    target.write(requests, (requests.num_rows, requests.num_rows - 1))
    target.close()
    damaged(next((tmp_path / "out.parquet.parts").glob("part-*")))
    with pytest.raises(TinyDancerError, match="a part is damaged"):
        FileTarget(tmp_path / "out.parquet")
    FileTarget(tmp_path / "out.parquet", restart=True).close()
    assert not (tmp_path / "out.parquet.parts").exists()


def test_leftovers_of_a_killed_run_are_swept(requests: pa.Table, tmp_path: Path) -> None:
    parts = tmp_path / "out.parquet.parts"
    target = FileTarget(tmp_path / "out.parquet")
    target.resume({}, "registry", False)
    target.write(requests, (requests.num_rows, 1))
    (parts / "part-000001.parquet").write_text("written, but not in the manifest")
    (parts / "part-000002.parquet.new").write_text("half")
    target.close()
    again = FileTarget(tmp_path / "out.parquet")
    assert sorted(one.name for one in parts.iterdir()) == ["manifest.json", "part-000000.parquet"]
    assert again.resume({}, "registry", False) == (requests.num_rows, 1)
    # Killed between the final name and the removal of the parts.
    (parts / "whole.parquet").write_text("x")
    (tmp_path / "out.parquet").hardlink_to(parts / "whole.parquet")
    again.close()
    with pytest.raises(TinyDancerError, match="exists already"):
        FileTarget(tmp_path / "out.parquet")
    assert not parts.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--query", "SELECT 1", "--out", "x.csv"], "a query needs a server"),
        (["--in", "x.csv", "--out", "x.csv"], "there is no registry"),
        (["--agents", "a", "--in", "{in}", "--out", "table:x"], "a table needs a server"),
        (["--agents", "a", "--in", "x", "--out", "x.csv", "--part-rows", "0"], "--part-rows must"),
    ],
)
def test_command_without_what_it_needs_says_so(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: Any
) -> None:
    path = written(tmp_path / "a.jsonl", pa.table({"id": [1], "request": ["x"]}))
    assert cli.main(["etl", "route", *(one.format(**{"in": path}) for one in arguments)]) == 1
    assert sentence in capsys.readouterr().err


def test_command_line_needs_no_arrow_before_it_runs() -> None:
    code = (
        "import sys; from tinydancer import cli; cli.parser(); import tinydancer.etl; "
        "sys.exit('pyarrow' in sys.modules or 'faiss' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_encoder_of_many_layers_is_batched_with_the_same_bits(
    minilm: Path, bodies: list[str]
) -> None:
    router = Router.demo(Encoder.load(minilm))
    texts: list[str | None] = [*bodies[:70], None, "", bodies[3], bodies[4] * 200]
    table = pa.table({"request": texts, "max_cost": [0.01] * len(texts)})
    found = route_table(table, router, reasoning=True)
    wanted = [alone(router, text or None, max_cost=0.01) for text in texts]
    assert rows_of(found) == wanted
