"""Semantic routes offline: what matches when, and in which words it is refused."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pytest

from tinydancer import Match, Route, RouteMatcher
from tinydancer.errors import (
    DimensionError,
    EmptyRequestError,
    InvalidInputError,
    NonFiniteError,
)

WEATHER = Route(
    "weather",
    "forecaster",
    ["will it rain tomorrow", "how hot will it be today", "is it going to snow"],
    ["you rain on my parade"],
)
BILLING = Route(
    "billing", None, ["refund my money", "wrong amount on my invoice", "i was charged twice"]
)
NOON = datetime.time(12)


def names(matches: list[Match]) -> list[str]:
    return [match.route_name for match in matches]


@pytest.fixture(scope="module")
def matcher() -> RouteMatcher:
    return RouteMatcher([WEATHER, BILLING])


def test_match_is_ordered_by_similarity_with_target_and_confidence(matcher: RouteMatcher) -> None:
    first, second = matcher.match("will it rain tomorrow")
    assert (first.route_name, first.target_agent) == ("weather", "forecaster")
    assert (second.route_name, second.target_agent) == ("billing", None)
    assert first.similarity == pytest.approx(1, abs=0.01)
    for match in (first, second):
        want = 1 / (1 + math.exp(-(match.similarity - matcher.mu) / matcher.s))
        assert match.confidence == pytest.approx(want, rel=1e-9)
    assert names(matcher.match("will it rain tomorrow", 1)) == ["weather"]


def test_match_of_a_negative_example_is_another_route(matcher: RouteMatcher) -> None:
    assert names(matcher.match("you rain on my parade")) == ["billing"]


def test_match_of_nothing_is_nothing(matcher: RouteMatcher) -> None:
    assert matcher.match(None) == []
    assert RouteMatcher([]).match("hello") == []


def test_description_is_the_only_utterance_of_a_route_without_others() -> None:
    matcher = RouteMatcher([Route("cars", description="repair of cars"), BILLING])
    match = matcher.match("repair of cars", 1)[0]
    assert match.route_name == "cars"
    assert match.similarity == pytest.approx(1, abs=0.01)


def test_embedding_of_a_route_stands_alone(matcher: RouteMatcher) -> None:
    vector = matcher.encoder.embed_info("refund my money")[0]
    alone = RouteMatcher([Route("v", utterances=["will it rain"], embedding=7 * vector)])
    assert alone.match("refund my money")[0].similarity == pytest.approx(1, abs=0.01)
    assert alone.match("will it rain")[0].similarity < 0.9
    by_vector = alone.match(None, embedding=vector)
    assert by_vector == alone.match("refund my money")


def test_threshold_cuts_and_none_is_an_answer() -> None:
    matcher = RouteMatcher([Route("weather", utterances=WEATHER.utterances, threshold=0.99)])
    assert names(matcher.match("will it rain tomorrow")) == ["weather"]
    assert matcher.match("refund my money") == []


def test_priority_decides_between_equals_without_changing_confidence() -> None:
    def routes(first: int, second: int) -> RouteMatcher:
        return RouteMatcher(
            [
                Route("a", utterances=["hello"], priority=first),
                Route("b", utterances=["hello"], priority=second),
            ]
        )

    assert names(routes(0, 0).match("hello there")) == ["a", "b"]
    assert names(routes(0, 1).match("hello there")) == ["b", "a"]
    assert {m.confidence for m in routes(0, 9).match("hello")} == {
        m.confidence for m in routes(0, 0).match("hello")
    }


@pytest.mark.parametrize(
    "start, end, at, is_open",
    [
        (9, 17, "08:59", False),
        (9, 17, "09:00", True),
        (9, 17, "16:59", True),
        (9, 17, "17:00", False),
        (22, 6, "23:00", True),
        (22, 6, "05:59", True),
        (22, 6, "06:00", False),
        (20, None, "19:59", False),
        (20, None, "23:59", True),
        (None, 8, "00:00", True),
        (None, 8, "08:00", False),
        (None, None, "12:00", True),
    ],
)
def test_time_window_opens_and_closes(
    start: int | None, end: int | None, at: str, is_open: bool
) -> None:
    route = Route(
        "r",
        description="x",
        time_start=None if start is None else datetime.time(start),
        time_end=None if end is None else datetime.time(end),
    )
    time = datetime.time.fromisoformat(at)
    assert route.is_open(time, None) is is_open
    found = RouteMatcher([route]).match(
        "x", at=datetime.datetime.combine(datetime.date.today(), time)
    )
    assert bool(found) is is_open


def test_user_tiers_and_exhausted_routes_are_closed() -> None:
    matcher = RouteMatcher([Route("gold", utterances=["hello"], user_tiers=["gold"]), BILLING])
    assert names(matcher.match("hello", user_tier="gold")) == ["gold", "billing"]
    assert names(matcher.match("hello", user_tier="Gold")) == ["billing"]
    assert names(matcher.match("hello")) == ["billing"]
    assert names(matcher.match("hello", user_tier="gold", exhausted=["gold"])) == ["billing"]


def test_tune_sets_thresholds_and_reports() -> None:
    texts = [f"{verb} the {noun}" for verb in ("read", "find", "show") for noun in ("bill", "fee")]
    more = [
        f"is it {kind} in {town}" for kind in ("hot", "cold", "wet") for town in ("oslo", "rome")
    ]
    matcher = RouteMatcher([Route("money", utterances=texts), Route("weather", utterances=more)])
    untouched = matcher.match("is it hot in rome")
    reports = matcher.tune(target_precision=1.0, apply=False)
    assert matcher.match("is it hot in rome") == untouched
    assert [(r.route_name, r.utterances) for r in reports] == [("money", 6), ("weather", 6)]
    assert all(r.precision == 1 and r.threshold is not None for r in reports)
    assert matcher.tune(target_precision=1.0) == reports
    assert matcher.scorer == reports[0].scorer
    assert names(matcher.match("is it hot in rome")) == ["weather"]
    assert matcher.match("xylophone zebra") == []


def test_tune_of_too_few_utterances_changes_nothing(matcher: RouteMatcher) -> None:
    before = (matcher.scorer, matcher.mu, matcher.s)
    reports = RouteMatcher([WEATHER]).tune(0.9)
    assert [r.threshold for r in reports] == [None]
    assert (matcher.scorer, matcher.mu, matcher.s) == before


@pytest.mark.parametrize(
    "route, sentence",
    [
        ({"name": " ", "description": "x"}, "name must not be empty"),
        ({"name": "r"}, 'route "r" has nothing that a request could be matched with'),
        ({"name": "r", "utterances": ["a", ""]}, "utterances must be a one-dimensional list"),
        ({"name": "r", "utterances": "abc"}, "utterances must be a one-dimensional list"),
        ({"name": "r", "description": "x", "negatives": [" "]}, "negatives must be a"),
        (
            {"name": "r", "utterances": ["a"], "negatives": ["a"]},
            'an utterance of route "r" is a negative example too',
        ),
        ({"name": "r", "description": "x", "threshold": 1.5}, "threshold must be between -1"),
        ({"name": "r", "description": "x", "threshold": math.nan}, "threshold must be between"),
        (
            {"name": "r", "description": "x", "time_start": NOON, "time_end": NOON},
            "time_start and time_end must differ",
        ),
    ],
)
def test_route_that_cannot_be_is_refused(route: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        Route(**route)
    assert error.value.message.startswith(sentence)


def test_matcher_refuses_what_cannot_be_matched(matcher: RouteMatcher) -> None:
    with pytest.raises(InvalidInputError, match='route "weather" is there twice'):
        RouteMatcher([WEATHER, WEATHER])
    with pytest.raises(InvalidInputError, match='unknown scorer "best"'):
        RouteMatcher([WEATHER], scorer="best")
    with pytest.raises(DimensionError, match="wrong number of dimensions"):
        RouteMatcher([Route("r", embedding=[1.0, 2.0])])
    with pytest.raises(InvalidInputError, match="top_k must be at least 1"):
        matcher.match("x", 0)
    with pytest.raises(EmptyRequestError, match="request is empty"):
        matcher.match(" ")
    with pytest.raises(DimensionError, match="wrong number of dimensions"):
        matcher.match(None, embedding=[1.0])
    with pytest.raises(NonFiniteError, match="vector contains NaN"):
        matcher.match(None, embedding=np.full(matcher.encoder.dim, np.nan, dtype=np.float32))
    with pytest.raises(InvalidInputError, match="target_precision must be between 0 and 1"):
        matcher.tune(1.5)
    with pytest.raises(InvalidInputError, match="target_coverage must be between 0 and 1"):
        matcher.tune(None, math.nan)
    with pytest.raises(InvalidInputError, match="cannot both be wanted"):
        matcher.tune(0.5, 0.5)
