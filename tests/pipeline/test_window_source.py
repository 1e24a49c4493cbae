"""What windows are made of: frames and masks from two videos or a prior, at the model's size."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ex4d.errors import InputError
from ex4d.io.prior import close_prior, open_prior
from ex4d.model.windows import Window, plan_windows
from ex4d.pipeline.window_source import PriorSource, VideoPairSource, read_window
from generation_tools import HEIGHT, NUM, WIDTH, ArrayView, make_prior, picture_frames, tiny_config, write_video


def _mask_frames(num_frames: int = NUM, height: int = HEIGHT) -> np.ndarray:
    frames = np.zeros((num_frames, height, WIDTH, 3), np.uint8)
    frames[:, :, : 2 * WIDTH // 3] = 255
    return frames


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The release's two inputs, as lossy as H.264 makes them."""
    folder = tmp_path_factory.mktemp("pair")
    color = write_video(folder / "color.mp4", picture_frames(), fps=Fraction(30000, 1001), sound=True)
    return color, write_video(folder / "mask.mp4", _mask_frames())


def test_two_lossy_videos_are_one_view(pair: tuple[Path, Path]) -> None:
    source = VideoPairSource(*pair)
    assert (source.num_frames, source.height, source.width) == (NUM, HEIGHT, WIDTH)
    assert source.fps == Fraction(30000, 1001)
    assert source.has_audio
    assert source.timestamps_s == pytest.approx(np.arange(NUM) * 1001 / 30000, abs=1e-4)
    rgb, mask = source.read(2, 5)
    later = source.read(7, 9)[0]
    assert rgb.shape == mask.shape == (3, HEIGHT, WIDTH, 3)
    want = picture_frames()
    # two levels of chroma blur at the square's edges aside, these are frames 2 to 4, and 7 and 8
    assert np.abs(rgb.astype(int) - want[2:5]).mean() < 8 < np.abs(rgb.astype(int) - want[7:10]).mean()
    assert np.abs(later.astype(int) - want[7:9]).mean() < 8
    _, observed = read_window(source, Window(0, 13, 0), tiny_config(erode_px="1"), size=(HEIGHT, WIDTH), seed=0)
    assert np.array_equal(observed[:NUM], _mask_frames() > 127), "the threshold undoes what compression did"


@pytest.mark.parametrize(
    ("frames", "words"), [(_mask_frames(height=16), "one size"), (_mask_frames(NUM - 1), "as many frames")]
)
def test_videos_that_do_not_fit(pair: tuple[Path, Path], frames: np.ndarray, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        VideoPairSource(pair[0], write_video(tmp_path / "mask.mp4", frames))


def test_stills_are_clips_of_one_frame(tmp_path: Path) -> None:
    for name in ("color", "mask"):
        Image.fromarray(_mask_frames(1)[0]).save(tmp_path / f"{name}.png")
    source = VideoPairSource(tmp_path / "color.png", tmp_path / "mask.png")
    assert (source.num_frames, source.has_audio) == (1, False)
    assert source.fps > 0
    assert np.array_equal(source.read(0, 1)[1], _mask_frames(1))


def test_what_reading_changes_is_kept_as_notice(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A mask whose pixels are twice as wide as high."""
    with av.open(str(tmp_path / "mask.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH // 2, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        for image in _mask_frames():
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:, ::2]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = VideoPairSource(pair[0], tmp_path / "mask.mp4")
    assert len(source.notices) == 1
    assert source.notices[0].startswith("mask.mp4: pixels were not square")
    assert VideoPairSource(*pair).notices == []


def test_a_prior_is_read_as_it_lies(tmp_path: Path) -> None:
    prior = open_prior(make_prior(tmp_path, 5))
    try:
        source = PriorSource(prior.view)
        rgb, mask = source.read(1, 4)
        view = prior.view.read(1, 4)
        assert np.array_equal(rgb, view.rgb)
        assert np.array_equal(mask, np.where(view.observed, 255, 0))
        assert not view.observed.all()
        assert np.array_equal(source.timestamps_s, prior.view.timestamps_s)
    finally:
        close_prior(prior)


def test_the_last_frame_fills_the_window() -> None:
    rgb, observed = read_window(ArrayView(6), Window(0, 9, 0), tiny_config(), size=(HEIGHT, WIDTH), seed=0)
    assert rgb.shape == (9, HEIGHT, WIDTH, 3)
    assert observed.shape == (9, HEIGHT, WIDTH)
    assert observed.dtype == bool
    for i in (6, 7, 8):
        assert np.array_equal(rgb[i], ArrayView(6).read(5, 6)[0][0])
        assert np.array_equal(observed[i], observed[5])


def test_the_kernel_shrinks_observed_areas() -> None:
    """Edges of the frame are no edges of the mask."""
    edge = 2 * WIDTH // 3
    for side, reach in (("1", 0), ("3", 1), ("5", 2), ("9", 4)):
        config = tiny_config(erode_px=side)
        _, observed = read_window(ArrayView(5), Window(0, 5, 0), config, size=(HEIGHT, WIDTH), seed=0)
        assert observed[:, :, : edge - reach].all()
        assert not observed[:, :, edge - reach :].any()


def test_random_kernels_belong_to_frames_not_windows() -> None:
    config = tiny_config(erode_px="official")
    source = ArrayView()
    windows = plan_windows(NUM, window_frames=9, overlap_frames=5)
    first, second = (read_window(source, w, config, size=(HEIGHT, WIDTH), seed=3)[1] for w in windows)
    start = windows[1].start
    assert np.array_equal(second[: 9 - start], first[start:])
    widths = {int(frame[0].sum()) for frame in first}
    assert len(widths) > 1
    other = read_window(source, windows[0], config, size=(HEIGHT, WIDTH), seed=4)[1]
    assert not np.array_equal(first, other)


def test_square_is_the_releases_plain_resize() -> None:
    """Ours averages observed colour only: the black of the unobserved third does not bleed in."""
    source = ArrayView(5, 64, 96)
    column = 21  # at a third of the size, the last that shows something observed
    official, ours = (
        read_window(source, Window(0, 5, 0), config, size=(22, 32), seed=0)[0][:, :, column, 2]
        for config in (tiny_config(size="auto", square=True), tiny_config())
    )
    assert (official < 60).all()
    assert (ours > 95).all()
