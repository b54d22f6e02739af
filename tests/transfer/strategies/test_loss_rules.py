"""Rules on loss values: closed forms written out, TorchJD's versions, and properties that all of them share."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torchjd import scalarization as peer

from harness.errors import UserError
from transfer.strategies import build_balance
from transfer.strategies.base import LossBalance
from transfer.strategies.registry import BALANCES

TASKS = ["semseg", "depth", "normals"]
RULES = {
    "equal": {},
    "fixed": {"weights": {"depth": 0.5}},
    "uncertainty": {"s0": 0.3},
    "dwa": {},
    "dtp": {},
    "loss_ratio": {},
    "magnitude": {"iterations": 4},
    "difficulty": {},
    "random_loss": {"seed": 3},
    "geometric_mean": {},
    "imtl_l": {},
    "famo": {},
    "stch": {"mu": 0.5, "weights": {"depth": 3.0}, "reference": {"normals": 0.01}},
    "cosmos": {"penalty": 0.1, "weights": {"semseg": 2.0}},
    "pbi": {"theta": 0.1, "reference": {"normals": 0.01}},
}


def build(name: str, tasks: list[str] = TASKS, **options) -> LossBalance:
    return build_balance(name, tasks, **(options or RULES[name]))


def gradient(rule: LossBalance, losses: torch.Tensor) -> torch.Tensor:
    """The weights that the tasks' gradients get."""
    losses = losses.clone().requires_grad_()
    return torch.autograd.grad(rule.total(losses), losses)[0]


def story(tasks: int, steps: int, seed: int = 0, missing: bool = False):
    """Losses before and after each step, indicators, and who has labels."""
    g = torch.Generator().manual_seed(seed)
    losses = torch.rand(steps, tasks, generator=g) * 10 ** torch.linspace(-1, 2, tasks) + 0.05
    present = torch.rand(steps, tasks, generator=g) > 0.4 if missing else torch.ones(steps, tasks, dtype=torch.bool)
    after = losses * (0.8 + 0.3 * torch.rand(steps, tasks, generator=g))
    indicators = torch.rand(steps, tasks, generator=g)
    return [tuple(value * present[i] for value in (losses[i], after[i], indicators[i])) + (present[i],)
            for i in range(steps)]


def live(rule: LossBalance, steps, start: int = 0, epoch: int = 5) -> list[torch.Tensor]:
    """Train with ``rule`` alone: its totals and weights in each step."""
    seen = []
    for number, (losses, after, indicators, present) in enumerate(steps, start):
        rule.observe(losses, present)
        if rule.wants_indicators:
            rule.observe_indicators(indicators, present)
        losses = losses.clone().requires_grad_()
        total = rule.total(losses)
        total.backward()
        with torch.no_grad():
            for value in rule.parameters():
                value -= 0.05 * value.grad
                value.grad = None
        seen.append(torch.cat([total.detach().reshape(1), losses.grad]))
        if rule.looks_again:
            rule.after_step(after)
        if number % epoch == epoch - 1:
            rule.end_of_epoch(losses.detach(), present)
    return seen


def everything(rule: LossBalance, losses: list[float]) -> None:
    rule.observe(torch.tensor(losses), torch.ones(len(losses), dtype=torch.bool))


# -- each rule against its definition ----------------------------------------------------------------------------------


def test_uncertainty():
    losses, s = [1.0, 10.0, 0.2], [0.0, 1.5, -0.7]
    rule = build("uncertainty", s0=0.0)
    assert rule.total(torch.tensor(losses)).item() == pytest.approx(sum(losses) / 2)
    with torch.no_grad():
        next(rule.parameters()).copy_(torch.tensor(s))
    total = rule.total(torch.tensor(losses))
    assert total.item() == pytest.approx(sum(x * math.exp(-v) / 2 + v / 2 for x, v in zip(losses, s, strict=True)))
    total.backward()
    slope = [-x * math.exp(-v) / 2 + 1 / 2 for x, v in zip(losses, s, strict=True)]
    assert next(rule.parameters()).grad.tolist() == pytest.approx(slope)
    assert gradient(rule, torch.tensor(losses)).tolist() == pytest.approx([math.exp(-v) / 2 for v in s])


