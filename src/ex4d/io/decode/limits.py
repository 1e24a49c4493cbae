"""What an untrusted media file may cost, and which formats and codecs may be touched at all.

Standard library only: the decode worker imports this before it limits itself.
"""

from dataclasses import dataclass

from ex4d.errors import ConfigError

# Names of FFmpeg demuxers. No playlist, concat, image-sequence or network format: those open other files.
# Stills are read by Pillow and need no demuxer.
ALLOWED_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,live_flv,gif,asf,ogg,mxf,nut,dv,"
    "h264,hevc,obu,ivf,yuv4mpegpipe,rm"
)

# Names of FFmpeg decoders: the codecs of real cameras, editors and the web. FFmpeg has hundreds of exotic ones,
# and most of its security advisories are about those.
ALLOWED_CODECS = (
    "h264,hevc,av1,libdav1d,vp8,vp9,libvpx,libvpx-vp9,vvc,mpeg4,mpeg2video,mpeg1video,h263,h263i,mjpeg,prores,"
    "dnxhd,ffv1,ffvhuff,huffyuv,utvideo,magicyuv,rawvideo,wrapped_avframe,gif,png,apng,theora,wmv1,wmv2,wmv3,vc1,"
    "msmpeg4v1,msmpeg4v2,msmpeg4,msmpeg4v3,flv,flv1,dvvideo,cfhd,qtrle,v210,jpeg2000,webp,bmp,tiff"
)

# Audio is decoded only where it has to be transcoded for an mp4; copying needs no decoder.
ALLOWED_AUDIO_CODECS = (
    "aac,mp3,mp3float,ac3,eac3,opus,libopus,vorbis,flac,alac,wmav1,wmav2,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,"
    "pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_u8,pcm_s8,pcm_mulaw,pcm_alaw,mp2,mp2float"
)

# Pillow's names of the still formats.
ALLOWED_STILLS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """Bounds of one decode worker; all of them are held against the file, not against the user.

    Attributes:
        max_pixels: most pixels a frame may have; 2^26 is 8192 x 8192.
        max_frames: most frames decoded from one file in one go.
        stall_timeout_s: seconds without a decoded frame after which the worker is killed.
        memory_gib: address space of the worker, GiB (Linux and most Unixes; not enforced on Windows).
        threads: decoder threads.
    """

    max_pixels: int = 2**26
    max_frames: int = 1_000_000
    stall_timeout_s: float = 30.0
    memory_gib: float = 4.0
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_frames", "stall_timeout_s", "memory_gib", "threads"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(
                    f"limits.{name} > 0 and finite", repr(value), f"set limits.{name} to a positive number"
                )
