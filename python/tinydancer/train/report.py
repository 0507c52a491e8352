"""The report of a trained model: two pages, their pictures, and the numbers as JSON.

A ``TrainedModel`` comes in, a folder with report.md (what it is worth), details.md (where it errs
and how it was made), metrics.json and PNG files comes out.  Called by the command line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinydancer.train import measure
from tinydancer.train.numeric import Array
from tinydancer.train.result import ReportData, TrainedModel

__all__ = ["write_report"]

# More categories than this are not readable as a matrix: the most frequent confusions are listed.
MATRIX = 20
CONFUSIONS = 15
_BLUE, _GREY, _ORANGE = "#2f6db3", "#8a8a8a", "#d9822b"


def write_report(trained: TrainedModel, folder: Path) -> list[Path]:
    """Write the report.

    Args:
        trained: the model.
        folder: made when it is not there; files of an earlier report are replaced.

    Returns:
        The files.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = trained.report_data
    pictures: dict[str, Path] = {}

    def save(name: str, figure: Any) -> None:
        pictures[name] = folder / f"{name}.png"
        figure.savefig(pictures[name], dpi=150)

    if data.confidence is not None and data.outcome is not None:
        save("reliability", _reliability(data.confidence, data.outcome))
    if data.truth is not None and data.predicted is not None:
        if len(data.names) <= MATRIX:
            save("confusion", _matrix(data.truth, data.predicted, data.names))
        elif (data.truth != data.predicted).any():
            save("confusion", _confusions(data.truth, data.predicted, data.names))
    if data.curves:
        save("cost_quality", _cost_quality(data.curves))
    if data.training_curve:
        save("training", _training(data.training_curve))

    numbers = folder / "metrics.json"
    numbers.write_text(json.dumps(trained.metrics, indent=2, ensure_ascii=False) + "\n", "utf-8")
    first, second = folder / "report.md", folder / "details.md"
    first.write_text(_first_page(trained, pictures), "utf-8")
    second.write_text(_second_page(trained, pictures), "utf-8")
    return [first, second, numbers, *pictures.values()]


# ---------------------------------------------------------------- pages


def _number(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> str:
    return _number(value).replace("|", "\\|").replace("\n", " ")


def _table(rows: Sequence[dict[str, Any]]) -> str:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row[c]) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def _with_interval(metrics: dict[str, Any], name: str) -> str:
    if metrics.get(name) is None:
        return "–"
    ends = metrics.get(f"{name}_ci")
    shown = _number(metrics[name])
    return shown if ends is None else f"{shown} ({ends[0]:.4f} to {ends[1]:.4f})"


def _first_page(trained: TrainedModel, pictures: dict[str, Path]) -> str:
    m, task = trained.metrics, trained.spec.task
    verdict = "beats its baseline" if m["beats_baseline"] else "does not beat its baseline"
    if m["beats_baseline"] and m["ours"] == m["baseline_value"]:
        verdict = "makes no error, nor does its baseline"
    rows = [
        {"figure": f"{m['metric']}, this model", "value": _with_interval(m, "ours")},
        {"figure": f"{m['metric']}, {m['baseline']}", "value": _number(m["baseline_value"])},
        {"figure": "calibration error, 15 bins", "value": _with_interval(m, "ece")},
    ]
    if m.get("oos_auroc") is not None:
        rows.append({"figure": "AUROC of out-of-scope requests", "value": _number(m["oos_auroc"])})
    parts = [
        f"# A {task} model that {verdict}",
        f"Learned from {trained.basis}. "
        f"{len(trained.spec.names)} outputs; encoder `{trained.spec.encoder_id}`; "
        f"seed {m['seed']}; {len(trained.bytes):,} bytes. "
        "In parentheses: 95 % bootstrap intervals.",
        _table(rows),
    ]
    captions = {
        "cost_quality": "## Cost and quality\n\nHow good the answers are on average, by what a "
        "request costs on average.",
        "reliability": "## Reliability\n\nOn the diagonal a probability is what comes true. Bars "
        "show how many rows had it.",
    }
    for name, text in captions.items():
        if name in pictures:
            parts.append(f"{text}\n\n![{name}]({pictures[name].name})")
    parts.append("More in [details](details.md); the numbers are in [metrics.json](metrics.json).")
    return "\n\n".join(parts) + "\n"


def _second_page(trained: TrainedModel, pictures: dict[str, Path]) -> str:
    data = trained.report_data
    parts = [f"# Details of the {trained.spec.task} model"]
    if data.notes:
        parts.append("\n".join(f"- {note}" for note in data.notes))
    members = [{"member": i + 1, "kind": type(one).__name__}
               for i, one in enumerate(trained.spec.members)]  # fmt: skip
    parts.append("## Members\n\n" + _table(members))
    if "confusion" in pictures:
        parts.append(f"## Confusion\n\n![confusion]({pictures['confusion'].name})")
    if data.truth is not None and data.predicted is not None:
        parts.append("## Categories\n\n" + _table(_by_category(data)))
    for title, rows in data.tables.items():
        if rows:
            parts.append(f"## {title}\n\n{_table(rows)}")
    if "training" in pictures:
        parts.append(f"## Training\n\n![training]({pictures['training'].name})")
    return "\n\n".join(parts) + "\n"


