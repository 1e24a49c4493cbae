"""What trackers that look at square pictures share: frames and points on the way in and out."""

from typing import Any

import numpy as np

from ex4d.core.arrays import Float32, UInt8


def square_video(frames: UInt8, side_px: int, device: Any) -> Any:
    """uint8 [T,h,w,3] → torch float32 [1,T,side,side,3] in −1…1, resized by area."""
    import torch
    from torch.nn import functional

    video = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    small = functional.interpolate(video, size=(side_px, side_px), mode="bilinear", antialias=True, align_corners=False)
    return small.permute(0, 2, 3, 1)[None]


def square_queries(queries: Float32, frames: UInt8, side_px: int, device: Any) -> Any:
    """float32 [N,2] (x, y) → torch float32 [1,N,3] (t = 0, y, x) in px of the square picture, corner origin."""
    import torch

    scale = np.array([side_px / frames.shape[2], side_px / frames.shape[1]], np.float32)
    points = np.concatenate([np.zeros((len(queries), 1), np.float32), (queries * scale)[:, ::-1]], axis=1)
    return torch.from_numpy(np.ascontiguousarray(points, np.float32))[None].to(device)


def from_square(points_xy: Any, frames: UInt8, side_px: int) -> Float32:
    """torch [T,N,2] (x, y) of the square picture → float32 px of the frames."""
    scale = np.array([frames.shape[2] / side_px, frames.shape[1] / side_px], np.float32)
    return (points_xy.float().cpu().numpy() * scale).astype(np.float32)
