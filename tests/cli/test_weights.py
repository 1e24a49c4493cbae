"""`ex4d weights`: list, pull from a hub on 127.0.0.1, verify, convert."""

import io
import re
import shutil
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from cli_tools import Outcome, ex4d
from safetensors.torch import save

from ex4d.model.adapter import lora_shapes
from ex4d.model.components import expected_shapes, make_component, shipped_config
from ex4d.weights.folders import MANIFEST
from ex4d.weights.registry import ENTRIES
from hub_server import FakeHub, serving

BASE = ENTRIES["480p"]
FILES = {"model_index.json": b"{}", "transformer/a.safetensors": bytes(1000), "run.py": b"no"}


class Terminal(io.StringIO):
    """Input that somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """EX4D_WEIGHTS of each test."""
    monkeypatch.setenv("EX4D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return tmp_path / "weights"


def point_to(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does before the client is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Generator[FakeHub, None, None]:
    with serving(FakeHub(repo=BASE.repo, files=FILES)) as served:
        point_to(served, monkeypatch)
        yield served


def failed(seen: Outcome) -> str:
    """The one line of an error that the user can do something about."""
    assert (seen.code, seen.out) == (2, "")
    line = seen.err.splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("list", []),
        ("pull", ["--output-dir", "--revision", "--yes"]),
        ("verify", []),
        ("convert", ["--gguf", "--output", "--overwrite", "--tokenizer"]),
    ],
)
def test_flags(command: str, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = ex4d(capsys, "weights", command, "--help")
    assert shown.code == 0
    table = [line for line in shown.out.splitlines() if re.match(r"[│| ] -", line)]
    found = {flag for line in table for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", line)}
    assert sorted(found - {"--help"}) == flags


def test_list(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = ex4d(capsys, "weights", "list")
    assert (seen.code, seen.err) == (0, "")
    rows = seen.out.splitlines()
    assert [row.split()[0] for row in rows[:-1]] == list(ENTRIES)
    assert re.match(r"480p +90\.1 GB +apache-2\.0 +- +the model", rows[0])
    assert str(weights) in rows[-1]
    (weights / "480p").mkdir(parents=True)
    (weights / "480p" / MANIFEST).touch()
    assert re.search(r"480p .* pulled ", ex4d(capsys, "weights", "list").out)


def test_pull_asks_first(
    hub: FakeHub, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = ex4d(capsys, "weights", "pull", "480p")
    assert "no terminal to ask on; to fix: add --yes" in failed(seen)
    assert "2 files, 0.00 GB, licence apache-2.0" in seen.err
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    seen = ex4d(capsys, "weights", "pull", "480p")
    assert (seen.code, seen.out) == (2, "")
    assert seen.err.endswith("[y/N] nothing was downloaded\n")
    assert hub.seen == []
    assert not weights.exists()
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    seen = ex4d(capsys, "weights", "pull", "480p")
    assert (seen.code, seen.out) == (0, f"{weights / '480p'}\n")
    assert (weights / "480p" / "transformer" / "a.safetensors").read_bytes() == bytes(1000)


def test_pull_elsewhere_twice(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.licence = None
    seen = ex4d(capsys, "weights", "pull", "480p", "--yes", "-o", tmp_path / "here", "--revision", "main")
    assert (seen.code, seen.out) == (0, f"{tmp_path / 'here'}\n")
    assert "no licence declared there (apache-2.0 by our list)" in seen.err
    hub.seen.clear()
    seen = ex4d(capsys, "weights", "pull", "480p", "-o", tmp_path / "here")
    assert (seen.code, seen.err) == (0, ""), "it is there: nothing to ask"
    assert hub.seen == []


def test_wrong_names(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"one of 480p, .*; got 'wan'", failed(ex4d(capsys, "weights", "pull", "wan")))
    assert "check --revision" in failed(ex4d(capsys, "weights", "pull", "480p", "--revision", "x", "--yes"))
    assert "ex4d weights pull 480p" in failed(ex4d(capsys, "weights", "verify", "480p"))


def test_depth_weights_of_one_pickled_file(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = io.BytesIO()
    torch.save({"head.a": torch.ones(3), "head.b": torch.ones(2, 2)}, content)
    entry = ENTRIES["vda-small"]
    files = {entry.ready: content.getvalue(), "README.md": b"text", "other_vitb.pth": b"x"}
    with serving(FakeHub(repo=entry.repo, files=files)) as hub:
        point_to(hub, monkeypatch)
        seen = ex4d(capsys, "weights", "pull", "vda-small", "--yes")
    file = weights / "vda-small" / entry.ready
    assert (seen.code, seen.out) == (0, f"{file}\n")
    assert sorted(path.name for path in file.parent.iterdir()) == [entry.ready, MANIFEST]
    assert re.search(r"vda-small .* pulled ", ex4d(capsys, "weights", "list").out)
    seen = ex4d(capsys, "weights", "verify", "vda-small")
    assert seen.code == 0
    assert "1 SHA-256 compared, no problems" in seen.out
    assert f"{file}: tensors, 1 files, 2 tensors" in seen.out
    file.write_bytes(file.read_bytes()[:-40])
    seen = ex4d(capsys, "weights", "verify", "vda-small")
    assert seen.code == 2
    assert "ex4d weights pull vda-small" in seen.err or "download it again" in seen.err


def test_depth_weights_of_a_folder_and_their_licence(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = ENTRIES["depthcrafter"]
    content = save({"conv_in.weight": torch.ones(4)})
    files = {"config.json": b"{}", "diffusion_pytorch_model.safetensors": content, "LICENSE": b"no commerce"}
    with serving(FakeHub(repo=entry.repo, files=files, licence="other")) as hub:
        point_to(hub, monkeypatch)
        seen = ex4d(capsys, "weights", "pull", "depthcrafter", "--yes")
    assert (seen.code, seen.out) == (0, f"{weights / 'depthcrafter'}\n")
    assert "licence other (academic, research and education only)" in seen.err
    seen = ex4d(capsys, "weights", "verify", "depthcrafter")
    assert seen.code == 0
    assert "tensors, 3 files, 1 tensors, 3 SHA-256 compared, no problems" in seen.out


def released_checkpoint() -> bytes:
    """A file with the tensors of ex4d.ckpt, all zeros that share one number: a hundred kilobytes."""
    transformer = make_component("transformer", shipped_config("transformer"))
    back = {"attn1": "self_attn", "attn2": "cross_attn", "to_out.0": "o", "to_q": "q", "to_k": "k", "to_v": "v",
            "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2", "weight": "default.weight"}  # fmt: skip
    pattern = re.compile("|".join(map(re.escape, back)))
    lora = lora_shapes(transformer, rank=16)  # pyright: ignore[reportArgumentType]
    shapes = {pattern.sub(lambda match: back[match[0]], name): shape for name, shape in lora.items()}
    shapes |= expected_shapes(make_component("geometry_encoder", shipped_config("geometry_encoder")))
    zero = torch.zeros(1, dtype=torch.bfloat16)
    file = io.BytesIO()
    torch.save({name: zero.expand(shape) for name, shape in shapes.items()}, file)
    return file.getvalue()


def test_pulled_checkpoint_becomes_an_adapter(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(FakeHub(repo=ENTRIES["ex4d"].repo, files={"ex4d.ckpt": released_checkpoint()})) as hub:
        point_to(hub, monkeypatch)
        seen = ex4d(capsys, "weights", "pull", "ex4d", "--yes")
        adapter = weights / "ex4d" / "adapter"
        assert (seen.code, seen.out) == (0, f"{adapter}\n")
        made = (adapter / MANIFEST).stat().st_mtime_ns
        assert ex4d(capsys, "weights", "pull", "ex4d").code == 0
        assert (adapter / MANIFEST).stat().st_mtime_ns == made, "not converted a second time"
    seen = ex4d(capsys, "weights", "verify", "ex4d")
    assert seen.code == 0
    assert f"{adapter}: adapter, 4 files, 808 tensors, 4 SHA-256 compared, no problems" in seen.out
    (adapter / MANIFEST).unlink()
    (adapter / "lora" / "lora.json").write_text('{"rank": 8, "alpha": 8}')
    seen = ex4d(capsys, "weights", "verify", str(adapter))
    assert seen.code == 2
    assert "800 of another shape (blocks.0.attn1.to_k.lora_A.weight 16x5120, not 8x5120" in seen.err
    shutil.rmtree(weights)  # 250 MB


def test_convert_refuses_and_leaves_nothing(tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = shared / "oracle" / "ex4d_ckpt_tiny.safetensors"
    line = failed(ex4d(capsys, "weights", "convert", tiny, "-o", tmp_path / "out"))
    assert "missing (blocks.10." in line
    assert [path.name for path in tmp_path.iterdir()] == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    line = failed(ex4d(capsys, "weights", "convert", tiny, "-o", tmp_path / "out", "--overwrite"))
    assert "one that holds something else" in line


def test_gguf_is_checked_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there.gguf").touch()
    words = ("weights", "convert", tmp_path, "--gguf", "Q4_0", "-o")
    assert "ends in .gguf" in failed(ex4d(capsys, *words, tmp_path / "out"))
    assert "--overwrite" in failed(ex4d(capsys, *words, tmp_path / "there.gguf"))
    assert "one folder" in failed(ex4d(capsys, *words[:3], tmp_path, *words[3:], tmp_path / "a.gguf"))


def test_list_and_help_load_no_torch() -> None:
    import subprocess

    code = (
        "import sys; from ex4d.cli.main import main; main(['weights', 'list']);"
        "print([name for name in ('torch', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
