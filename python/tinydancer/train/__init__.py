"""Training: labelled rows come in, a model file with honest figures comes out.

NumPy does the arithmetic of training; SciPy, scikit-learn and matplotlib (``pip install
"tinydancer[train]"``) are imported by the functions that need them.  A trained model is served by
the kernel alone.  Called by ``tinydancer train`` and ``tinydancer evaluate``.
"""

from tinydancer.train.fit import Fitted, fit_fastgrnn
from tinydancer.train.progress import Progress
from tinydancer.train.result import TrainedModel

__all__ = ["Fitted", "Progress", "TrainedModel", "fit_fastgrnn"]
