"""The depth cache: same bytes back, found by content, never trusted when damaged."""

from pathlib import Path

import numpy as np
import pytest

from ex4d.core.camera import pinhole, static_path
from ex4d.core.clip import ArrayClip, Clip
from ex4d.core.depth import DepthScale
from ex4d.core.video import Video
from ex4d.depth.cache import cache_folder, cached_estimate, hash_clip, open_entry, prune, write_entry
from ex4d.depth.estimator import EstimateRequest, Readiness, SequentialDepth
from ex4d.depth.layout import LayoutEstimator
from ex4d.errors import DepthError
from ex4d.io.depth.raw import DepthKind, RawDepth, RawDepthSource


class LumaDepth:
    """Brightness as disparity, with sky, K and a path."""

    kind: DepthKind = "disparity"
    scale: DepthScale = "relative"
    description = "luma"
    notices = ("a test",)

    def __init__(self, source: Clip[Video]) -> None:
        self._source = source
        self.num_frames, self.height, self.width = source.num_frames, source.height, source.width
        self.timestamps_s = source.timestamps_s
        self.K = pinhole(focal_px=10, height=self.height, width=self.width)
        self.path = static_path(K=self.K, num_frames=self.num_frames, height=self.height, width=self.width)

    def read(self, start: int, stop: int) -> RawDepth:
        frames = self._source.read(start, stop).frames
        values = frames.mean(axis=3).astype(np.float32) / 7
        return RawDepth(values=values, timestamps_s=self.timestamps_s[start:stop], sky=frames[..., 2] > 200)


class LumaEstimator:
    """A real, deterministic estimator that counts its runs."""

    name = "luma"
    licence = "Apache-2.0"
    purpose = "brightness"
    weights = ()
    packages = ()
    is_preview = False
    is_instant = False
    brings_cameras = True

    def __init__(self, version: str = "1") -> None:
        self.version = version
        self.runs = 0

    def ready(self) -> Readiness:
        return Readiness(ready=True)

    def estimate(self, source: Clip[Video], request: EstimateRequest) -> RawDepthSource:
        self.runs += 1
        return LumaDepth(source)


def clip_of(seed: int = 0, num_frames: int = 10) -> ArrayClip[Video]:
    frames = np.random.default_rng(seed).integers(0, 256, (num_frames, 9, 13, 3), dtype=np.uint8)
    return ArrayClip(Video(frames=frames, timestamps_s=np.arange(num_frames) / 30))


def test_second_time_it_is_read_back_exactly(tmp_path: Path) -> None:
    estimator, source = LumaEstimator(), clip_of()
    first, _ = cached_estimate(estimator, source, EstimateRequest(), scratch=tmp_path / "scratch", folder=tmp_path)
    second, notices = cached_estimate(
        estimator, clip_of(), EstimateRequest(), scratch=tmp_path / "scratch", folder=tmp_path
    )
    assert estimator.runs == 1
    assert "from the cache" in notices[0]
    truth = LumaDepth(source)
    for clip in (first, second):
        assert (clip.kind, clip.scale, clip.notices, clip.description) == ("disparity", "relative", ("a test",), "luma")
        for start, stop in [(7, 10), (0, 3)]:
            got, want = clip.read(start, stop), truth.read(start, stop)
            np.testing.assert_array_equal(got.values, want.values)
            np.testing.assert_array_equal(got.sky, want.sky)
        np.testing.assert_array_equal(clip.K, truth.K)
        assert clip.path is not None
        np.testing.assert_array_equal(clip.path.world_to_camera, truth.path.world_to_camera)


def test_other_content_version_or_name_is_another_entry(tmp_path: Path) -> None:
    for estimator, source in [
        (LumaEstimator(), clip_of(0)),
        (LumaEstimator(), clip_of(1)),
        (LumaEstimator("2"), clip_of(0)),
        (LumaEstimator(), clip_of(0, num_frames=9)),
    ]:
        cached_estimate(estimator, source, EstimateRequest(), scratch=tmp_path / "scratch", folder=tmp_path)
        assert estimator.runs == 1
    assert len(list(tmp_path.iterdir())) == 4
    assert hash_clip(clip_of(0)) != hash_clip(clip_of(1))


