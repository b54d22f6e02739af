"""From a seed to a furnished room."""

from __future__ import annotations

import colorsys
import math

import numpy as np

from harness.seeding import numpy_generator
from scenes.assembly import Assembly, Solid, build
from scenes.classes import SCENE_TYPES
from scenes.layout import Floor, Placed
from scenes.materials import Material, Palette
from scenes.recipes import AT_WALL, ON_SURFACES, ORDER, RECIPES
from scenes.scene import Light, Rug, Scene, Solids, Thing
from scenes.viewpoint import choose_camera

RENDERER_VERSION = 2
"""Raised whenever the picture or a label of any seed changes; part of the cache's name."""


def generate(seed: int) -> Scene:
    """The scene of a seed: geometry, materials, lights and camera.

    Args:
        seed: any integer. Equal seeds give equal scenes.

    Returns:
        A scene that :func:`scenes.render` draws.
    """
    rng = numpy_generator("scenes", int(seed))
    palette = Palette(rng)
    kind = SCENE_TYPES[int(rng.integers(len(SCENE_TYPES)))]
    size = (float(rng.uniform(2.8, 5.3)), float(rng.uniform(2.8, 5.3)), float(rng.uniform(2.4, 2.9)))
    floor = Floor(*size, rng)
    if rng.random() < 0.25:
        _add_pillar(floor, rng, palette)
    _furnish(floor, kind, rng, palette)
    _hang(floor, rng, palette)
    _put_on_surfaces(floor, rng, palette)
    lights = _lights(floor, rng, palette)
    things = tuple(_thing(placed) for placed in floor.placed)
    room_materials, sides = _room_materials(rng, palette)
    rug = _rug(floor, rng, palette, room_materials)
    solids, materials = _collect(floor.placed, room_materials)
    points, owners = _keypoints(floor.placed)
    warmth = colorsys.hsv_to_rgb(rng.uniform(0, 1), rng.uniform(0, 0.12), 1.0)
    return Scene(
        seed=int(seed), kind=kind, size=size, things=things, solids=solids, materials=materials,
        sides=sides, lights=lights, rug=rug, camera=choose_camera(size, things, rng),
        ambient=(np.array(warmth) * rng.uniform(0.12, 0.3)).astype(np.float32),
        exposure=float(rng.uniform(0.16, 0.3)), keypoints=points, keypoint_thing=owners,
    )


def _add_pillar(floor: Floor, rng, palette: Palette) -> None:
    """A column or closet of wall in a corner or along a wall."""
    pillar = Assembly("wall")
    width, depth = rng.uniform(0.3, 1.2), rng.uniform(0.25, 0.7)
    pillar.box(palette.material(), (0, 0, floor.height / 2), (width, depth, floor.height + 0.01))
    side = int(rng.integers(4))
    length = floor.length(side)
    along = rng.choice([width / 2 + 0.011, length - width / 2 - 0.011, rng.uniform(0.9, length - 0.9)])
    x, y = floor.wall_point(side, along, depth / 2 + 0.0101)
    if floor.place(pillar, x, y, side * math.pi / 2):
        floor.block(side, along, width / 2)


def _furnish(floor: Floor, kind: str, rng, palette: Palette) -> None:
    for name in ORDER:
        chances = RECIPES[kind].get(name)
        if chances is None:
            continue
        for _ in range(int(rng.choice(len(chances), p=chances))):
            if name == "desk":
                _desk(floor, rng, palette)
            elif name == "table":
                _dining_table(floor, rng, palette, full=kind == "dining_room")
            else:
                wishes = {"low": True} if name == "low_table" else {}
                assembly = build(name.removeprefix("low_"), rng, palette, **wishes)
                if name in AT_WALL and (name not in ("bed", "sofa") or rng.random() < 0.8):
                    floor.place_at_wall(assembly)
                else:
                    floor.place_freely(assembly, aligned=name in ("bed", "sofa", "low_table"))


def _desk(floor: Floor, rng, palette: Palette) -> None:
    """A table at a wall with a chair in front of it."""
    desk = floor.place_at_wall(build("table", rng, palette, desk=True))
    if desk and rng.random() < 0.9:
        chair = build("chair", rng, palette, office=rng.random() < 0.6)
        gap = desk.assembly.half_y + chair.half_y + rng.uniform(0.04, 0.3)
        x, y = desk.at(rng.uniform(-0.2, 0.2), -gap)
        floor.place(chair, x, y, desk.yaw + math.pi + rng.normal(0, 0.25))


