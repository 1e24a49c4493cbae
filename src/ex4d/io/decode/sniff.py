"""Inside the worker: what a file is by its first bytes; words for files that are no video. Standard library only."""

from pathlib import Path

from ex4d.errors import MediaError

_HEAD_BYTES = 512
_STILL_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*")
_AUDIO_MAGIC = (b"ID3", b"fLaC", b"\xff\xfb", b"\xff\xf3", b"\xff\xf1", b"\xff\xf9")
_PLAYLIST_MAGIC = (b"ffconcat", b"#EXTM3U", b"[playlist]", b"<?xml", b"<MPD", b";FFMETADATA", b"<smil")


def read_head(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def is_still(head: bytes) -> bool:
    """Whether a file that begins like this is an image (PNG, JPEG, TIFF, WebP, BMP)."""
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    # "BM" alone is too weak a sign: the two reserved words of a bitmap are zero.
    bitmap = head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"
    return head.startswith(_STILL_MAGIC) or webp or bitmap


def describe_unreadable(path: Path, reason: str) -> MediaError:
    """The error for a file that no allowed demuxer opens, in words about the file rather than about FFmpeg."""
    head = read_head(path)
    expected, fix = "a video or an image", "choose a video file (mp4, mov, mkv, webm, avi, ...) or an image"
    if not head:
        return MediaError(expected, f"{path.name}, which is empty", "get a whole copy of the file")
    if head.lstrip().startswith(_PLAYLIST_MAGIC):
        got = f"{path.name}, which is a playlist or project file that points to other files"
        return MediaError(expected, got, "give the video file itself")
    if head.startswith(_AUDIO_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WAVE"):
        return MediaError(expected, f"{path.name}, which is an audio file", fix)
    if _is_text(head):
        return MediaError(expected, f"{path.name}, which is a text file", fix)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        got = f"{path.name}, an MP4 or MOV whose index is missing or damaged ({reason})"
        return MediaError(expected, got, "get a whole copy: a recording that was cut off has no index")
    return MediaError(expected, f"{path.name}, which is damaged or of another kind ({reason})", fix)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(char.isprintable() or char.isspace() for char in text)
