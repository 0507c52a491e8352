"""The errors of Tiny Dancer in Python, worded as the Postgres module words them.

A message, an optional detail with the numbers and an optional hint with the remedy come in; an
exception whose text reads like psql's comes out.  Raised by ``tinydancer._kernels`` for the
statuses of the kernel and by the modules around it.
"""

from __future__ import annotations

__all__ = [
    "DimensionError",
    "EmptyRequestError",
    "EncoderNotFoundError",
    "EncoderUnavailableError",
    "FileFormatError",
    "ForeignTableError",
    "InfeasiblePlanError",
    "InvalidAgentError",
    "InvalidInputError",
    "InvalidTimeError",
    "ModelFolderError",
    "ModelUnusableError",
    "NonFiniteError",
    "ShapeError",
    "TextEncodingError",
    "TinyDancerError",
    "TrainingDataError",
    "UnknownObjectiveError",
    "WeakModelError",
    "error_for_status",
]


class TinyDancerError(Exception):
    """Base of every error of this package.

    Attributes:
        message: the primary sentence, lower case, without a final period.
        detail: the numbers behind it, full sentences, or None.
        hint: what to do about it, full sentences, or None.
        sqlstate: that of the same error in SQL.
    """

    sqlstate = "XX000"

    def __init__(self, message: str, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, detail, hint)
        self.message = message
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message]
        if self.detail:
            lines.append(f"DETAIL:  {self.detail}")
        if self.hint:
            lines.append(f"HINT:  {self.hint}")
        return "\n".join(lines)


class InvalidInputError(TinyDancerError, ValueError):
    """An argument that cannot be worked with."""

    sqlstate = "22023"


class ShapeError(InvalidInputError):
    """Arrays whose shapes or element types contradict each other or the kernel."""


class DimensionError(InvalidInputError):
    """A vector of another length than the encoder or model expects."""


class NonFiniteError(InvalidInputError):
    """A NaN or an infinity in a vector or a weight."""


class EmptyRequestError(InvalidInputError):
    """A text that holds nothing to encode."""


class TextEncodingError(InvalidInputError):
    """A text that has no valid UTF-8 form."""

    sqlstate = "22021"


class FileFormatError(TinyDancerError, ValueError):
    """A file that is not one of ours, is damaged, or is of another version or kind."""

    sqlstate = "XX001"


class EncoderNotFoundError(TinyDancerError, FileNotFoundError):
    """An encoder whose file is not there."""

    sqlstate = "58P01"

    # FileNotFoundError formats its arguments as an errno and a name.
    __str__ = TinyDancerError.__str__


class EncoderUnavailableError(TinyDancerError):
    """A text where vectors are made elsewhere."""

    sqlstate = "55000"


class ModelUnusableError(TinyDancerError):
    """A trained model that is not there, or is for another encoder."""

    sqlstate = "55000"


class InvalidTimeError(InvalidInputError):
    """A moment that time windows cannot be judged at."""

    sqlstate = "22008"


class ForeignTableError(TinyDancerError):
    """A foreign table of another definition than its wrapper, or one that cannot be read.

    Attributes:
        sqlstate: of the error in SQL.
    """

    def __init__(
        self, sqlstate: str, message: str, detail: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, detail, hint)
        self.sqlstate = sqlstate


class ModelFolderError(InvalidInputError):
    """A trained model that is damaged, incomplete, or of a kind that the kernel does not run."""


class InvalidAgentError(InvalidInputError):
    """An agent with an impossible figure, an unknown type or a name that is taken."""


class UnknownObjectiveError(InvalidInputError):
    """An optimisation target that is no objective and no policy."""


class TrainingDataError(InvalidInputError):
    """Labelled rows that nothing can be learned from."""


class WeakModelError(TinyDancerError, ValueError):
    """A trained model that does not beat its baseline, where it would be made active."""


class InfeasiblePlanError(TinyDancerError, ValueError):
    """Limits on many requests together that no choice of agents keeps."""

    sqlstate = "22023"


# By the numbers of td_status in tinydancer.h; what is not here is a mistake in the caller's shapes.
_BY_STATUS: dict[int, type[TinyDancerError]] = {
    3: DimensionError,
    4: NonFiniteError,
    5: EmptyRequestError,
    6: TextEncodingError,
    7: FileFormatError,
    8: FileFormatError,
    9: FileFormatError,
    10: FileFormatError,
    11: FileFormatError,
    12: FileFormatError,
}


def error_for_status(
    status: int, message: str, detail: str | None = None, hint: str | None = None
) -> TinyDancerError:
    """Make the exception for a kernel status.

    Args:
        status: a td_status other than TD_OK.
        message: td_status_text() of it.
        detail: the numbers, if any.
        hint: the remedy, if any.

    Returns:
        An exception to raise; always a ValueError.
    """
    return _BY_STATUS.get(status, ShapeError)(message, detail, hint)
