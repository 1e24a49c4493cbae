"""The tracker `bootstapir`: BootsTAPIR of Google DeepMind's package tapnet (arXiv 2402.00847)."""

from ex4d.core.arrays import Float32, UInt8
from ex4d.masking.package import import_from, load_weights
from ex4d.masking.square import from_square, square_queries, square_video
from ex4d.masking.tracker import PointTracks

TAPNET_INSTALL = "pip install 'ex4d[gen]' 'tapnet[torch] @ git+https://github.com/google-deepmind/tapnet.git'"
_FILE = "bootstapir_checkpoint_v2.pt"
_SIDE_PX = 256
_QUERIES_AT_ONCE = 512


class BootsTapirTracker:
    """Satisfies `Tracker`."""

    name = "bootstapir"
    licence = "Apache-2.0 (code and weights, Google DeepMind)"

    def __init__(self) -> None:
        module = import_from("tapnet.torch.tapir_model", purpose="the tracker bootstapir", install=TAPNET_INSTALL)
        url = f"https://storage.googleapis.com/dm-tapnet/bootstap/{_FILE}"
        self._network = load_weights(module.TAPIR(pyramid_level=1), _FILE, url, name=self.name)

    def track(self, frames: UInt8, queries: Float32) -> PointTracks:
        """See `Tracker.track`. A point is visible where the network says that it is neither hidden nor far off."""
        import torch

        device = next(self._network.parameters()).device
        video = square_video(frames, _SIDE_PX, device)
        points = square_queries(queries, frames, _SIDE_PX, device)
        with torch.inference_mode():
            found = self._network(video, points, query_chunk_size=_QUERIES_AT_ONCE)
            hidden, far = found["occlusion"][0].sigmoid(), found["expected_dist"][0].sigmoid()
            visible = (1 - hidden) * (1 - far) > 0.5  # as the authors' demo
        placed = from_square(found["tracks"][0].transpose(0, 1), frames, _SIDE_PX)
        placed[0] = queries
        return PointTracks(points=placed, visible=visible.transpose(0, 1).cpu().numpy())
