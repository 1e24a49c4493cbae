"""The tracker `raft`: RAFT-small of torchvision, chained like `dis`."""

from ex4d.core.arrays import Float32, UInt8
from ex4d.masking.chain import chain_flow
from ex4d.masking.package import import_from, load_weights
from ex4d.masking.tracker import PointTracks

_INSTALL = "pip install 'ex4d[gen]' torchvision"
_FILE = "raft_small_C_T_V2-01064c6d.pth"
_STEP_PX, _MIN_SIDE_PX = 8, 128
"""RAFT's features are an eighth of the picture, and four levels of them are correlated."""


class RaftTracker:
    """Satisfies `Tracker`."""

    name = "raft"
    licence = "BSD-3-Clause (torchvision; its weights were trained on FlyingChairs and FlyingThings3D)"

    def __init__(self) -> None:
        module = import_from("torchvision.models.optical_flow", purpose="the tracker raft", install=_INSTALL)
        url = f"https://download.pytorch.org/models/{_FILE}"
        self._network = load_weights(module.raft_small(weights=None), _FILE, url, name=self.name)

    def track(self, frames: UInt8, queries: Float32) -> PointTracks:
        """See `Tracker.track`; `chain.chain_flow` says when a point is lost."""
        return chain_flow(frames, queries, self._flow)

    def _flow(self, first: UInt8, second: UInt8) -> Float32:
        import torch
        from torch.nn import functional

        device = next(self._network.parameters()).device
        height, width = first.shape[:2]
        down, right = (max(_MIN_SIDE_PX - side, -side % _STEP_PX) for side in (height, width))
        down, right = (pad + -(side + pad) % _STEP_PX for pad, side in ((down, height), (right, width)))
        pair = (torch.from_numpy(one.copy()).to(device).permute(2, 0, 1)[None].float() for one in (first, second))
        with torch.inference_mode():
            padded = [functional.pad(one / 127.5 - 1, (0, right, 0, down), mode="replicate") for one in pair]
            flow = self._network(*padded)[-1][0, :, :height, :width]
        return flow.permute(1, 2, 0).float().cpu().numpy()
