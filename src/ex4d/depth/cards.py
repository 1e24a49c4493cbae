"""Subjects as upright cards: each connected region gets one disparity, that of the ground it stands on."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32
from ex4d.depth.subjects_outline import regions

_FOOT_PERCENTILE = 97.0
_CAMERA_HEIGHTS = 1.2
"""Nothing that stands is taken to be taller than this many camera heights: people, animals, cars."""
_FLOATING_HEIGHTS = 0.7
"""How tall a thing is taken to be that touches no ground."""
_BELOW_FRAME = 0.06
"""How far below the frame a foot stands that the frame cuts off, as a share of the height."""
_MARGIN = 0.05
"""How much nearer than what is beside its foot a card must be, as a share of the ground's range."""
_BESIDE_SHARE = 0.04
_LEARNING = 0.12
_OVERLAP = 0.2


@dataclass(slots=True)
class _Card:
    """A card of the frame before."""

    region: Bool
    disparity: float
    age: int


@dataclass(slots=True)
class CardPlacer:
    """Places the subjects of one clip, frame after frame; what overlaps the frame before is the same card."""

    _cards: list[_Card] = field(default_factory=list)

    def place(self, subject: Bool, disparity: Float32, ground: Float32) -> Float32:
        """Draw each region of a frame's subject as a card.

        A card stands where its lowest rows meet the ground; if the frame cuts them off, a bit below the frame. Two
        things move it nearer: whatever is beside its foot stays behind it, and it is not taken to be taller than 1.2
        times the height of the camera above the ground. What has its foot where there is no ground (it floats, or its
        feet were not found) is taken to be 0.7 camera heights tall, about a metre. No card is nearer than the ground
        just below the frame. Over time a card follows its place slowly.

        Args:
            subject: bool [h,w].
            disparity: float32 [h,w], 1/z that the cards are drawn on.
            ground: float32 [h,w], 1/z of the floor and of what closes the view behind it, in the same unit.

        Returns:
            float32 [h,w].
        """
        out = disparity.copy()
        cards: list[_Card] = []
        for region in regions(subject):
            card = self._follow(region, _target(region, disparity, ground))
            out[region] = card.disparity
            cards.append(card)
        self._cards = cards
        return out

    def _follow(self, region: Bool, target: float) -> _Card:
        """The card of a region: where it was in the frame before, moved a little towards its target."""
        size = np.count_nonzero(region)
        shared: list[int] = []
        for card in self._cards:
            overlap = int(np.count_nonzero(region & card.region))
            same = overlap >= _OVERLAP * min(size, np.count_nonzero(card.region))
            shared.append(overlap if same else 0)
        if not any(shared):
            return _Card(region, target, 1)
        last = float(np.average([card.disparity for card in self._cards], weights=shared))
        age = 1 + max(card.age for card, count in zip(self._cards, shared, strict=True) if count)
        return _Card(region, last + max(_LEARNING, 1 / age) * (target - last), age)


def _target(region: Bool, disparity: Float32, ground: Float32) -> float:
    """Where a card belongs, from one frame."""
    height, width = region.shape
    reach = round(_BESIDE_SHARE * width)
    y, x = np.nonzero(region)
    top, foot = (float(value) for value in np.percentile(y, (100 - _FOOT_PERCENTILE, _FOOT_PERCENTILE)))
    rows = np.median(ground[:, max(x.min() - reach, 0) : x.max() + reach + 1], axis=1)
    rows = np.maximum.accumulate(rows)
    margin = _MARGIN * float(rows[-1] - rows[0])
    per_row = float(rows[-1] - rows[-1 - height // 6]) / (height // 6)  # 1/z of a plane is linear in the row
    nearest = float(rows[-1]) + per_row * _BELOW_FRAME * height
    contact = nearest if y.max() >= height - 2 else float(rows[round(foot)])
    heights = _FLOATING_HEIGHTS if contact < rows[0] + margin else _CAMERA_HEIGHTS
    by_size = per_row * (foot - top) / heights
    low = region & (np.arange(height)[:, None] > foot - 0.1 * (foot - top) - 3)
    beside = cv2.dilate(low.astype(np.uint8), np.ones((1, 2 * reach + 1), np.uint8)).astype(np.bool_) & ~region
    behind = float(np.percentile(disparity[beside], 90)) if beside.any() else 0.0
    return min(max(contact, by_size, behind + margin), nearest)
