"""Tiny Dancer: choose which agent (LLM, tool, API, person, ensemble) a request goes to.

The same kernel decides here and inside Postgres, so both give the same answer to the bit::

    from tinydancer import Agent, Encoder, Router

    router = Router(agents, Encoder.load("static"))
    decision = router.route("Summarise this contract and flag the risks")

Names are imported when they are first used, so that the command line can say what is missing on a
machine where the compiled kernels are not built yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinydancer.encoder import Encoder
    from tinydancer.errors import TinyDancerError
    from tinydancer.matcher import Match, Route, RouteMatcher
    from tinydancer.route import Agent, Decision, Explanation, Policy, Router
    from tinydancer.route_batch import BatchDecision
    from tinydancer.route_multi import TeamMember

    __version__: str

__all__ = [
    "Agent",
    "BatchDecision",
    "Decision",
    "Encoder",
    "Explanation",
    "Match",
    "Policy",
    "Route",
    "RouteMatcher",
    "Router",
    "TeamMember",
    "TinyDancerError",
    "__version__",
]

_HOMES = {
    "Agent": "tinydancer.route",
    "BatchDecision": "tinydancer.route_batch",
    "Decision": "tinydancer.route",
    "Encoder": "tinydancer.encoder",
    "Explanation": "tinydancer.route",
    "Match": "tinydancer.matcher",
    "Policy": "tinydancer.route",
    "Route": "tinydancer.matcher",
    "RouteMatcher": "tinydancer.matcher",
    "Router": "tinydancer.route",
    "TeamMember": "tinydancer.route_multi",
    "TinyDancerError": "tinydancer.errors",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # Written in tinydancer.control; the installed metadata carries it.
        from importlib.metadata import version

        return version("tinydancer")
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
