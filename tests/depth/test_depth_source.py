"""`resolve_depth`: what is chosen, how it is fitted to the clip, and what is refused before long work."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ex4d.core.clip import ArrayClip
from ex4d.core.video import Video
from ex4d.depth.intrinsics import choose_intrinsics
from ex4d.depth.result import DepthConfig, Selection
from ex4d.depth.source import resolve_depth
from ex4d.errors import ConfigError, DepthError
from ex4d.io.rgbd.folder import open_rgbd

RNG = np.random.default_rng(9)
T, H, W = 6, 24, 32
DEPTH = RNG.uniform(1, 5, (T, H, W)).astype(np.float32)


def video(num_frames: int = T, height: int = H, width: int = W) -> ArrayClip[Video]:
    frames = RNG.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
    return ArrayClip(Video(frames=frames, timestamps_s=np.arange(num_frames) / 24 + 0.5))


def test_auto_without_weights_is_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EX4D_WEIGHTS", str(tmp_path / "none"))
    result = resolve_depth(video(), DepthConfig(cache=False), scratch=tmp_path)
    assert (result.name, result.is_preview, result.K, result.path) == ("builtin", True, None, None)
    assert any("PREVIEW" in notice for notice in result.notices)
    chunk = result.depth.read(0, T)
    assert chunk.valid.all()
    assert chunk.depth.shape == (T, H, W)


def save(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "d.npz", **arrays)
    return str(folder / "d.npz")


def test_layout_is_a_preview() -> None:
    result = resolve_depth(video(), DepthConfig(depth="layout"))
    assert (result.name, result.is_preview, result.K, result.path) == ("layout", True, None, None)
    assert any("PREVIEW" in notice for notice in result.notices)
    chunk = result.depth.read(0, T)
    assert chunk.valid.all()
    assert 0.8 < chunk.depth.min() < 1.1
    assert chunk.depth.max() == pytest.approx(1.8, abs=0.1)


def test_given_depth_is_used_as_it_is(tmp_path: Path) -> None:
    source = video()
    depth = DEPTH.copy()
    depth[:, 3, 4] = 0
    for mapping in ("floor", "official"):
        result = resolve_depth(source, DepthConfig(depth=save(tmp_path, depth=depth), mapping=mapping))
        chunk = result.depth.read(0, T)
        np.testing.assert_array_equal(chunk.depth, depth)
        np.testing.assert_array_equal(chunk.valid, depth > 0)
        np.testing.assert_array_equal(chunk.timestamps_s, source.timestamps_s)
        assert result.name == "file"
        assert not result.is_preview


def test_disparity_is_mapped_and_it_is_said(tmp_path: Path) -> None:
    path = save(tmp_path, disparity=1 / DEPTH)
    result = resolve_depth(video(), DepthConfig(depth=path))
    chunk = result.depth.read(0, T)
    assert chunk.scale == "relative"
    assert (chunk.depth.min(), chunk.depth.max()) == (1, pytest.approx(1 / 0.15))
    assert any("without an anchor" in notice for notice in result.notices)
    official = resolve_depth(video(), DepthConfig(depth=path, mapping="official"))
    np.testing.assert_allclose(official.depth.read(0, T).depth.min(), 10000 / 3900, rtol=1e-6)


def test_depth_of_the_whole_clip_follows_the_selection(tmp_path: Path) -> None:
    K = np.array([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]])
    poses = np.tile(np.eye(4), (T, 1, 1))
    poses[:, 0, 3] = np.arange(T)
    depth = DEPTH.copy()
    depth[0] = np.nan  # not selected: must not matter
    path = save(tmp_path, depth=depth, K=K, camera_to_world=poses)
    whole = Selection(num_frames=T, height=H, width=W, frame_index=np.array([2, 3, 5]))
    result = resolve_depth(video(3, H // 2, W // 2), DepthConfig(depth=path), selection=whole)
    chunk = result.depth.read(0, 3)
    np.testing.assert_array_equal(chunk.depth, depth[[2, 3, 5]][:, 1::2, 1::2])
    assert result.path is not None
    np.testing.assert_allclose(result.path.center[:, 0], [0, 1, 3])
    assert result.K is not None
    np.testing.assert_allclose(result.K, [[15, 0, 8], [0, 15, 6], [0, 0, 1]])
    assert any("resampled" in notice for notice in result.notices)


def test_depth_of_the_selected_frames_only(tmp_path: Path) -> None:
    whole = Selection(num_frames=40, height=H, width=W, frame_index=np.arange(10, 10 + T))
    result = resolve_depth(video(), DepthConfig(depth=save(tmp_path, depth=DEPTH)), selection=whole)
    np.testing.assert_array_equal(result.depth.read(2, 4).depth, DEPTH[2:4])


def test_original_shape_counts_when_the_working_size_was_squashed(tmp_path: Path) -> None:
    whole = Selection(num_frames=T, height=H, width=W, frame_index=np.arange(T))
    result = resolve_depth(video(T, 24, 48), DepthConfig(depth=save(tmp_path, depth=DEPTH)), selection=whole)
    assert result.depth.read(0, 1).depth.shape == (1, 24, 48)


@pytest.mark.parametrize(
    ("shape", "word"), [((5, H, W), "5"), ((7, H, W), "7"), ((T, H, H), "24x24"), ((T, W, H), "24x32")]
)
def test_wrong_count_or_shape(tmp_path: Path, shape: tuple[int, ...], word: str) -> None:
    with pytest.raises(DepthError, match=word):
        resolve_depth(video(), DepthConfig(depth=save(tmp_path, depth=np.ones(shape))))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_bad_numbers_name_the_frame(tmp_path: Path, bad: float) -> None:
    depth = DEPTH.copy()
    depth[4, 0, 0] = bad
    with pytest.raises(DepthError, match="frame 4"):
        resolve_depth(video(), DepthConfig(depth=save(tmp_path, depth=depth)))


def test_all_invalid_and_flat(tmp_path: Path) -> None:
    with pytest.raises(DepthError, match="frame 0"):
        resolve_depth(video(), DepthConfig(depth=save(tmp_path, depth=np.zeros((T, H, W)))))
    with pytest.raises(DepthError, match="frame 0"):
        resolve_depth(video(), DepthConfig(depth=save(tmp_path, depth=DEPTH), max_depth=0.5))
    with pytest.raises(DepthError, match="same value"):
        resolve_depth(video(), DepthConfig(depth=save(tmp_path, disparity=np.ones((T, H, W)))))


def test_unknown_source() -> None:
    with pytest.raises(DepthError, match="layuot"):
        resolve_depth(video(), DepthConfig(depth="layuot"))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    folder = tmp_path / "rec"
    folder.mkdir()
    for i in range(T):
        Image.fromarray(RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)).save(folder / f"{i}.color.png")
        codes = np.full((H, W), 1000 * (i + 1), np.uint16)
        codes[0, 0] = 25000
        Image.fromarray(codes).save(folder / f"{i}.depth.png")
    (folder / "pose.txt").write_text("\n".join(f"{i} 0 0 0 0 0 1" for i in range(T)))
    return folder


def test_recordings_bring_their_depth_and_cameras(recording: Path) -> None:
    rgbd = open_rgbd(recording)
    result = resolve_depth(rgbd.video, DepthConfig(), rgbd=rgbd)
    assert result.name == "rgbd"
    chunk = result.depth.read(0, T)
    assert chunk.depth[:, 1, 1].tolist() == [1, 2, 3, 4, 5, 6]
    assert not chunk.valid[:, 0, 0].any()
    K, _ = choose_intrinsics(height=H, width=W)
    np.testing.assert_allclose(result.source_path(K).center[:, 0], np.arange(T))


def test_a_recording_may_be_the_depth_of_a_video(recording: Path) -> None:
    whole = Selection(num_frames=T, height=H, width=W, frame_index=np.array([1, 2]))
    result = resolve_depth(video(2), DepthConfig(depth=str(recording)), selection=whole)
    assert result.depth.read(0, 2).depth[:, 1, 1].tolist() == [2, 3]
    assert result.world_to_camera is not None
    np.testing.assert_allclose(result.world_to_camera[1, 0, 3], -1)


def test_a_bad_recording_is_found_before_long_work(recording: Path) -> None:
    Image.fromarray(np.zeros((H, W), np.uint16)).save(recording / "4.depth.png")
    rgbd = open_rgbd(recording)
    with pytest.raises(DepthError, match="frame 4"):
        resolve_depth(rgbd.video, DepthConfig(), rgbd=rgbd)


def test_the_option_beats_the_recording(recording: Path) -> None:
    rgbd = open_rgbd(recording)
    assert resolve_depth(rgbd.video, DepthConfig(depth="layout"), rgbd=rgbd).name == "layout"


def test_a_still_source_without_poses() -> None:
    result = resolve_depth(video(), DepthConfig())
    path = result.source_path(choose_intrinsics(height=H, width=W)[0])
    np.testing.assert_array_equal(path.world_to_camera, np.tile(np.eye(4), (T, 1, 1)))


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": 0.0},
        {"scale": float("nan")},
        {"max_depth": -1.0},
        {"floor": 1.0},
        {"floor": 0.0},
        {"kind": "x"},
        {"mapping": "x"},
    ],
)
def test_config_is_validated(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"depth.{next(iter(fields))}"):
        DepthConfig(**fields)  # type: ignore[arg-type]


def test_intrinsics_in_their_order() -> None:
    file_K = np.array([[77.0, 0, 5], [0, 77, 6], [0, 0, 1]])
    K, text = choose_intrinsics(height=480, width=640, file_K=file_K, focal_px=3)
    np.testing.assert_allclose(K, [[3, 0, 5], [0, 3, 6], [0, 0, 1]])  # what is typed wins, and keeps the given centre
    assert "77" in text
    K, text = choose_intrinsics(height=480, width=640, file_K=file_K, focal_35mm=50, sweep=lambda: 1.5)
    assert K is file_K
    K, text = choose_intrinsics(height=480, width=640, focal_35mm=43.2666, estimated_K=file_K)
    np.testing.assert_allclose(K[0, 0], 800, rtol=1e-5)
    assert "35 mm" in text
    K, text = choose_intrinsics(height=480, width=640, estimated_K=file_K, sweep=lambda: 1.5)
    assert K is file_K
    assert "estimator" in text
    K, text = choose_intrinsics(height=480, width=640, sweep=lambda: 1.5)
    assert K[0, 0] == 960
    assert "two-view" in text
    K, text = choose_intrinsics(height=480, width=640, fov_deg=90)
    np.testing.assert_allclose(K, [[320, 0, 320], [0, 320, 240], [0, 0, 1]])
    assert "--fov-deg" in text
    K, _ = choose_intrinsics(height=480, width=640, focal_px=500)
    assert K[0, 0] == 500
    K, text = choose_intrinsics(height=800, width=640)
    np.testing.assert_allclose(K, [[720, 0, 320], [0, 720, 400], [0, 0, 1]])
    assert "assumed" in text
    assert choose_intrinsics(height=800, width=640, geometry="official")[0][0, 0] == 500
    assert choose_intrinsics(height=800, width=640, focal_px=9, geometry="official")[0][0, 0] == 9


@pytest.mark.parametrize(
    ("fov", "focal"), [(0, None), (180, None), (float("nan"), None), (None, 0), (None, float("inf")), (60, 500)]
)
def test_bad_intrinsics(fov: float | None, focal: float | None) -> None:
    with pytest.raises(ConfigError):
        choose_intrinsics(height=4, width=4, fov_deg=fov, focal_px=focal)
