"""Figures of routers on tables small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tinydancer.evaluate import curves


def test_hull_leaves_out_what_is_dearer_or_below_a_line() -> None:
    points = np.array([[1.0, 0.5], [2.0, 0.6], [3.0, 0.9], [4.0, 0.8], [1.0, 0.4]])
    assert curves.hull(points).tolist() == [[1.0, 0.5], [3.0, 0.9]]


def test_area_is_flat_before_the_first_corner_and_after_the_last() -> None:
    points = np.array([[1.0, 0.5], [3.0, 0.9]])
    # 1..3 is a trapezium of mean height 0.7, 3..5 flat at 0.9.
    assert curves.area(points, 1.0, 5.0) == pytest.approx(0.8)
    assert curves.area(np.array([[3.0, 0.9]]), 1.0, 5.0) == pytest.approx(0.9)


def test_area_of_equal_prices_is_the_best_quality() -> None:
    assert curves.area(np.array([[2.0, 0.3], [2.0, 0.6]]), 2.0, 2.0) == pytest.approx(0.6)


def test_argmax_of_equals_takes_the_cheaper_then_the_first() -> None:
    value = np.array([[0.5, 0.5, 0.5], [0.1, 0.2, 0.2]])
    assert curves.argmax(value, np.array([3.0, 1.0, 1.0])).tolist() == [1, 1]


def test_curve_goes_from_the_best_to_the_cheapest() -> None:
    predicted = np.array([[0.2, 0.9], [0.8, 0.81]])
    outcome = np.array([[0.0, 1.0], [1.0, 1.0]])
    points = curves.curve_of(predicted, outcome, np.array([1.0, 2.0])).points
    assert points[0].tolist() == [2.0, 1.0]
    # The second request is not worth twice the price, the first is.
    assert [1.5, 1.0] in points.tolist()
    assert points[-1].tolist() == [1.0, 0.5]


def test_apgr_of_a_perfect_order_a_reversed_one_and_a_router_of_no_opinion() -> None:
    weak, strong = np.array([1.0, 1, 0, 0]), np.array([1.0, 1, 1, 1])
    # Two calls recover everything: 0, .5, 1, 1, 1 at shares 0, 1/4 .. 1.
    assert curves.apgr(strong - weak, weak, strong) == pytest.approx(0.75)
    assert curves.apgr(weak - strong, weak, strong) == pytest.approx(0.25)
    assert curves.apgr(weak, strong, weak) is None


def test_call_share_is_interpolated_between_calls() -> None:
    weak, strong = np.array([1.0, 1, 0, 0]), np.array([1.0, 1, 1, 1])
    assert curves.call_share(strong - weak, weak, strong, 0.5) == pytest.approx(25)
    assert curves.call_share(strong - weak, weak, strong, 0.75) == pytest.approx(37.5)
    assert curves.call_share(weak - strong, weak, strong, 0.5) == pytest.approx(75)
    assert curves.call_share(strong - weak, weak, strong, 0.0) == 0.0
    assert curves.call_share(weak, strong, weak, 0.5) is None


def test_resampled_areas_are_paired_and_centred_on_the_area() -> None:
    rng = np.random.default_rng(5)
    quality = (rng.random((400, 2)) < [0.3, 0.7]).astype(float)
    price = np.array([1.0, 3.0])
    curve = curves.curve_of(quality, quality, price)
    worse = curves.curve_of(1 - quality, quality, price)
    drawn = curves.resampled_areas({"a": curve, "b": curve, "c": worse}, 1.0, 3.0, 200, 0)
    assert (drawn["a"] == drawn["b"]).all()
    assert (drawn["a"] > drawn["c"]).all()
    assert drawn["a"].mean() == pytest.approx(curves.area(curve.points, 1.0, 3.0), abs=0.02)
