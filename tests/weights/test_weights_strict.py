"""One message says all that is wrong with a set of tensors."""

import pytest

from ex4d.errors import WeightsError
from ex4d.weights.strict import check_tensors

EXPECTED = {f"blocks.{i}.attn.to_q.lora_{side}.weight": (16, 64) for i in range(40) for side in "AB"}


def fault(found: dict[str, tuple[int, ...]], **more: dict[str, str]) -> WeightsError:
    with pytest.raises(WeightsError) as raised:
        check_tensors(found, EXPECTED, what="ex4d.ckpt", **more)
    return raised.value


def test_exact_tensors_pass() -> None:
    check_tensors(EXPECTED, EXPECTED, what="ex4d.ckpt")
    check_tensors({name: list(shape) for name, shape in EXPECTED.items()}, EXPECTED, what="ex4d.ckpt")


def test_a_renamed_key_is_named_with_what_it_was_meant_to_be() -> None:
    found = dict(EXPECTED)
    found["blocks.7.atn.to_q.lora_A.weight"] = found.pop("blocks.7.attn.to_q.lora_A.weight")
    assert fault(found).got == (
        "1 missing (blocks.7.attn.to_q.lora_A.weight), "
        "1 not known (blocks.7.atn.to_q.lora_A.weight (meant: blocks.7.attn.to_q.lora_A.weight?))"
    )


def test_dropped_extra_and_misshapen_at_once() -> None:
    found = dict(EXPECTED) | {"head.weight": (1,), "blocks.0.attn.to_q.lora_A.weight": (32, 64)}
    del found["blocks.3.attn.to_q.lora_B.weight"]
    error = fault(found)
    assert error.expected == "exactly 80 tensors in ex4d.ckpt"
    assert error.got == (
        "1 missing (blocks.3.attn.to_q.lora_B.weight), 1 not known (head.weight), "
        "1 of another shape (blocks.0.attn.to_q.lora_A.weight 32x64, not 16x64)"
    )


def test_an_extra_tensor_alone_is_refused() -> None:
    assert fault(dict(EXPECTED) | {"head.weight": (1,)}).got == "1 not known (head.weight)"


def test_names_of_the_users_file_are_told() -> None:
    original = {"blocks.0.attn.to_q.lora_A.weight": "blocks.0.self_attn.q.lora_A.default.weight"}
    found = dict(EXPECTED)
    del found["blocks.0.attn.to_q.lora_A.weight"]
    found["blocks.0.self_atn.q.lora_A.default.weight"] = (16, 64)
    text = fault(found, original_names=original).got
    assert "1 missing (blocks.0.self_attn.q.lora_A.default.weight)" in text
    assert "(meant: blocks.0.self_attn.q.lora_A.default.weight?)" in text


def test_long_lists_end_with_a_count() -> None:
    error = fault({})
    assert error.got.startswith("80 missing (")
    assert error.got.endswith(" and 60 more)")
    assert error.got.count("lora_") == 20
    assert "another kind of file" in error.fix
    assert "\n" not in str(error)


def test_another_rank_is_advised_on() -> None:
    error = fault(dict.fromkeys(EXPECTED, (32, 64)))
    assert error.got.startswith("80 of another shape (")
    assert "another size" in error.fix


def test_scalars_are_readable() -> None:
    with pytest.raises(WeightsError, match="a scalar, not 2x3"):
        check_tensors({"a": ()}, {"a": (2, 3)}, what="x")


def test_thousands_of_foreign_names_are_not_compared() -> None:
    names = {f"model.layers.{i}.some.quite.long.name": (1,) for i in range(3000)}
    assert "(meant:" not in fault(names).got
