"""Pulling with the real client from a hub on 127.0.0.1: listing, resuming, checking, refusing."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from ex4d.errors import MissingDependencyError, OutputError, WeightsError
from ex4d.weights import hub as hub_module
from ex4d.weights.folders import MANIFEST
from ex4d.weights.hub import look_up, pull
from ex4d.weights.manifest import read_manifest
from ex4d.weights.registry import ENTRIES
from ex4d.weights.remote import PARTIAL
from hub_server import COMMIT, FakeHub, serving

BASE = ENTRIES["480p"]
SHARD = "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"
LARGE = bytes(range(256)) * (24 << 12)  # 24 MiB
FILES = {
    "model_index.json": b'{"_class_name": "WanImageToVideoPipeline"}',
    "transformer/config.json": b"{}",
    SHARD: LARGE,
    "tokenizer/spiece.model": b"words",
    "tokenizer/config.json": b"{}",
    "transformer/evil.py": b"raise SystemExit",
    "transformer/old.bin": b"pickle",
    "examples/picture.jpg": b"picture",
    "README.md": b"text",
}
WANTED = {"model_index.json", "transformer/config.json", "tokenizer/config.json", SHARD, "tokenizer/spiece.model"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def hub() -> Generator[FakeHub, None, None]:
    with serving(FakeHub(repo=BASE.repo, files=dict(FILES))) as served:
        yield served


def contents(folder: Path) -> dict[str, bytes]:
    """Path → bytes of every file but the manifest."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def test_look_up_lists_only_what_is_needed(hub: FakeHub) -> None:
    remote = look_up(BASE, endpoint=hub.endpoint)
    assert {file.path for file in remote.files} == WANTED
    assert remote.num_bytes == sum(len(FILES[name]) for name in WANTED)
    assert (remote.revision, remote.licence) == (COMMIT, "apache-2.0")
    assert hub.seen == [], "nothing is downloaded"


def test_pull_writes_files_and_then_the_manifest(hub: FakeHub, tmp_path: Path) -> None:
    told: list[int] = []
    remote = look_up(BASE, endpoint=hub.endpoint)
    manifest = pull(remote, tmp_path / "a", on_progress=told.append, endpoint=hub.endpoint)
    assert contents(tmp_path / "a") == {name: FILES[name] for name in WANTED}
    assert told[-1] == remote.num_bytes
    assert read_manifest(tmp_path / "a") == manifest
    assert (manifest.name, manifest.repo, manifest.revision, manifest.licence) == (
        "480p", BASE.repo, COMMIT, "apache-2.0",
    )  # fmt: skip
    pull(remote, tmp_path / "b", endpoint=hub.endpoint)
    assert (tmp_path / "a" / MANIFEST).read_bytes() == (tmp_path / "b" / MANIFEST).read_bytes(), "no time in it"


def test_a_second_pull_downloads_nothing(hub: FakeHub, tmp_path: Path) -> None:
    remote = look_up(BASE, endpoint=hub.endpoint)
    pull(remote, tmp_path / "w", endpoint=hub.endpoint)
    hub.seen.clear()
    told: list[int] = []
    pull(remote, tmp_path / "w", on_progress=told.append, endpoint=hub.endpoint)
    assert hub.seen == []
    assert told[-1] == remote.num_bytes


def test_a_cut_connection_is_taken_up_again(hub: FakeHub, tmp_path: Path) -> None:
    hub.cut_once[SHARD] = 15_000_000
    pull(look_up(BASE, endpoint=hub.endpoint), tmp_path / "w", endpoint=hub.endpoint)
    starts = [start for name, start in hub.seen if name == SHARD]
    assert starts[0] == 0
    assert starts[1] >= 10_000_000
    assert (tmp_path / "w" / SHARD).read_bytes() == LARGE


def test_a_server_that_cannot_resume_starts_over(hub: FakeHub, tmp_path: Path) -> None:
    hub.cut_once[SHARD] = 15_000_000
    hub.ignores_range = True
    told: list[int] = []
    remote = look_up(BASE, endpoint=hub.endpoint)
    pull(remote, tmp_path / "w", on_progress=told.append, endpoint=hub.endpoint)
    assert (tmp_path / "w" / SHARD).read_bytes() == LARGE
    assert max(told) == told[-1] == remote.num_bytes


