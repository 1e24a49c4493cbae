"""An anchor from an estimator that knows metres, asked about keyframes only."""

from dataclasses import dataclass

import numpy as np
import pytest

from ex4d.core.clip import ArrayClip, Clip
from ex4d.core.video import Video
from ex4d.depth.anchor import SelectedFrames, fit_anchor, keyframes, metric_anchor
from ex4d.depth.estimator import EstimateRequest, Readiness, SequentialDepth
from ex4d.errors import DepthError


def numbered_clip(num: int) -> ArrayClip[Video]:
    frames = np.arange(num, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 24, 3), np.uint8)
    return ArrayClip(Video(frames=frames, timestamps_s=np.arange(num) / 10))


def test_selected_frames_are_a_clip_of_their_own() -> None:
    chosen = SelectedFrames(clip=numbered_clip(10), frames=[0, 4, 9])
    assert (chosen.num_frames, chosen.height, chosen.width) == (3, 16, 24)
    assert chosen.timestamps_s == pytest.approx([0, 0.4, 0.9])
    got = chosen.read(1, 3)
    assert got.frames[:, 0, 0, 0].tolist() == [4, 9]
    assert got.timestamps_s == pytest.approx([0.4, 0.9])


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricEstimator:
    """Says that every pixel is as many metres away as the frame's number plus one; 0 and sky where it is told to."""

    known: bool = True
    sky: bool = False
    broken: bool = False
    name: str = "metres"
    version: str = "1"
    licence: str = "MIT"
    purpose: str = "tests"
    weights: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    is_preview: bool = False
    is_instant: bool = True
    brings_cameras: bool = False

    def ready(self) -> Readiness:
        return Readiness(ready=True)

    def estimate(self, source: Clip[Video], request: EstimateRequest) -> SequentialDepth:
        assert request.landmarks is None
        height, width = source.height // 2, source.width // 2

        def chunks():
            for index in range(source.num_frames):
                number = int(source.read(index, index + 1).frames[0, 0, 0, 0])
                values = np.full((1, height, width), number + 1.0 if self.known else 0.0, np.float32)
                values[0, 0, 0] = np.nan if self.broken else 0.0
                sky = np.zeros(values.shape, np.bool_)
                sky[:, -2:] = self.sky
                yield values, sky

        return SequentialDepth(
            num_frames=source.num_frames,
            height=height,
            width=width,
            timestamps_s=source.timestamps_s,
            chunks=chunks(),
            kind="depth",
            scale="metric",
        )


def test_metres_on_a_lattice_of_keyframes() -> None:
    anchor = metric_anchor(MetricEstimator(sky=True), numbered_clip(40), EstimateRequest())
    assert anchor.scale == "metric"
    assert anchor.name == "metres"
    assert sorted(set(anchor.frame.tolist())) == keyframes(40)
    assert np.array_equal(anchor.depth, anchor.frame + 1.0)
    assert anchor.xy.min() >= 0
    assert anchor.xy[:, 1].max() < 12  # the lowest two of eight rows are sky
    assert not ((anchor.xy < 2).all(axis=1)).any()  # the first pixel is unknown


def test_an_estimator_that_knows_nothing_anchors_nothing() -> None:
    clip = numbered_clip(5)
    anchor = metric_anchor(MetricEstimator(known=False), clip, EstimateRequest())
    assert len(anchor.depth) == 0
    raw = MetricEstimator().estimate(clip, EstimateRequest())
    assert fit_anchor(raw, anchor, (clip.height, clip.width)) is None


def test_broken_metres_are_named_by_frame() -> None:
    with pytest.raises(DepthError, match="frame 0"):
        metric_anchor(MetricEstimator(broken=True), numbered_clip(5), EstimateRequest())
