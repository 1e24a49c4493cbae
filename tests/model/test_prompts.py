"""The prompt cache: umT5 is only asked for what is not there."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ex4d.model.prompts import embed_prompts, prompt_key

ENCODER = {"text_encoder/model.safetensors": "aa", "tokenizer/tokenizer.json": "bb"}


class Encoder:
    """Embeds a text as its length, and counts."""

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        self.asked: list[Sequence[str]] = []
        self.dtype = dtype

    def __call__(self, texts: Sequence[str]) -> list[Tensor]:
        self.asked.append(texts)
        return [torch.full((1, 512, 8), len(text), dtype=self.dtype) for text in texts]


def embed(
    texts: Sequence[str],
    encoder: Encoder,
    folder: Path | None,
    *,
    hashes: dict[str, str] = ENCODER,
    dtype: torch.dtype = torch.bfloat16,
) -> list[Tensor]:
    embeds, notices = embed_prompts(texts, encoder, encoder=hashes, dtype=dtype, folder=folder)
    assert not notices
    return embeds


def test_what_is_kept_is_not_encoded_again(tmp_path: Path) -> None:
    encoder = Encoder()
    first = embed(["a cat", "ugly"], encoder, tmp_path / "new/prompts")
    assert [embeds[0, 0, 0].item() for embeds in first] == [5, 4]
    again = embed(["ugly", "a cat"], encoder, tmp_path / "new/prompts")
    assert encoder.asked == [["a cat", "ugly"]]
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(first, reversed(again), strict=True))


def test_only_what_is_missing_is_encoded(tmp_path: Path) -> None:
    encoder = Encoder()
    embed(["ugly"], encoder, tmp_path)
    embeds = embed(["a cat", "ugly", "a dog!"], encoder, tmp_path)
    assert encoder.asked == [["ugly"], ["a cat", "a dog!"]]
    assert [each[0, 0, 0].item() for each in embeds] == [5, 4, 6]


@pytest.mark.parametrize("name", list(ENCODER))
def test_another_encoder_or_tokenizer_is_asked_anew(tmp_path: Path, name: str) -> None:
    encoder = Encoder()
    embed(["a cat"], encoder, tmp_path)
    embed(["a cat"], encoder, tmp_path, hashes={**ENCODER, name: "cc"})
    assert len(encoder.asked) == 2


def test_another_precision_is_asked_anew(tmp_path: Path) -> None:
    embed(["a cat"], Encoder(), tmp_path)
    exact = Encoder(torch.float32)
    (embeds,) = embed(["a cat"], exact, tmp_path, dtype=torch.float32)
    assert exact.asked
    assert embeds.dtype == torch.float32


def test_keys_tell_texts_apart() -> None:
    keys = {prompt_key(text, encoder=ENCODER, dtype=torch.bfloat16) for text in ("a", "b", "", "a ", "a\n", "é")}
    assert len(keys) == 6
    assert prompt_key("a", encoder=dict(reversed(ENCODER.items())), dtype=torch.bfloat16) in keys


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "other tensor"])
def test_damaged_entries_are_made_again(tmp_path: Path, damage: str) -> None:
    encoder = Encoder()
    embed(["a cat"], encoder, tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    whole = file.read_bytes()
    if damage == "other tensor":
        save_file({"other": torch.zeros(1)}, file)
    else:
        file.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"not a tensor"}[damage])
    (embeds,) = embed(["a cat"], encoder, tmp_path)
    assert embeds[0, 0, 0] == 5
    assert len(encoder.asked) == 2
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    encoder = Encoder()
    embeds, notices = embed_prompts(
        ["a cat", "ugly"], encoder, encoder=ENCODER, dtype=torch.bfloat16, folder=tmp_path / "file/prompts"
    )
    assert [each[0, 0, 0].item() for each in embeds] == [5, 4]
    assert len(notices) == 2
    assert all("could not be kept for the next run" in notice for notice in notices)


def test_the_default_folder_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path))
    embed(["a cat"], Encoder(), None)
    assert len(list((tmp_path / "prompts").glob("*.safetensors"))) == 1
