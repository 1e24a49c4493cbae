"""The catalogue: seeded builders of everything that stands in a scene or moves through it.

Every builder draws its variation from the generator it is given and knows no placement.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ex4d.core.geometry import rotation_about
from ex4d.scene.model import Color, Material, Primitive, Shape
from ex4d.scene.things import Rng, Thing, pick, solid, textured, thing

PALETTE: tuple[Color, ...] = (
    (0.72, 0.36, 0.26), (0.83, 0.62, 0.31), (0.36, 0.52, 0.45), (0.30, 0.42, 0.58), (0.62, 0.46, 0.56),
    (0.78, 0.74, 0.64), (0.42, 0.36, 0.32), (0.55, 0.62, 0.38), (0.68, 0.66, 0.68), (0.24, 0.46, 0.50),
)  # fmt: skip
WOODS: tuple[Color, ...] = ((0.62, 0.45, 0.30), (0.48, 0.33, 0.22), (0.74, 0.60, 0.43), (0.55, 0.42, 0.33))
METALS: tuple[Color, ...] = ((0.42, 0.41, 0.42), (0.56, 0.50, 0.38), (0.36, 0.42, 0.46))
SHADES: tuple[Color, ...] = ((0.84, 0.77, 0.62), (0.74, 0.56, 0.44), (0.62, 0.70, 0.66))
DARK: Color = (0.23, 0.22, 0.23)


def statue(rng: Rng) -> Thing:
    """A plinth with a large ball, vase or stacked figure: tall enough to fill the middle of the view."""
    stone = textured(rng, ("brick", "marble", "plain")[int(rng.integers(3))], pick(rng, PALETTE), 0.16, 0.3)
    top = textured(rng, ("marble", "dots", "stripes")[int(rng.integers(3))], pick(rng, PALETTE), 0.22, 0.2)
    h, w = rng.uniform(0.42, 0.5), rng.uniform(0.34, 0.42)
    parts = [solid("box", (0, h, 0), (w, h, w), stone, rotation_about("y", rng.uniform(-0.5, 0.5)))]
    style = int(rng.integers(3))
    if style == 0:
        r = rng.uniform(0.44, 0.5)
        parts.append(solid("sphere", (0, 2 * h + r - 0.03, 0), (r, r, r), top))
    elif style == 1:
        parts.append(solid("cylinder", (0, 2 * h + 0.34, 0), (0.36, 0.34, 0.36), top))
        parts.append(solid("sphere", (0, 2 * h + 0.86, 0), (0.27, 0.27, 0.27), stone))
    else:
        parts.append(solid("sphere", (0, 2 * h + 0.36, 0), (0.4, 0.4, 0.34), top))
        parts.append(solid("sphere", (0, 2 * h + 0.9, 0), (0.24, 0.26, 0.24), stone))
    return thing("statue", parts)


def figure(rng: Rng) -> Thing:
    """A standing figure: legs, coat, arms and head."""
    coat = textured(rng, ("stripes", "plain", "dots")[int(rng.integers(3))], pick(rng, PALETTE), 0.2, 0.3)
    legs = textured(rng, "plain", pick(rng, PALETTE), 0.15, 0.3)
    skin = textured(rng, "plain", (0.80, 0.62, 0.50), 0.15, 0.2)
    parts = [
        solid("cylinder", (s * 0.14, 0.36, 0), (0.11, 0.36, 0.12), legs, rotation_about("z", 0.04 * s)) for s in (-1, 1)
    ]
    parts.append(solid("cylinder", (0, 1.03, 0), (0.37, 0.40, 0.27), coat))
    parts.append(solid("sphere", (0, 1.40, 0), (0.37, 0.16, 0.27), coat))
    for side in (-1, 1):
        arm = rotation_about("z", -0.1 * side)
        parts.append(solid("cylinder", (side * 0.385, 1.05, 0), (0.1, 0.36, 0.11), coat, arm))
    parts.append(solid("sphere", (0, 1.71, 0), (0.19, 0.22, 0.2), skin))
    hair = textured(rng, "plain", pick(rng, WOODS), 0.09, 0.4)
    parts.append(solid("sphere", (0, 1.78, 0.045), (0.205, 0.19, 0.2), hair))
    return thing("figure", parts)


def crates(rng: Rng) -> Thing:
    """A stack of one to three turned crates."""
    parts: list[Primitive] = []
    base = 0.0
    for i in range(int(rng.integers(1, 4))):
        half = rng.uniform(0.17, 0.27) * 0.88**i
        wood = textured(rng, "planks", pick(rng, WOODS), 0.16, 0.25)
        at = (rng.uniform(-0.05, 0.05), base + half, rng.uniform(-0.05, 0.05))
        parts.append(solid("box", at, (half, half, half), wood, rotation_about("y", rng.uniform(0, np.pi))))
        base += 2 * half
    return thing("crates", parts)


def table(rng: Rng) -> Thing:
    """A table on four legs with a bowl and a box on top: one can see through under it."""
    wood = textured(rng, "planks", pick(rng, WOODS), 0.17, 0.25)
    w, d, h = rng.uniform(0.45, 0.6), rng.uniform(0.3, 0.4), rng.uniform(0.36, 0.42)
    parts = [solid("box", (0, 2 * h, 0), (w, 0.03, d), wood)]
    parts += [
        solid("box", (x * (w - 0.06), h, z * (d - 0.06)), (0.035, h, 0.035), wood) for x in (-1, 1) for z in (-1, 1)
    ]
    vase = textured(rng, "stripes", pick(rng, PALETTE), 0.16, 0.2)
    parts.append(solid("sphere", (0.5 * w, 2 * h + 0.17, 0), (0.15, 0.15, 0.15), vase))
    book = textured(rng, "plain", pick(rng, PALETTE), 0.12, 0.4)
    parts.append(solid("box", (-0.35 * w, 2 * h + 0.09, 0), (0.16, 0.06, 0.12), book, rotation_about("y", 0.5)))
    return thing("table", parts)


def shelf(rng: Rng) -> Thing:
    """An open shelf with boxes and balls: many small depth steps."""
    wood = textured(rng, "planks", pick(rng, WOODS), 0.2, 0.2)
    w, h, d = rng.uniform(0.45, 0.6), rng.uniform(0.85, 1.0), 0.19
    parts = [solid("box", (s * w, h, 0), (0.03, h, d), wood) for s in (-1, 1)]
    levels = (0.05, 0.72 * h, 1.36 * h, 2 * h - 0.03)
    parts += [solid("box", (0, level, 0), (w, 0.025, d), wood) for level in levels]
    for level in levels[:3]:
        x = -w + 0.2
        while x < w - 0.15:
            r = rng.uniform(0.09, 0.14)
            paint = textured(rng, "plain", pick(rng, PALETTE), 0.15, 0.4)
            shape: Shape = ("box", "sphere", "cylinder")[int(rng.integers(3))]
            parts.append(solid(shape, (x, level + 0.025 + r, 0), (r, r, 0.8 * r), paint))
            x += 2 * r + rng.uniform(0.05, 0.22)
    return thing("shelf", parts)


def post(rng: Rng) -> Thing:
    """A thin lamp post: a pole on a foot under a shade."""
    h = rng.uniform(0.85, 1.0)
    metal = textured(rng, "plain", pick(rng, METALS), 0.2, 0.3)
    paper = textured(rng, "stripes", pick(rng, SHADES), 0.2, 0.1, spread=0.1)
    parts = [
        solid("cylinder", (0, h, 0), (0.028, h, 0.028), metal),
        solid("cylinder", (0, 0.03, 0), (0.16, 0.03, 0.16), metal),
        solid("cone", (0, 2 * h, 0), (0.21, 0.17, 0.21), paper),
    ]
    return thing("lamp", parts)


def plant(rng: Rng) -> Thing:
    """A pot with a bush of overlapping leaf balls."""
    pot = textured(rng, "stripes", pick(rng, PALETTE), 0.14, 0.2)
    leaf = foliage(rng, 0.10)
    parts = [solid("cylinder", (0, 0.17, 0), (0.17, 0.17, 0.17), pot)]
    for i in range(4):
        a, r = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.24)
        at = (0.11 * np.cos(a), 0.45 + 0.14 * i, 0.11 * np.sin(a))
        parts.append(solid("sphere", at, (r, 0.9 * r, r), leaf))
    return thing("plant", parts)


def pillar(rng: Rng) -> Thing:
    """A column on a square base."""
    stone = textured(rng, "marble", (0.72, 0.69, 0.64), 0.35, spread=0.1)
    h, r = rng.uniform(0.6, 1.05), rng.uniform(0.13, 0.2)
    parts = [
        solid("cylinder", (0, h, 0), (r, h, r), stone),
        solid("box", (0, 0.08, 0), (1.35 * r, 0.08, 1.35 * r), stone),
        solid("box", (0, 2 * h, 0), (1.35 * r, 0.07, 1.35 * r), stone),
    ]
    return thing("pillar", parts)


def arch(rng: Rng) -> Thing:
    """Two piers and a lintel that one sees through."""
    stone = textured(rng, "brick", pick(rng, PALETTE), 0.14, 0.25)
    h = rng.uniform(0.85, 1.0)
    parts = [solid("box", (s * 0.55, h, 0), (0.15, h, 0.17), stone) for s in (-1, 1)]
    parts.append(solid("box", (0, 2 * h + 0.12, 0), (0.78, 0.14, 0.2), stone))
    return thing("arch", parts)


def chair(rng: Rng) -> Thing:
    """Seat, back and four legs."""
    wood = textured(rng, "planks", pick(rng, WOODS), 0.13, 0.25)
    cloth = textured(rng, "check", pick(rng, PALETTE), 0.12, 0.2)
    parts = [solid("box", (x * 0.19, 0.22, z * 0.19), (0.025, 0.22, 0.025), wood) for x in (-1, 1) for z in (-1, 1)]
    parts.append(solid("box", (0, 0.47, 0), (0.23, 0.035, 0.23), cloth))
    parts.append(solid("box", (0, 0.76, 0.21), (0.23, 0.26, 0.03), cloth))
    return thing("chair", parts)


def cabinet(rng: Rng) -> Thing:
    """A sideboard with a ball on it."""
    wood = textured(rng, "planks", pick(rng, WOODS), 0.25, 0.2)
    w, h = rng.uniform(0.4, 0.55), rng.uniform(0.35, 0.5)
    ball = textured(rng, "dots", pick(rng, PALETTE), 0.17, 0.1)
    parts = [
        solid("box", (0, h, 0), (w, h, 0.24), wood),
        solid("sphere", (0.4 * w, 2 * h + 0.16, 0), (0.16, 0.16, 0.16), ball),
    ]
    return thing("cabinet", parts)


def foliage(rng: Rng, scale_m: float) -> Material:
    """Leaves: three greens in strong noise."""
    warm = float(rng.uniform(-0.06, 0.1))
    return Material(
        pattern="foliage",
        color_a=(0.20 + warm, 0.33, 0.15),
        color_b=(0.46 + warm, 0.58, 0.28),
        color_c=(0.32 + warm, 0.46, 0.20),
        scale_m=scale_m,
        contrast=0.5,
        seed=int(rng.integers(1, 1 << 20)),
    )


def tree(rng: Rng) -> Thing:
    """A trunk under a crown of leaf balls."""
    bark = textured(rng, "plain", (0.40, 0.31, 0.24), 0.14, 0.5)
    leaf = foliage(rng, 0.22)
    h = rng.uniform(0.7, 1.0)
    parts = [solid("cylinder", (0, h, 0), (0.11, h, 0.11), bark)]
    for i in range(5):
        a, r = rng.uniform(0, 2 * np.pi) if i else 0.0, rng.uniform(0.5, 0.72)
        out = 0.42 if i else 0.0
        at = (out * np.cos(a), 2 * h + 0.3 + (0.5 if i == 0 else rng.uniform(-0.1, 0.35)), out * np.sin(a))
        parts.append(solid("sphere", at, (r, 0.85 * r, r), leaf))
    return thing("tree", parts)


def fir(rng: Rng) -> Thing:
    """Three stacked cones on a trunk."""
    bark = textured(rng, "plain", (0.38, 0.30, 0.24), 0.14, 0.5)
    leaf = foliage(rng, 0.18)
    parts = [solid("cylinder", (0, 0.3, 0), (0.09, 0.3, 0.09), bark)]
    parts += [solid("cone", (0, 0.95 + 0.62 * i, 0), (0.72 - 0.17 * i, 0.55, 0.72 - 0.17 * i), leaf) for i in range(3)]
    return thing("fir", parts)


def bench(rng: Rng) -> Thing:
    """A park bench of slats on two stone feet."""
    wood = textured(rng, "planks", pick(rng, WOODS), 0.12, 0.25)
    stone = textured(rng, "plain", (0.62, 0.60, 0.57), 0.15, 0.4)
    parts = [solid("box", (s * 0.45, 0.2, 0), (0.07, 0.2, 0.19), stone) for s in (-1, 1)]
    parts.append(solid("box", (0, 0.43, 0), (0.6, 0.035, 0.22), wood))
    parts.append(solid("box", (0, 0.72, 0.2), (0.6, 0.13, 0.03), wood))
    return thing("bench", parts)


def hedge(rng: Rng) -> Thing:
    """A clipped box hedge with a ball of topiary beside it."""
    leaf = foliage(rng, 0.13)
    w, h = rng.uniform(0.4, 0.6), rng.uniform(0.3, 0.5)
    parts = [
        solid("box", (-0.1, h, 0), (w, h, 0.22), leaf),
        solid("sphere", (w + 0.15, 0.33, 0), (0.34, 0.34, 0.34), leaf),
    ]
    return thing("hedge", parts)


def ball(rng: Rng) -> Thing:
    """A patterned ball: the mover that rolls."""
    r = rng.uniform(0.2, 0.27)
    paint = textured(rng, ("dots", "stripes", "check")[int(rng.integers(2))], pick(rng, PALETTE[:5]), 0.2, 0.1)
    paint = replace(paint, color_b=(0.92, 0.90, 0.84))
    return thing("ball", [solid("sphere", (0, r, 0), (r, r, r), paint)])


def cart(rng: Rng) -> Thing:
    """A small cart: body, cabin and four wheels, facing +x."""
    body = textured(rng, "stripes", pick(rng, PALETTE[:5]), 0.18, 0.15)
    cabin = textured(rng, "plain", (0.75, 0.78, 0.80), 0.15, 0.3)
    tyre = textured(rng, "plain", DARK, 0.1, 0.3)
    parts = [
        solid("box", (0, 0.22, 0), (0.36, 0.11, 0.19), body),
        solid("box", (-0.1, 0.42, 0), (0.19, 0.1, 0.16), cabin),
    ]
    wheel = rotation_about("x", np.pi / 2)
    parts += [
        solid("cylinder", (x * 0.23, 0.1, z * 0.18), (0.1, 0.04, 0.1), tyre, wheel) for x in (-1, 1) for z in (-1, 1)
    ]
    return thing("cart", parts)


def balloon(rng: Rng) -> Thing:
    """A balloon with a basket under it, floating 1.4 m above the floor."""
    skin = textured(rng, "stripes", pick(rng, PALETTE), 0.24, 0.1)
    weave = textured(rng, "planks", pick(rng, WOODS), 0.08, 0.2)
    parts = [
        solid("sphere", (0, 1.95, 0), (0.27, 0.32, 0.27), skin),
        solid("cylinder", (0, 1.58, 0), (0.012, 0.12, 0.012), weave),
        solid("box", (0, 1.4, 0), (0.09, 0.07, 0.09), weave),
    ]
    return thing("balloon", parts)


Builder = Callable[[Rng], Thing]
ROOM_THINGS: tuple[Builder, ...] = (crates, table, shelf, post, plant, pillar, chair, cabinet)
OUTDOOR_THINGS: tuple[Builder, ...] = (tree, fir, bench, post, hedge, crates, arch, pillar)
