"""Files for the tests of ``tinydancer evaluate``: outcomes, agents and their prices."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

# Tests import outcome_data by its plain name, as tests/server does with its helpers.
sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl, test.jsonl, agents.json and the same as intents."""
    import outcome_data

    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "agents.json").write_text(json.dumps(outcome_data.AGENTS))
    for name, n, seed in (("train", 150, 1), ("test", 120, 2)):
        rows = outcome_data.outcomes(n, seed)
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        texts = outcome_data.requests(n, seed)
        # Poems are what nobody asked for.
        intents = [{"text": t, "label": "oos" if k == "poem" else k} for t, k in texts]
        (folder / f"{name}_intents.jsonl").write_text("\n".join(map(json.dumps, intents)))
    return folder
