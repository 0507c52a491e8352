"""The unlabelled English that the static encoder is trained on.

Free texts go in (Debian packages with dictionaries and manuals, the package index, man pages, Python
docstrings, the project's demo requests, request frames filled with WordNet nouns, and the shared
data sets where present), lists of short texts by source come out.  Called by
build_static_encoder.py alone.  Only texts are used, never a label.
"""

from __future__ import annotations

import ast
import gzip
import html
import json
import random
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

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
    """Fetch and unpack DEBIAN_PACKAGES below ``folder``; a package that cannot be had is left out."""
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


# -------------------------------------------------------------------------------- request frames

# What people ask of assistants and services, by the kind of word that fills the hole.  {n} is any
# common noun, {topic} an abstract one, {food} {animal} {thing} {person} {place} {body} {act} as
# WordNet sorts them, {verb} a verb, {adj} an adjective; the rest are the lists below.
FRAMES = """
what is {n}|what is a {n}|what does {n} mean|define {n}|tell me about {topic}|explain {topic}
explain {topic} to a {person}|explain {topic} in simple words|who invented the {thing}
how do i {verb} a {thing}|how can i {verb} my {thing}|how do you {verb} {n}|help me {verb} a {n}
please {verb} the {thing}|can you {verb} this {n} for me|could you {verb} my {thing} by {day}
i want to {verb} my {thing}|i need to {verb} a {n} before {day}|why would anyone {verb} a {thing}
is it safe to {verb} a {thing}|should i {verb} the {thing}|i forgot to {verb} the {thing}
what is the best way to {verb} a {n}|what do i need to {verb} {n}|show me how to {verb} a {thing}
write a poem about {topic}|write a short story about a {person} and a {animal}|write a song about {n}
write an essay on {topic}|write a blog post about {topic}|write a speech about {topic} for a {person}
write an email to my {person} about the {n}|draft a letter to a {person} about {topic}
reply politely to this message about {topic}|rewrite this text about {topic} in a formal tone
make this paragraph about {n} shorter|proofread my {topic} essay|give me a title for a story about {n}
summarise this article about {topic}|summarise the {n} report|give me the key points of this {topic} paper
what are the main arguments about {topic}|list five facts about {animal}|give me ideas for a {n} party
translate {n} into {language}|how do you say {n} in {language}|what is the {language} word for {n}
translate this {n} from {language} to {language}|say good morning in {language}
is {adj} the same as {adj}|what is the opposite of {adj}|another word for {adj}|how do you spell {adj}
use {adj} in a sentence|which is more {adj}, a {n} or a {n}|why are {animal} so {adj}
write a {code} function to {verb} a {thing}|write a {code} script that counts {n}
fix the bug in this {code} code|my {code} program crashes when i {verb} a {thing}|explain this {code} error
how do i parse {n} in {code}|review my {code} code|write unit tests for the {n} class in {code}
convert this {code} code to {code}|optimise this query over the {n} table|write a query for all {n} by {person}
design a database for a {place}|build a website for my {place}|write a regular expression for {n}
solve {number} times {number}|what is {number} percent of {number}|what is {number} plus {number}
what is the square root of {number}|if a {n} costs {number} dollars, what do {number} cost
a {person} has {number} {food} and eats {number}, how many are left|prove that {topic} is bounded
calculate the mean of {number}, {number} and {number}|plot {n} against {n}|find trends in the {n} data
analyse the {n} figures for {month}|make a chart of {n} by {month}|clean up this table of {n}
extract all {n} from this document|find every {person} named in the text|classify these reviews of {n}
what is the weather in {city}|will it rain in {city} on {day}|how hot is it in {city} in {month}
is it going to snow on {day}|what time is it in {city}|how far is {city} from {city}
book a flight from {city} to {city}|find a hotel in {city} for {day}|i need a table for {number} in {city}
rent a car in {city} from {day}|what should i see in {city}|do i need a visa for {city}
which vaccinations do i need for {city}|what is the local currency in {city}|plan a trip to {city} in {month}
how is the traffic to the {place}|directions to the nearest {place}|where is the closest {place}
when does the {place} open|is the {place} open on {day}|how long is the drive to {city}
what can i cook with {food} and {food}|how do i cook {food}|recipe for {food} with {food}
how many calories are in {food}|is {food} healthy|how long does {food} last in the fridge
what can i use instead of {food}|is {food} safe for my {animal}|order {food} from the {place}
any good {food} restaurant in {city}|reviews of the {place} in {city}|how long do i boil {food}
add {food} to my shopping list|remove {food} from my list|what is on my shopping list|clear my list
add {verb} the {thing} to my to do list|remind me to {verb} the {thing} on {day}
set an alarm for {number} in the morning|set a timer for {number} minutes|cancel my alarm
wake me up at {number}|put a meeting with my {person} on {day}|move my meeting to {day}
what is on my calendar for {day}|do i have anything on {day}|schedule a meeting with the {person}
am i free on {day}|cancel my appointment with the {person}|what is the date on {day}
how many days until {month}|when is the next holiday|how much holiday do i have left
i would like to take {day} off|was my leave approved|when is my next pay day
call my {person}|send a message to my {person}|text {name} that i am late|read my messages
play some music by {name}|play the next song|what song is this|turn up the volume|mute the speaker
turn off the light in the {room}|turn on the heating|lock the front door|make the {room} warmer
where is my phone|find my keys|tell me a joke about {animal}|flip a coin|roll a dice|pick a number to {number}
what is the meaning of life|how old are you|what is your name|who made you|are you a robot
where do you live|do you have pets|what are your hobbies|what can you do for me|do you speak {language}
thank you so much|good morning|goodbye, see you on {day}|i love you|you are {adj}|never mind|start over
yes please|no thanks|maybe|i do not know|repeat that|slow down please|speak louder|stop talking
change your name to {name}|call me {name}|use a different voice|switch to {language}
what is my account balance|how much money do i have in my account|show my recent transactions
i want to open an account|close my account please|transfer {number} dollars to {name}
send {number} euros to my {person}|pay my {n} bill|when is my {n} bill due|what is the minimum payment
my payment was declined|why was i charged twice|there is a payment i do not recognise
i was charged a fee for my {n}|how much is the fee for {act}|what is the interest rate on my savings
how do i get a new card|my card has been stolen|i lost my card in {city}|freeze my card|unblock my card
my card does not work at the {place}|the machine swallowed my card|i forgot my pin|change my pin
i want to raise my card limit|how long until my card arrives|when does my card expire
can i use my card in {city}|which currencies do you support|what is the exchange rate for {city}
the exchange rate is wrong|my transfer has not arrived|how long does a transfer take|cancel a transfer
my deposit does not show up|top up my account by {number}|my top up failed|the cash machine gave me less
how do i get my money back|i want a refund for the {thing}|my refund has not arrived
order new checks|what is my routing number|how is my credit score|improve my credit score
apply for a loan for a {thing}|report fraud on my account|verify my identity|change my address
i changed my phone number|i cannot log in|reset my password|delete my account|update my details
how much did i spend on {food} in {month}|what did i spend last month|how do i save for a {thing}
how are taxes calculated on {n}|when are taxes due|do i need insurance for my {thing}
what does my insurance cover|change my insurance plan|i want to file a claim for my {thing}
how do i change the oil in my car|when should i change my tyres|the {thing} light is on in my car
what is my tyre pressure|jump start a car|how much petrol is left|what kind of petrol do i need
where is my order|track my package|my parcel arrived broken|i got the wrong {thing}|cancel my order
when will my {thing} arrive|i want to return the {thing}|is the {thing} in stock|the {thing} does not turn on
my internet is slow|the app keeps crashing|how do i connect my {thing} to the computer
how do i update the app|my {thing} is making a strange noise|the screen of my {thing} is black
i want to speak to a human|let me talk to an agent|i want to make a complaint about the {person}
my {body} hurts|what can i do against a sore {body}|is it normal that my {body} is swollen
what are the symptoms of {illness}|how is {illness} treated|can children get {illness}
which doctor should i see for {illness}|side effects of this drug|exercises for the {body}
review this contract about {n}|is it legal to {verb} a {thing}|can my landlord {verb} my {thing}
what are my rights if my {person} is fired|draft a lease for a {place}|explain this clause on {topic}
what does the law say about {act}|my employer refuses to pay for {act}|do i need a lawyer for {act}
draw a picture of a {animal} in the {place}|generate an image of a {adj} {thing}|design a logo for a {place}
make a video about {animal}|describe this photo of a {thing}|remove the background from this photo
read this {n} aloud|transcribe this recording of a {person}|compose a melody for {topic}
what is the capital of {country}|who is the president of {country}|how many people live in {country}
history of {topic} in {country}|what happened in {city} in {number}|news about {topic} in {country}
what do you think about {topic}|pros and cons of {act}|compare {n} and {n}|should we invest in {n}
write a business plan for a {place}|find customers for my {place}|ideas for marketing a {thing}
write a job advert for a {person}|questions for an interview with a {person}|improve my resume as a {person}
how do i become a {person}|what does a {person} earn|plan my week with time for {act}
plan a {act} for {number} people|break the project {topic} into steps|what are the risks of {act}
make a quiz about {topic}|teach me the basics of {topic}|give me exercises on {topic}|grade this essay on {topic}
"""