def test_imtl_l():
    losses, s = [1.0, 10.0, 0.2], [0.0, 1.5, -0.7]
    rule = build("imtl_l")
    with torch.no_grad():
        next(rule.parameters()).copy_(torch.tensor(s))
    total = rule.total(torch.tensor(losses))
    assert total.item() == pytest.approx(sum(x * math.exp(v) - v for x, v in zip(losses, s, strict=True)))
    with torch.no_grad():  # the scales that make every scaled loss 1 are the optimum
        next(rule.parameters()).copy_(-torch.tensor(losses).log())
    rule.total(torch.tensor(losses)).backward()
    assert next(rule.parameters()).grad.abs().max() < 1e-6


def test_what_has_no_labels_teaches_learned_weights_nothing():
    losses = torch.tensor([2.0, 0.0, 5.0])
    for name in ("uncertainty", "imtl_l"):
        rule, pair = build(name), build(name, ["semseg", "normals"])
        total = rule.total(losses)
        assert total.item() == pytest.approx(pair.total(losses[[0, 2]]).item())
        total.backward()
        learned = next(rule.parameters()).grad
        assert learned[1] == 0 and learned[0] != 0


def test_dwa_against_its_definition_and_torchjd():
    steps = [losses for losses, *_ in story(3, 20)]
    ours, theirs, means = build("dwa", tau=1.5), peer.DWA(temperature=1.5), []
    for epoch in range(5):
        batches = steps[4 * epoch : 4 * epoch + 4]
        for losses in batches:
            assert torch.allclose(ours.total(losses), theirs(losses))
        weights = gradient(ours, batches[0]).tolist()
        if epoch < 2:
            assert weights == pytest.approx([1, 1, 1])
        else:
            powers = [math.exp(a / b / 1.5) for a, b in zip(means[-1], means[-2], strict=True)]
            assert weights == pytest.approx([3 * p / sum(powers) for p in powers])
        means.append(torch.stack(batches).mean(0).tolist())
        theirs.step()
        ours.end_of_epoch(torch.tensor(means[-1]), torch.ones(3, dtype=torch.bool))


def test_dwa_skips_epochs_without_labels():
    rule, yes = build("dwa", ["a", "b"], tau=1.0), torch.tensor([True, True])
    rule.end_of_epoch(torch.tensor([4.0, 4.0]), yes)
    rule.end_of_epoch(torch.tensor([2.0, 0.0]), torch.tensor([True, False]))
    a, b = math.exp(0.5), math.exp(1.0)  # b has one epoch only
    assert gradient(rule, torch.ones(2)).tolist() == pytest.approx([2 * a / (a + b), 2 * b / (a + b)])
    rule.end_of_epoch(torch.tensor([2.0, 1.0]), yes)
    a, b = math.exp(1.0), math.exp(0.25)
    assert gradient(rule, torch.ones(2)).tolist() == pytest.approx([2 * a / (a + b), 2 * b / (a + b)])


def test_dtp():
    rule = build("dtp", gamma={"depth": 2.0, "normals": 0.0}, alpha=0.25)
    yes = torch.ones(3, dtype=torch.bool)
    assert gradient(rule, torch.ones(3)).tolist() == [1, 1, 1]
    rule.observe_indicators(torch.tensor([0.5, 0.2, 0.9]), yes)
    rule.observe_indicators(torch.tensor([0.7, 0.4, 0.0]), torch.tensor([True, True, False]))
    kappa = [0.25 * 0.7 + 0.75 * 0.5, 0.25 * 0.4 + 0.75 * 0.2, 0.9]
    expected = [-((1 - k) ** g) * math.log(k) for k, g in zip(kappa, [1, 2, 0], strict=True)]
    assert gradient(rule, torch.tensor([1.0, 5.0, 9.0])).tolist() == pytest.approx(expected)
    assert rule.total(torch.tensor([1.0, 5.0, 9.0])).item() == pytest.approx(
        sum(w * x for w, x in zip(expected, [1, 5, 9], strict=True)))


