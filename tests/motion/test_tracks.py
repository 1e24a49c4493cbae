"""Points followed through pictures that move in a known way."""

from collections.abc import Iterator

import numpy as np
import pytest

from ex4d.core.arrays import UInt8
from ex4d.motion.tracks import CELL_PX, Tracks, track_points
from motion.motion_tools import noise_picture, shifted

HEIGHT, WIDTH = 112, 168


def gray(picture: UInt8) -> UInt8:
    return np.ascontiguousarray(picture[..., 1])


@pytest.fixture(scope="module")
def picture() -> UInt8:
    return noise_picture(HEIGHT, WIDTH, finest_px=8)


def errors_px(tracks: Tracks, x_px: float, y_px: float) -> np.ndarray:
    """How far each track's second to last places are from its first one plus the motion."""
    order = np.lexsort((tracks.frame, tracks.track))
    track, frame, xy = tracks.track[order], tracks.frame[order], tracks.xy[order]
    first = np.searchsorted(track, track)
    moved = (frame - frame[first])[:, None] * np.array([x_px, y_px])
    return np.linalg.norm(xy - xy[first] - moved, axis=1)[frame > frame[first]]


@pytest.mark.parametrize("step", [(0.3, 0.0), (1.7, -0.6), (6.4, 3.3), (12.0, 0.0)])
def test_points_follow_a_shift_to_a_part_of_a_pixel(picture: UInt8, step: tuple[float, float]) -> None:
    x, y = step
    tracks = track_points(gray(shifted(picture, x * i, y * i)) for i in range(6))
    _, here, there = tracks.shared(0, 3)
    assert len(here) > 20
    assert np.median(np.linalg.norm(there - here - np.array([3 * x, 3 * y]), axis=1)) < 0.05
    assert np.percentile(errors_px(tracks, x, y), 90) < 0.2


