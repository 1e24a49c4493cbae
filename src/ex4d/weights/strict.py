"""Tensors are loaded strictly: one message lists everything missing, left over and of the wrong shape."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

from ex4d.errors import WeightsError

_MAX_NAMED = 20
_NEAR = 0.75
"""Similarity (0–1) from which an unknown name counts as a misspelling of a missing one."""
_MAX_COMPARED = 200
"""Beyond this many names on either side files differ in kind, and comparing all pairs would take minutes."""

Shape = Sequence[int]


def check_tensors(
    found: Mapping[str, Shape],
    expected: Mapping[str, Shape],
    *,
    what: str,
    original_names: Mapping[str, str] | None = None,
) -> None:
    """Refuse a set of tensors unless names and shapes are exactly those expected.

    Args:
        found: shapes by name, as read (and renamed, if at all).
        expected: shapes by name, as the model needs them.
        what: the file and its role, for the message: ``"models/ex4d.ckpt (EX-4D's LoRA)"``.
        original_names: name in `found` or `expected` → name in the user's file, where a key map renamed it.

    Raises:
        WeightsError: lists all that is wrong, up to 20 names a fault, by the names in the user's file.
    """
    shown = original_names or {}
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    wrong = [name for name in sorted(expected.keys() & found.keys()) if tuple(found[name]) != tuple(expected[name])]
    if not (missing or unknown or wrong):
        return
    # one tensor of a file may stand for several of the model (queries, keys and values in one matrix)
    missing_names = _unique(shown.get(name, name) for name in missing)
    unknown_names = _unique(shown.get(name, name) for name in unknown)
    near = _near_misses(missing_names, unknown_names)
    faults = (
        ("missing", missing_names),
        ("not known", [name + (f" (meant: {near[name]}?)" if name in near else "") for name in unknown_names]),
        (
            "of another shape",
            _unique(f"{shown.get(n, n)} {_shape(found[n])}, not {_shape(expected[n])}" for n in wrong),
        ),
    )
    raise WeightsError(
        f"exactly {len(expected)} tensors in {what}",
        ", ".join(_fault(kind, names) for kind, names in faults if names),
        _advice(len(missing), len(unknown), len(wrong), len(expected)),
    )


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _fault(kind: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"{len(names)} {kind} ({', '.join(names[:_MAX_NAMED])}{more})"


def _shape(shape: Shape) -> str:
    return "x".join(str(side) for side in shape) or "scalar"


def _near_misses(missing: Sequence[str], unknown: Sequence[str]) -> dict[str, str]:
    """Unknown name → the missing name it resembles most."""
    if len(missing) > _MAX_COMPARED or len(unknown) > _MAX_COMPARED:
        return {}
    near = {name: difflib.get_close_matches(name, missing, n=1, cutoff=_NEAR) for name in unknown}
    return {name: match[0] for name, match in near.items() if match}


def _advice(missing: int, unknown: int, wrong: int, expected: int) -> str:
    if missing == expected:
        return "this is another kind of file: check which one was given"
    if wrong and not (missing or unknown):
        return "these weights belong to another size of the model: use those that the documentation names"
    return "download the file again, and check that it is the released one"
