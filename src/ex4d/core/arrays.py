"""Array aliases and the one check that every noun uses on construction."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
UInt16 = NDArray[np.uint16]
UInt32 = NDArray[np.uint32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


def check_array(name: str, value: Any, dtype: type[np.generic], shape: tuple[int | None, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is an array of this dtype and shape.

    Args:
        name: dotted name used in the message, e.g. ``"Video.frames"``.
        value: what was passed.
        dtype: required NumPy scalar type.
        shape: required shape; ``None`` stands for any length.
    """
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name}: expected a NumPy array, got {type(value).__name__}")
    array = cast(NDArray[Any], value)
    got = array.shape
    fits = len(got) == len(shape) and all(want in (None, have) for want, have in zip(shape, got, strict=True))
    if array.dtype != np.dtype(dtype) or not fits:
        want = "[" + ",".join("any" if n is None else str(n) for n in shape) + "]"
        raise ValueError(f"{name}: expected {np.dtype(dtype)} {want}, got {array.dtype} {list(got)}")
