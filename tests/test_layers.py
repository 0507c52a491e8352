"""The walls between kernel, module and package: who may include, call and say what.

In: the text of kernels/, fdw/, sql/ and python/.  Out: failures that name file and line.  The rules
are those of CONTRIBUTING: model arithmetic is in the kernel alone, and the kernel knows neither
heap, nor files, nor Postgres, nor Python.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KERNEL = sorted((ROOT / "kernels" / "src").glob("*.[ch]"))
HEADER = ROOT / "kernels" / "include" / "tinydancer.h"
MODULE = sorted((ROOT / "fdw").glob("*.[ch]"))
PACKAGE = sorted((ROOT / "python" / "tinydancer").rglob("*.py"))
ALL_C = [HEADER, *KERNEL, *MODULE]

# The freestanding part of C11, and memcpy and its kin.
KERNEL_MAY_INCLUDE = {
    "float.h",
    "limits.h",
    "stdalign.h",
    "stdarg.h",
    "stdbool.h",
    "stddef.h",
    "stdint.h",
    "stdnoreturn.h",
    "string.h",
}
# isnan, isfinite and NAN are macros; functions that differ between C libraries are forbidden below.
KERNEL_MAY_INCLUDE_MATH = "math.h"
# Exactly rounded by IEEE 754 or exact, therefore the same everywhere.
MATH_THAT_IS_EXACT = {
    "ceil", "ceilf", "copysign", "copysignf", "fabs", "fabsf", "floor", "floorf", "fma", "fmaf",
    "fmax", "fmaxf", "fmin", "fminf", "frexp", "frexpf", "isfinite", "isinf", "isnan", "ldexp",
    "ldexpf", "lrint", "lrintf", "nearbyint", "nearbyintf", "rint", "rintf", "signbit", "sqrt",
    "sqrtf", "trunc", "truncf",
}  # fmt: skip
MATH_THAT_DIFFERS = {
    name + suffix
    for name in (
        "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "erf",
        "erfc", "exp", "exp2", "expm1", "hypot", "lgamma", "log", "log10", "log1p", "log2", "pow",
        "sin", "sinh", "tan", "tanh", "tgamma",
    )
    for suffix in ("", "f", "l")
}  # fmt: skip
KERNEL_MUST_NOT_CALL = {
    "abort", "aligned_alloc", "alloca", "assert", "atexit", "calloc", "clock", "exit", "fopen",
    "fprintf", "fread", "free", "fwrite", "getenv", "gettimeofday", "longjmp", "malloc", "mmap",
    "open", "palloc", "perror", "posix_memalign", "printf", "pthread_create", "puts", "qsort",
    "rand", "read", "realloc", "setjmp", "setlocale", "signal", "snprintf", "sprintf", "srand",
    "strdup", "strtod", "time", "tolower", "toupper", "write",
}  # fmt: skip


def without_comments(text: str, strings: bool = False) -> str:
    """C source with comments (and strings, unless wanted) blanked; line numbers stay."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        if found.startswith(("/*", "//")) or not strings:
            return re.sub(r"[^\n]", " ", found)
        return found

    return re.sub(
        r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'',
        blank,
        text,
        flags=re.DOTALL,
    )


def comments(text: str) -> str:
    """Only the comments of C source."""
    return "\n".join(re.findall(r"/\*.*?\*/", text, flags=re.DOTALL))


def lines_with(path: Path, pattern: str, strings: bool = False) -> Iterator[str]:
    """``file:line: text`` for every line of code that matches."""
    code = without_comments(path.read_text(), strings)
    for number, line in enumerate(code.splitlines(), 1):
        if re.search(pattern, line):
            yield f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def includes(path: Path) -> set[str]:
    return set(re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE))


def calls(path: Path) -> set[str]:
    return set(re.findall(r"\b([A-Za-z_]\w*)\s*\(", without_comments(path.read_text())))


# ---------------------------------------------------------------- the kernel


@pytest.mark.parametrize("path", [HEADER, *KERNEL], ids=lambda path: path.name)
def test_kernel_file_includes_only_the_freestanding_library(path: Path) -> None:
    own = {header.name for header in (HEADER, *KERNEL) if header.suffix == ".h"}
    allowed = KERNEL_MAY_INCLUDE | own
    if path.parent.name == "src":
        allowed = allowed | {KERNEL_MAY_INCLUDE_MATH}
    # Intrinsics belong to files that say so by their name.
    if re.search(r"_(sse|avx|neon|x86|arm)", path.stem):
        allowed = allowed | {"immintrin.h", "arm_neon.h", "cpuid.h"}
    # What the C library knows of the processor.
    if path.name == "td_cpu.h":
        allowed = allowed | {"sys/platform/x86.h"}
    assert includes(path) <= allowed