@pytest.mark.parametrize("name", ["dtp", "difficulty"])
@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_indicators_at_their_limits_leave_a_positive_weight(name, kappa):
    rule, yes = build(name), torch.ones(3, dtype=torch.bool)
    rule.observe(torch.ones(3), yes)
    rule.observe_indicators(torch.full((3,), kappa), yes)
    rule.end_of_epoch(torch.ones(3), yes)
    weights = gradient(rule, torch.ones(3))
    assert weights.isfinite().all() and (weights > 0).all()


def test_loss_ratio():
    rule = build("loss_ratio", alpha=0.5)
    rule.observe(torch.tensor([4.0, 0.0, 9.0]), torch.tensor([True, False, True]))
    everything(rule, [1.0, 5.0, 4.0])
    everything(rule, [8.0, 8.0, 8.0])
    losses = torch.tensor([1.0, 20.0, 36.0])
    assert gradient(rule, losses).tolist() == pytest.approx([0.5, 2.0, 2.0])
    assert rule.total(losses).item() == pytest.approx(0.5 + 40 + 72)
    assert gradient(build("loss_ratio", alpha=0.0), losses).tolist() == [1, 1, 1]


def test_magnitude():
    rule = build("magnitude", iterations=3)
    history = [[1.0, 10.0, 100.0], [3.0, 10.0, 50.0], [2.0, 40.0, 60.0]]
    for losses in history:
        everything(rule, losses)
        assert gradient(rule, torch.tensor(losses)).tolist() == [1, 1, 1]
    means = [sum(column) / 3 for column in zip(*history, strict=True)]
    inverse = [1 / m for m in means]
    expected = [3 * v / sum(inverse) for v in inverse]
    for losses in ([7.0, 7.0, 7.0], [1.0, 1.0, 1.0]):  # fixed from here on
        everything(rule, losses)
        weights = gradient(rule, torch.tensor(losses))
        assert weights.tolist() == pytest.approx(expected) and weights.sum().item() == pytest.approx(3)
    assert [w * m for w, m in zip(expected, means, strict=True)] == pytest.approx([expected[0] * means[0]] * 3)


def test_magnitude_of_a_task_that_comes_late():
    rule = build("magnitude", iterations=2)
    for _ in range(3):
        rule.observe(torch.tensor([1.0, 0.0, 3.0]), torch.tensor([True, False, True]))
    assert gradient(rule, torch.ones(3)).tolist() == pytest.approx([1.5, 1.0, 0.5])
    everything(rule, [1.0, 6.0, 3.0])
    assert gradient(rule, torch.ones(3)).tolist() == pytest.approx([1.5, 1.0, 0.5])  # not by its own step's losses
    everything(rule, [9.0, 9.0, 9.0])
    assert gradient(rule, torch.ones(3)).tolist() == pytest.approx([3 * v / 9 for v in (6, 1, 2)])


@pytest.mark.parametrize("every", [0, 4])
def test_difficulty(every):
    """Three intervals of four steps; some labels missing; against lists."""
    rule, steps = build("difficulty", gamma=2.0, every=every), story(3, 12, missing=True)
    mean, kappa, rows = [None] * 3, [0.0] * 3, []
    for number, (losses, _, indicators, present) in enumerate(steps):
        if number and number % 4 == 0:
            for t in range(3):
                seen = [row for row in rows if row[2][t]]
                if seen:
                    mean[t] = sum(row[0][t].item() for row in seen) / len(seen)
                    kappa[t] = sum(row[1][t].item() for row in seen) / len(seen)
            rows = []
            if not every:
                rule.end_of_epoch(losses, present)
        rule.observe(losses, present)
        rule.observe_indicators(indicators, present)
        rows.append((losses, indicators, present))
        known = [t for t in range(3) if mean[t] is not None]
        total = sum(1 / mean[t] for t in known)
        sizes = [len(known) / mean[t] / total if t in known else 1.0 for t in range(3)]
        expected = [size * (1 - k) ** 2 for size, k in zip(sizes, kappa, strict=True)]
        assert gradient(rule, losses).tolist() == pytest.approx(expected, rel=1e-5)


