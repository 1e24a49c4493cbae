"""`handheld`: the small restless motion of a camera held by a person, seeded and band-limited."""

import numpy as np

from ex4d.camera.config import PathRequest, smoothstep
from ex4d.camera.moves import Poses, Values, repeat_intrinsics
from ex4d.core.arrays import Float64
from ex4d.core.geometry import rotation_about
from ex4d.core.seeding import make_rng

FRAMES_PER_SECOND = 30.0
"""The clock of the noise: frames count as 1/30 s, so a path does not depend on the clip's length."""
BAND_HZ = (0.3, 3.0)
"""Sway of the body at the low end, tremor of the arms at the high end."""
NUM_WAVES = 8
SETTLE_S = 0.5
"""The noise fades in over this time, so that the path leaves the source view at rest."""
TRANSLATION_RMS = 0.05
"""Root mean square of x, y and z at K = 1, as a share of the pivot depth."""
ROTATION_RMS_DEG = 3.0
"""Root mean square of yaw and pitch at K = 1; roll has half."""


def handheld(values: Values, request: PathRequest, s: Float64) -> Poses:
    """Translation and rotation noise of strength K about the source view.

    The first n frames are the same for any longer clip; progress ``s`` is not used.
    """
    seconds = np.arange(len(s)) / FRAMES_PER_SECOND
    fade = smoothstep(seconds / SETTLE_S)
    x, y, z, yaw, pitch, roll = (
        values[0] * fade * _band_limited_noise(request.seed, name, seconds)
        for name in ("x", "y", "z", "yaw", "pitch", "roll")
    )
    unit = TRANSLATION_RMS * request.pivot_depth
    turn = np.radians(ROTATION_RMS_DEG)
    matrices = np.repeat(np.eye(4)[None], len(s), axis=0)
    eyes = unit * np.stack([x, y, z], axis=-1)
    for i in range(len(s)):
        rotation = (
            rotation_about("y", turn * yaw[i])
            @ rotation_about("x", turn * pitch[i])
            @ rotation_about("z", 0.5 * turn * roll[i])
        )
        matrices[i, :3, :3] = rotation.T
        matrices[i, :3, 3] = -rotation.T @ eyes[i]
    return Poses(matrices + 0.0, repeat_intrinsics(request))


def _band_limited_noise(seed: int, name: str, seconds: Float64) -> Float64:
    """float64 [N] of unit root mean square over long times: sines of random frequency and phase in the band."""
    rng = make_rng(seed, "camera", "handheld", name)
    frequency_hz = np.exp(rng.uniform(np.log(BAND_HZ[0]), np.log(BAND_HZ[1]), NUM_WAVES))
    phase_rad = rng.uniform(0, 2 * np.pi, NUM_WAVES)
    amplitude = 1.0 / frequency_hz  # slow sway is wide, fast tremor is small
    amplitude *= np.sqrt(2.0 / np.sum(amplitude**2))
    waves = amplitude * np.sin(2 * np.pi * seconds[:, None] * frequency_hz + phase_rad)
    return waves.sum(axis=1)  # not a matrix product: BLAS rounds by size, and a prefix must not depend on N