def test_points_cover_the_picture_once(picture: UInt8) -> None:
    tracks = track_points(gray(shifted(picture, 2 * i)) for i in range(5))
    for frame in range(5):
        _, xy = tracks.at(frame)
        cells = {(int(x / CELL_PX), int(y / CELL_PX)) for x, y in xy}
        rows, columns = -(-HEIGHT // CELL_PX), -(-WIDTH // CELL_PX)
        assert len(cells) > 0.9 * rows * columns
        assert len(xy) < 1.6 * rows * columns
        assert (xy > 0).all()
        assert (xy < (WIDTH, HEIGHT)).all()


def test_what_is_covered_is_dropped(picture: UInt8) -> None:
    """Another picture slides over the right half; points under it end, and none of them jumps onto it."""
    cover, frames = noise_picture(HEIGHT, WIDTH, seed=9, finest_px=8), []
    for i in range(8):
        frame, edge = picture.copy(), WIDTH - 10 * i
        frame[:, edge:] = cover[:, : WIDTH - edge]
        frames.append(gray(frame))
    tracks = track_points(frames)
    ids, start = tracks.at(0)
    still, end = tracks.at(7)
    alive = np.isin(ids, still)
    edge = WIDTH - 70
    assert alive[start[:, 0] < edge - 10].mean() > 0.9
    assert alive[start[:, 0] > edge + 6].mean() < 0.1
    kept = np.isin(still, ids)
    assert np.median(np.linalg.norm(end[kept] - start[alive], axis=1)) < 0.05


def test_a_cut_ends_all_tracks(picture: UInt8) -> None:
    other = noise_picture(HEIGHT, WIDTH, seed=5, finest_px=8)
    tracks = track_points([gray(picture), gray(picture), gray(other), gray(other)])
    assert len(tracks.shared(0, 1)[0]) > 60
    assert len(tracks.shared(1, 2)[0]) < 0.15 * len(tracks.at(1)[0])
    assert len(tracks.shared(2, 3)[0]) > 60


def test_frames_that_have_nothing_in_common_share_no_points() -> None:
    """Where a search ends by chance, the search back does not lead to where it began."""
    rng = np.random.default_rng(0)
    tracks = track_points(rng.integers(0, 256, (2, HEIGHT, WIDTH), dtype=np.uint8))
    assert len(tracks.at(0)[0]) > 90
    assert len(tracks.shared(0, 1)[0]) < 10


def test_places_count_from_the_corner_of_the_picture() -> None:
    """A dot on the pixel of column 49 and row 35 is at (49.5, 35.5)."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    dot = (255 * np.exp(-((x - 49) ** 2 + (y - 35) ** 2) / 8)).astype(np.uint8)
    _, here, there = track_points([dot, np.roll(dot, 2, axis=1)]).shared(0, 1)
    slot = here.tolist().index([49.5, 35.5])
    assert there[slot] == pytest.approx((51.5, 35.5), abs=0.05)


@pytest.mark.parametrize("value", [0, 127, 255])
def test_flat_pictures_have_no_tracks(value: int) -> None:
    tracks = track_points(np.full((64, 96), value, np.uint8) for _ in range(3))
    assert (tracks.num_tracks, tracks.num_frames, len(tracks.frame)) == (0, 3, 0)
    assert (tracks.height, tracks.width) == (64, 96)
    ids, first, second = tracks.shared(0, 2)
    assert (len(ids), first.shape, second.shape) == (0, (0, 2), (0, 2))


def test_an_edge_alone_has_no_tracks() -> None:
    """A point on a straight edge can be anywhere along it."""
    picture = np.zeros((64, 96), np.uint8)
    picture[:, 40:] = 255
    assert track_points([picture, picture]).num_tracks == 0


def test_texture_that_appears_is_taken_up(picture: UInt8) -> None:
    flat = np.full((HEIGHT, WIDTH), 90, np.uint8)
    tracks = track_points([flat, flat, gray(picture), gray(picture)])
    assert [len(tracks.at(i)[0]) for i in (0, 1)] == [0, 0]
    assert len(tracks.shared(2, 3)[0]) > 60


def test_one_frame_and_tiny_frames(picture: UInt8) -> None:
    tracks = track_points([gray(picture)])
    assert tracks.num_frames == 1
    assert tracks.num_tracks == len(tracks.frame) > 60
    for size in ((16, 16), (16, 300), (300, 16)):
        tiny = track_points(gray(shifted(noise_picture(*size, finest_px=4), i)) for i in range(4))
        assert tiny.num_frames == 4


def test_places_are_sorted_and_looked_up_by_frame(picture: UInt8) -> None:
    tracks = track_points(gray(shifted(picture, 4 * i)) for i in range(5))
    assert (np.diff(tracks.frame) >= 0).all()
    for frame in range(5):
        ids, _ = tracks.at(frame)
        assert (np.diff(ids) > 0).all()
    assert len(np.unique(np.stack([tracks.frame, tracks.track]), axis=1).T) == len(tracks.frame)
    common, first, second = tracks.shared(1, 3)
    for number, a, b in list(zip(common, first, second, strict=True))[:5]:
        for frame, xy in ((1, a), (3, b)):
            ids, places = tracks.at(frame)
            assert np.array_equal(places[ids == number][0], xy)


def test_only_two_frames_are_held(picture: UInt8) -> None:
    """A picture is let go when the next but one comes."""
    import weakref

    held: list[weakref.ref[UInt8]] = []

    def frames() -> Iterator[UInt8]:
        for i in range(6):
            frame = gray(shifted(picture, i)).copy()
            held.append(weakref.ref(frame))
            yield frame
            assert sum(ref() is not None for ref in held) <= 3  # the two, and the loop variable here

    assert track_points(frames()).num_frames == 6


def test_equal_clips_give_equal_tracks(picture: UInt8) -> None:
    a, b = (track_points(gray(shifted(picture, 2.5 * i)) for i in range(4)) for _ in range(2))
    assert np.array_equal(a.xy, b.xy)
    assert np.array_equal(a.track, b.track)