def test_random_loss():
    rule, losses = build("random_loss", seed=1), torch.tensor([1.0, 10.0, 100.0])
    draws = []
    for _ in range(2000):
        everything(rule, [1.0, 1.0, 1.0])
        draws.append(rule.total(torch.tensor([1.0, 0, 0])).item())
        if len(draws) == 1:
            weights = gradient(rule, losses)
            assert torch.equal(weights, gradient(rule, losses)) and weights.sum().item() == pytest.approx(1)
    assert len(set(draws)) == 2000
    reference = torch.softmax(torch.randn(20000, 3, generator=torch.Generator().manual_seed(0)), 1)[:, 0]
    assert sum(draws) / 2000 == pytest.approx(1 / 3, abs=0.02)
    assert torch.tensor(draws).std().item() == pytest.approx(reference.std().item(), rel=0.05)


def test_random_loss_is_the_same_on_all_processes():
    def weights(rule, process):
        drawn = []
        for step in range(3):
            torch.manual_seed(10 * process + step)  # as processes are seeded for dropout
            everything(rule, [1.0, 1.0, 1.0])
            drawn.append(gradient(rule, torch.ones(3)))
        return torch.stack(drawn)

    for options in ({}, {"seed": 5}):
        rules = []
        for _ in range(2):
            torch.manual_seed(3)  # the network's weights
            rules.append(build_balance("random_loss", TASKS, **options))
        first, second = (weights(rule, process) for process, rule in enumerate(rules))
        assert torch.equal(first, second)
    torch.manual_seed(4)
    assert not torch.equal(weights(build_balance("random_loss", TASKS), 0), weights(rules[0], 0))
    assert not torch.equal(weights(build("random_loss", seed=5), 0), weights(build("random_loss", seed=6), 0))


def test_geometric_mean():
    rule, losses = build("geometric_mean"), torch.tensor([1.0, 10.0, 100.0])
    assert rule.total(losses).item() == pytest.approx(10)
    assert torch.allclose(rule.total(losses), peer.GeometricMean()(losses))
    assert gradient(rule, losses).tolist() == pytest.approx([10 / 3 / x for x in (1, 10, 100)])
    assert rule.total(torch.tensor([4.0, 0.0, 9.0])).item() == pytest.approx(6)


def test_stch():
    losses, mu = [1.0, 3.0, 0.5], 0.4
    rule = build("stch", mu=mu, weights={"depth": 2.0}, reference={"normals": 0.1})
    share, ideal = [0.25, 0.5, 0.25], [0.0, 0.0, 0.1]
    terms = [math.exp(w * (x - z) / mu) for w, x, z in zip(share, losses, ideal, strict=True)]
    assert rule.total(torch.tensor(losses)).item() == pytest.approx(mu * math.log(sum(terms)))
    expected = [w * term / sum(terms) for w, term in zip(share, terms, strict=True)]
    assert gradient(rule, torch.tensor(losses)).tolist() == pytest.approx(expected)
    some = mu * math.log(terms[0] + terms[2])
    assert rule.total(torch.tensor([1.0, 0.0, 0.5])).item() == pytest.approx(some)
    plain = build_balance("stch", TASKS).total(torch.tensor(losses))
    assert torch.allclose(plain, peer.STCH(1.0)(torch.tensor(losses)))
    sharp = build("stch", mu=1e-3, weights={})
    assert sharp.total(torch.tensor([1.0, 900.0, 5.0])).item() == pytest.approx(300)


