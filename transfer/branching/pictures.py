"""Pictures of affinities and of trees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.report import pyplot, save_figure
from mtl_heads.trees import Group, Tree

NUMBERED = 10
"""Up to so many tasks, heat maps have their numbers written in."""


def draw_affinity(affinity: np.ndarray, difficulty: np.ndarray, tasks: Sequence[str], path: Path) -> Path:
    """A heat map for each location ``[D, N, N]``, and one of the difficulty-based affinity ``[N, N]``."""
    plt = pyplot()
    panels = [*affinity, difficulty]
    titles = [*(f"after stage {d + 1}" for d in range(len(affinity))), "by difficult examples"]
    count, many = len(tasks), len(tasks) > NUMBERED
    columns = min(3, len(panels)) if many else len(panels)
    rows = -(-len(panels) // columns)
    side = 0.8 + 0.09 * count if many else 1.2 + 0.42 * count
    figure, axes = plt.subplots(rows, columns, figsize=(side * columns + 0.6, side * rows), squeeze=False,
                                layout="constrained")
    apart = ~np.eye(count, dtype=bool)
    lowest = min(0.9, *(float(panel[apart].min(initial=1)) for panel in panels))
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for number, (axis, panel, title) in enumerate(zip(axes.flat, panels, titles, strict=False)):
        image = axis.imshow(panel, vmin=lowest, vmax=1, cmap="viridis")
        axis.set_title(title, fontsize=9)
        below = number + columns >= len(panels)
        axis.set_xticks(range(count), tasks if below else [""] * count, rotation=90, fontsize=5 if many else 8)
        first = number % columns == 0
        axis.set_yticks(range(count), tasks if first else [""] * count, fontsize=5 if many else 8)
        if not many:
            for i in range(count):
                for j in range(count):
                    axis.text(j, i, f"{panel[i, j]:.2f}", ha="center", va="center", fontsize=6.5,
                              color="black" if panel[i, j] > (lowest + 1) / 2 else "white")
    figure.colorbar(image, ax=axes, shrink=0.8, label="affinity")
    return save_figure(figure, path)


def draw_tree(tree: Tree, tasks: Sequence[str], dissimilarity: np.ndarray, path: Path, title: str = "") -> Path:
    """The tree from the image at the left to the tasks at the right, a box for each group at each stage.

    Args:
        tree: what to draw.
        tasks: in the order of ``dissimilarity``.
        dissimilarity: ``[D, N, N]``; the largest one inside a group colours its box. The scale is that of all of
            them, so that pictures of several trees can be compared.
        path: where to.
        title: above the picture.
    """
    plt = pyplot()
    from matplotlib.colors import LinearSegmentedColormap

    number = {task: i for i, task in enumerate(tasks)}
    height = {task: -i for i, task in enumerate(_leaf_order(tree))}
    many, stages = len(tasks) > NUMBERED, len(tree)
    half, text_size = (0.4, 6) if many else (0.32, 9)

    def middle(group: Group) -> float:
        return float(np.mean([height[task] for task in group]))

    def spread(stage: int, group: Group) -> float:
        inside = [number[task] for task in group]
        values = dissimilarity[stage][np.ix_(inside, inside)]
        return float(values[~np.eye(len(inside), dtype=bool)].max(initial=0.0))

    apart = ~np.eye(len(tasks), dtype=bool)
    largest = max(float(dissimilarity[:, apart].max(initial=0.0)), 0.01)
    orange = LinearSegmentedColormap.from_list("orange", ["#fdf6e3", "#d95f0e"])
    colours = plt.cm.ScalarMappable(plt.Normalize(0, largest), orange)
    figure, axis = plt.subplots(figsize=(1.5 * (stages + 2), 1.0 + (0.2 if many else 0.42) * len(tasks)))
    axis.text(0, middle(tuple(tasks)), "image", ha="center", va="center", fontsize=9)
    for stage, level in enumerate(tree):
        axis.text(stage + 1, 0.75, f"stage {stage + 1}", ha="center", va="bottom", fontsize=8, color="0.3")
        for group in level:
            parents = [above for above in tree[stage - 1] if group[0] in above] if stage else []
            start = (stage + 0.3, middle(parents[0])) if parents else (0.3, middle(tuple(tasks)))
            axis.plot([start[0], stage + 0.7], [start[1], middle(group)], color="0.55", linewidth=1)
            colour = colours.to_rgba(spread(stage, group)) if len(group) > 1 else "white"
            axis.add_patch(plt.Rectangle((stage + 0.7, middle(group) - half), 0.6, 2 * half, facecolor=colour,
                                         edgecolor="0.3", linewidth=0.7, zorder=2))
            axis.text(stage + 1, middle(group), str(len(group)), ha="center", va="center", fontsize=text_size, zorder=3)
    for leaf in tree[-1]:
        for task in leaf:
            axis.plot([stages + 0.3, stages + 0.62], [middle(leaf), height[task]], color="0.55", linewidth=1)
            axis.text(stages + 0.68, height[task], task, va="center", fontsize=text_size)
    axis.set_xlim(-0.4, stages + 0.8 + (0.05 if many else 0.085) * max(map(len, tasks)))
    axis.set_ylim(0.4 - len(tasks), 1.9 if many else 1.3)
    axis.set_axis_off()
    axis.set_title(title, fontsize=10)
    figure.colorbar(colours, ax=axis, shrink=min(1.0, 2.5 / figure.get_figheight()), pad=0.02,
                    label="largest dissimilarity inside")
    return save_figure(figure, path)


def _leaf_order(tree: Tree) -> list[str]:
    """Tasks so that every group is together at every stage."""
    place = {task: tuple(next(i for i, group in enumerate(level) if task in group) for level in tree)
             for group in tree[0] for task in group}
    return sorted(place, key=place.get)
