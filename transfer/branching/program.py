"""From task affinities to trained branched networks and their comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate import Accelerator

from harness.config import digest
from harness.errors import UserError, closest
from harness.files import write_atomically, write_text
from harness.run import Run, encode
from harness.seeding import numpy_generator
from harness.world import main_first
from mtl_heads.trees import Tree, group_counts, make_tree, shared_tree, split_tree
from transfer.baselines import single_task_folder, single_task_results
from transfer.branching.affinity import as_dissimilarity
from transfer.branching.config import BranchConfig
from transfer.branching.costs import RESOURCES, Costs, measure_costs
from transfer.branching.counting import count_trees_of, random_chain
from transfer.branching.pictures import draw_affinity, draw_tree
from transfer.branching.problem import Problem, chain_of, tree_of
from transfer.branching.report import write_branch_report
from transfer.branching.search import Search, search
from transfer.branching.singles import Measured, measure
from transfer.data.loading import Evaluated
from transfer.engine import check
from transfer.network import build_network
from transfer.results import joined_singles, read_results
from transfer.single_run import inputs, run_single
from transfer.table import build_table


class Outcome(NamedTuple):
    """What a search came to.

    Args:
        trees: by grouping.
        search: how that by affinity was found.
        costs: by resource.
        measured: the affinities.
    """

    trees: dict[str, Tree]
    search: Search
    costs: dict[str, Costs]
    measured: Measured


def run_branch(config: BranchConfig, folder: Path, world: Accelerator) -> int:
    """Measure, search, draw, train, compare; what is there already is not done again.

    Leaves in ``folder``: ``affinity.safetensors``, ``search.json``, ``figures/``, a run for each grouping,
    ``report.html``, and ``results.json``, which is that of the network by affinity.

    Returns:
        0 when done, or 128 + the signal that asked to stop.
    """
    config.check()
    with Run(folder, config, resume=config.resume, main=world.is_main_process, extra=inputs(config)) as run:
        world.wait_for_everyone()
        check(config.run())
        costs = network_costs(config, world)
        given = None if config.affinity is None else read_affinity(Path(config.affinity), config.names, costs)
        run.begin(0)  # from here on the folder is this configuration's: what can be wrong has been seen
        measured = given or affinities(config, folder, world, costs)
        outcome = find_trees(config, costs, measured)
        if world.is_main_process:
            written = record(config, run, outcome)
            write_branch_report(run, written)
            print(summary(config, outcome))
        if not config.train:
            world.print(f"report: {folder / 'report.html'}")
            return 0
        singles = single_task_results(config.run(), world)
        folders = run_folders(outcome.trees)
        for name, runs in folders.items():
            single = config.run(outcome.trees[name], output=str(folder / name), resume="auto", baseline="none")
            code = run_single(single, world, ", ".join(runs), singles)
            if code:
                return code
        if world.is_main_process:
            rows = [{**read_results(folder / name), "name": ", ".join(runs)} for name, runs in folders.items()]
            joined = [joined_singles(singles)] if singles else []
            write_branch_report(run, written, [*joined, *rows])
            winner = {key: value for key, value in rows[0].items() if key != "folder"}
            run.finish({**winner, "name": folder.name, "branch": written})
            print(f"\n{build_table([*joined, *rows]).text()}\n\nreport: {folder / 'report.html'}")
        world.wait_for_everyone()
    return 0


def network_costs(config: BranchConfig, world: Accelerator) -> dict[str, Costs]:
    """What branched networks cost, by resource.

    Raises:
        UserError: the budget is too small for any, or there are no held-out images.
    """
    names, data = config.names, config.data.build()
    tasks = data.choose(names, config.task_options)
    if config.held_out not in data.splits:
        near = closest(config.held_out, data.splits)
        raise UserError(f"held_out: the data set has no split '{config.held_out}'{near}: "
                        f"it has {', '.join(data.splits)}")
    samples = main_first(world, lambda: data.split(config.held_out))
    size = Evaluated(samples, config.evaluation.size)[0]["image"].shape[:2]
    locations = len(build_network(config.run(), tasks).model.tree)
    costs = measure_costs(lambda tree: build_network(config.run(tree), tasks).model, names, locations, size)
    smallest = costs[config.resource].share([1] * locations)
    if config.budget < smallest:
        raise UserError(f"budget {config.budget:g} is below {smallest:.4f}, the share of {config.resource} of a "
                        "network in which all tasks share everything: raise it")
    return costs


def find_trees(config: BranchConfig, costs: dict[str, Costs], measured: Measured) -> Outcome:
    """The tree of each grouping."""
    names, chosen = config.names, costs[config.resource]
    locations = len(chosen.stages)
    problem = Problem(as_dissimilarity(measured.affinity), chosen.stages,
                      config.budget * chosen.single_task - chosen.fixed)
    found = search(problem, exact_trees=config.exact_trees, width=config.beam)
    trees = {"affinity": found.best.tree(names)}
    counts = group_counts(trees["affinity"])
    for name in config.groupings:
        if name == "shared":
            trees[name] = shared_tree(names, locations)
        elif name == "split":
            trees[name] = split_tree(names, locations)
        elif name == "random":
            generator, chain = numpy_generator(config.seed, "random tree"), found.best.chain
            while chain == found.best.chain and count_trees_of(len(names), counts) > 1:  # it is there already
                chain = random_chain(len(names), counts, generator)
            trees[name] = tree_of(chain, names)
        elif name == "fafs":
            everywhere = as_dissimilarity(np.stack([measured.difficulty] * locations))
            same_size = Problem(everywhere, chosen.stages, counts=counts)
            trees[name] = search(same_size, exact_trees=config.exact_trees, width=config.beam).best.tree(names)
    return Outcome({name: make_tree(tree, names, locations) for name, tree in trees.items()}, found, costs, measured)


def affinities(config: BranchConfig, folder: Path, world: Accelerator, costs: dict[str, Costs]) -> Measured:
    """Measured on single-task networks, which are trained if need be, or what this folder has of the same networks."""
    path = folder / "affinity.safetensors"
    learners = config.learners()
    if config.baseline in ("auto", "none"):
        runs = {task: single_task_folder(learners, task, world) for task in config.names}
    else:
        results = single_task_results(learners, world)
        runs = {task: Path(results[task]["folder"]) for task in config.names}
    key = digest({"images": config.images, "held_out": config.held_out, "seed": config.seed,
                  "runs": [digest((run / "results.json").read_text()) for run in runs.values()]})
    if main_first(world, lambda: _key_of(path)) == key:
        return read_affinity(path, config.names, costs)
    locations = len(costs[config.resource].stages)
    measured = measure(learners, world, runs, locations, config.held_out, config.images)
    if world.is_main_process:
        write_affinity(path, measured, config.names, key)
    world.wait_for_everyone()
    return measured


def write_affinity(path: Path, measured: Measured, tasks: list[str], key: str) -> None:
    """``affinity`` [D, N, N] and ``difficulty`` [N, N] with the names of the tasks."""
    from safetensors.numpy import save

    content = save(measured._asdict(), {"tasks": json.dumps(tasks), "key": key})
    write_atomically(path, lambda file: file.write(content))


def read_affinity(path: Path, tasks: list[str], costs: dict[str, Costs]) -> Measured:
    """What :func:`write_affinity` wrote, for some of its tasks.

    Raises:
        UserError: no such file, other tasks, or another number of locations.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            known = json.loads((file.metadata() or {})["tasks"])
            measured = Measured(file.get_tensor("affinity"), file.get_tensor("difficulty"))
    except OSError as error:
        raise UserError(f"--affinity: cannot read {path} ({error}): give the affinity.safetensors of a "
                        "search") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"--affinity: {path} is not a file of affinities: give the affinity.safetensors of a "
                        "search") from error
    for task in tasks:
        if task not in known:
            raise UserError(f"--affinity: {path} has no task '{task}'{closest(task, known)}: it has {', '.join(known)}")
    locations = len(next(iter(costs.values())).stages)
    if len(measured.affinity) != locations:
        raise UserError(f"--affinity: {path} has {len(measured.affinity)} locations and the encoder has {locations} "
                        "stages: measure with this backbone")
    chosen = [known.index(task) for task in tasks]
    return Measured(measured.affinity[:, chosen][:, :, chosen], measured.difficulty[chosen][:, chosen])


