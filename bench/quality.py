"""How well quality models route: cross-validation on real outcomes (../shared/data).

Takes what training says of requests that the experts did not learn from (five folds; only the
experts' five weights have seen all of them), for some seeds; with --nested trains on four fifths of
the requests and predicts the rest with the kernel, which takes six times as long.  It prints for
each encoder and data set: accuracy at full budget, area under the cost-quality hull, share of the
gap between the best single agent and the oracle (nine LLMs), APGR (two LLMs on MMLU), the
calibration error in 15 bins, and the same of 100 nearest neighbours.  Means over the seeds, with
the least and the greatest.

    .venv/bin/python bench/quality.py [--encoder minilm] [--seeds 3] [--data nine mmlu] [--nested]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.evaluate import curves
from tinydancer.evaluate.files import read_agents, read_outcomes
from tinydancer.train.measure import calibration_error
from tinydancer.train.numeric import folds
from tinydancer.train.outcomes import Outcomes
from tinydancer.train.quality import FOLDS, fit_quality

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "llm_outcomes"
FILES = {"nine": "nine_models_train.jsonl", "mmlu": "mmlu_two_models_half.jsonl"}


def neighbours(x: np.ndarray, quality: np.ndarray, test: np.ndarray, k: int = 100) -> np.ndarray:
    nearest = np.argpartition(-(test @ x.T), k - 1, axis=1)[:, :k]
    return quality[nearest].mean(axis=1)


def figures(predicted: np.ndarray, outcomes: Outcomes, price: np.ndarray | None) -> dict:
    quality = outcomes.quality
    result = {}
    if price is not None:
        curve = curves.curve_of(predicted, quality, price)
        accuracy, single = curve.points[0, 1], quality.mean(axis=0).max()
        result["accuracy"] = 100 * accuracy
        result["area"] = curves.area(curve.points, price.min(), price.max())
        result["gap, %"] = 100 * (accuracy - single) / (quality.max(axis=1).mean() - single)
    else:
        weak, strong = np.argsort(quality.mean(axis=0))
        preference = predicted[:, strong] - predicted[:, weak]
        result["APGR"] = curves.apgr(preference, quality[:, weak], quality[:, strong])
    result["ECE"] = calibration_error(predicted.ravel(), quality.ravel())
    return result


def out_of_fold(outcomes: Outcomes, x: np.ndarray, encoder: Encoder, seed: int) -> np.ndarray:
    trained = fit_quality(outcomes, encoder, seed, vectors=x)
    return trained.report_data.confidence.reshape(outcomes.quality.shape)


def cross_validate(
    outcomes: Outcomes, x: np.ndarray, encoder: Encoder | None, seed: int
) -> np.ndarray:
    """Predictions of models for the fifth that they did not see; without encoder: of neighbours."""
    fold = folds(len(x), FOLDS, np.random.default_rng(seed))
    predicted = np.empty(outcomes.quality.shape)
    for number in range(FOLDS):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if encoder is None:
            predicted[test] = neighbours(x[train], outcomes.quality[train], x[test])
            continue
        trained = fit_quality(outcomes.take(train), encoder, seed, vectors=x[train])
        model = _kernels.Model(trained.bytes)
        predicted[test] = model.apply(x[test], [outcomes.requests[i] for i in test], encoder)
    return predicted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", nargs="+", default=["static", "minilm"])
    parser.add_argument("--data", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--seeds", type=int, default=3, help="shufflings")
    parser.add_argument("--nested", action="store_true", help="models that saw nothing of a fold")
    args = parser.parse_args()
    if not DATA.is_dir():
        print(f"no data in {DATA}: nothing measured")
        return 0
    for data in args.data:
        outcomes = read_outcomes(DATA / FILES[data])
        whole = np.flatnonzero(outcomes.known.all(axis=1))
        outcomes = outcomes.take(whole)
        price = None
        if data == "nine":
            price = read_agents(DATA / "nine_models_agents.json", outcomes.agents)
        for name in args.encoder:
            encoder = Encoder.load(name)
            x = encoder.embed(outcomes.requests, threads=2)
            runs: dict[str, list[dict]] = {"ours": [], "knn-100": []}
            start = time.process_time()
            for seed in range(args.seeds):
                measure = cross_validate if args.nested else out_of_fold
                ours = measure(outcomes, x, encoder, seed)
                knn = cross_validate(outcomes, x, None, seed)
                runs["ours"].append(figures(ours, outcomes, price))
                runs["knn-100"].append(figures(knn, outcomes, price))
                print(f"{data} {name} {seed}: {runs['ours'][-1]}", file=sys.stderr)
            used = (time.process_time() - start) / args.seeds / (FOLDS if args.nested else 1)
            print(f"\n{data}, {name}: {len(x)} requests, {args.seeds} seeds, {FOLDS} folds")
            print(f"  a model is trained in {used:.1f} s of processor time")
            for router, measured in runs.items():
                shown = []
                for figure in measured[0]:
                    values = [run[figure] for run in measured]
                    low, high = min(values), max(values)
                    shown.append(f"{figure} {np.mean(values):.4f} ({low:.4f} .. {high:.4f})")
                print(f"  {router:8} {', '.join(shown)}")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