def test_cosmos_and_pbi():
    losses = torch.tensor([1.0, 3.0, 0.5])
    r = [0.5, 0.25, 0.25]
    weighted = sum(w * x for w, x in zip(r, losses.tolist(), strict=True))
    cosine = weighted / math.hypot(*r) / math.hypot(*losses.tolist())
    rule = build("cosmos", penalty=0.3, weights={"semseg": 2.0})
    assert rule.total(losses).item() == pytest.approx(weighted - 0.3 * cosine)
    assert build("cosmos", penalty=0.3).total(torch.tensor([1.0, 0, 2.0])).item() == pytest.approx(
        1 - 0.3 * 3 / math.sqrt(10))

    rule = build("pbi", theta=2.0, weights={"semseg": 2.0}, reference={"depth": 1.0})
    shifted, length = [1.0, 2.0, 0.5], math.hypot(*r)
    along = sum(w * x for w, x in zip(r, shifted, strict=True)) / length
    beside = math.hypot(*[x - along * w / length for w, x in zip(r, shifted, strict=True)])
    assert rule.total(losses).item() == pytest.approx(along + 2 * beside)
    along = 3 / math.sqrt(2)
    assert build("pbi", theta=2.0).total(torch.tensor([1.0, 0, 2.0])).item() == pytest.approx(
        along + 2 * math.hypot(1 - 1.5, 2 - 1.5), rel=1e-5)


def test_famo_against_torchjd():
    bounds = torch.tensor([0.0, 0.02, 0.0])
    ours = build("famo", lr=0.1, weight_decay=0.01, min_losses={"depth": 0.02})
    theirs = peer.FAMO(3, min_losses=bounds, lr=0.1, weight_decay=0.01)
    for losses, after, _, present in story(3, 30):
        ours.observe(losses, present)
        mine, other = losses.clone().requires_grad_(), losses.clone().requires_grad_()
        a, b = ours.total(mine), theirs(other)
        a.backward()
        b.backward()
        assert torch.allclose(a, b, rtol=1e-4) and torch.allclose(mine.grad, other.grad, rtol=1e-4)
        assert mine.grad.sum().item() == pytest.approx(1, rel=1e-4)  # a convex combination of the gradients
        ours.after_step(after)
        theirs.update(after)
    assert torch.allclose(ours.logits, theirs._w.detach(), atol=1e-5)
    assert (gradient(ours, losses) - gradient(build("famo"), losses)).abs().max() > 0.001


def test_famo_of_the_tasks_that_have_labels_is_famo_of_these_tasks():
    rule, pair = build("famo"), build("famo", ["semseg", "normals"])
    here = torch.tensor([True, False, True])
    for losses, after, *_ in story(3, 10):
        losses, after = losses * here, after * here
        rule.observe(losses, here)
        pair.observe(losses[here], torch.ones(2, dtype=torch.bool))
        assert torch.allclose(rule.total(losses), pair.total(losses[here]))
        rule.after_step(after)
        pair.after_step(after[here])
    assert torch.allclose(rule.logits[here], pair.logits) and rule.logits[1] == 0 and rule.logits[0] != 0


# -- what all of them share --------------------------------------------------------------------------------------------


def test_every_loss_rule_of_this_package_is_here():
    rules = {name: BALANCES.get(name) for name in BALANCES if ":" not in name}
    assert set(RULES) == {name for name, rule in rules.items() if isinstance(rule, type)
                          and issubclass(rule, LossBalance) and rule.__module__.startswith("transfer.strategies.")}