@pytest.mark.parametrize("path", KERNEL, ids=lambda path: path.name)
def test_kernel_file_calls_neither_heap_nor_system(path: Path) -> None:
    assert not calls(path) & KERNEL_MUST_NOT_CALL


@pytest.mark.parametrize("path", KERNEL, ids=lambda path: path.name)
def test_kernel_file_uses_only_maths_that_is_the_same_everywhere(path: Path) -> None:
    used = calls(path)
    assert not used & MATH_THAT_DIFFERS
    if "math.h" in includes(path):
        needed = MATH_THAT_IS_EXACT | {"NAN", "INFINITY", "HUGE_VAL"}
        words = set(re.findall(r"\w+", without_comments(path.read_text())))
        assert words & needed, "includes math.h without need"


def test_kernel_has_no_globals_that_change(tmp_path: Path) -> None:
    # The compiler knows best: nothing may land in a writable section.
    for path in KERNEL:
        if path.suffix != ".c":
            continue
        made = tmp_path / f"{path.stem}.o"
        include = ["-I", str(HEADER.parent), "-I", str(path.parent)]
        subprocess.run(
            # Without -fpie, which puts constant tables of pointers among the writable ones.
            [
                "cc",
                "-std=gnu11",
                "-O2",
                "-fno-common",
                "-fno-pie",
                *include,
                "-c",
                str(path),
                "-o",
                str(made),
            ],
            check=True,
        )
        symbols = subprocess.run(["nm", made], capture_output=True, text=True, check=True).stdout
        writable = [line for line in symbols.splitlines() if re.search(r" [bBdDgGsSC] ", line)]
        assert not writable, f"{path.name}: {writable}"


def test_kernel_exports_only_names_with_its_prefix(tmp_path: Path) -> None:
    for path in KERNEL:
        code = without_comments(path.read_text())
        # A definition in our style: the name stands at the start of a line, its type above it.
        for kind, name in re.findall(r"^(.*)\n([A-Za-z_]\w*)\([^;{]*\)\n\{", code, re.MULTILINE):
            assert "static" in kind or name.startswith("td_"), f"{path.name}: {name}"
            assert not name.startswith("tdpg_"), f"{path.name}: {name}"


# ---------------------------------------------------------------- the module


@pytest.mark.parametrize("path", MODULE, ids=lambda path: path.name)
def test_module_file_tests_the_server_version_only_in_compat(path: Path) -> None:
    if path.name != "td_compat.h":
        assert not list(lines_with(path, r"\bPG_(VERSION|MAJORVERSION)\w*\b"))


@pytest.mark.parametrize("path", MODULE, ids=lambda path: path.name)
def test_module_file_defines_settings_only_in_guc(path: Path) -> None:
    if path.name != "td_guc.c":
        assert not list(lines_with(path, r"\bDefineCustom\w+|\bMarkGUCPrefixReserved\b"))


@pytest.mark.parametrize("path", MODULE, ids=lambda path: path.name)
def test_module_file_translates_statuses_only_in_error(path: Path) -> None:
    # td_error.c says which SQLSTATE a status has and raises it; nobody else spells that out.
    if path.name != "td_error.c":
        assert not list(lines_with(path, r"\bcase\s+TD_ERR_"))
        assert not [report for report in ereports(path) if "td_status_text" in report]


@pytest.mark.parametrize("path", MODULE, ids=lambda path: path.name)
def test_module_file_takes_no_private_header_of_the_kernel(path: Path) -> None:
    private = {header.name for header in KERNEL if header.suffix == ".h"}
    assert not includes(path) & private


@pytest.mark.parametrize("path", MODULE, ids=lambda path: path.name)
def test_module_file_does_no_model_arithmetic(path: Path) -> None:
    used = calls(path)
    assert not used & MATH_THAT_DIFFERS - {"log", "log2", "pow"} | used & {"sqrtf", "malloc"}


@pytest.mark.parametrize("path", MODULE, ids=lambda path: path.name)
def test_module_file_uses_its_own_prefix(path: Path) -> None:
    code = without_comments(path.read_text())
    for kind, name in re.findall(r"^(.*)\n([A-Za-z_]\w*)\([^;{]*\)\n\{", code, re.MULTILINE):
        if "static" in kind or name == "_PG_init":
            continue
        # SQL entry points have exactly their SQL names.
        if f"PG_FUNCTION_INFO_V1({name})" in code:
            continue
        # FDW callbacks have the API's names with our prefix: tdGetForeignPaths.
        assert name.startswith("tdpg_") or re.match(r"td[A-Z]", name), f"{path.name}: {name}"


