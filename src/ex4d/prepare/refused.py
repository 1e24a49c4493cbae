"""Why a clip or segment is not in a dataset: one line of ``errors.jsonl``.

=========== ==========================================================================================
``missing``   no such file, or not readable
``media``     no video, damaged, or beyond the decoder's limits
``small``     it would have to be enlarged
``rate``      slower than the rate asked for
``short``     no shot is long enough for a bucket
``score``     the input's own numbers are too low (``--min-score``)
``black``     black frames; ``contrast``, ``still``, ``motion``: see `config.GateConfig`
``depth``     no depth, or none that fits the clip
``masks``     no mask could be simulated
``timeout``   it took too long; ``crash``, ``memory``: its process ended
``fault``     an error of ex4d, to be reported
``duplicate`` too like a segment before it
=========== ==========================================================================================
"""

from dataclasses import dataclass
from typing import Any


class Refused(Exception):
    """A clip or segment that is left out.

    Args:
        reason: one of the words above.
        text: for people.
    """

    def __init__(self, reason: str, text: str) -> None:
        self.reason, self.text = reason, text
        super().__init__(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What was left out.

    Attributes:
        item: name of the clip.
        segment: number of the segment; None: the whole clip.
        reason: one of the words above.
        text: for people, on one line.
    """

    item: str
    segment: int | None
    reason: str
    text: str

    def to_json(self) -> dict[str, Any]:
        """A line of ``errors.jsonl``."""
        line = "".join(c if c.isprintable() else " " for c in self.text)
        return {"item": self.item, "segment": self.segment, "reason": self.reason, "text": line}
