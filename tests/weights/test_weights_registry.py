"""Names of weights, where they lie, and what is said when they are not there."""

from pathlib import Path

import pytest

from ex4d.errors import WeightsError
from ex4d.weights.folders import MANIFEST, cache_root, weights_root
from ex4d.weights.registry import ENTRIES, find_entry, is_pulled, resolve


def test_where_weights_lie(tmp_path: Path) -> None:
    assert weights_root({"EX4D_WEIGHTS": "/disk/w", "EX4D_CACHE": "/c"}) == Path("/disk/w")
    assert weights_root({"EX4D_CACHE": "/c"}) == Path("/c/weights")
    assert cache_root({"XDG_CACHE_HOME": "/x", "LOCALAPPDATA": "/x"}).name == "ex4d"
    assert find_entry("720p").folder({"EX4D_WEIGHTS": "/disk/w"}) == Path("/disk/w/720p")


def test_what_is_fetched() -> None:
    base = ENTRIES["480p"]
    for path in ("model_index.json", "transformer/a-00001-of-00014.safetensors", "text_encoder/config.json",
                 "tokenizer/spiece.model", "image_processor/merges.txt", "LICENSE.txt"):  # fmt: skip
        assert base.wants(path), path
    for path in ("transformer/pytorch_model.bin", "run.py", "transformer/run.py", "README.md", "examples/a.json",
                 "../model_index.json", "transformer/x/a.json", "other.safetensors"):  # fmt: skip
        assert not base.wants(path), path
    assert ENTRIES["ex4d"].wants("ex4d.ckpt")
    assert not ENTRIES["ex4d"].wants("ex4dXckpt")
    assert ENTRIES["distill-480p"].wants(ENTRIES["distill-480p"].ready)


@pytest.mark.parametrize(
    ("name", "wanted", "others"),
    [
        ("vda-small", ["video_depth_anything_vits.pth"], ["README.md", "video_depth_anything_vitsXpth"]),
        ("da2-small", ["config.json", "model.safetensors"], ["model.bin", ".gitattributes"]),
        ("da2-metric-indoor", ["config.json", "model.safetensors"], ["pytorch_model.bin"]),
        ("da2-metric-outdoor", ["config.json", "model.safetensors"], ["x/model.safetensors"]),
        ("da3metric-large", ["config.json", "model.safetensors"], ["README.md"]),
        ("moge", ["model.pt"], ["model.py"]),
        ("depth-anything-3", ["config.json", "model.safetensors"], ["model.py"]),
        ("depthcrafter", ["config.json", "diffusion_pytorch_model.safetensors", "LICENSE"], ["visual.jpg"]),
        (
            "svd",
            ["vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors", "image_encoder/model.fp16.safetensors",
             "scheduler/scheduler_config.json", "feature_extractor/preprocessor_config.json", "LICENSE.md"],
            ["unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors",
             "svd_xt.safetensors", "image_encoder/model.safetensors"],
        ),
    ],
)  # fmt: skip
def test_what_is_fetched_for_depth(name: str, wanted: list[str], others: list[str]) -> None:
    entry = ENTRIES[name]
    assert entry.kind == "depth"
    assert all(entry.wants(path) for path in wanted)
    assert not any(entry.wants(path) for path in others)
    assert not entry.ready or entry.ready in wanted


def test_a_pulled_name_is_found(tmp_path: Path) -> None:
    env = {"EX4D_WEIGHTS": str(tmp_path)}
    for name, inside in (("480p", ""), ("ex4d", "adapter"), ("distill-480p", ENTRIES["distill-480p"].ready)):
        with pytest.raises(WeightsError, match=rf"nothing there.*ex4d weights pull {name} \(about"):
            resolve(name, environ=env)
        folder = tmp_path / name
        folder.mkdir()
        with pytest.raises(WeightsError, match="a download that was not finished"):
            resolve(name, environ=env)
        (folder / MANIFEST).write_text("{}")
        if inside:
            assert not is_pulled(ENTRIES[name], env), "not converted yet"
            (folder / inside).mkdir()
        assert resolve(name, environ=env) == folder / inside


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "480p").mkdir()
    (tmp_path / "ex4d.ckpt").touch()
    assert resolve("./480p") == Path("480p")
    assert resolve(Path("480p")) == Path("480p")
    assert resolve("ex4d.ckpt") == Path("ex4d.ckpt")
    with pytest.raises(WeightsError, match="got nothing there"):
        resolve("480p", environ={"EX4D_WEIGHTS": str(tmp_path / "w")})
    with pytest.raises(
        WeightsError, match=r"one of 480p, 720p, ex4d, distill-480p, .*; got 'wan', which does not exist"
    ):
        resolve("wan")
    with pytest.raises(WeightsError, match="ex4d weights list"):
        find_entry("wan")
