"""The requests that the shipped task models learn from, and those that they are judged by.

tools/data/task_examples.jsonl and task_heldout.jsonl come in, checked rows come out.  All were
written for this project, the second file apart from the first and in another style; nothing is
trained on it.  Each line is {"text", "category", "capabilities"}; in the first file some also have
"group": what shares a phrasing, so that no split has it on both of its sides.  Called by
build_task_models.py and the tests.

How requests are labelled:

- "category" is the kind of task, one of CATEGORIES.  A question belongs to the field that answers
  it: what a closure is to code, what a median is to maths, what a subpoena is to legal, what a
  fever means to medical; what is left is question-answering.
- What is asked for decides, not what the text is about: to translate a poem is translation, to
  translate Python into Java is code, to draft a contract is legal, to name its risks too.
- "capabilities" are all that an agent needs to serve it, from CAPABILITIES: always the category,
  and others where the answer would be worse without them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).resolve().parent / "data"
EXAMPLES = DATA / "task_examples.jsonl"
HELD_OUT = DATA / "task_heldout.jsonl"

CATEGORIES = {
    "code": "write, explain, convert, review or repair programs, queries and their tools",
    "maths": "calculate, solve, prove, explain mathematics",
    "reasoning": "riddles, logic, arguments, decisions that are weighed",
    "writing": "new texts, or better wording of given ones",
    "summarising": "the same in fewer words",
    "translation": "between human languages",
    "extraction": "facts or labels out of a given text",
    "data-analysis": "figures from data, charts, what they mean",
    "question-answering": "facts, explanations, how-tos, news",
    "support": "customers and users with a problem",
    "legal": "law, contracts, rights",
    "medical": "illness, medicines, findings",
    "planning": "steps, schedules, journeys, appointments",
    "small-talk": "greetings, chat, thanks, jokes",
}
CAPABILITIES = {
    **CATEGORIES,
    "analysis": "judge or interpret what is given, rather than look up or reproduce",
    "creative": "invention: poems, stories, songs",
    "editing": "changes to a text that is given",
    "debugging": "something does not work and the cause is wanted",
    "arithmetic": "exact numbers: sums, percentages, units",
    "web-search": "facts that change: news, weather, prices, opening hours",
}


@dataclass(frozen=True)
class Request:
    """A request with its labels; ``group`` is "" for a phrasing of its own."""

    text: str
    category: str
    capabilities: tuple[str, ...]
    group: str


def read(path: Path) -> list[Request]:
    """The requests of a file, in its order.

    Raises:
        ValueError: if a line has other keys, or labels that do not exist or contradict each other.
    """
    found = []
    # Not splitlines(): it would also split at what stands within a request.
    for number, line in enumerate(path.read_text("utf-8").rstrip("\n").split("\n"), 1):
        row = json.loads(line)
        if (
            not {"text", "category", "capabilities"}
            <= set(row)
            <= {*("text", "category", "capabilities", "group")}
        ):
            raise ValueError(f"{path.name}, line {number}: keys {sorted(row)}")
        capabilities = row["capabilities"]
        if row["category"] not in CATEGORIES or row["category"] not in capabilities:
            raise ValueError(f'{path.name}, line {number}: category "{row["category"]}"')
        if not set(capabilities) <= set(CAPABILITIES) or len(set(capabilities)) < len(capabilities):
            raise ValueError(f"{path.name}, line {number}: capabilities {capabilities}")
        found.append(
            Request(row["text"], row["category"], tuple(capabilities), row.get("group", ""))
        )
    return found


def plain(text: str) -> str:
    """``text`` as it is compared: case folded, any white space one blank."""
    return " ".join(text.casefold().split())
