"""Trackers whose network is in a package that users install, with weights that users fetch: what they share."""

import contextlib
import importlib
import io
from typing import Any

from ex4d.errors import MissingDependencyError, WeightsError
from ex4d.weights.folders import weights_root

FOLDER = "trackers"
"""Folder of tracker weights inside EX4D_WEIGHTS."""


def import_from(module: str, *, purpose: str, install: str) -> Any:
    """A module of an optional package.

    Args:
        module: dotted name.
        purpose: half a sentence, e.g. ``"the tracker raft"``.
        install: the command that installs it.

    Raises:
        MissingDependencyError: it, or something that it imports, is not there.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module(module)
    except ImportError as error:
        package = (error.name or module).partition(".")[0]
        raise MissingDependencyError(package, "", purpose, install) from error


def load_weights(network: Any, file: str, url: str, *, name: str) -> Any:
    """A torch network with weights from ``EX4D_WEIGHTS/trackers``, in eval mode, on the GPU if there is one.

    Args:
        network: a torch module.
        file: name of the checkpoint, a dict of tensors (or one under ``state_dict`` or ``model``).
        url: where users get it; nothing is fetched here.
        name: of the tracker.

    Raises:
        WeightsError: the file is missing, or does not fit the network.
    """
    import torch

    path = weights_root() / FOLDER / file
    if not path.is_file():
        raise WeightsError(f"weights of the tracker {name} at {path}", "none", f"download {url} to there")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("state_dict", "model"):
            state = state.get(key, state)
        network.load_state_dict({key.removeprefix("tapnext."): value for key, value in state.items()})
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"weights of the tracker {name} in {path}", reason, f"download {url} again") from error
    return network.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")
