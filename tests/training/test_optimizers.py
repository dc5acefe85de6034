"""Optimizers by name and parameter groups: torch's own, on the right weights, through a resume."""

import pytest
import torch
from toys import Ring, ring_task

import multidiff as md
from multidiff.training.ema import MovingAverage
from multidiff.training.optimizers import ParameterGroup, make_optimizer, optimizer_class
from multidiff.training.run import Run
from multidiff.training.state import gathered, put_back
from multidiff.utils.errors import InputError

POINTS = [{"points": torch.randn(8, 2, generator=torch.Generator().manual_seed(0))}]
BIASES = ParameterGroup("bias$", weight_decay=0.0)
FIRST = ParameterGroup(r"layers\.0\.", learning_rate_factor=0.5)


def trained(**options):
    task = ring_task(dropout=0.0)
    md.Trainer(steps=3, ema_decay=0.0, learning_rate=1e-2, **options).fit(task, POINTS)
    return task


def by_hand(kind, steps=3, **options):
    """The same steps by torch's optimizer on the task's own losses."""
    from multidiff.core.random import BatchRows, mixed_seed
    from multidiff.training.updates import NOISE

    task = ring_task(dropout=0.0)
    optimizer = kind(task.parameters(), lr=1e-2, **options)
    for step in range(steps):
        rng = BatchRows(mixed_seed(0, NOISE, step), 8)
        loss = task.losses(POINTS[0], rng)["denoising"].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
    return task


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("SGD", torch.optim.SGD, {"momentum": 0.9}),
        ("torch.optim:RMSprop", torch.optim.RMSprop, {"alpha": 0.9}),
        ("RAdam", torch.optim.RAdam, {}),
    ],
)
def test_steps_are_those_of_torchs_optimizer(name, kind, options):
    made, wanted = trained(optimizer=name, optimizer_options=options), by_hand(kind, **options)
    for one, other in zip(made.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_weights_belong_to_the_first_pattern_that_matches():
    settings = md.Trainer(
        steps=1, learning_rate=1.0, weight_decay=0.1, parameter_groups=[BIASES, FIRST]
    )
    task = ring_task()
    groups = make_optimizer(task, settings, "cpu").param_groups
    names = {id(one): name for name, one in task.named_parameters()}
    found = [
        ({names[id(one)] for one in group["params"]}, group["lr"], group["weight_decay"])
        for group in groups
    ]
    assert found == [
        ({"denoiser.layers.3.weight"}, 1.0, 0.1),
        ({"denoiser.layers.0.bias", "denoiser.layers.3.bias"}, 1.0, 0.0),
        ({"denoiser.layers.0.weight"}, 0.5, 0.1),
    ]


def test_a_factor_of_0_leaves_weights_as_they_are():
    still = trained(parameter_groups=[ParameterGroup(r"layers\.0\.", 0.0)])
    before = ring_task(dropout=0.0)
    assert torch.equal(still.denoiser.layers[0].weight, before.denoiser.layers[0].weight)
    assert not torch.equal(still.denoiser.layers[3].weight, before.denoiser.layers[3].weight)


def test_groups_and_momentum_are_resumed_to_the_bit(tmp_path):
    options = {
        "optimizer": "SGD", "optimizer_options": {"momentum": 0.9}, "warmup_steps": 3,
        "parameter_groups": [BIASES, FIRST], "save_every": 2, "learning_rate": 1e-2,
    }  # fmt: skip
    tasks = []
    for folder, parts in (("whole", (6,)), ("parts", (4, 6))):
        for steps in parts:
            tasks.append(ring_task())
            md.Trainer(steps=steps, **options).fit(
                tasks[-1], md.Batches(Ring(), 4), out=tmp_path / folder, resume=steps != parts[0]
            )
    for one, other in zip(tasks[0].parameters(), tasks[-1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("AdmaW", "did you mean AdamW"),
        ("Optimizer2", "no such class"),
        ("nowhere:Adam", "No module named 'nowhere'"),
        ("torch.nn:Linear", "no such class"),
        ("LBFGS", "need a closure"),
    ],
)
def test_optimizers_that_cannot_be(name, complaint):
    with pytest.raises(ValueError, match=complaint):
        optimizer_class(name)
    with pytest.raises(ValueError, match=complaint):
        md.Trainer(steps=1, optimizer=name)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"optimizer": "SGD", "betas": (0.5, 0.9)}, "trainer.betas: SGD takes none"),
        ({"optimizer_options": {"momentun": 1}}, "AdamW takes no 'momentun'; it takes amsgrad"),
        ({"optimizer": "SGD", "optimizer_options": {"momentum": -1.0}}, "SGD: .*momentum"),
        ({"optimizer_options": {"lr": 1.0}}, "lr is set by trainer.learning_rate"),
        ({"parameter_groups": [ParameterGroup("baise")]}, "'baise' matches no trainable weight"),
        ({"parameter_groups": [BIASES, BIASES]}, "matches no trainable weight"),
    ],
)
def test_settings_that_do_not_fit(options, complaint):
    with pytest.raises(InputError, match=complaint):
        make_optimizer(ring_task(), md.Trainer(steps=1, **options), "cpu")


