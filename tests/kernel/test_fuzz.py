"""Every fuzz target for a while, under ASan and UBSan.

In: kernels/fuzz/fuzz_*.c with its corpus folder corpus_*.  Out: build/fuzz/, and on failure the
input that broke the promise.  TINYDANCER_FUZZ_SECONDS sets how long each runs (20).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = sorted((ROOT / "kernels" / "fuzz").glob("fuzz_*.c"))
SECONDS = int(os.environ.get("TINYDANCER_FUZZ_SECONDS", "20"))
CC = os.environ.get("CC", "cc")
FLAGS = ["-std=gnu11", "-O1", "-g", "-fno-omit-frame-pointer", "-ffp-contract=off"]
FLAGS += ["-Wall", "-Wextra", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def objects() -> list[Path]:
    """The kernel and the driver, compiled once."""
    folder = ROOT / "build" / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    sources = [*sorted((ROOT / "kernels" / "src").glob("*.c")), ROOT / "kernels/fuzz/driver.c"]
    headers = [*(ROOT / "kernels").glob("*/*.h")]
    for source in sources:
        made.append(folder / f"{source.stem}.o")
        newest = max(path.stat().st_mtime for path in [source, *headers])
        if made[-1].exists() and made[-1].stat().st_mtime > newest:
            continue
        compile_it(["-c", str(source), "-o", str(made[-1])])
    return made


def compile_it(arguments: list[str]) -> None:
    """Run the compiler, or skip where it has no sanitizers."""
    if shutil.which(CC) is None:
        pytest.skip(f"no C compiler ({CC})")
    include = ["-I", str(ROOT / "kernels" / "include"), "-I", str(ROOT / "kernels" / "src")]
    done = subprocess.run(
        [CC, *FLAGS, *SANITIZERS, *include, *arguments], capture_output=True, text=True
    )
    if done.returncode != 0 and "asan" in done.stderr:
        pytest.skip("the compiler has no sanitizer libraries (apt-get install gcc)")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=[path.stem for path in TARGETS])
def test_fuzz_target_under_sanitizers_finds_nothing(
    target: Path, objects: list[Path], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    program = ROOT / "build" / "fuzz" / target.stem
    compile_it([str(target), *map(str, objects), "-lm", "-o", str(program)])
    corpus = target.parent / target.stem.replace("fuzz_", "corpus_")
    done = subprocess.run(
        [
            program,
            f"-seed={request.config.getoption('--seed')}",
            f"-max_total_time={SECONDS}",
            "-runs=100000000",
            *([corpus] if corpus.is_dir() else []),
        ],
        cwd=tmp_path,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=1"},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        kept = []
        for crash in tmp_path.glob("crash-*"):
            kept.append(program.parent / f"{target.stem}-{crash.name}")
            shutil.copy(crash, kept[-1])
        pytest.fail(
            f"{done.stdout}{done.stderr}\nkept: {', '.join(map(str, kept)) or 'no input'}\n"
            f"run again: {program} {' '.join(map(str, kept))}",
            pytrace=False,
        )


def test_fuzz_targets_exist() -> None:
    assert TARGETS


def test_corpus_of_encoder_files_is_what_its_generator_writes() -> None:
    tool = ROOT / "tools" / "gen_fuzz_files.py"
    done = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
