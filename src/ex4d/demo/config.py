"""What the demo films and measures."""

from dataclasses import dataclass

from ex4d.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """Settings of the demo.

    Attributes:
        small: 9 frames of 192×192 instead of 49 of 512×512.
        seed: of the scene, >= 0; even: a room, odd: outdoors.
    """

    small: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ConfigError("--seed from 0 to 2^63 - 1", str(self.seed))

    @property
    def num_frames(self) -> int:
        return 9 if self.small else 49

    @property
    def side_px(self) -> int:
        return 192 if self.small else 512

    @property
    def cameras(self) -> tuple[str, ...]:
        return ("orbit-right:60",)