def _dining_table(floor: Floor, rng, palette: Palette, full: bool) -> None:
    """A free table with chairs of one design or of several around it."""
    table = floor.place_freely(build("table", rng, palette), aligned=True, tries=24)
    if table is None:
        return
    half_x, half_y = table.assembly.half_x, table.assembly.half_y
    places = [(0.0, -1), (0.0, 1), (-1, 0.0), (1, 0.0)]
    if half_x > 0.65:
        places = [(-0.5, -1), (0.5, -1), (-0.5, 1), (0.5, 1), (-1, 0.0), (1, 0.0)]
    state = rng.bit_generator.state
    design = build("chair", rng, palette)
    chance = 0.8 if full else 0.4
    if rng.random() < 0.2:
        rng.bit_generator.state = state
    for across, deep in places:
        if rng.random() > chance:
            continue
        gap = rng.uniform(0.04, 0.18) + design.half_y
        x = across * (half_x if deep else half_x + gap)
        y = deep * (half_y + gap)
        yaw = {(0, 1): 0.0, (0, -1): math.pi, (-1, 0): math.pi / 2, (1, 0): -math.pi / 2}[
            (0, deep) if deep else (int(across), 0)]
        px, py = table.at(x, y)
        floor.place(design, px, py, table.yaw + yaw + rng.normal(0, 0.12))


def _hang(floor: Floor, rng, palette: Palette) -> None:
    for _ in range(int(rng.choice(3, p=(0.25, 0.5, 0.25)))):
        floor.hang(build("window", rng, palette), 0.6, floor.height - 0.15)
    for _ in range(int(rng.choice(4, p=(0.25, 0.35, 0.25, 0.15)))):
        floor.hang(build("picture", rng, palette), 1.0, floor.height - 0.3)


def _put_on_surfaces(floor: Floor, rng, palette: Palette) -> None:
    for support in list(floor.placed):
        for index in range(len(support.assembly.surfaces)):
            for _ in range(int(rng.choice(3, p=(0.35, 0.45, 0.2)))):
                name = ON_SURFACES[int(rng.integers(len(ON_SURFACES)))]
                floor.stand_on(build(name, rng, palette, small=True), support, index)


def _lights(floor: Floor, rng, palette: Palette) -> tuple[Light, ...]:
    """A light under the ceiling (at times in a pendant), then perhaps one at a window or in a lamp."""
    width, depth, height = floor.width, floor.depth, floor.height
    x, y = rng.uniform(0.25, 0.75) * width, rng.uniform(0.25, 0.75) * depth
    z = height - rng.uniform(0.08, 0.35)
    owner = -1
    if rng.random() < 0.3:
        tables = [placed for placed in floor.placed if placed.assembly.label == "table"]
        if tables and rng.random() < 0.7:
            x, y = tables[0].x, tables[0].y
        pendant = build("lamp", rng, palette, hanging=rng.uniform(0.4, 0.9), lit=True)
        owner = len(floor.placed)
        floor.placed.append(Placed(pendant, x, y, height, 0.0))
        z = height + pendant.bulb[2]
    lights = [Light((x, y, z), _light_colour(rng, rng.uniform(0.8, 1.6)), owner)]
    wanted = int(rng.choice(3, p=(0.45, 0.35, 0.2)))
    sources = [index for index, placed in enumerate(floor.placed)
               if index != owner and placed.assembly.label in ("window", "lamp")]
    rng.shuffle(sources)
    for index in sources[:wanted]:
        placed = floor.placed[index]
        bulb = placed.assembly.bulb
        x, y = placed.at(bulb[0], bulb[1])
        if _inside(floor.placed, index, x, y, placed.z + bulb[2]):
            continue
        strength = rng.uniform(0.5, 1.4)
        lights.append(Light((x, y, placed.z + bulb[2]), _light_colour(rng, strength), index))
    while len(lights) < 1 + wanted and rng.random() < 0.6:
        position = (rng.uniform(0.15, 0.85) * width, rng.uniform(0.15, 0.85) * depth, height - 0.12)
        lights.append(Light(position, _light_colour(rng, rng.uniform(0.5, 1.2))))
    return tuple(lights)


def _light_colour(rng, strength: float) -> np.ndarray:
    hue = rng.choice([0.09, 0.13, 0.58]) + rng.normal(0, 0.02)
    colour = colorsys.hsv_to_rgb(hue % 1.0, rng.beta(1.2, 5), 1.0)
    return (np.array(colour) * strength).astype(np.float32)


def _inside(placed: list[Placed], skip: int, x: float, y: float, z: float) -> bool:
    for index, other in enumerate(placed):
        assembly = other.assembly
        if index == skip or assembly.label in ("window", "picture"):
            continue
        if math.hypot(x - other.x, y - other.y) < math.hypot(assembly.half_x, assembly.half_y) + 0.05 \
                and z < other.z + assembly.height + 0.05:
            return True
    return False