def _by_category(data: ReportData) -> list[dict[str, Any]]:
    """The categories with the most errors first."""
    assert data.truth is not None and data.predicted is not None
    rows = []
    for j, name in enumerate(data.names):
        own, said = data.truth == j, data.predicted == j
        hit = int((own & said).sum())
        rows.append(
            {
                "category": name,
                "tested": int(own.sum()),
                "found": hit / int(own.sum()) if own.any() else None,
                "right when said": hit / int(said.sum()) if said.any() else None,
            }
        )
    return sorted(rows, key=lambda row: (row["found"] is None, row["found"] or 0.0))


# ---------------------------------------------------------------- pictures


def _axes(width: float, height: float, rows: Sequence[float] = (1,)) -> tuple[Any, list[Any]]:
    """A figure without any global state of matplotlib, and its axes from top to bottom."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows), 1, height_ratios=list(rows))
    axes = [figure.add_subplot(grid[i, 0]) for i in range(len(rows))]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _reliability(confidence: Array, outcome: Array) -> Any:
    table = measure.reliability(confidence, outcome)
    bins = len(table)
    used = table[:, 0] > 0
    figure, (top, low) = _axes(5.2, 5.6, (3, 1))
    top.plot([0, 1], [0, 1], color=_GREY, lw=1, ls="--", label="perfect")
    error = 1.96 * np.sqrt(table[used, 2] * (1 - table[used, 2]) / table[used, 0])
    top.errorbar(
        table[used, 1], table[used, 2], yerr=error, color=_BLUE, marker="o", ms=4, lw=1.5,
        elinewidth=1, capsize=2, label="this model, 95 % intervals",
    )  # fmt: skip
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="what came true")
    ece = measure.calibration_error(confidence, outcome)
    top.set_title(f"Calibration error {ece:.3f}", fontsize=10)
    top.legend(frameon=False, fontsize=8, loc="upper left")
    low.bar((np.arange(bins) + 0.5) / bins, table[:, 0], width=0.9 / bins, color=_BLUE)
    low.set(xlim=(0, 1), xlabel="predicted probability", ylabel="rows")
    return figure


def _short(name: str, length: int = 28) -> str:
    # A dollar sign would begin a formula.
    shown = name if len(name) <= length else name[: length - 1] + "…"
    return shown.replace("$", r"\$")


def _matrix(truth: Array, predicted: Array, names: Sequence[str]) -> Any:
    n = len(names)
    counts = np.zeros((n, n), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.6 + 0.42 * n
    figure, (axes,) = _axes(side + 0.6, side)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    labels = [_short(name) for name in names]
    axes.set_xticks(range(n), labels, rotation=90, fontsize=8)
    axes.set_yticks(range(n), labels, fontsize=8)
    axes.set(xlabel="said", ylabel="true")
    for i, j in zip(*np.nonzero(counts), strict=True):
        color = "white" if share[i, j] > 0.5 else "black"
        axes.text(j, i, counts[i, j], ha="center", va="center", fontsize=7, color=color)
    return figure


def _confusions(truth: Array, predicted: Array, names: Sequence[str]) -> Any:
    wrong = truth != predicted
    pairs, counts = np.unique(
        np.stack([truth[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")[:CONFUSIONS][::-1]
    labels = [f"{_short(names[a])} → {_short(names[b])}" for a, b in pairs[order]]
    figure, (axes,) = _axes(7, 1.2 + 0.28 * len(order))
    axes.barh(range(len(order)), counts[order], color=_ORANGE, height=0.7)
    axes.set_yticks(range(len(order)), labels, fontsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel=f"held-out rows, of {int(wrong.sum())} wrong ones of {len(truth)}")
    axes.set_title("Most frequent confusions: true → said", fontsize=10)
    return figure


def _cost_quality(curves: dict[str, list[tuple[float, float]]]) -> Any:
    figure, (axes,) = _axes(6.4, 4.4)
    for i, (name, points) in enumerate(curves.items()):
        x, y = zip(*points, strict=True)
        line = {"marker": "o", "ms": 4} if len(points) <= 3 else {}
        width = 2.2 if i == 0 else 1.2
        axes.plot(x, y, lw=width, label=_short(name), **line)
    axes.set(xlabel="mean cost of a request", ylabel="mean quality")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _training(curve: Sequence[tuple[int, float, float, float]]) -> Any:
    epoch, loss, held_out, _ = (np.array(column) for column in zip(*curve, strict=True))
    figure, (axes,) = _axes(5.2, 3.2)
    axes.plot(epoch, loss, color=_BLUE, label="training rows")
    if not np.isnan(held_out).all():
        axes.plot(epoch, held_out, color=_ORANGE, label="validation rows")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend(frameon=False, fontsize=8)
    return figure