def ereports(path: Path) -> Iterator[str]:
    """The text of every ereport(ERROR ...) call."""
    code = without_comments(path.read_text(), strings=True)
    for match in re.finditer(r"\bereport\(\s*ERROR", code):
        depth = 0
        for end in range(match.start(), len(code)):
            depth += (code[end] == "(") - (code[end] == ")")
            if depth == 0 and code[end] == ")":
                yield code[match.start() : end + 1]
                break


@pytest.mark.parametrize("path", MODULE, ids=lambda path: path.name)
def test_module_error_has_a_code_and_is_worded_in_house_style(path: Path) -> None:
    for report in ereports(path):
        # td_error.c looks the code up.
        assert "errcode" in report, report
        for message in re.findall(r'errmsg(?:_plural)?\(\s*"((?:[^"\\]|\\.)*)"', report):
            assert not message.endswith("."), report
            first = message.split(" ")[0]
            assert not (first[:1].isupper() and first[1:2].islower()), report
            assert "please" not in message.lower(), report
        for kind in ("errdetail", "errhint"):
            # Adjacent literals make one sentence.
            for group in re.findall(kind + r'\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+)[,)]', report):
                sentence = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', group))
                assert sentence.endswith((".", "?", "%s")), report
                assert sentence[:1].isupper() or sentence[:1] in '%\\"', report


# ---------------------------------------------------------------- comments


@pytest.mark.parametrize("path", ALL_C, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_comment_names_only_constants_that_exist(path: Path) -> None:
    defined = " ".join(without_comments(other.read_text()) for other in ALL_C)
    known = set(re.findall(r"\bTD_[A-Z0-9_]+\b", defined))
    for name in re.findall(r"\bTD_[A-Z0-9_]+(?:\.\.\.|\*)?", comments(path.read_text())):
        if name.endswith(("...", "*")) or name.endswith("_"):
            stem = name.rstrip(".*")
            assert any(other.startswith(stem) for other in known), name
        else:
            assert name in known, name


@pytest.mark.parametrize("path", ALL_C, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_comment_names_only_functions_that_exist(path: Path) -> None:
    code = " ".join(without_comments(other.read_text()) for other in ALL_C)
    known = set(re.findall(r"\b(?:td|tdpg)_[a-z0-9_]+\b", code))
    for name in re.findall(r"\b((?:td|tdpg)_[a-z0-9_]+)\(\)", comments(path.read_text())):
        assert name in known, name


@pytest.mark.parametrize(
    "path",
    [*ALL_C, *PACKAGE, *sorted((ROOT / "sql" / "install").glob("*.sql"))],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_source_file_begins_with_what_it_does(path: Path) -> None:
    text = path.read_text().lstrip()
    if path.suffix == ".py":
        assert not text or ast.get_docstring(ast.parse(text)), "no docstring"
    elif path.suffix == ".sql":
        assert text.startswith("--")
    else:
        assert text.startswith("/*")
        assert path.name in text[:400], "the first comment does not name its file"


# ---------------------------------------------------------------- the package and the scripts


def test_package_imports_no_trainer_and_no_framework_at_the_top() -> None:
    # Extras and torch stay out of `import tinydancer`; a function may import what its extra brings.
    optional = {
        "torch",
        "sklearn",
        "faiss",
        "pyarrow",
        "matplotlib",
        "scipy",
        "multicorn",
        "tokenizers",
    }
    # What the command line imports of tinydancer.etl before it runs; the rest of it is Arrow's.
    early = {"__init__.py", "cli.py", "columns.py"}
    for path in PACKAGE:
        own = {"pyarrow"} if path.parent.name == "etl" and path.name not in early else set()
        for node in ast.parse(path.read_text()).body:
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & (optional - own), path.name


def test_install_script_never_says_or_replace() -> None:
    for path in (ROOT / "sql" / "install").glob("*.sql"):
        code = re.sub(r"--[^\n]*", "", path.read_text())
        assert not re.search(r"\bOR\s+REPLACE\b", code, re.IGNORECASE), path.name


def test_version_is_written_in_the_control_file_only() -> None:
    control = (ROOT / "tinydancer.control").read_text()
    version = re.search(r"^default_version\s*=\s*'([^']+)'", control, re.MULTILINE)
    assert version is not None
    # What another package is pinned to, or its wheel called, is not our version.
    others = re.compile(r"\b[\w-]+==[\d.]+\d|\b\w+-[\d.]+\d-py3\S*")
    for path in [*ALL_C, *PACKAGE, ROOT / "pyproject.toml", ROOT / "setup.py", ROOT / "Makefile"]:
        text = others.sub("", path.read_text())
        assert version[1] not in re.findall(r"[\d.]+\d", text) or path.suffix in (
            ".c",
            ".h",
        ), path.name
