"""Clips whose motion is known: shifted texture, textured planes, and procedural scenes rendered once a session."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, UInt8
from ex4d.core.camera import CameraPath, pinhole
from ex4d.core.clip import ArrayClip
from ex4d.core.geometry import rotation_about
from ex4d.core.video import Video
from ex4d.motion.tracks import Tracks
from ex4d.scene.clip import CameraMotion, scene_clip
from ex4d.scene.generate import make_scene

FPS = 12.0


def clip_of(frames: UInt8, fps: float = 24.0) -> ArrayClip[Video]:
    """Frames uint8 [T,H,W,3] as a clip."""
    return ArrayClip(Video(frames=frames, timestamps_s=np.arange(len(frames)) / fps))


def noise_picture(height: int, width: int, *, seed: int = 0, finest_px: float = 6.0) -> UInt8:
    """uint8 [h,w,3]: detail of all sizes down to waves of about `finest_px`, as in real pictures; it wraps around."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    shape = np.exp(-((frequency * finest_px) ** 2)) / np.maximum(frequency, 1 / max(height, width))
    waves = np.fft.fft2(rng.standard_normal((3, height, width))) * shape
    waves[:, 0, 0] = 0
    picture = np.fft.ifft2(waves).real
    picture *= 45 / max(float(picture.std()), 1e-9)
    return np.clip(128 + picture, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy()


def shifted(picture: UInt8, x_px: float, y_px: float = 0.0) -> UInt8:
    """The picture [h,w,3] moved right and down, exactly (in the frequency domain); it wraps around."""
    height, width = picture.shape[:2]
    turn = np.fft.fftfreq(width)[None] * x_px + np.fft.fftfreq(height)[:, None] * y_px
    waves = np.fft.fft2(picture.astype(np.float64), axes=(0, 1)) * np.exp(-2j * np.pi * turn)[..., None]
    return np.clip(np.rint(np.fft.ifft2(waves, axes=(0, 1)).real), 0, 255).astype(np.uint8)


def camera_path(eyes: Float64, turns: Float64, *, height: int, width: int, focal_share: float = 0.9) -> CameraPath:
    """Cameras at `eyes` [N,3] with turns [N,3] (about x, then y, then z, radians), f = share of the longer side."""
    matrices = np.repeat(np.eye(4)[None], len(eyes), axis=0)
    for matrix, eye, (x, y, z) in zip(matrices, eyes, turns.tolist(), strict=True):
        rotation = rotation_about("z", z) @ rotation_about("y", y) @ rotation_about("x", x)
        matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ eye
    K = pinhole(focal_px=focal_share * max(height, width), height=height, width=width)
    return CameraPath(
        K=np.repeat(K[None], len(eyes), axis=0),
        world_to_camera=matrices,
        source_index=np.arange(len(eyes), dtype=np.int64),
        height=height,
        width=width,
    )


def turning(picture: UInt8, turns: Float64) -> UInt8:
    """uint8 [T,h,w,3]: a picture that is infinitely far away and wraps around, seen by cameras that turn."""
    height, width = picture.shape[:2]
    path = camera_path(np.zeros((len(turns), 3)), turns, height=height, width=width)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    rays = np.stack([x, y, np.ones((height, width))], axis=-1) @ np.linalg.inv(path.K[0]).T
    frames: list[UInt8] = []
    for matrix in path.world_to_camera:
        place = rays @ matrix[:3, :3] @ path.K[0].T
        frames.append(_look_up(picture, place[..., 0] / place[..., 2] - 0.5, place[..., 1] / place[..., 2] - 0.5))
    return np.stack(frames)


def _look_up(picture: UInt8, u: Float64, v: Float64) -> UInt8:
    """Bilinear, at columns u and rows v from pixel centres."""
    x, y = np.floor(u).astype(int), np.floor(v).astype(int)
    a, b = (u - x)[..., None], (v - y)[..., None]
    height, width = picture.shape[:2]
    rows, columns = (y % height, (y + 1) % height), (x % width, (x + 1) % width)
    top, bottom = ((1 - a) * picture[row, columns[0]] + a * picture[row, columns[1]] for row in rows)
    return np.clip(np.rint((1 - b) * top + b * bottom), 0, 255).astype(np.uint8)


def sideways(num: int, step: float = 0.03) -> tuple[Float64, Float64]:
    """Eyes and turns of a camera that moves right, a little up and forward, turning back slowly."""
    s = np.arange(num, dtype=np.float64)
    eyes = np.stack([step * s, -0.2 * step * s, 0.3 * step * s], axis=1)
    turns = np.stack([0.001 * s, -0.004 * s, 0.002 * s], axis=1)
    return eyes, turns


def random_points(count: int, *, seed: int = 0, spread: float = 0.55) -> Float64:
    """float64 [n,3]: points 2 to 6 in front of the first camera, about as wide as its view of 3:2."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(2, 6, count)
    x, y = rng.uniform(-spread, spread, count), rng.uniform(-spread / 1.5, spread / 1.5, count)
    return np.stack([x * z, y * z, z], axis=1)


def project_points(path: CameraPath, frame: int, points: Float64) -> tuple[Float64, Float64]:
    """(xy [n,2] px, depth [n]) of world points in one of the cameras."""
    matrix = path.world_to_camera[frame]
    local = points @ matrix[:3, :3].T + matrix[:3, 3]
    image = local @ path.K[frame].T
    return image[:, :2] / image[:, 2:], local[:, 2]


def tracks_of(path: CameraPath, points: Float64, *, noise_px: float = 0.0, seed: int = 0) -> Tracks:
    """What a perfect tracker would see of points that stand still."""
    rng = np.random.default_rng(seed)
    frame, track, places = [], [], []
    for index in range(len(path)):
        xy, depth = project_points(path, index, points)
        seen = (depth > 0) & (xy >= 0).all(axis=1) & (xy < (path.width, path.height)).all(axis=1)
        frame.append(np.full(int(seen.sum()), index, np.int64))
        track.append(np.flatnonzero(seen))
        places.append(xy[seen] + noise_px * rng.standard_normal((int(seen.sum()), 2)))
    return Tracks(
        frame=np.concatenate(frame),
        track=np.concatenate(track).astype(np.int64),
        xy=np.concatenate(places),
        num_frames=len(path),
        num_tracks=len(points),
        height=path.height,
        width=path.width,
    )


def angle_deg(a: Float64, b: Float64) -> float:
    """Between two vectors."""
    cosine = a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filmed:
    """A procedural scene in memory, and the truth about it.

    Attributes:
        clip: the frames.
        path: the true cameras.
        depth: float32 [T,H,W], metres.
        moves: bool [T,H,W], True on things that move by themselves.
        sky: bool [T,H,W].
    """

    clip: ArrayClip[Video]
    path: CameraPath
    depth: Float32
    moves: Bool
    sky: Bool


@cache
def filmed(seed: int, motion: CameraMotion, *, num: int = 20, height: int = 192, width: int = 288) -> Filmed:
    """A procedural scene, 12 frames a second; the same arrays for all tests of a process."""
    scene = make_scene(seed)
    clip = scene_clip(scene, num_frames=num, fps=FPS, height=height, width=width, camera_motion=motion)
    views = [clip.view(index) for index in range(num)]
    frames = np.stack([view.rgb for view in views])
    return Filmed(
        clip=clip_of(frames, FPS),
        path=clip.path,
        depth=np.stack([view.depth for view in views]),
        moves=np.stack([np.isin(view.object_id, scene.ids("mover")) for view in views]),
        sky=np.stack([view.sky for view in views]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planes:
    """A textured slanted wall with an upright card before it, and the truth about them.

    Attributes:
        clip: the frames.
        path: the cameras.
        depth: float32 [T,H,W].
        card: bool [T,H,W], True on the card.
    """

    clip: ArrayClip[Video]
    path: CameraPath
    depth: Float32
    card: Bool


def film_planes(path: CameraPath, *, card_moves: tuple[float, float] = (0.0, 0.0)) -> Planes:
    """Ray-cast, with bilinear textures: no pixel is off by more than a rounding.

    Args:
        path: the cameras, near the origin and looking along z.
        card_moves: to the right and down, units a frame.
    """
    wall, front = (noise_picture(512, 512, seed=seed, finest_px=16) for seed in (11, 12))
    normal, distance = np.array([0.25, -0.15, 1.0]), 4.0  # normal . X = distance
    y, x = np.mgrid[0 : path.height, 0 : path.width] + 0.5
    frames, depths, cards = list[UInt8](), list[Float64](), list[Bool]()
    for index, matrix in enumerate(path.world_to_camera):
        rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(path.K[index]).T @ matrix[:3, :3]
        eye = -matrix[:3, :3].T @ matrix[:3, 3]
        t_wall, t_card = (distance - normal @ eye) / (rays @ normal), (2.0 - eye[2]) / rays[..., 2]
        on_wall, on_card = (eye + t[..., None] * rays for t in (t_wall, t_card))
        u, v = (on_card[..., axis] - card_moves[axis] * index for axis in (0, 1))
        is_card = (np.abs(u) < 0.35) & (np.abs(v) < 0.4)
        colors = _look_up(wall, 80 * on_wall[..., 0], 80 * on_wall[..., 1]), _look_up(front, 160 * u, 160 * v)
        frames.append(np.where(is_card[..., None], colors[1], colors[0]))
        depths.append(np.where(is_card, t_card, t_wall))
        cards.append(is_card)
    return Planes(
        clip=clip_of(np.stack(frames), FPS),
        path=path,
        depth=np.stack(depths).astype(np.float32),
        card=np.stack(cards),
    )