def test_no_cache_and_instant_estimators_leave_nothing(tmp_path: Path) -> None:
    estimator = LumaEstimator()
    cached_estimate(
        estimator, clip_of(), EstimateRequest(), scratch=tmp_path / "scratch", enabled=False, folder=tmp_path
    )
    cached_estimate(LayoutEstimator(), clip_of(), EstimateRequest(), scratch=tmp_path / "scratch", folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "header", "longer"])
def test_a_damaged_entry_is_computed_again(tmp_path: Path, damage: str) -> None:
    estimator, source = LumaEstimator(), clip_of()
    cached_estimate(estimator, source, EstimateRequest(), scratch=tmp_path / "scratch", folder=tmp_path)
    entry = next(tmp_path.iterdir())
    data = bytearray(entry.read_bytes())
    if damage == "flip":
        data[-200] ^= 1
    elif damage == "header":
        data[20:24] = b"\xff\xff{{"
    entry.write_bytes({"cut": data[:-50], "empty": b"", "longer": data + b"x"}.get(damage, data))
    clip, notices = cached_estimate(estimator, source, EstimateRequest(), scratch=tmp_path / "scratch", folder=tmp_path)
    assert estimator.runs == 2
    assert "damaged" in notices[0]
    np.testing.assert_array_equal(clip.read(0, 10).values, LumaDepth(source).read(0, 10).values)
    cached_estimate(estimator, source, EstimateRequest(), scratch=tmp_path / "scratch", folder=tmp_path)
    assert estimator.runs == 2


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    clip, notices = cached_estimate(
        LumaEstimator(), clip_of(), EstimateRequest(), scratch=tmp_path / "scratch", folder=tmp_path / "file" / "cache"
    )
    assert clip.num_frames == 10
    assert "not cached" in notices[0]


def test_depth_that_is_computed_in_order_is_kept_whole(tmp_path: Path) -> None:
    """What an estimator knows only at its end (K) is stored too; the caller reads in any order."""
    source = clip_of()

    class Running(LumaEstimator):
        def estimate(self, source: Clip[Video], request: EstimateRequest) -> RawDepthSource:
            def chunks():
                for start in (0, 3, 9):
                    part = LumaDepth(source).read(start, min(start + 6 if start else 3, 10))
                    request.advance(len(part))
                    yield part.values, part.sky
                depth.K = np.eye(3) * (7, 7, 1)

            depth = SequentialDepth(
                num_frames=10, height=9, width=13, timestamps_s=source.timestamps_s, chunks=chunks(), kind="disparity",
                scale="relative",
            )  # fmt: skip
            return depth

    told: list[int] = []
    request = EstimateRequest(advance=told.append)
    clip, _ = cached_estimate(Running(), source, request, scratch=tmp_path / "scratch", folder=tmp_path)
    assert told == [3, 6, 1]
    np.testing.assert_array_equal(clip.K, np.diag([7.0, 7, 1]))
    np.testing.assert_array_equal(clip.read(5, 10).values, LumaDepth(source).read(5, 10).values)
    np.testing.assert_array_equal(clip.read(0, 5).sky, LumaDepth(source).read(0, 5).sky)


def test_a_vanished_entry_is_a_clear_error(tmp_path: Path) -> None:
    source = clip_of()
    write_entry(tmp_path / "a.ex4ddepth", LumaDepth(source))
    entry = open_entry(tmp_path / "a.ex4ddepth", source.timestamps_s)
    (tmp_path / "a.ex4ddepth").unlink()
    with pytest.raises(DepthError, match="cached depth"):
        entry.read(0, 1)


def test_pruning_drops_the_oldest_and_keeps_the_new(tmp_path: Path) -> None:
    import os

    for i in range(4):
        path = tmp_path / f"{i}.ex4ddepth"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 + i, 1000 + i))
    prune(tmp_path, 250, keep=tmp_path / "0.ex4ddepth")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.ex4ddepth", "3.ex4ddepth"]


def test_where_the_cache_lies() -> None:
    assert cache_folder({"EX4D_CACHE": "/x"}) == Path("/x/depth")
    assert cache_folder({"XDG_CACHE_HOME": "/y", "LOCALAPPDATA": "/y"}).parts[-2:] == ("ex4d", "depth")
