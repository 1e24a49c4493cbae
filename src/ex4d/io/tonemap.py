"""HDR and wide-gamut video to 8-bit sRGB, in NumPy: exact formulas first, then the tables that make them fast.

Steps: code values → linear light in BT.2020 (or P3) → BT.709 primaries → highlight roll-off → sRGB.
Diffuse white is at 203 cd/m² (ITU-R BT.2408), which becomes the top of the SDR range; the roll-off is the EETF of
ITU-R BT.2390-11 §5.4.1, applied to the largest of R, G, B so that hues stay.
"""

from typing import Literal, TypeVar

import numpy as np

from ex4d.core.arrays import Float32, Float64, UInt8
from ex4d.io.decode.protocol import FrameHeader

FloatArray = TypeVar("FloatArray", Float32, Float64)
Transfer = Literal["sdr", "pq", "hlg"]

SDR_WHITE_NITS = 203.0
PQ_PEAK_NITS = 10000.0
HLG_PEAK_NITS = 1000.0
DEFAULT_PEAK_NITS = 1000.0
"""Brightest value assumed where the file does not say; most HDR is graded on 1000 cd/m² displays."""

# SMPTE ST 2084.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
# ITU-R BT.2100, HLG.
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_HLG_GAMMA = 1.2

LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
"""(K_R, K_B) of the YUV matrices: ITU-R BT.601, BT.709, BT.2020 (non-constant luminance)."""

_XY = {
    "bt709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    "p3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_D65 = (0.3127, 0.3290)


def pq_to_nits(code: Float64) -> Float64:
    """SMPTE ST 2084 EOTF: code 0–1 → cd/m² 0–10000, same shape."""
    root = np.power(code, 1 / _M2)
    return PQ_PEAK_NITS * np.power(np.maximum(root - _C1, 0) / (_C2 - _C3 * root), 1 / _M1)


def nits_to_pq(nits: Float64) -> Float64:
    """Inverse of `pq_to_nits`."""
    power = np.power(np.maximum(nits, 0) / PQ_PEAK_NITS, _M1)
    return np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2)


def hlg_to_scene(code: Float64) -> Float64:
    """ITU-R BT.2100 HLG inverse OETF: code 0–1 → scene light 0–1, same shape."""
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - _C) / _A) + _B) / 12)


def hlg_scene_to_nits(scene_rgb: FloatArray) -> FloatArray:
    """ITU-R BT.2100 HLG OOTF for a 1000 cd/m² display: scene light [...,3] (BT.2020) → cd/m² [...,3], same dtype."""
    kr, kb = LUMA["bt2020"]
    luminance = scene_rgb @ np.array([kr, 1 - kr - kb, kb], scene_rgb.dtype)
    nits: FloatArray = HLG_PEAK_NITS * scene_rgb * np.power(luminance, _HLG_GAMMA - 1)[..., None]
    return nits