WORDS = {
    "language": "french spanish german italian portuguese japanese chinese russian arabic hindi korean dutch "
    "turkish polish greek swedish latin thai vietnamese",
    "code": "python java javascript c rust go sql bash ruby php typescript r swift perl haskell",
    "city": "london paris berlin tokyo chicago boston madrid rome mumbai cairo sydney toronto dallas seattle "
    "denver moscow beijing dublin lisbon vienna miami atlanta oslo prague",
    "country": "france spain germany italy portugal japan china russia egypt india korea brazil turkey poland "
    "greece sweden mexico canada kenya australia",
    "day": "monday tuesday wednesday thursday friday saturday sunday today tomorrow tonight",
    "month": "january february march april may june july august september october november december",
    "name": "anna john maria peter sarah ahmed mike julia david linda tom emma carlos nina",
    "room": "kitchen bedroom bathroom office garage hall garden",
    "illness": "flu asthma diabetes cold migraine measles cancer arthritis allergy anaemia pneumonia depression "
    "fever cough rash insomnia",
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


def requests(root: Path, known: Callable[[str], bool], per_hole: int, seed: int) -> Iterator[str]:
    """The frames filled: ``per_hole`` texts for each hole of a frame, one for a frame without any."""
    rng = random.Random(seed)
    words = fillers(root, known)
    if not words["n"]:
        return
    for frame in re.split(r"[|\n]", FRAMES.strip()):
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


def gather(
    folder: Path, data: Path, package: Path, known: Callable[[str], bool], seed: int
) -> dict[str, list[str]]:
    """Every source's texts, without repetitions, in an order that depends on the sources alone.

    Args:
        folder: where Debian packages are downloaded and unpacked.
        data: the shared data sets, may be absent.
        package: the folder python/tinydancer, for the demo.
        known: whether a word is one word piece.
        seed: of every choice made here.
    """
    root = unpack_debian(folder)
    free: dict[str, Iterable[str]] = {
        "wordnet": wordnet(root, seed),
        "request frames": requests(root, known, 220, seed),
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
    seen: set[str] = set()
    out: dict[str, list[str]] = {}
    for name, texts in free.items():
        out[name] = [t for t in texts if usable(t) and not (t in seen or seen.add(t))]  # type: ignore[func-returns-value]
    own = {"demo": demo_texts(package), **shared_texts(data)}
    for name, texts in own.items():
        out[name] = [t for t in texts if t.strip() and not (t in seen or seen.add(t))]  # type: ignore[func-returns-value]
    return out
