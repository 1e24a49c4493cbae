"""Cameras and points from tracks: a first pair, one keyframe after the other, and bundle adjustment in between."""

from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float64, Int64
from ex4d.motion.bundle import Problem, adjust, residuals
from ex4d.motion.tracks import Tracks
from ex4d.motion.two_view import RelativePose, bearings, relative_pose, rotation_between, triangulate

KEYFRAME_MOTION = 0.012
"""A keyframe is taken when points have moved by this share of the width."""
_KEYFRAME_SURVIVORS = 0.6
_MIN_SHARED = 40
_MIN_ANGLE_RAD = np.radians(0.5)
_MAX_ERROR_PX = 2.0
_LOCAL = 8
_WINDOW = 48
_MIN_SEEN = 12
_ENOUGH_PARALLAX = 0.08
_RING_SHARE = 0.2
_FOCAL_FACTORS = (0.5, 0.65, 0.8, 1.0, 1.25, 1.6, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What was reconstructed, in the camera frame and unit of the first keyframe pair.

    Attributes:
        rotation: float64 [T,3,3], world to camera, one a frame.
        translation: float64 [T,3].
        is_found: bool [T]; False: the camera lies between its neighbours, no point supports it.
        points: float64 [m,3], world.
        point_track: int64 [m], the track of each point, ascending.
        error_px: median distance between points and where they were seen.
        share: how much of what was tracked in keyframes fits a still scene.
        parallax_px: motion in the outer fifth of the picture, between the two keyframes with most of it, that no turn
            of the camera explains: a fifth of the points shows more. Inside, it may be a subject that turns.
    """

    rotation: Float64
    translation: Float64
    is_found: Bool
    points: Float64
    point_track: Int64
    error_px: float
    share: float
    parallax_px: float


def choose_keyframes(tracks: Tracks) -> Int64:
    """int64 [n], ascending; the first and the last frame are among them."""
    chosen = [0]
    for frame in range(1, tracks.num_frames):
        ids, a, b = tracks.shared(chosen[-1], frame)
        moved = float(np.median(np.linalg.norm(b - a, axis=1))) if len(ids) else np.inf
        started = len(tracks.at(chosen[-1])[0])
        if moved > KEYFRAME_MOTION * tracks.width or len(ids) < _KEYFRAME_SURVIVORS * started:
            chosen.append(frame)
    if chosen[-1] != tracks.num_frames - 1:
        chosen.append(tracks.num_frames - 1)
    return np.array(chosen, np.int64)


def reconstruct(tracks: Tracks, K: Float64) -> Structure | None:
    """Cameras of every frame of a clip, by incremental structure from motion.

    Args:
        tracks: of the clip.
        K: float64 [3,3], px of the tracked pictures; square pixels.

    Returns:
        None where no pair of keyframes shows parallax, fewer than half of the keyframes could be added, or no points
        are left that fit.
    """
    keyframes = choose_keyframes(tracks)
    work = Work.of(tracks, keyframes, K)
    if not work.start():
        return None
    work.grow()
    if work.registered.mean() < 0.5:
        return None
    work.polish()
    return work.finish(tracks) if work.has_point.sum() >= _MIN_SEEN else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScore:
    """Two keyframes as a possible start.

    Attributes:
        quality: parallax in px, less where few points or few of them fit; larger is better.
        parallax_px: median motion of the points that fit, after the turn of the camera is taken out.
        pose: the second camera as seen from the first.
    """

    quality: float
    parallax_px: float
    pose: RelativePose


@dataclass(slots=True, kw_only=True)
class Work:
    """The growing reconstruction: observations of tracks in keyframes, cameras, points."""

    keyframes: Int64
    K: Float64
    camera: Int64  # [k] keyframe number of each observation
    point: Int64  # [k] row of each observation's track
    xy: Float64  # [k,2] px, corner origin
    point_track: Int64  # [m]
    rotation: Float64
    translation: Float64
    registered: Bool
    points: Float64
    has_point: Bool
    good: Bool

    @staticmethod
    def of(tracks: Tracks, keyframes: Int64, K: Float64) -> "Work":
        rows = [tracks.at(int(frame)) for frame in keyframes]
        camera = np.concatenate([np.full(len(ids), i, np.int64) for i, (ids, _) in enumerate(rows)])
        track = np.concatenate([ids for ids, _ in rows])
        xy = np.concatenate([xy for _, xy in rows])
        often = np.bincount(track, minlength=tracks.num_tracks) >= 2
        kept = often[track]
        names, point = np.unique(track[kept], return_inverse=True)
        num = len(keyframes)
        return Work(
            keyframes=keyframes,
            K=K,
            camera=camera[kept],
            point=point.astype(np.int64),
            xy=xy[kept],
            point_track=names.astype(np.int64),
            rotation=np.repeat(np.eye(3)[None], num, axis=0),
            translation=np.zeros((num, 3)),
            registered=np.zeros(num, np.bool_),
            points=np.zeros((len(names), 3)),
            has_point=np.zeros(len(names), np.bool_),
            good=np.ones(int(kept.sum()), np.bool_),
        )

    def seen(self, camera: int) -> tuple[Int64, Float64]:
        """(points [n], xy [n,2]) that a keyframe sees, ascending."""
        rows = np.flatnonzero((self.camera == camera) & self.good)
        return self.point[rows], self.xy[rows]

    def start(self) -> bool:
        """Pose the pair of keyframes with the most parallax, and its points."""
        best, chosen = 0.0, None
        for first, second in self.pairs():
            found = self.score(first, second)
            if found is not None and found.quality > best:
                best, chosen = found.quality, (first, second, found)
        if chosen is None:
            return False
        first, second, found = chosen
        pose = found.pose
        self.rotation[second], self.translation[second] = pose.rotation, pose.translation
        self.registered[[first, second]] = True
        self._add_points()
        self._adjust(np.array([first, second]), fixed=np.array([first]))
        return bool(self.has_point.sum() >= _MIN_SEEN)

    def pairs(self) -> list[tuple[int, int]]:
        """Pairs of keyframes that share enough points: of each with some later ones, some 80 in all."""
        num = len(self.keyframes)
        table = np.zeros((num, len(self.points)), np.bool_)
        table[self.camera, self.point] = True
        pairs: list[tuple[int, int]] = []
        for first in range(0, num - 1, max(1, num // 16)):
            shared = (table[first] & table[first + 1 :]).sum(axis=1)
            after = np.flatnonzero(shared >= max(_MIN_SHARED, 0.3 * shared[0])) + first + 1
            if len(after):
                chosen = np.unique(np.linspace(0, len(after) - 1, 5).astype(int))
                pairs += [(first, int(second)) for second in after[chosen]]
        return pairs

    def shared(self, first: int, second: int) -> tuple[Float64, Float64]:
        """(xy in `first` [n,2], xy in `second` [n,2]) of what two keyframes both see."""
        a, xy_a = self.seen(first)
        b, xy_b = self.seen(second)
        _, in_a, in_b = np.intersect1d(a, b, assume_unique=True, return_indices=True)
        return xy_a[in_a], xy_b[in_b]

    def score(self, first: int, second: int) -> "PairScore | None":
        """How good a start two keyframes are; None where no still scene explains them."""
        here, there = self.shared(first, second)
        pose = relative_pose(here, there, self.K)
        if pose is None or pose.inlier.mean() < 0.5:
            return None
        _, left = rotation_between(here[pose.inlier], there[pose.inlier], self.K)
        # Parallax beyond a few percent of the width only means fewer and worse tracks.
        parallax_px = float(np.median(left))
        enough_px = min(parallax_px, _ENOUGH_PARALLAX * 2 * float(self.K[0, 2]))
        quality = enough_px * float(pose.inlier.mean()) * min(1.0, int(pose.inlier.sum()) / 150)
        return PairScore(quality=quality, parallax_px=parallax_px, pose=pose)

    def grow(self) -> None:
        """Add keyframes outward from those that are there, the neighbours of registered ones first."""
        failed = np.zeros(len(self.keyframes), np.bool_)
        while True:
            near = self.registered | np.roll(self.registered, 1) | np.roll(self.registered, -1)
            near[0] = self.registered[:2].any()
            near[-1] = self.registered[-2:].any()
            waiting = np.flatnonzero(~self.registered & near & ~failed)
            if not len(waiting):
                return
            counts = [int(self.has_point[self.seen(int(i))[0]].sum()) for i in waiting]
            camera = int(waiting[int(np.argmax(counts))])
            if max(counts) < _MIN_SEEN or not self._pose(camera):
                failed[camera] = True
                continue
            failed[:] = False
            self._add_points()
            done = np.flatnonzero(self.registered)
            local = done[np.argsort(np.abs(done - camera), kind="stable")[:_LOCAL]]
            fixed = local[np.argsort(-np.abs(local - camera), kind="stable")[:2]] if len(done) > 2 else local[:1]
            self._adjust(np.sort(local), fixed=fixed, num_iterations=5)

    def _pose(self, camera: int) -> bool:
        """Pose a keyframe against the points that exist (RANSAC, then refined)."""
        rows, xy = self.seen(camera)
        known = self.has_point[rows]
        found = pose_from_points(self.points[rows[known]], xy[known], self.K)
        if found is None:
            return False
        self.rotation[camera], self.translation[camera] = found
        self.registered[camera] = True
        return True

    def _add_points(self) -> float:
        """Triangulate what two or more registered keyframes see; keep what they see under an angle.

        Returns the share of those observations that agree, under an angle or not.
        """
        usable = self.good & self.registered[self.camera] & ~self.has_point[self.point]
        rows = np.flatnonzero(usable)
        wanted = np.flatnonzero(np.bincount(self.point[rows], minlength=len(self.points)) >= 2)
        if not len(wanted):
            return 0.0
        rows = rows[np.isin(self.point[rows], wanted)]
        slot = np.searchsorted(wanted, self.point[rows])
        cameras, view = np.unique(self.camera[rows], return_inverse=True)
        bearing = np.zeros((len(cameras), len(wanted), 3))
        seen = np.zeros((len(cameras), len(wanted)), np.bool_)
        bearing[view, slot] = bearings(self.xy[rows], self.K)
        seen[view, slot] = True
        points, angle = triangulate(bearing, self.rotation[cameras][:, None], self.translation[cameras][:, None], seen)
        error, depth = self._errors(rows, points[slot])
        worst = np.zeros(len(wanted))
        np.maximum.at(worst, slot, np.where(depth > 0, error, np.inf))
        accept = (angle > _MIN_ANGLE_RAD) & (worst < _MAX_ERROR_PX)
        self.points[wanted[accept]] = points[accept]
        self.has_point[wanted[accept]] = True
        return float((worst[slot] < _MAX_ERROR_PX).mean())

    def _parallax_px(self) -> float:
        """Of the points that were reconstructed: see `Structure.parallax_px`."""
        best = 0.0
        kept = self.good & self.has_point[self.point]
        chosen = np.unique(np.linspace(0, len(self.keyframes) - 1, 8).round().astype(int)).tolist()
        for first, second in combinations(chosen, 2):
            rows = [np.flatnonzero((self.camera == camera) & kept) for camera in (first, second)]
            _, in_a, in_b = np.intersect1d(*(self.point[r] for r in rows), assume_unique=True, return_indices=True)
            here, there = self.xy[rows[0][in_a]], self.xy[rows[1][in_b]]
            outer = (np.abs(here / self.K[:2, 2] - 1) > 1 - 2 * _RING_SHARE).any(axis=1)
            if outer.sum() >= _MIN_SEEN:
                best = max(best, _beyond_turning_px(here[outer], there[outer], self.K))
        return best

    def _consistent_share(self) -> float:
        """Of everything that was followed through registered keyframes, how much fits the final cameras."""
        self.has_point[:] = False
        self.good[:] = True
        return self._add_points()

    def _errors(self, rows: Int64, points: Float64) -> tuple[Float64, Float64]:
        """(distance px, depth) of observations `rows` to world points [n,3]."""
        local = np.einsum("kij,kj->ki", self.rotation[self.camera[rows]], points) + self.translation[self.camera[rows]]
        image = local @ self.K.T
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.linalg.norm(image[:, :2] / image[:, 2:] - self.xy[rows], axis=1)
        return np.nan_to_num(error, nan=np.inf), local[:, 2]

    def _adjust(self, cameras: Int64, *, fixed: Int64, num_iterations: int = 8) -> None:
        """Bundle-adjust some keyframes and the points they see; then drop what does not fit."""
        in_window = np.zeros(len(self.keyframes), np.bool_)
        in_window[cameras] = True
        rows = np.flatnonzero(self.good & in_window[self.camera] & self.has_point[self.point])
        names, point = np.unique(self.point[rows], return_inverse=True)
        problem = adjust(
            Problem(
                rotation=self.rotation[cameras],
                translation=self.translation[cameras],
                points=self.points[names],
                focal_px=float(self.K[0, 0]),
                camera=np.searchsorted(cameras, self.camera[rows]),
                point=point.astype(np.int64),
                xy=self.xy[rows] - self.K[:2, 2],
                fixed=np.isin(cameras, fixed),
            ),
            num_iterations,
        )
        self.rotation[cameras], self.translation[cameras] = problem.rotation, problem.translation
        self.points[names] = problem.points
        error, depth = residuals(problem)
        self.good[rows] = (np.linalg.norm(error, axis=1) < 2 * _MAX_ERROR_PX) & (depth > 0)
        self._drop_lonely()

    def _drop_lonely(self) -> None:
        """A point needs two registered keyframes."""
        counted = self.good & self.registered[self.camera]
        self.has_point &= np.bincount(self.point[counted], minlength=len(self.points)) >= 2

    def polish(self) -> None:
        """Adjust everything: at once, or in overlapping windows where there are many keyframes."""
        done = np.flatnonzero(self.registered)
        for _ in range(2):
            if len(done) <= _WINDOW:
                self._adjust(done, fixed=done[:1], num_iterations=15)
            else:
                for first in range(0, len(done) - _WINDOW // 2, _WINDOW // 2):
                    window = done[first : first + _WINDOW]
                    self._adjust(window, fixed=window[: _WINDOW // 4] if first else window[:1])
            self._add_points()

    def finish(self, tracks: Tracks) -> Structure:
        """Cameras of all frames, keyframes or not."""
        kept = np.flatnonzero(self.has_point)
        num, known = tracks.num_frames, self.keyframes[self.registered]
        rotation, translation = np.repeat(np.eye(3)[None], num, axis=0), np.zeros((num, 3))
        is_found = np.zeros(num, np.bool_)
        rotation[known], translation[known] = self.rotation[self.registered], self.translation[self.registered]
        is_found[known] = True
        cameras = rotation, translation, is_found
        rotation, translation, is_found = pose_rest(tracks, self.K, self.point_track[kept], self.points[kept], cameras)
        rows = np.flatnonzero(self.registered[self.camera])
        explained = self.has_point[self.point[rows]] & self.good[rows]
        error, _ = self._errors(rows[explained], self.points[self.point[rows[explained]]])
        parallax_px = self._parallax_px()
        share = self._consistent_share()
        return Structure(
            rotation=rotation,
            translation=translation,
            is_found=is_found,
            points=self.points[kept],
            point_track=self.point_track[kept],
            error_px=float(np.median(error)),
            share=share,
            parallax_px=parallax_px,
        )


def _beyond_turning_px(here: Float64, there: Float64, K: Float64) -> float:
    """80th percentile of the motion [n,2] px that is left under the turn *and focal length* that explain it best.

    Under a wrong focal length even a mere turn leaves motion at the rim.
    """
    left: list[float] = []
    for factor in _FOCAL_FACTORS:
        scaled = K.copy()
        scaled[:2, :2] *= factor
        left.append(float(np.percentile(rotation_between(here, there, scaled)[1], 80)))
    return min(left)


def pose_from_points(points: Float64, xy: Float64, K: Float64) -> tuple[Float64, Float64] | None:
    """World-to-camera (rotation [3,3], translation [3]) from points [n,3] seen at [n,2] px; None without consensus."""
    if len(points) < _MIN_SEEN:
        return None
    try:
        found, turn, move, inlier = cv2.solvePnPRansac(
            points, xy, K, None, flags=cv2.SOLVEPNP_SQPNP, reprojectionError=2 * _MAX_ERROR_PX, iterationsCount=200,
            confidence=0.9999,
        )  # fmt: skip
    except cv2.error:  # SQPnP asserts that its points are not degenerate
        return None
    if not found or inlier is None or len(inlier) < max(_MIN_SEEN, 0.3 * len(points)):
        return None
    rows = np.asarray(inlier, np.int64)[:, 0]
    for limit in (2.0, 1.0):
        turn, move = cv2.solvePnPRefineLM(points[rows], xy[rows], K, None, turn, move)
        predicted, _ = cv2.projectPoints(points, turn, move, K, None)
        error = np.linalg.norm(predicted[:, 0] - xy, axis=1)
        rows = np.flatnonzero(error < limit * _MAX_ERROR_PX)
        if len(rows) < _MIN_SEEN:
            break
    return np.asarray(cv2.Rodrigues(turn)[0], np.float64), np.asarray(move, np.float64)[:, 0]


def pose_rest(
    tracks: Tracks, K: Float64, point_track: Int64, points: Float64, cameras: tuple[Float64, Float64, Bool]
) -> tuple[Float64, Float64, Bool]:
    """Cameras of the frames that have none yet: by points, else between (or beyond) their neighbours.

    Args:
        tracks: of the clip.
        K: float64 [3,3].
        point_track: int64 [m], ascending.
        points: float64 [m,3].
        cameras: rotation [T,3,3], translation [T,3] and which of them are found, bool [T].
    """
    out_rotation, out_translation, is_found = cameras[0].copy(), cameras[1].copy(), cameras[2].copy()
    for frame in np.flatnonzero(~is_found):
        ids, xy = tracks.at(int(frame))
        slot = np.minimum(np.searchsorted(point_track, ids), len(point_track) - 1)
        known = point_track[slot] == ids
        found = pose_from_points(points[slot[known]], xy[known], K)
        if found is not None:
            out_rotation[frame], out_translation[frame] = found
            is_found[frame] = True
    _interpolate(out_rotation, out_translation, is_found)
    return out_rotation, out_translation, is_found


def _interpolate(rotation: Float64, translation: Float64, is_found: Bool) -> None:
    """Fill in cameras that were not found: on the arc between their neighbours, or where the nearest one stands."""
    known = np.flatnonzero(is_found)
    for frame in np.flatnonzero(~is_found):
        after = int(np.searchsorted(known, frame))
        if after in (0, len(known)):
            nearest = known[min(after, len(known) - 1)]
            rotation[frame], translation[frame] = rotation[nearest], translation[nearest]
            continue
        a, b = known[after - 1], known[after]
        share = (frame - a) / (b - a)
        turn, _ = cv2.Rodrigues(rotation[b] @ rotation[a].T)
        rotation[frame] = cv2.Rodrigues(turn * share)[0] @ rotation[a]
        eye = [-rotation[i].T @ translation[i] for i in (a, b)]
        translation[frame] = -rotation[frame] @ ((1 - share) * eye[0] + share * eye[1])