def test_groups_that_cannot_be():
    with pytest.raises(ValueError, match="not a regular expression"):
        ParameterGroup("(")
    with pytest.raises(ValueError, match="learning_rate_factor -1"):
        ParameterGroup("a", -1.0)


def test_a_resumed_run_has_its_own_settings_and_not_the_checkpoints(tmp_path, monkeypatch):
    """Allowed changes of the recipe count; what an optimizer found itself stays."""
    plan = {"ema_decay": 0.0, "learning_rate": 1e-2, "save_every": 3, "trackers": ()}
    md.Trainer(steps=3, **plan).fit(ring_task(), POINTS, out=tmp_path)
    begun = []
    make = Run.begin
    monkeypatch.setattr(
        Run, "begin", lambda run, *given: (make(run, *given), begun.append(run.optimizer))
    )
    changed = {
        "betas": (0.5, 0.6),
        "optimizer_options": {"eps": 1e-3},
        "parameter_groups": [BIASES],
    }
    md.Trainer(steps=4, weight_decay=0.5, **changed, **plan).fit(
        ring_task(), POINTS, out=tmp_path, resume=True, allow_changed=("recipe",)
    )
    groups = begun[0].param_groups
    found = [(*one["betas"], one["eps"], one["weight_decay"]) for one in groups]
    assert found == [(0.5, 0.6, 1e-3, 0.5), (0.5, 0.6, 1e-3, 0.0)]


def test_what_an_optimizer_found_itself_is_restored():
    class Adaptive(torch.optim.SGD):
        def __init__(self, params, lr=1.0):
            super().__init__(params, lr, momentum=0.9)
            self.param_groups[0]["found"] = 1.0

    def at_work(lr):
        module = torch.nn.Module()
        module.task = torch.nn.Linear(2, 2)
        return module, Adaptive(module.parameters(), lr), MovingAverage(module.task)

    module, optimizer, average = at_work(1.0)
    module.task(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.param_groups[0]["found"] = 7.0
    saved = gathered(1, module, optimizer, average)
    other = at_work(2.0)
    put_back(saved, *other)
    group = other[1].param_groups[0]
    assert (group["found"], group["lr"]) == (7.0, 2.0)


def resumed(folder, before, after):
    """Two steps with one optimizer, and two more with another."""
    plan = {"learning_rate": 1e-2, "precision": "fp32"}
    md.Trainer(steps=2, **plan, **before).fit(ring_task(), POINTS, out=folder)
    trainer = md.Trainer(steps=4, **plan, **after)
    return trainer.fit(ring_task(), POINTS, out=folder, resume=True, allow_changed=["recipe"])


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ({}, {"optimizer": "SGD"}, "AdamW is now SGD"),
        ({}, {"optimizer": "RMSprop"}, "AdamW is now RMSprop"),
        (
            {"optimizer": "SGD", "optimizer_options": {"momentum": 0.9}},
            {},
            "SGD is now AdamW",
        ),
    ],
)
def test_an_optimizer_whose_state_does_not_fit_is_named(tmp_path, before, after, change):
    with pytest.raises(InputError, match=f"step 2 has the state of another optimizer.*{change}"):
        resumed(tmp_path, before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"optimizer": "Adam"}),
        ({}, {"optimizer_options": {"amsgrad": True}}),
        ({"optimizer": "SGD"}, {"optimizer": "SGD"}),  # without state: a file without tensors
        ({"optimizer": "SGD"}, {}),
    ],
)
def test_optimizers_go_on_where_the_state_fits(tmp_path, before, after):
    assert resumed(tmp_path, before, after).step == 4