def test_a_server_that_only_hangs_up_is_given_up(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_MAX_FAILURES", 1)
    hub.tampered[SHARD] = b""
    with pytest.raises(WeightsError, match=r"closed early.*run the command again: it goes on where it stopped"):
        pull(look_up(BASE, endpoint=hub.endpoint), tmp_path / "w", endpoint=hub.endpoint)
    assert (tmp_path / "w" / "model_index.json").exists() or list((tmp_path / "w" / PARTIAL).iterdir())


def test_a_killed_pull_goes_on(hub: FakeHub, tmp_path: Path) -> None:
    hub.hold[SHARD] = 15_000_000
    code = (
        "import sys; from pathlib import Path; from ex4d.weights.hub import look_up, pull;"
        "from ex4d.weights.registry import ENTRIES; pull(look_up(ENTRIES['480p']), Path(sys.argv[1]))"
    )
    folder = tmp_path / "w"
    child = subprocess.Popen([sys.executable, "-c", code, folder], env={**os.environ, "HF_ENDPOINT": hub.endpoint})
    assert hub.held.wait(30)
    name = f"{SHARD.replace('/', '--')}.{hashlib.sha256(LARGE).hexdigest()[:16]}.part"
    part = folder / PARTIAL / name
    waited = time.monotonic()
    while not (part.is_file() and part.stat().st_size >= 10_000_000) and time.monotonic() - waited < 20:
        time.sleep(0.02)
    child.kill()
    child.wait()
    hub.released.set()
    kept = part.stat().st_size
    assert 10_000_000 <= kept <= 15_000_000
    assert not (folder / MANIFEST).exists(), "an unfinished pull is none"
    told: list[int] = []
    hub.seen.clear()
    remote = look_up(BASE, endpoint=hub.endpoint)
    pull(remote, folder, on_progress=told.append, endpoint=hub.endpoint)
    assert [start for name, start in hub.seen if name == SHARD] == [kept]
    assert contents(folder) == {name: FILES[name] for name in WANTED}
    assert told[-1] == remote.num_bytes


def test_other_content_than_listed_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.tampered[SHARD] = LARGE[:-1] + b"x"
    remote = look_up(BASE, endpoint=hub.endpoint)
    with pytest.raises(WeightsError, match=rf"{SHARD}.*hash differs.*pull again"):
        pull(remote, tmp_path / "w", endpoint=hub.endpoint)
    assert not (tmp_path / "w" / MANIFEST).exists()
    assert not (tmp_path / "w" / SHARD).exists()
    hub.tampered.clear()
    pull(remote, tmp_path / "w", endpoint=hub.endpoint)
    assert (tmp_path / "w" / SHARD).read_bytes() == LARGE


def test_small_files_are_checked_too(hub: FakeHub, tmp_path: Path) -> None:
    hub.tampered["transformer/config.json"] = b"[]"
    with pytest.raises(WeightsError, match=r"transformer/config\.json"):
        pull(look_up(BASE, endpoint=hub.endpoint), tmp_path / "w", endpoint=hub.endpoint)


def test_a_damaged_file_is_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    remote = look_up(BASE, endpoint=hub.endpoint)
    pull(remote, tmp_path / "w", endpoint=hub.endpoint)
    (tmp_path / "w" / SHARD).write_bytes(LARGE[:-1] + b"x")
    hub.seen.clear()
    pull(remote, tmp_path / "w", endpoint=hub.endpoint)
    assert [name for name, _ in hub.seen] == [SHARD]
    assert (tmp_path / "w" / SHARD).read_bytes() == LARGE


def test_a_new_revision_replaces_the_old_one(hub: FakeHub, tmp_path: Path) -> None:
    pull(look_up(BASE, endpoint=hub.endpoint), tmp_path / "w", endpoint=hub.endpoint)
    hub.revision = "beef" + 36 * "0"
    hub.files = {**FILES, "model_index.json": b"{}"}
    del hub.files["tokenizer/spiece.model"]
    pull(look_up(BASE, endpoint=hub.endpoint), tmp_path / "w", endpoint=hub.endpoint)
    assert (tmp_path / "w" / "model_index.json").read_bytes() == b"{}"
    assert not (tmp_path / "w" / "tokenizer" / "spiece.model").exists()
    manifest = read_manifest(tmp_path / "w")
    assert manifest is not None
    assert manifest.revision == hub.revision


def test_the_token_stays_with_the_hub(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pull(look_up(BASE, endpoint=hub.endpoint), tmp_path / "w", endpoint=hub.endpoint)
    assert hub.tokens["127.0.0.1"] == {"Bearer hf_secret"}
    assert hub.tokens["localhost"] == {None}, "another host must not learn it"


def test_too_small_a_disk_is_said_before_anything_is_fetched(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = hub_module.shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"0\.3 GB free.*got 0\.0 GB.*EX4D_WEIGHTS"):
        pull(look_up(BASE, endpoint=hub.endpoint), tmp_path / "w", endpoint=hub.endpoint)
    assert hub.seen == []
    (tmp_path / "w" / SHARD).parent.mkdir()
    (tmp_path / "w" / SHARD).write_bytes(LARGE)
    enough = usage._replace(free=(256 << 20) + 1000)
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda _: enough)
    pull(look_up(BASE, endpoint=hub.endpoint), tmp_path / "w", endpoint=hub.endpoint)


def test_a_folder_of_something_else_is_left_alone(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="holds something else"):
        pull(look_up(BASE, endpoint=hub.endpoint), tmp_path, endpoint=hub.endpoint)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="a file of that name"):
        pull(look_up(BASE, endpoint=hub.endpoint), tmp_path / "file", endpoint=hub.endpoint)