def roll_off_nits(nits: Float64, peak_nits: float, target_nits: float = SDR_WHITE_NITS) -> Float64:
    """BT.2390 EETF with black at 0: luminance 0–`peak_nits` → 0–`target_nits`, same shape.

    Below the knee values stay as they are; what is brighter than `peak_nits` becomes `target_nits`.
    """
    if peak_nits <= target_nits:
        return np.minimum(nits, target_nits)
    source_peak, target_peak = nits_to_pq(np.array([peak_nits, target_nits]))
    code = np.minimum(nits_to_pq(nits) / source_peak, 1.0)
    top = target_peak / source_peak
    knee = 1.5 * top - 0.5
    t = np.maximum(code - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * top
    return pq_to_nits(np.where(code < knee, code, spline) * source_peak)


def srgb_encode(linear: Float64) -> Float64:
    """IEC 61966-2-1: linear 0–1 → code 0–1, same shape."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.power(np.maximum(linear, 1e-9), 1 / 2.4) - 0.055)


def srgb_decode(code: Float64) -> Float64:
    """Inverse of `srgb_encode`."""
    return np.where(code <= 0.04045, code / 12.92, np.power((code + 0.055) / 1.055, 2.4))


def primaries_matrix(source: str) -> Float64:
    """float64 [3,3] that takes linear RGB column vectors in `source` primaries to BT.709 ones (both D65)."""
    return np.linalg.inv(_rgb_to_xyz(_XY["bt709"])) @ _rgb_to_xyz(_XY[source])


def _rgb_to_xyz(primaries: tuple[tuple[float, float], ...]) -> Float64:
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in primaries]).T
    white = np.array([_D65[0] / _D65[1], 1.0, (1 - _D65[0] - _D65[1]) / _D65[1]])
    return columns * np.linalg.solve(columns, white)


def yuv_to_rgb(planes: Float32, *, matrix: str, bits: int, full_range: bool) -> Float32:
    """Y'CbCr codes to R'G'B' 0–1 (clipped), ITU-R BT.2100 tables 9 and 10.

    Args:
        planes: float32 [3,H,W], integer code values of `bits` bits.
        matrix: a key of `LUMA`.
        bits: bit depth.
        full_range: codes use the whole range.

    Returns:
        float32 [H,W,3].
    """
    step = 2.0 ** (bits - 8)
    scale_y, scale_c, black = (2.0**bits - 1,) * 2 + (0.0,) if full_range else (219 * step, 224 * step, 16 * step)
    y = (planes[0] - np.float32(black)) / np.float32(scale_y)
    cb = (planes[1] - np.float32(128 * step)) / np.float32(scale_c)
    cr = (planes[2] - np.float32(128 * step)) / np.float32(scale_c)
    kr, kb = LUMA[matrix]
    kg = 1 - kr - kb
    red = y + np.float32(2 * (1 - kr)) * cr
    blue = y + np.float32(2 * (1 - kb)) * cb
    green = y - np.float32(2 * kb * (1 - kb) / kg) * cb - np.float32(2 * kr * (1 - kr) / kg) * cr
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 1)


class ToneMapper:
    """Turns R'G'B' of one transfer and gamut into 8-bit sRGB; tables are made once.

    Args:
        transfer: how codes mean light.
        primaries: ``"bt709"``, ``"bt2020"`` or ``"p3"``.
        peak_nits: brightest value in the clip; 0 = unknown (`DEFAULT_PEAK_NITS`).
    """

    def __init__(self, transfer: Transfer, primaries: str, peak_nits: float = 0.0) -> None:
        self._transfer = transfer
        self._matrix = primaries_matrix(primaries).astype(np.float32)
        code = np.arange(65536) / 65535
        linear = {"pq": pq_to_nits, "hlg": hlg_to_scene, "sdr": srgb_decode}[transfer](code)
        self._linear = (linear if transfer != "sdr" else linear * SDR_WHITE_NITS).astype(np.float32)
        self._peak = _peak_of(transfer, peak_nits)
        # Indexed by fourth and square roots: about as even in perceived steps as the curves themselves.
        nits = self._peak * code**4
        gain = roll_off_nits(nits, self._peak) / np.maximum(nits, 1e-12) / SDR_WHITE_NITS
        gain[0] = gain[1]
        self._gain = gain.astype(np.float32)
        self._encode = np.rint(srgb_encode(code**2) * 255).astype(np.uint8)

    def __call__(self, rgb: Float32) -> UInt8:
        """R'G'B' float32 [...,3] in 0–1 → uint8 [...,3] sRGB."""
        light: Float32 = self._linear[_index(rgb)]
        if self._transfer == "hlg":
            light = hlg_scene_to_nits(light)
        light = np.maximum(light @ self._matrix.T, np.float32(0))
        largest = np.minimum(light.max(axis=-1), np.float32(self._peak)) / np.float32(self._peak)
        gain = self._gain[_index(np.sqrt(np.sqrt(largest)))]
        shown = np.minimum(light * gain[..., None], np.float32(1))
        return self._encode[_index(np.sqrt(shown))]


def mapper_for(header: FrameHeader) -> ToneMapper | None:
    """The mapper that a stream needs, or None for ordinary SDR in BT.709."""
    if header.transfer == "sdr" and header.primaries == "bt709":
        return None
    return ToneMapper(header.transfer, header.primaries, header.peak_nits)  # type: ignore[arg-type]


def describe(header: FrameHeader) -> str:
    """The notice that says what was done."""
    if header.transfer == "sdr":
        return f"colours were converted from {_NAMES[header.primaries]} to sRGB"
    name = {"pq": "PQ (HDR10)", "hlg": "HLG"}[header.transfer]
    peak = _peak_of(header.transfer, header.peak_nits)
    return f"HDR video: {name} was tone-mapped to sRGB (BT.2390, peak {peak:.0f} cd/m2, white {SDR_WHITE_NITS:.0f})"


_NAMES = {"bt709": "BT.709", "bt2020": "BT.2020", "p3": "Display P3"}


def _peak_of(transfer: str, peak_nits: float) -> float:
    if transfer == "sdr":
        return SDR_WHITE_NITS
    if transfer == "hlg":
        return HLG_PEAK_NITS
    return float(np.clip(peak_nits or DEFAULT_PEAK_NITS, SDR_WHITE_NITS, PQ_PEAK_NITS))


def _index(unit: Float32) -> np.ndarray:
    """Table index of values 0–1."""
    return (unit * np.float32(65535) + np.float32(0.5)).astype(np.uint16)
