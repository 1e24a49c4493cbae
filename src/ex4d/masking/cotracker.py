"""The tracker `cotracker`: CoTracker3 (offline) of Meta's package cotracker (arXiv 2410.11831)."""

import numpy as np

from ex4d.core.arrays import Float32, UInt8
from ex4d.masking.package import import_from, load_weights
from ex4d.masking.tracker import PointTracks

_INSTALL = "pip install 'ex4d[gen]' git+https://github.com/facebookresearch/co-tracker.git"
_FILE = "scaled_offline.pth"
_WINDOW = 60
_CENTRE_PX = np.float32(0.5)
"""CoTracker counts from the centre of the first pixel: it scales places by (W − 1)."""


class CoTrackerTracker:
    """Satisfies `Tracker`."""

    name = "cotracker"
    licence = "CC-BY-NC-4.0 (code and weights, Meta): not for commercial use"

    def __init__(self) -> None:
        module = import_from("cotracker.predictor", purpose="the tracker cotracker", install=_INSTALL)
        url = f"https://huggingface.co/facebook/cotracker3/resolve/main/{_FILE}"
        predictor = module.CoTrackerPredictor(checkpoint=None, v2=False, offline=True, window_len=_WINDOW)
        predictor.model = load_weights(predictor.model, _FILE, url, name=self.name)
        self._predictor = predictor

    def track(self, frames: UInt8, queries: Float32) -> PointTracks:
        """See `Tracker.track`."""
        import torch

        device = next(self._predictor.model.parameters()).device
        video = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float()[None]
        centred = np.concatenate([np.zeros((len(queries), 1), np.float32), queries - _CENTRE_PX], axis=1)
        with torch.inference_mode():
            places, visible = self._predictor(video, queries=torch.from_numpy(centred)[None].to(device))
        placed = places[0].float().cpu().numpy() + _CENTRE_PX
        return PointTracks(points=placed.astype(np.float32), visible=visible[0].cpu().numpy().astype(np.bool_))
