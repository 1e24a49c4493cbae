"""`MaskConfig`: what it accepts, and that it is light."""

import subprocess
import sys
from typing import Any

import pytest

from ex4d.errors import ConfigError
from ex4d.masking.config import STYLES, MaskConfig


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rendering_share": 1.1}, "masks.rendering_share"),
        ({"yaw_deg": (-91.0, 90.0)}, "masks.yaw_deg"),
        ({"yaw_deg": (30.0, -30.0)}, "masks.yaw_deg"),
        ({"yaw_deg": (float("nan"), 3.0)}, "masks.yaw_deg"),
        ({"elevation_deg": (0.0, 61.0)}, "masks.elevation_deg"),
        ({"dolly": (0.0, 1.0)}, "masks.dolly"),
        ({"shift": (-0.1, 1.0)}, "masks.shift"),
        ({"orbit_weight": -1.0}, "masks.orbit_weight"),
        ({f"{style}_weight": 0.0 for style in STYLES}, "masks.*_weight"),
        ({"pivots": ()}, "masks.pivots"),
        ({"pivot_spread": 2.0}, "masks.pivot_spread"),
        ({"erode_px": (0, 65)}, "masks.erode_px"),
        ({"dilate_px": (0.5, 2.0)}, "masks.dilate_px"),
        ({"noise_px": -1.0}, "masks.noise_px"),
        ({"tracker": "tapir"}, "masks.tracker"),
        ({"keyframe": "last"}, "masks.keyframe"),
        ({"restart_frames": 0}, "masks.restart_frames"),
        ({"grid_step_px": 1}, "masks.grid_step_px"),
        ({"track_side_px": 8}, "masks.track_side_px"),
    ],
)
def test_bad_values_are_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MaskConfig(**change)
    assert named in str(caught.value)


def test_weights_follow_the_styles() -> None:
    assert tuple(MaskConfig().weights) == STYLES
    assert MaskConfig(spiral_weight=9.0).weights["spiral"] == 9.0


def test_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, ex4d.masking.config\n"
        "heavy = {'numba', 'cv2', 'av', 'torch', 'PIL', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
