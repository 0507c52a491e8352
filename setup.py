"""Builds the Cython module tinydancer._kernels from the binding and the C kernel.

What does not need code (packages, their data, dependencies) is in pyproject.toml.  The version is
read from tinydancer.control, the one place where it is written.  TINYDANCER_SANITIZE=1 builds with
the address and undefined-behaviour sanitisers, for the kernel tests.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import Cython
from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent


def control_version() -> str:
    """Return default_version of tinydancer.control."""
    text = (ROOT / "tinydancer.control").read_text(encoding="utf-8")
    match = re.search(r"^default_version\s*=\s*'([^']+)'", text, re.MULTILINE)
    if match is None:
        raise SystemExit("tinydancer.control has no default_version")
    return match.group(1)


def relative(pattern: str) -> list[str]:
    """Return the files that match, sorted, with paths relative to the root as setuptools wants."""
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


sanitize = os.environ.get("TINYDANCER_SANITIZE") == "1"
compile_args = [
    "-std=gnu11",
    "-O3",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-Wall",
    "-Wno-psabi",
]
link_args: list[str] = []
if sanitize:
    compile_args += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    compile_args += ["-fno-omit-frame-pointer", "-O1", "-g"]
    link_args += ["-fsanitize=address,undefined"]

directives: dict[str, object] = {"language_level": "3"}
if tuple(int(part) for part in Cython.__version__.split(".")[:2]) >= (3, 1):
    # The kernel changes no globals and the binding's objects do not change after construction.
    directives["freethreading_compatible"] = True

setup(
    version=control_version(),
    ext_modules=cythonize(
        [
            Extension(
                "tinydancer._kernels",
                ["kernels/_kernels.pyx", *relative("kernels/src/*.c")],
                include_dirs=["kernels/include", "kernels/src"],
                depends=["kernels/td.pxd", *relative("kernels/*.pxi"), *relative("kernels/**/*.h")],
                extra_compile_args=compile_args,
                extra_link_args=link_args,
            )
        ],
        include_path=["kernels"],
        build_dir="build/cython-sanitized" if sanitize else "build/cython",
        compiler_directives=directives,
    ),
)
