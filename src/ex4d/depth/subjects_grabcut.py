"""GrabCut (Rother, Kolmogorov and Blake, 2004) behind two functions; the same input gives the same cut."""

from dataclasses import dataclass

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float64, UInt8

_MIN_PIXELS = 20
_UNUSED_RECT = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class ColorModels:
    """Mixtures of five Gaussians in RGB, as OpenCV stores them: float64 [1,65] each."""

    background: Float64
    subject: Float64


def grab_cut(rgb: UInt8, labels: UInt8, *, steps: int) -> tuple[Bool, ColorModels] | None:
    """Learn the colours of both sides and cut between them.

    Args:
        rgb: uint8 [h,w,3].
        labels: uint8 [h,w], `cv2.GC_FGD`, `GC_BGD` (fixed), `GC_PR_FGD` and `GC_PR_BGD` (first guesses).
        steps: rounds of learning and cutting.

    Returns:
        bool [h,w], True on the subject, and the colours; None where a side has fewer than 20 pixels.
    """
    inside = np.count_nonzero(_is_subject(labels))
    if min(inside, labels.size - inside) < _MIN_PIXELS:
        return None
    models = ColorModels(np.zeros((1, 65)), np.zeros((1, 65)))
    out = labels.copy()
    cv2.setRNGSeed(0)  # the first clusters are random
    cv2.grabCut(rgb, out, _UNUSED_RECT, models.background, models.subject, steps, cv2.GC_INIT_WITH_MASK)
    return _is_subject(out), models


def cut_with(rgb: UInt8, labels: UInt8, models: ColorModels) -> Bool:
    """bool [h,w]: cut by colours that are known already; of `labels` only the fixed ones matter."""
    out = labels.copy()
    copies = models.background.copy(), models.subject.copy()
    cv2.grabCut(rgb, out, _UNUSED_RECT, *copies, 1, cv2.GC_EVAL_FREEZE_MODEL)
    return _is_subject(out)


def _is_subject(labels: UInt8) -> Bool:
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
