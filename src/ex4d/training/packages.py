"""The packages that training needs, checked before any of them is imported."""

import importlib.util

from ex4d.errors import MissingDependencyError
from ex4d.pipeline.generation_setup import PACKAGES


def require_training(purpose: str, *, dataset: bool = True) -> None:
    """Raise a MissingDependencyError if the extra ``train`` is not installed.

    Args:
        purpose: what for.
        dataset: whether a dataset is read.
    """
    for package in (*PACKAGES, *(("pyarrow",) if dataset else ())):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, "train", purpose)
