"""JSON from strangers: bounded in size and depth, no NaN, and every number checked by its dotted path.

All failures are `CameraPathError`.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.errors import CameraPathError

MAX_JSON_BYTES = 64 * 2**20
"""100 000 cameras are about 40 MB."""

_SEEN_VALUE = 60


def read_bytes(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """The bytes of a camera file of at most `limit`."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise CameraPathError(f"a readable camera file at {path}", error.strerror or str(error)) from error
    if len(data) > limit:
        raise CameraPathError(f"a camera file of at most {limit // 2**20} MiB", f"more in {path}")
    if not data:
        raise CameraPathError("a camera file", f"an empty file at {path}", "export the cameras again")
    return data


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file (UTF-8, with or without byte order mark)."""
    data = read_bytes(path)
    try:
        value: Any = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except CameraPathError as error:
        raise CameraPathError(error.expected, f"{error.got} in {path}", error.fix) from error
    except (ValueError, RecursionError) as error:
        raise CameraPathError(f"JSON in {path}", f"{_one_line(error)}", "export the file again") from error
    if not isinstance(value, dict):
        raise CameraPathError(f"a JSON object {{...}} in {path}", type(value).__name__)
    return cast(dict[str, Any], value)


def _refuse_constant(text: str) -> NoReturn:
    raise CameraPathError("finite numbers", text, "NaN and infinity are not JSON")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def shown(value: Any) -> str:
    """A value for a message: short, on one line."""
    if isinstance(value, list):
        return f"a list of {len(cast(list[Any], value))}"
    if isinstance(value, dict):
        return "an object"
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**18 else "a huge integer"
    return text if len(text) <= _SEEN_VALUE else text[:_SEEN_VALUE] + "..."


def get_list(obj: Mapping[str, Any], key: str, where: str, *, limit: int) -> list[Any]:
    """A list of 1 to `limit` items under `key`."""
    value = obj.get(key)
    if not isinstance(value, list):
        raise CameraPathError(f"a list at {join(where, key)}", _missing(obj, key))
    items = cast(list[Any], value)
    if not 1 <= len(items) <= limit:
        raise CameraPathError(f"1 to {limit} items at {join(where, key)}", f"{len(items)}")
    return items


def get_object(value: Any, where: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise CameraPathError(f"an object at {where}", shown(value))
    return cast(dict[str, Any], value)


def get_int(obj: Mapping[str, Any], key: str, where: str, *, low: int, high: int) -> int:
    """A whole number in [low, high]; 640.0 counts, true does not."""
    value = obj.get(key)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or not low <= cast(float, value) <= high:
        raise CameraPathError(f"a whole number from {low} to {high} at {join(where, key)}", _missing(obj, key))
    return int(cast(float, value))


def get_float(obj: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    """A finite number; the default where the key is absent and one is given."""
    if key not in obj and default is not None:
        return default
    return _finite(obj.get(key), join(where, key), _missing(obj, key))


def get_array(obj: Mapping[str, Any], key: str, where: str, shape: tuple[int, ...]) -> Float64:
    """Nested lists of finite numbers of this shape, as float64."""
    flat: list[float] = []
    name = join(where, key)
    if key not in obj:
        raise CameraPathError(f"{_shape_text(shape)} at {name}", "nothing")
    _flatten(obj[key], shape, name, flat)
    return np.array(flat).reshape(shape)


def _flatten(value: Any, shape: tuple[int, ...], where: str, flat: list[float]) -> None:
    if not shape:
        flat.append(_finite(value, where, shown(value)))
        return
    if not isinstance(value, list) or len(cast(list[Any], value)) != shape[0]:
        raise CameraPathError(f"{_shape_text(shape)} at {where}", shown(value))
    for i, item in enumerate(cast(list[Any], value)):
        _flatten(item, shape[1:], f"{where}[{i}]", flat)


def _shape_text(shape: Sequence[int]) -> str:
    return f"a list of {shape[0]} numbers" if len(shape) == 1 else f"{'x'.join(map(str, shape))} numbers"


def _finite(value: Any, where: str, got: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CameraPathError(f"a number at {where}", got)
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not np.isfinite(number):
        raise CameraPathError(f"a finite number at {where}", got)
    return number


def _missing(obj: Mapping[str, Any], key: str) -> str:
    return shown(obj[key]) if key in obj else "nothing"


def join(where: str, key: str) -> str:
    """``frames[3]`` + ``K`` = ``frames[3].K``."""
    return f"{where}.{key}" if where else key


def refuse_unknown_keys(obj: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Raise on a key that is not known, with the nearest known one: a typing error must not be ignored."""
    for key in obj:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1) or [name for name in known if name.startswith(key[:3])]
            fix = f"did you mean {near[0]!r}?" if near else "remove it"
            raise CameraPathError(f"only the keys {', '.join(known)} at {where or 'the top'}", shown(key), fix)
