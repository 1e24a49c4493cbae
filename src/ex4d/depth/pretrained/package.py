"""Estimators whose network is in a package that users install themselves, beside the extra ``gen``."""

import contextlib
import importlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.depth.estimator import Readiness, check_ready
from ex4d.depth.pretrained.estimator import PretrainedEstimator
from ex4d.errors import WeightsError
from ex4d.weights.files import tensor_shapes
from ex4d.weights.registry import resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageEstimator(PretrainedEstimator):
    """The parts of `DepthEstimator` that those have in common.

    Attributes:
        package: its importable name.
        install: the command that installs it.
    """

    package: str
    install: str

    @property
    def packages(self) -> tuple[str, ...]:
        """Those of ``gen`` that are used here, and its own."""
        return ("torch", "transformers", "accelerate", self.package)

    @property
    def brings_cameras(self) -> bool:
        """They estimate K at least."""
        return True

    def ready(self) -> Readiness:
        """Whether package and weights are there."""
        return check_ready(packages=self.packages, weights=self.weights, install=self.install)

    def require(self) -> Path:
        """The file or folder of the weights, as the registry names it.

        Raises:
            WeightsError: package or weights are missing.
        """
        state = self.ready()
        if not state.ready:
            raise WeightsError(f"the depth estimator {self.name} to be ready", state.reason, state.fix)
        return resolve(self.name)

    def load(self, module: str, name: str, weights: Path) -> Any:
        """The package's network with its weights, on the CPU, in eval mode.

        Args:
            module: where its class is.
            name: of the class; it has ``from_pretrained``.
            weights: what that is given.

        Raises:
            WeightsError: the package cannot be imported or has no such class, or the weights are damaged or do not
                fit it.
        """
        try:
            with silenced():
                network = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise WeightsError(f"{name} in the package {self.package}", str(error), self.install) from error
        tensor_shapes(weights)  # what is no file of weights is refused with the reason
        try:
            with silenced():
                return network.from_pretrained(str(weights)).eval().requires_grad_(False)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WeightsError(
                f"weights of {name} at {weights}", reason, f"check them with `ex4d weights verify {self.name}`"
            ) from error


def silenced() -> contextlib.AbstractContextManager[object]:
    """Keeps what such packages print about their progress off the standard output, which belongs to our caller."""
    return contextlib.redirect_stdout(io.StringIO())


def is_camera(K: Float64) -> bool:
    """Whether K float64 [3,3] could be one: finite, and focal lengths above 0."""
    return bool(np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0)
