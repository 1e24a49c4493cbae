"""Cards stand on the ground at their feet, before what is beside them, and do not jump; the background is plausible."""

import numpy as np
import pytest

from ex4d.core.clip import ArrayClip
from ex4d.core.video import Video
from ex4d.depth.cards import CardPlacer
from ex4d.depth.cards_background import find_background
from ex4d.depth.measure import border_pairs, count_ordered, fit_clip
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene

HEIGHT, WIDTH = 100, 150


def ground_of(wall: float = 0.3) -> np.ndarray:
    """float32 [h,w]: a floor that rises from 0 in the middle to 1 at the bottom, and a wall."""
    rows = np.maximum((np.arange(HEIGHT) + 0.5 - 50) / 50, wall).astype(np.float32)
    return np.repeat(rows[:, None], WIDTH, axis=1)


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """bool [h,w], rows `top` to `bottom` (exclusive)."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def place(mask: np.ndarray, ground: np.ndarray) -> np.ndarray:
    return CardPlacer().place(mask, ground, ground)


def test_a_card_stands_where_its_foot_is() -> None:
    ground, mask = ground_of(), box(50, 86, 60, 80)
    before = ground.copy()
    out = place(mask, ground)
    assert np.unique(out[mask]).size == 1
    assert out[mask][0] == pytest.approx(ground[85, 0], rel=0.08)
    assert out[mask][0] > ground[85, 0]  # the floor beside its foot stays behind it
    assert np.array_equal(out[~mask], ground[~mask])
    assert np.array_equal(ground, before)
    assert place(box(40, 70, 60, 80), ground)[50, 70] < out[60, 70]  # a foot farther up is farther away


def test_no_subject_no_card() -> None:
    ground = ground_of()
    assert np.array_equal(place(np.zeros((HEIGHT, WIDTH), np.bool_), ground), ground)


def test_each_region_is_its_own_card() -> None:
    near, far = box(60, 95, 10, 30), box(50, 75, 100, 115)
    out = place(near | far, ground_of())
    assert out[near][0] > 1.2 * out[far][0]


def test_what_is_cut_off_below_is_nearest_but_not_without_limit() -> None:
    ground, mask = ground_of(), box(30, HEIGHT, 50, 90)
    assert ground.max() < place(mask, ground)[mask][0] < 1.15 * ground.max()


def test_nothing_beside_a_foot_is_before_the_card() -> None:
    ground, mask = ground_of(), box(40, 75, 60, 80)
    drawn = ground.copy()
    drawn[:, 80:] = 0.7  # something measured stands right beside it
    assert CardPlacer().place(mask, drawn, ground)[mask][0] > 0.7


def test_what_floats_is_as_far_as_its_size_says() -> None:
    ground = ground_of()
    small, large = box(10, 20, 60, 70), box(5, 35, 60, 90)
    cards = [place(mask, ground)[mask][0] for mask in (small, large)]
    assert 0.3 < cards[0] < cards[1] <= 1.1
    assert cards[1] == pytest.approx(28 / 50 / 0.7, rel=0.1)  # 30 rows, each 1/50 of disparity, 0.7 camera heights


def test_a_foot_that_jumps_does_not_make_the_card_jump() -> None:
    ground, placer, seen = ground_of(), CardPlacer(), []
    for i in range(30):
        mask = box(40, 82 if i % 2 else 90, 60, 80)
        seen.append(placer.place(mask, ground, ground)[mask][0])
    target = abs(ground[89, 0] - ground[81, 0])
    steps = np.abs(np.diff(seen[10:]))
    assert steps.max() < 0.2 * target
    assert ground[81, 0] < np.mean(seen[20:]) < 1.05 * ground[89, 0]


def test_a_card_follows_its_subject() -> None:
    ground, placer, seen = ground_of(), CardPlacer(), []
    for i in range(60):
        mask = box(45, 70 + min(i, 25), 60 + i // 2, 80 + i // 2)
        seen.append(placer.place(mask, ground, ground)[mask][0])
    assert (np.diff(seen) > -1e-6).all()
    assert seen[-1] == pytest.approx(ground[94, 0], rel=0.1)


def test_parts_keep_their_cards_when_they_split() -> None:
    ground, placer = ground_of(), CardPlacer()
    whole = box(40, 90, 40, 100)
    together = [placer.place(whole, ground, ground)[whole][0] for _ in range(5)][-1]
    left, right = box(40, 90, 40, 65), box(40, 70, 75, 100)
    out = placer.place(left | right, ground, ground)
    assert out[left][0] == pytest.approx(together, rel=0.05)
    assert out[right][0] == pytest.approx(together, rel=0.15)  # not yet where its own foot is
    fresh = place(left | right, ground)
    assert fresh[right][0] < 0.7 * together


def clip_of(frames: np.ndarray) -> ArrayClip[Video]:
    return ArrayClip(Video(frames=frames, timestamps_s=np.arange(len(frames)) / 15))


def room() -> np.ndarray:
    rng = np.random.default_rng(2)
    return (np.array([170, 150, 120]) + rng.integers(-20, 20, (HEIGHT, WIDTH, 1))).astype(np.uint8)


def test_background_of_a_room() -> None:
    background = find_background(clip_of(np.repeat(room()[None], 2, axis=0)))
    assert background.ground.shape == (HEIGHT, WIDTH)
    assert background.ground.dtype == np.float32
    assert background.ground.min() > 0
    assert (np.diff(background.ground, axis=0) >= 0).all()
    assert background.ground[50, 0] > background.ground[50, 75]
    assert not background.sky(0).any()
    assert np.array_equal(background.disparity(1), background.ground)


def test_walls_are_upright_where_a_subject_stands_out() -> None:
    frame = room()
    frame[40:90, 60:90] = (40, 70, 200)
    upright = find_background(clip_of(frame[None])).ground
    leaning = find_background(clip_of(room()[None])).ground
    assert upright[5, 75] == pytest.approx(upright[40, 75], rel=0.01)
    assert leaning[5, 75] < 0.7 * leaning[40, 75]


def test_background_under_a_sky() -> None:
    rng = np.random.default_rng(1)
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    frame[:60] = (120, 170, 240)
    frame[60:] = rng.integers(30, 110, (40, WIDTH, 1))
    frame[20:60, 70:80] = (40, 30, 30)
    frames = np.repeat(frame[None], 3, axis=0)
    background = find_background(clip_of(frames))
    sky, disparity = background.sky(1), background.disparity(1)
    assert sky[5:50, :60].mean() > 0.98
    assert not sky[65:].any()
    assert not sky[25:55, 72:78].any()
    assert 0 < disparity[10, 10] < 0.5 * disparity[40, 75] < disparity[95, 10]
    assert background.ground[75, 0] < 0.47 < 0.95 < background.ground[-1, 0]  # the horizon is where the sky ends


def test_cards_put_borders_in_order() -> None:
    """On a scene with the true masks of its movers: what a background alone hardly does."""
    scene = make_scene(3)
    clip = scene_clip(scene, num_frames=4, fps=8, height=128, width=192)
    views = [clip.view(i) for i in range(4)]
    background = find_background(clip)
    placer, with_cards, without = CardPlacer(), [], []
    for index, view in enumerate(views):
        without.append(background.disparity(index))
        subject = np.isin(view.object_id, scene.ids("mover"))
        with_cards.append(placer.place(subject, without[-1], background.ground))
    shares = []
    for maps in (with_cards, without):
        disparity, truth = np.stack(maps), np.stack([view.depth for view in views])
        known = np.stack([~view.sky for view in views])
        fit = fit_clip(disparity[known], truth[known], farthest=float(truth[known].max()))
        right = total = 0
        for values, view in zip(disparity, views, strict=True):
            pairs = border_pairs(view.depth, ~view.sky)
            mover = np.isin(view.object_id.ravel()[pairs.near], scene.ids("mover"))
            pairs = type(pairs)(near=pairs.near[mover], far=pairs.far[mover])
            right += count_ordered(fit.depth(values), pairs)[0]
            total += len(pairs.near)
        shares.append(right / total)
    assert shares[0] > 0.8
    assert shares[1] < 0.4
