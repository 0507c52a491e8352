"""The kernel tests once more, with the kernel built under ASan and UBSan.

In: the tests of this folder.  Out: build/asan/, a copy of the package whose ``_kernels`` is
instrumented.  The inner run is marked by TINYDANCER_SANITIZED, which keeps it from starting itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASAN = ROOT / "build" / "asan"
CC = os.environ.get("CC", "cc")


def _library(name: str) -> str:
    """The compiler's runtime library, or a skip where there is none."""
    if shutil.which(CC) is None:
        pytest.skip(f"no C compiler ({CC})")
    out = subprocess.run([CC, f"-print-file-name={name}"], capture_output=True, text=True).stdout
    path = Path(out.strip())
    # A name without a folder is the compiler's way to say that it knows no such file.
    if not path.is_absolute():
        pytest.skip(f"the compiler has no {name} (apt-get install gcc)")
    return str(path.resolve())


@pytest.mark.slow
@pytest.mark.skipif("TINYDANCER_SANITIZED" in os.environ, reason="this is the inner run")
def test_kernel_tests_under_asan_and_ubsan_pass(request: pytest.FixtureRequest) -> None:
    preload = f"{_library('libasan.so')} {_library('libubsan.so')}"
    env = {**os.environ, "TINYDANCER_SANITIZE": "1"}
    lib, temp = str(ASAN), str(ROOT / "build" / "asan-temp")
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", lib, "--build-temp", temp],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr

    # The package round it: all of python/tinydancer but the ordinary _kernels.
    package = ASAN / "tinydancer"
    for entry in package.iterdir():
        if entry.is_symlink():
            entry.unlink()
    for entry in (ROOT / "python" / "tinydancer").iterdir():
        if not entry.name.startswith(("_kernels.", "__pycache__")):
            (package / entry.name).symlink_to(entry)

    env.update(
        LD_PRELOAD=preload,
        # Python does not free all at exit.
        ASAN_OPTIONS="detect_leaks=0:abort_on_error=1",
        UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1",
        PYTHONPATH=str(ASAN),
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONMALLOC="malloc",
        TINYDANCER_SANITIZED="1",
    )
    # Which _kernels the tests see must not be a matter of luck.
    where = subprocess.run(
        [sys.executable, "-c", "import tinydancer._kernels as k; print(k.__file__)"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(ASAN)), where.stdout + where.stderr

    seed = request.config.getoption("--seed")
    options = ["-q", "-o", "cache_dir=build/asan/.pytest_cache", f"--seed={seed}"]
    tests = ["tests/kernel", "--ignore=tests/kernel/test_fuzz.py"]
    inner = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert inner.returncode == 0, (inner.stdout + inner.stderr)[-20_000:]
    assert " passed" in inner.stdout
