"""The tracker `tapnext`: TAPNext++ of Google DeepMind's package tapnet (arXiv 2504.05579)."""

from ex4d.core.arrays import Float32, UInt8
from ex4d.masking.bootstapir import TAPNET_INSTALL
from ex4d.masking.package import import_from, load_weights
from ex4d.masking.square import from_square, square_queries, square_video
from ex4d.masking.tracker import PointTracks

_FILE = "tapnextpp_ckpt.pt"
_SIDE_PX = 256


class TapNextTracker:
    """Satisfies `Tracker`."""

    name = "tapnext"
    licence = "Apache-2.0 (code and weights, Google DeepMind)"

    def __init__(self) -> None:
        module = import_from("tapnet.tapnext.tapnext_torch", purpose="the tracker tapnext", install=TAPNET_INSTALL)
        url = f"https://storage.googleapis.com/dm-tapnet/tapnextpp/{_FILE}"
        self._network = load_weights(module.TAPNext(image_size=(_SIDE_PX, _SIDE_PX)), _FILE, url, name=self.name)

    def track(self, frames: UInt8, queries: Float32) -> PointTracks:
        """See `Tracker.track`. The network takes and returns (y, x)."""
        import torch

        device = next(self._network.parameters()).device
        with torch.inference_mode():
            places, _, logits, _ = self._network(
                square_video(frames, _SIDE_PX, device), square_queries(queries, frames, _SIDE_PX, device)
            )
        placed = from_square(places[0].flip(-1), frames, _SIDE_PX)
        placed[0] = queries
        visible = (logits[0, ..., 0] > 0).cpu().numpy()
        visible[0] = True
        return PointTracks(points=placed, visible=visible)
