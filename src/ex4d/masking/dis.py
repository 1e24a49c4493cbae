"""The tracker `dis`: OpenCV's DIS flow, chained. No weights, 10–20 ms a flow."""

from ex4d.core.arrays import Float32, UInt8
from ex4d.masking.chain import chain_flow
from ex4d.masking.tracker import PointTracks
from ex4d.motion.flow import FlowEngine, gray_frame


class DisTracker:
    """Satisfies `Tracker`. Not thread-safe: one a thread."""

    name = "dis"
    licence = "Apache-2.0 (OpenCV)"

    def __init__(self) -> None:
        self._engine = FlowEngine()

    def track(self, frames: UInt8, queries: Float32) -> PointTracks:
        """See `Tracker.track`; `chain.chain_flow` says when a point is lost."""
        size = frames.shape[1:3]
        return chain_flow(
            frames, queries, lambda first, second: self._engine.flow(gray_frame(first, size), gray_frame(second, size))
        )
