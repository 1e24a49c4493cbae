"""When another frame's colours may be used: exposure may differ, hue may not."""

import numpy as np
import pytest

from ex4d.fill.temporal_kernels import judge


@pytest.mark.parametrize(
    ("difference", "is_trusted"), [((0, 0, 0), True), ((20, 22, 18), True), ((24, 0, 0), False), ((60, 60, 60), False)]
)
def test_a_brighter_frame_is_used_and_a_tinted_one_is_not(
    difference: tuple[float, float, float], is_trusted: bool
) -> None:
    n, shift = 50.0, np.array(difference, np.float32)
    sums = np.array([n, 0, *(n * shift), n * float((shift**2).mean())], np.float32).reshape(1, 1, 6)
    trust, *kept = judge(sums, np.float32(18))[0, 0]
    assert (trust > 0) == is_trusted
    assert kept == pytest.approx(difference if is_trusted else (0, 0, 0))
