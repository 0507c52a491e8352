"""Training: labelled rows come in, a model file with honest figures comes out.

NumPy does the arithmetic of training; SciPy, scikit-learn and matplotlib (``pip install
"tinydancer[train]"``) are imported by the functions that need them.  A trained model is served by
the kernel alone.  Called by ``tinydancer train`` and ``tinydancer evaluate``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinydancer.train.classifier import (
        fit_capabilities,
        fit_classifier,
        train_capabilities,
        train_classifier,
    )
    from tinydancer.train.fit import Fitted, fit_fastgrnn
    from tinydancer.train.progress import Progress
    from tinydancer.train.result import TrainedModel

_HOMES = {
    "Fitted": "fit",
    "Progress": "progress",
    "TrainedModel": "result",
    "fit_capabilities": "classifier",
    "fit_classifier": "classifier",
    "fit_fastgrnn": "fit",
    "train_capabilities": "classifier",
    "train_classifier": "classifier",
}
__all__ = [
    "Fitted",
    "Progress",
    "TrainedModel",
    "fit_capabilities",
    "fit_classifier",
    "fit_fastgrnn",
    "train_capabilities",
    "train_classifier",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for: the command line reads this package to know its arguments."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