@pytest.mark.parametrize("name", RULES)
def test_total_changes_nothing(name):
    rule = build(name)
    live(rule, story(3, 7))
    before = {key: value.clone() for key, value in rule.state_dict().items()}
    first, second = (rule.total(torch.tensor([1.0, 10.0, 100.0])).detach() for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[key]) for key, value in rule.state_dict().items())


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_a_resumed_run_continues_bit_for_bit(name, missing):
    steps = story(3, 24, missing=missing)
    whole = build(name)
    expected = live(whole, steps)
    for stop in (3, 12):
        first, second = build(name), build(name)
        live(first, steps[:stop])
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second.load_state_dict(torch.load(file, weights_only=True))
        got = live(second, steps[stop:], stop)
        assert all(torch.equal(a, b) for a, b in zip(got, expected[stop:], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(second.state_dict().values(), whole.state_dict().values(),
                                                     strict=True))


@pytest.mark.parametrize("name", RULES)
def test_permuted_tasks_have_permuted_weights(name):
    order = [2, 0, 1]
    rule, other = build(name), build(name, [TASKS[i] for i in order])
    steps = story(3, 12, missing=True)
    for a, b in zip(live(rule, steps), live(other, [tuple(value[order] for value in step) for step in steps]),
                    strict=True):
        assert torch.allclose(a[0], b[0], rtol=1e-5, atol=1e-6)
        assert torch.allclose(a[1:][order], b[1:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_one_task_has_a_positive_weight(name):
    options = {key: value for key, value in RULES[name].items() if not isinstance(value, dict)}
    rule = build_balance(name, ["semseg"], **options)
    for total, weight in live(rule, story(1, 12)):
        assert total.isfinite() and weight > 0
        if name in ("equal", "fixed", "dwa", "magnitude", "random_loss", "geometric_mean", "famo", "stch", "cosmos"):
            assert weight.item() == pytest.approx(1, rel=1e-4)  # the gradient itself


@pytest.mark.parametrize("name", RULES)
def test_forty_tasks(name):
    tasks = [f"attribute_{i}" for i in range(40)]
    options = {key: value for key, value in RULES[name].items() if not isinstance(value, dict)}
    values = torch.stack(live(build_balance(name, tasks, **options), story(40, 12, missing=True)))
    assert values.isfinite().all()
    if name != "pbi":  # whose penalty pulls losses up that are too small beside the others
        assert (values[:, 1:] >= 0).all()


@pytest.mark.parametrize("name", RULES)
def test_no_labels_at_all(name):
    """A batch without any: nothing to add, nothing to learn, nothing that is no number."""
    rule, nothing = build(name), torch.zeros(3)
    for rule_has_lived in (False, True):
        if rule_has_lived:
            live(rule, story(3, 12))
        total, *weights = live(rule, [(nothing, nothing, nothing, nothing.bool())], epoch=1)[0]
        assert total == 0 and torch.stack(weights).isfinite().all()
        for value in rule.parameters():
            assert value.isfinite().all()


@pytest.mark.parametrize("name", RULES)
def test_a_task_without_labels_keeps_its_state(name):
    rule = build(name)
    live(rule, story(3, 5))
    before = {key: value.clone() for key, value in rule.state_dict().items()}
    here = torch.tensor([True, False, True])
    live(rule, [tuple(value * here for value in step[:3]) + (here,) for step in story(3, 6, seed=1)], epoch=3)
    passing = {"random_loss": {"task_weights"}, "magnitude": {"task_weights"}, "difficulty": {"sums", "counts"},
               "famo": {"before", "present"}}
    for key, value in rule.state_dict().items():
        if value.dim() and value.shape[-1] == 3 and key not in passing.get(name, ()):
            assert torch.equal(value[..., 1], before[key][..., 1]), key
    assert torch.stack(live(rule, story(3, 6))).isfinite().all()


@pytest.mark.parametrize("name", RULES)
def test_broken_losses_are_not_remembered(name):
    """The step that has them is the loop's affair; those after it are as good as before."""
    rule = build(name)
    live(rule, story(3, 6))
    yes = torch.ones(3, dtype=torch.bool)
    bad = torch.tensor([float("nan"), float("inf"), 1.0])
    rule.observe(bad, yes)
    rule.observe_indicators(bad, yes)
    rule.after_step(bad)
    rule.end_of_epoch(bad, yes)
    assert torch.stack(live(rule, story(3, 8, seed=1))).isfinite().all()


@pytest.mark.parametrize("name", RULES)
def test_linear_rules_weigh_parts_one_by_one(name):
    """Weights do not depend on the losses of the step, so that parts add up to the whole."""
    rule, whole = build(name), torch.tensor([1.0, 10.0, 100.0])
    live(rule, story(3, 8))
    if rule.linear:
        everything(rule, whole.tolist())
        parts = sum(rule.total(share * whole) for share in (0.2, 0.3, 0.5))
        assert torch.allclose(parts, rule.total(whole))
        assert torch.equal(gradient(rule, whole), gradient(rule, 3 * whole))
        other = build(name)
        live(other, story(3, 8))
        everything(other, [50.0, 5.0, 0.5])
        assert torch.equal(gradient(rule, whole), gradient(other, whole))
    elif name != "dtp":  # whose weights depend on the step's indicators
        uneven = torch.tensor([2.0, 1.0, 7.0])
        everything(rule, whole.tolist())
        assert not torch.allclose(rule.total(whole * uneven) + rule.total(whole), rule.total(whole * uneven + whole))


@pytest.mark.parametrize("name", RULES)
def test_separable_rules_have_a_term_for_each_task(name):
    rule, losses = build(name), torch.tensor([1.0, 10.0, 100.0])
    live(rule, story(3, 8))
    terms = torch.stack([rule.total(losses * one) for one in torch.eye(3)])
    assert torch.allclose(terms.sum(), rule.total(losses)) == rule.separable


@pytest.mark.parametrize("name", RULES)
def test_nothing_waits_for_the_device(name):
    """On the meta device, values cannot be read at all."""
    rule = build(name).to("meta")
    live(rule, [tuple(value.to("meta") for value in step) for step in story(3, 6)])


@pytest.mark.parametrize("name", RULES)
def test_double_precision(name):
    rule = build(name)
    assert rule.total(torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("name, options, message", [
    ("dwa", {"tau": 0.0}, "balance.tau is 0.0: set it to more than 0"),
    ("dwa", {"temperature": 2.0}, "balance 'dwa' has no option 'temperature': its options are tau"),
    ("dtp", {"gamma": -1.0}, "balance.gamma is -1.0: set it to 0 or more"),
    ("dtp", {"gamma": {"dept": 1.0}}, "balance.gamma names 'dept' (did you mean 'depth'?), and the tasks are semseg, "
                                      "depth, normals"),
    ("dtp", {"gamma": {"depth": -1.0}}, "balance.gamma.depth is -1.0: set it to 0 or more"),
    ("dtp", {"alpha": 0.0}, "balance.alpha is 0.0: set it to more than 0 and at most 1"),
    ("dtp", {"alpha": 1.5}, "balance.alpha is 1.5: set it to more than 0 and at most 1"),
    ("loss_ratio", {"alpha": float("nan")}, "balance.alpha is nan: set it to 0 or more"),
    ("magnitude", {"iterations": 0}, "balance.iterations is 0: set it to 1 or more"),
    ("difficulty", {"every": -1}, "balance.every is -1: set it to 0 or more"),
    ("difficulty", {"gamma": float("inf")}, "balance.gamma is inf: set it to 0 or more"),
    ("famo", {"lr": -0.1}, "balance.lr is -0.1: set it to 0 or more"),
    ("famo", {"min_losses": {"x": 0.0}}, "balance.min_losses names 'x', and the tasks are semseg, depth, normals"),
    ("stch", {"mu": 0.0}, "balance.mu is 0.0: set it to more than 0"),
    ("stch", {"weights": {"depth": 0.0}}, "balance.weights.depth is 0.0: set it to more than 0"),
    ("cosmos", {"penalty": -1.0}, "balance.penalty is -1.0: set it to 0 or more"),
    ("pbi", {"theta": -1.0}, "balance.theta is -1.0: set it to 0 or more"),
])
def test_mistakes_are_named(name, options, message):
    with pytest.raises(UserError) as caught:
        build_balance(name, TASKS, **options)
    assert str(caught.value) == message