def _key_of(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return (file.metadata() or {}).get("key")
    except (OSError, SafetensorError):
        return None


def run_folders(trees: dict[str, Tree]) -> dict[str, list[str]]:
    """Groupings by the one whose run they share: the first with the same tree."""
    folders: dict[str, list[str]] = {}
    for name, tree in trees.items():
        first = next(other for other in trees if trees[other] == tree)
        folders.setdefault(first, []).append(name)
    return folders


def search_record(config: BranchConfig, outcome: Outcome) -> dict[str, Any]:
    """What ``search.json`` says."""
    found, names = outcome.search, config.names
    problem = Problem(as_dissimilarity(outcome.measured.affinity), outcome.costs[config.resource].stages)
    groupings = {}
    for name, tree in outcome.trees.items():
        counts = group_counts(tree)
        shares = {resource: costs.share(counts) for resource, costs in outcome.costs.items()}
        groupings[name] = {"tree": [[list(group) for group in level] for level in tree], "groups": list(counts),
                           "clustering_cost": problem.clustering_cost(chain_of(tree, names)), "share": shares}
    return {"tasks": names, "budget": config.budget, "resource": config.resource, "trees": found.trees,
            "exact": found.exact, "beam_cost": found.beam.cost, "gap": found.gap, "seconds": found.seconds,
            "groupings": groupings}


def record(config: BranchConfig, run: Run, outcome: Outcome) -> dict[str, Any]:
    """Write ``search.json`` and the pictures; returns the former."""
    written = search_record(config, outcome)
    write_text(run.folder / "search.json", encode(written, indent=2) + "\n")
    draw_affinity(*outcome.measured, config.names, run.figures / "affinity.png")
    dissimilarity = as_dissimilarity(outcome.measured.affinity)
    for name, tree in outcome.trees.items():
        facts = written["groupings"][name]
        parameters, macs = (100 * facts["share"][resource] for resource in RESOURCES)
        title = (f"{name}: {'-'.join(map(str, facts['groups']))} groups, {parameters:.0f} % of parameters,\n"
                 f"{macs:.0f} % of multiply-adds, clustering cost {facts['clustering_cost']:.3f}")
        draw_tree(tree, config.names, dissimilarity, run.figures / f"tree_{name}.png", title)
    return written


def summary(config: BranchConfig, outcome: Outcome) -> str:
    """A few lines for the terminal."""
    found = outcome.search
    how = (f"all {found.trees:,} trees searched; the beam's costs {found.gap:.4f} more" if found.exact else
           f"searched by beam, for there are {found.trees:,} trees; whether it is the best is not known")
    share = outcome.costs[config.resource].share(group_counts(outcome.trees["affinity"]))
    lines = [f"clustering cost {found.best.cost:.4f} with {100 * share:.1f} % of the single-task networks' "
             f"{config.resource} ({how}; {found.seconds:.1f} s)"]
    lines += [f"  stage {d + 1}: " + " | ".join(", ".join(group) for group in level)
              for d, level in enumerate(outcome.trees["affinity"])]
    return "\n".join(lines)