def _room_materials(rng, palette: Palette) -> tuple[list[Material], np.ndarray]:
    """Materials of the six sides: one for all walls, at times another for one of them."""
    materials = [palette.material(), palette.material(), palette.material()]
    sides = np.array([0, 0, 0, 0, 1, 2])
    if rng.random() < 0.3:
        materials.append(palette.material())
        sides[int(rng.integers(4))] = 3
    return materials, sides


def _rug(floor: Floor, rng, palette: Palette, materials: list[Material]) -> Rug | None:
    if rng.random() > 0.4:
        return None
    yaw = rng.choice([0.0, 0.0, rng.uniform(-0.5, 0.5)])
    half = np.array([rng.uniform(0.15, 0.34) * floor.width, rng.uniform(0.15, 0.34) * floor.depth])
    shift = rng.uniform(-1, 1, 2) * (0.5 * np.array([floor.width, floor.depth]) - half * 1.2) * 0.6
    materials.append(palette.material())
    axes = np.array([[math.cos(yaw), math.sin(yaw)], [-math.sin(yaw), math.cos(yaw)]])
    centre = np.array([floor.width / 2, floor.depth / 2]) + shift
    return Rug(centre, axes, half, bool(rng.random() < 0.3), len(materials) - 1)


def _extent(assembly: Assembly) -> tuple[float, float]:
    """Bottom and top of an assembly about its origin."""
    if assembly.label in ("window", "picture"):
        return -assembly.height, assembly.height
    low = min(solid.centre[2] - max(solid.half) for solid in assembly.solids)
    return (low, 0.0) if assembly.height <= 0 else (0.0, assembly.height)


def _thing(placed: Placed) -> Thing:
    assembly = placed.assembly
    low, high = _extent(assembly)
    cos, sin = math.cos(placed.yaw), math.sin(placed.yaw)
    facts = list(assembly.facts)
    if assembly.label in ("window", "picture", "plant", "lamp"):
        facts.append(assembly.label)
    if assembly.label in ("chair", "sofa"):
        facts.append("seat")
    return Thing(
        label=assembly.label, centre=np.array([placed.x, placed.y, placed.z + (low + high) / 2]),
        axes=np.array([[cos, sin], [-sin, cos]]),
        half=np.array([assembly.half_x, assembly.half_y, (high - low) / 2]), facts=tuple(facts),
    )


def _collect(placed: list[Placed], room: list[Material]) -> tuple[Solids, tuple[Material, ...]]:
    """All solids in room coordinates, those of one material next to each other."""
    materials = list(room)
    numbers: dict[int, int] = {}
    solids: list[Solid] = []
    things: list[int] = []
    for index, item in enumerate(placed):
        for solid in item.assembly.solids:
            if id(solid.material) not in numbers:
                numbers[id(solid.material)] = len(materials)
                materials.append(solid.material)
            solids.append(solid)
            things.append(index)
    material = np.array([numbers[id(solid.material)] for solid in solids], np.intp)
    order = np.argsort(material, kind="stable")
    thing = np.array(things, np.intp)
    yaw = np.array([item.yaw for item in placed])
    turn = np.zeros((len(placed), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(yaw)
    turn[:, 1, 0] = np.sin(yaw)
    turn[:, 0, 1] = -turn[:, 1, 0]
    turn[:, 2, 2] = 1
    origin = np.array([(item.x, item.y, item.z) for item in placed]).reshape(-1, 3)
    local = np.array([solid.centre for solid in solids], np.float64).reshape(-1, 3)
    rotation = np.array([solid.rotation for solid in solids], np.float64).reshape(-1, 3, 3)
    centre = np.einsum("pij,pj->pi", turn[thing], local) + origin[thing]
    result = Solids(
        kind=np.array([solid.kind for solid in solids], np.intp)[order],
        taper=np.array([solid.taper for solid in solids], np.float32)[order],
        centre=centre[order],
        rotation=np.einsum("pij,pjk->pik", turn[thing], rotation)[order],
        half=np.array([solid.half for solid in solids], np.float64).reshape(-1, 3)[order],
        thing=thing[order],
        part=np.array([solid.part for solid in solids], np.intp)[order],
        material=material[order],
    )
    return result, tuple(materials)


def _keypoints(placed: list[Placed]) -> tuple[np.ndarray, np.ndarray]:
    points, owners = [], []
    for index, item in enumerate(placed):
        for _, (x, y, z) in item.assembly.keypoints:
            points.append((*item.at(x, y), item.z + z))
            owners.append(index)
    return np.array(points, np.float64).reshape(-1, 3), np.array(owners, np.intp)
