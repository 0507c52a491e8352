"""Print requirement lists of pyproject.toml, one requirement a line, for pip.

In: the file and dotted names such as ``project.optional-dependencies.dev``.  Out: requirements on
standard output.  Called by the Makefile, so that a version stands in pyproject.toml and nowhere
else; pip itself cannot install an extra without installing the project.
"""

import sys
from typing import Any

try:
    import tomllib
except ImportError:  # Python 3.10 has no TOML reader; pip carries one.
    from pip._vendor import tomli as tomllib  # type: ignore[no-redef]


def main(path: str, *names: str) -> None:
    """Print the lists called ``names`` in the TOML file at ``path``."""
    with open(path, "rb") as f:
        document: Any = tomllib.load(f)
    for name in names:
        value = document
        for key in name.split("."):
            value = value[key]
        print("\n".join(value))


if __name__ == "__main__":
    main(*sys.argv[1:])
