"""Stages on single clips: cuts, buckets, gates, duplicates, given depth."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ex4d.core.camera import static_path
from ex4d.core.video import Video
from ex4d.dataset.layout import SampleRow
from ex4d.errors import ConfigError, OutputError
from ex4d.prepare.config import (
    BucketConfig,
    GateConfig,
    LatentConfig,
    PrepareConfig,
    SampleConfig,
    WorkConfig,
    native_buckets,
)
from ex4d.prepare.cuts import CutDetector
from ex4d.prepare.duplicates import find_duplicates
from ex4d.prepare.gates import black_share, measure, perceptual_hash, refusal
from ex4d.prepare.geometry import all_frames, depth_beside, find_geometry
from ex4d.prepare.item_work import ItemResult, ItemSettings, ItemWorker
from ex4d.prepare.items import Item
from ex4d.prepare.segments import SegmentReader, fit_bucket
from prepare.prepare_tools import FPS, HEIGHT, WIDTH, pan, picture, small_config, write_clip


@contextmanager
def untimed(_: str) -> Iterator[None]:
    yield


def video_of(frames: np.ndarray) -> Video:
    return Video(frames=frames, timestamps_s=np.arange(len(frames)) / FPS)


def work(config: PrepareConfig, root: Path, name: str, *, depth: str = "layout", **fields: object) -> ItemResult:
    scratch = root / "scratch"
    scratch.mkdir(exist_ok=True)
    item = Item(name=name, path=name, size=0, **fields)  # pyright: ignore[reportArgumentType]
    return ItemWorker(ItemSettings(config=config, depth=depth, root=root, scratch=scratch))(item)


def test_cuts_are_found_and_motion_is_none() -> None:
    """Every change between twelve pictures; fast pans and a flicker of the light stay one shot."""
    detector = CutDetector(GateConfig().cut_threshold)
    shots = [pan(seed, 6) for seed in range(12)]
    found = [n for n, frame in enumerate(np.concatenate(shots)) if detector.push(frame)]
    assert found == [6 * n for n in range(1, 12)]
    for step in (1.0, 6.0, 12.0):
        detector = CutDetector(GateConfig().cut_threshold)
        assert not any(detector.push(frame) for frame in pan(3, 12, step))
    detector = CutDetector(GateConfig().cut_threshold)
    flicker = [np.clip(frame * (1 + 0.08 * (n % 2)), 0, 255).astype(np.uint8) for n, frame in enumerate(pan(3, 12))]
    assert not any(detector.push(frame) for frame in flicker)


def test_buckets() -> None:
    sizes = BucketConfig(buckets=native_buckets(512, (49,))).sizes()
    assert (49, 512, 512) in sizes
    assert all(side % 16 == 0 for _, h, w in sizes for side in (h, w))
    assert all(abs(h * w / 512**2 - 1) < 0.05 for _, h, w in sizes)
    fit = fit_bucket(1080, 1920, sizes)
    assert (fit.bucket_height, fit.bucket_width) == (384, 688)
    assert (fit.height, fit.width) == (387, 688)
    assert fit.crop(np.zeros((1, fit.height, fit.width, 3))).shape == (1, 384, 688, 3)
    assert fit_bucket(1920, 1080, sizes).bucket_height > 600
    both = [(49, 512, 512), (49, 256, 256)]
    assert fit_bucket(400, 400, both).bucket_height == 256  # the largest that is filled
    assert fit_bucket(100, 100, both).bucket_height == 256  # else the smallest
    for wrong in ("48x512x512", "49x500x512", "49x512", "1x512x512", "49x512x0", "axbxc"):
        with pytest.raises(ConfigError, match="bucket"):
            BucketConfig(buckets=(wrong,))
    for wrong, words in (
        ("48x512x512", "got T = 48 in .*the nearest is 49x512x512"),
        ("49x500x512", "got H = 500 in .*the nearest is 49x496x512"),
        ("1x512x7", "got T = 1, W = 7 in .*the nearest is 5x512x16"),
    ):
        with pytest.raises(ConfigError, match=words):
            BucketConfig(buckets=(wrong,))
    with pytest.raises(ConfigError, match=r"--num-frames of 4k\+1 .*got 10; to fix: the nearest is 9"):
        native_buckets(512, (49, 10))


def test_settings_out_of_range_name_their_field() -> None:
    wrong: list[tuple[type[Any], dict[str, Any], str]] = [
        (GateConfig, {"max_black": 2.0}, "max_black"), (GateConfig, {"min_motion": -1.0}, "min_motion"),
        (GateConfig, {"min_scores": ("aesthetic",)}, "--min-score"), (GateConfig, {"max_hash_distance": 200}, "hash"),
        (BucketConfig, {"fps": 0.0}, "fps"), (BucketConfig, {"max_segments": 0}, "max_segments"),
        (PrepareConfig, {"items_per_shard": 0}, "--items-per-shard"), (WorkConfig, {"retries": 99}, "--retries"),
        (SampleConfig, {"num_masks": 0}, "num_masks"), (LatentConfig, {"device": "tpu"}, "--latents-device"),
    ]  # fmt: skip
    for kind, fields, words in wrong:
        with pytest.raises(ConfigError, match=words):
            kind(**fields)


def test_the_crop_keeps_rays_where_they_were() -> None:
    fit = fit_bucket(100, 200, [(5, 48, 64)])
    K = np.array([[80.0, 0, 48], [0, 80, 24], [0, 0, 1]])
    path = fit.crop_path(static_path(K=K, num_frames=2, height=fit.height, width=fit.width))
    assert (path.height, path.width) == (48, 64)
    assert path.K[0, 0, 2] == K[0, 2] - fit.left
    assert path.K[0, 1, 2] == K[1, 2] - fit.top
    assert fit.left == (fit.width - 64) // 2 > 0


def test_measured_motion_is_that_of_the_picture() -> None:
    for step in (1.0, 3.0):
        expected = step * FPS / WIDTH * 100
        assert measure(video_of(pan(1, 9, step)))["motion"] == pytest.approx(expected, rel=0.2)
    still = measure(video_of(np.repeat(pan(1, 1), 9, axis=0)))
    assert still["still"] == 1.0
    assert still["motion"] < 0.1
    half = np.concatenate([pan(1, 5), np.repeat(pan(1, 1), 4, axis=0)])
    assert measure(video_of(half))["still"] == pytest.approx(3 / 8)


def test_gates() -> None:
    gates = GateConfig()
    good = {**measure(video_of(pan(1, 9))), "black": 0.0}
    assert refusal(good, gates) is None
    for name, value in (("motion", 0.1), ("motion", 500.0), ("still", 0.5), ("black", 0.2), ("contrast", 1.0)):
        refused = refusal({**good, name: value}, gates)
        assert refused is not None
        assert refused[0] == name
        assert "allowed is" in refused[1]
    dark = np.concatenate([pan(1, 3), np.full((1, HEIGHT, WIDTH, 3), 5, np.uint8)])
    assert black_share(video_of(dark), 12.0) == 0.25


def test_hashes_survive_coding_and_tell_pictures_apart() -> None:
    rng = np.random.default_rng(0)
    hashes = {seed: int(perceptual_hash(video_of(pan(seed, 9))), 16) for seed in range(8)}
    for seed, value in hashes.items():
        frames = pan(seed, 9).astype(int) + rng.integers(-3, 4, (9, HEIGHT, WIDTH, 3))
        noisy = int(perceptual_hash(video_of(np.clip(frames, 0, 255).astype(np.uint8))), 16)
        assert (noisy ^ value).bit_count() <= 8
        assert all((value ^ other).bit_count() > 24 for name, other in hashes.items() if name != seed)


def test_duplicates_are_those_of_comparing_all() -> None:
    rng = np.random.default_rng(1)
    hashes = [int.from_bytes(rng.bytes(24), "big") for _ in range(30)]
    for _ in range(60):
        value = hashes[rng.integers(len(hashes))]
        for bit in rng.choice(192, rng.integers(0, 14), replace=False):
            value ^= 1 << int(bit)
        hashes.append(value)
    rows = [
        SampleRow(key=f"clip{n // 2}_{n % 2:03d}", shard=0, bucket=(5, 16, 16), caption="", phash=f"{value:048x}")
        for n, value in enumerate(hashes)
    ]
    for limit in (0, 5, 8):
        expected: dict[int, int] = {}
        for n, value in enumerate(hashes):
            near = [m for m in range(n) if m not in expected and m // 2 != n // 2
                    and (hashes[m] ^ value).bit_count() <= limit]  # fmt: skip
            if near:
                expected[n] = near[0]
        assert len(expected) > 3
        assert find_duplicates(rows, limit) == expected
    assert find_duplicates(rows, -1) == {}


def test_segments_take_the_longest_bucket_and_the_rate(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", pan(1, 24))
    item = Item(name="a.mp4", path="a.mp4", size=0)

    def lengths(item: Item, **fields: object) -> list[tuple[int, float]]:
        config = BucketConfig(buckets=("5x48x64", "9x48x64"), **fields)  # pyright: ignore[reportArgumentType]
        with SegmentReader(path, item, config, cut_threshold=0.15, timed=untimed) as reader:
            return [(len(segment.video), segment.start_s) for segment in reader]

    assert lengths(item) == [(9, 0.0), (9, 9 / FPS), (5, 18 / FPS)]
    assert lengths(item, max_segments=1) == [(9, 0.0)]
    assert lengths(item, fps=4.0) == [(9, 0.0)]
    assert lengths(replace(item, start_s=1.0, end_s=2.0)) == [(5, 0.0)]


def test_scores_of_the_input_are_a_gate(tmp_path: Path) -> None:
    config = replace(small_config(), gates=GateConfig(min_scores=("aesthetic=5",)))
    (refused,) = work(config, tmp_path, "gone.mp4", scores={"aesthetic": 4.0}).left
    assert (refused.reason, refused.segment) == ("score", None)
    (refused,) = work(config, tmp_path, "gone.mp4").left
    assert "not given" in refused.text
    (refused,) = work(config, tmp_path, "gone.mp4", scores={"aesthetic": 6.0}).left
    assert refused.reason == "missing"


def test_a_clip_too_slow_for_the_rate_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", pan(1, 9))
    config = replace(small_config(), buckets=BucketConfig(buckets=("5x48x64",), fps=16.0))
    (refused,) = work(config, tmp_path, "a.mp4").left
    assert refused.reason == "rate"


def test_given_depth_belongs_to_its_frames(tmp_path: Path) -> None:
    """Two segments of a clip: each gets the depth of its own frames, cut as the picture is."""
    frames = np.stack([picture(1, 96, 160)[10:70, n : n + 120] for n in range(12)])
    path = write_clip(tmp_path / "a.mp4", frames)
    depth = 2 + np.arange(12, dtype=np.float32)[:, None, None] + np.zeros((12, 60, 120), np.float32)
    depth[:, :, 60:] += 20
    np.savez(tmp_path / "a.depth.npz", depth=depth)
    item, config = Item(name="a.mp4", path="a.mp4", size=0), small_config(depth="files")
    file, count = depth_beside(tmp_path, item)
    assert count == 12
    with SegmentReader(path, item, config.buckets, cut_threshold=0.15, timed=untimed) as reader:
        for segment, first in zip(reader, (0, 5), strict=True):
            index = reader.frame_index(segment)
            assert index is not None
            made = find_geometry(segment, file, config=config, num_frames=count, frame_index=index, scratch=tmp_path)
            assert made.depth.depth.shape == (5, HEIGHT, WIDTH) == made.video.frames.shape[:3]
            assert np.allclose(made.depth.depth[:, :, 10], 2 + np.arange(first, first + 5)[:, None])
            assert np.allclose(made.depth.depth[:, :, -10], 22 + np.arange(first, first + 5)[:, None])
            assert made.info["source"] == "file"
    result = work(config, tmp_path, "a.mp4", depth="files")
    assert [sample.key[-3:] for sample in result.samples] == ["000", "001"]
    assert not result.left
    (tmp_path / "a.depth.npz").unlink()
    assert [left.reason for left in work(config, tmp_path, "a.mp4", depth="files").left] == ["depth", "depth"]
    np.savez(tmp_path / "a.depth.npz", depth=depth[:7])
    assert [left.reason for left in work(config, tmp_path, "a.mp4", depth="files").left] == ["depth"]


def test_a_segment_stands_for_itself() -> None:
    assert all_frames(3).tolist() == [0, 1, 2]


def test_what_is_not_the_clips_fault_is_raised(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", pan(1, 9))
    item = Item(name="a.mp4", path="a.mp4", size=0)
    nowhere = ItemSettings(config=small_config(), depth="layout", root=tmp_path, scratch=tmp_path / "a.mp4" / "no")
    with pytest.raises(OutputError):
        ItemWorker(nowhere)(item)