def test_two_pulls_into_one_folder(hub: FakeHub, tmp_path: Path) -> None:
    remote = look_up(BASE, endpoint=hub.endpoint)
    (tmp_path / "w" / PARTIAL).mkdir(parents=True)
    with hub_module._locked(tmp_path / "w"), pytest.raises(OutputError, match="another pull"):
        pull(remote, tmp_path / "w", endpoint=hub.endpoint)
    pull(remote, tmp_path / "w", endpoint=hub.endpoint)


def test_unknown_repository_revision_and_no_connection(hub: FakeHub) -> None:
    with pytest.raises(WeightsError, match=r"none, or a private one.*HF_TOKEN"):
        look_up(ENTRIES["ex4d"], endpoint=hub.endpoint)
    with pytest.raises(WeightsError, match="check --revision"):
        look_up(BASE, revision="nonsense", endpoint=hub.endpoint)
    with pytest.raises(WeightsError, match=r"to fetch '480p' from Wan-AI.*check the connection"):
        look_up(BASE, endpoint="http://127.0.0.1:9")
    hub.files = {"README.md": b"moved"}
    with pytest.raises(WeightsError, match="the files of '480p'"):
        look_up(BASE, endpoint=hub.endpoint)


def test_offline_mode_is_said(tmp_path: Path) -> None:
    code = "from ex4d.weights.hub import look_up; from ex4d.weights.registry import ENTRIES; look_up(ENTRIES['480p'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "WeightsError: expected to fetch '480p'" in done.stderr
    assert "offline" in done.stderr.splitlines()[-1].lower()


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "ex4d.weights.hub")
    with pytest.raises(MissingDependencyError, match=r"ex4d\[gen\]"):
        __import__("ex4d.weights.hub")


def test_manifest_is_plain_json(hub: FakeHub, tmp_path: Path) -> None:
    pull(look_up(BASE, endpoint=hub.endpoint), tmp_path / "w", endpoint=hub.endpoint)
    stored = json.loads((tmp_path / "w" / MANIFEST).read_text())
    assert stored["schema_version"] == 1
    assert stored["files"]["tokenizer/spiece.model"]["size"] == 5
    assert not (tmp_path / "w" / PARTIAL).exists()
