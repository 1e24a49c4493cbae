"""Masks of the subject: pictures, one picture, video and arrays of any usual kind; what is wrong with bad ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from video_media import write_clip

from ex4d.core.subject import SubjectMask
from ex4d.errors import InputError
from ex4d.io.masks import SubjectMaskClip, open_subject_mask

N, H, W = 10, 24, 32
TIMES = np.arange(N) / 25


def squares(num: int = N, height: int = H, width: int = W) -> np.ndarray:
    """bool [T,H,W]: a square that moves to the right, different in every frame."""
    masks = np.zeros((num, height, width), np.bool_)
    for i in range(num):
        masks[i, height // 4 : height // 2, i : i + width // 3] = True
    return masks


def open_mask(path: Path) -> SubjectMaskClip:
    return open_subject_mask(path, num_frames=N, height=H, width=W, timestamps_s=TIMES)


def read_all(clip: SubjectMaskClip) -> np.ndarray:
    return clip.read(0, clip.num_frames).subject


def save_pictures(folder: Path, pictures: Any, suffix: str = ".png") -> Path:
    folder.mkdir(exist_ok=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"mask_{i}{suffix}", quality=100)
    return folder


def as_palette(mask: np.ndarray) -> Image.Image:
    """A picture of indices with colours, as DAVIS stores its annotations."""
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image


@pytest.mark.parametrize(
    "convert",
    [
        lambda mask: mask.astype(np.uint8) * 255,
        lambda mask: np.where(mask, 128, 127).astype(np.uint8),
        lambda mask: mask,
        lambda mask: np.where(mask, 40000, 300).astype(np.uint16),
        lambda mask: mask[..., None] * np.array([0, 200, 0], np.uint8),
        lambda mask: np.dstack([mask.astype(np.uint8) * 255] * 3 + [np.zeros_like(mask, np.uint8)]),
    ],
    ids=["gray", "threshold", "bilevel", "16-bit", "coloured", "alpha"],
)
def test_pictures_of_any_mode(tmp_path: Path, convert: Any) -> None:
    clip = open_mask(save_pictures(tmp_path / "masks", [convert(mask) for mask in squares()]))
    np.testing.assert_array_equal(read_all(clip), squares())
    chunk = clip.read(3, 5)
    assert isinstance(chunk, SubjectMask)
    np.testing.assert_array_equal(chunk.subject, squares()[3:5])
    np.testing.assert_array_equal(chunk.timestamps_s, TIMES[3:5])


def test_palettes_and_jpeg(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for i, mask in enumerate(squares()):
        as_palette(mask).save(tmp_path / "p" / f"{i:05d}.png")
    np.testing.assert_array_equal(read_all(open_mask(tmp_path / "p")), squares())
    jpeg = save_pictures(tmp_path / "j", [mask.astype(np.uint8) * 255 for mask in squares()], ".jpg")
    assert (read_all(open_mask(jpeg)) == squares()).mean() > 0.99


def test_one_picture_holds_for_all_frames(tmp_path: Path) -> None:
    Image.fromarray(squares()[4].astype(np.uint8) * 255).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_all(open_mask(tmp_path / "m.png")), np.repeat(squares()[4:5], N, axis=0))
    assert open_mask(tmp_path).read(2, 7).subject.shape == (5, H, W)


@pytest.mark.parametrize("factor", [2, 0.5])
def test_another_size_is_resampled_to_the_nearest(tmp_path: Path, factor: float) -> None:
    size = round(H * factor), round(W * factor)
    np.save(tmp_path / "m.npy", np.ones((N, *size), np.bool_) & (np.arange(size[1]) < size[1] // 2))
    clip = open_mask(tmp_path / "m.npy")
    assert (clip.height, clip.width) == (H, W)
    np.testing.assert_array_equal(read_all(clip), np.broadcast_to(np.arange(W) < W // 2, (N, H, W)))


@pytest.mark.parametrize("shape", [(N, H, W), (N, 1, H, W), (N, H, W, 1)])
@pytest.mark.parametrize(("dtype", "top"), [("?", 1), ("u1", 255), ("i4", 128), ("f4", 1.0), ("f2", 0.6)])
def test_arrays(tmp_path: Path, shape: tuple[int, ...], dtype: str, top: float) -> None:
    masks = (squares() * np.float64(top)).astype(dtype).reshape(shape)
    np.save(tmp_path / "m.npy", masks)
    np.savez_compressed(tmp_path / "m.npz", anything=masks)
    np.savez(tmp_path / "n.npz", other=np.zeros(3), masks=masks)
    for name in ("m.npy", "m.npz", "n.npz"):
        clip = open_mask(tmp_path / name)
        np.testing.assert_array_equal(read_all(clip), squares())
        np.testing.assert_array_equal(clip.read(1, 2).subject, squares()[1:2])


@pytest.mark.parametrize("name", ["m.mp4", "m.mkv"])
def test_video(tmp_path: Path, name: str) -> None:
    frames = np.repeat(squares()[..., None], 3, axis=-1).astype(np.uint8) * 255
    path = write_clip(tmp_path / name, frames, options={"crf": "1"})
    clip = open_mask(path)
    assert (read_all(clip) == squares()).mean() > 0.995
    later, earlier = clip.read(8, 10).subject, clip.read(0, 3).subject
    assert (np.concatenate([earlier, later]) == squares()[[0, 1, 2, 8, 9]]).mean() > 0.995


def test_a_video_of_another_count(tmp_path: Path) -> None:
    frames = np.full((N + 3, H, W, 3), 255, np.uint8)
    path = write_clip(tmp_path / "long.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    with pytest.raises(InputError, match="1 or 10 masks"):
        open_mask(path)
    with pytest.raises(InputError, match="1 or 13 masks"):
        open_subject_mask(
            write_clip(tmp_path / "short.mkv", frames[:5], codec="ffv1", pix_fmt="bgr0"),
            num_frames=13,
            height=H,
            width=W,
            timestamps_s=np.arange(13.0),
        )


@pytest.mark.parametrize(
    ("pictures", "match"),
    [
        ([np.zeros((H, W), np.uint8)] * N, "black"),
        ([np.ones((H, W), np.uint8)] * N, "255"),
        ([np.full((H, W), 255, np.uint8)] * (N - 1), "1 or 10 masks"),
        ([np.full((H, H), 255, np.uint8)] * N, "shape"),
        ([np.full((H, W), 255, np.uint8)] * 9 + [np.full((H, W + 1), 255, np.uint8)], "mask_9"),
        ([], "none"),
    ],
)
def test_pictures_that_do_not_fit(tmp_path: Path, pictures: list[np.ndarray], match: str) -> None:
    with pytest.raises(InputError, match=match):
        open_mask(save_pictures(tmp_path / "masks", pictures))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing there"):
        open_mask(tmp_path / "none.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.ones(2), b=np.ones(2))
    np.save(tmp_path / "flat.npy", np.ones(5))
    for name in ("bad.png", "bad.npy", "bad.mp4", "object.npy", "two.npz", "flat.npy"):
        with pytest.raises(InputError, match=name.split(".")[0]):
            open_mask(tmp_path / name)


def test_the_last_picture_is_checked_too(tmp_path: Path) -> None:
    folder = save_pictures(tmp_path / "masks", [mask.astype(np.uint8) * 255 for mask in squares()])
    (folder / "mask_9.png").write_bytes((folder / "mask_9.png").read_bytes()[:60])
    with pytest.raises(InputError, match="mask_9"):
        open_mask(folder)
