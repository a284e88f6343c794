"""The recorder sees every step, changes nothing, and its log survives crashes."""

import io
import json
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_flatten

import bandwise as bw
from bandwise.lens import Lens, Spatial, Temporal, Weights
from bandwise.lens.quantities.decisions import with_agreement
from bandwise.tasks.gpt import GPT, GPTConfig


def small_model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 3))


def train(model, optimizer, steps, after_step=lambda: None):
    torch.manual_seed(2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 6)).square().mean().backward()
        optimizer.step()
        after_step()


def hooks(optimizer):
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


def rows_of(folder, quantity, tensor="all"):
    rows = Lens.read(folder)
    return [row for row in rows if (row["quantity"], row["tensor"]) == (quantity, tensor)]


OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda params: torch.optim.AdamW(params, lr=1e-2),
    "fused": lambda params: torch.optim.AdamW(params, lr=1e-2, fused=True),
    "nsf": lambda params: bw.NSF(params, lr=1e-2),
    "smi": lambda params: bw.SMI(torch.optim.AdamW(params, lr=1e-2), 40, min_ndim=1),
    "smi around nsf": lambda params: bw.SMI(bw.NSF(params, lr=1e-2), 40, refresh_every=3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_bitwise_the_same(tmp_path, name):
    results = []
    for watched in (False, True):
        model = small_model()
        optimizer = OPTIMIZERS[name](model.parameters())
        if watched:
            with Lens(model, optimizer, every=7, out=tmp_path) as lens:
                train(model, optimizer, 40)
            assert lens.step == 40
        else:
            train(model, optimizer, 40)
        assert hooks(optimizer) == 0
        states = model.state_dict(), optimizer.state_dict(), torch.get_rng_state()
        results.append(tree_flatten(states))
    (leaves, structure), (watched_leaves, watched_structure) = results
    assert structure == watched_structure
    for leaf, watched_leaf in zip(leaves, watched_leaves, strict=True):
        if isinstance(leaf, torch.Tensor):
            assert torch.equal(leaf, watched_leaf)
        else:
            assert leaf == watched_leaf
    assert [row["step"] for row in rows_of(tmp_path, "spatial")] == [1, 7, 14, 21, 28, 35]
    assert [row["step"] for row in rows_of(tmp_path, "temporal")] == [40]
    assert [row["step"] for row in rows_of(tmp_path, "weights")] == [1, 40]
    names = {"0.weight", "0.bias", "3.weight", "3.bias", "all"}
    assert {row["tensor"] for row in Lens.read(tmp_path)} == names


def test_a_default_device_does_not_matter(tmp_path):
    """No number can be read from the device "meta"."""
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters())
    gradients = [torch.randn_like(param) for param in model.parameters()]
    with torch.device("meta"), Lens(model, optimizer, out=tmp_path):
        for _ in range(40):
            for param, gradient in zip(model.parameters(), gradients, strict=True):
                param.grad = gradient
            optimizer.step()
    assert {row["quantity"] for row in Lens.read(tmp_path)} == {"temporal", "spatial", "weights"}


def test_it_is_there_as_bw_lens():
    assert bw.Lens is Lens


def test_sgd_has_a_gain_of_one_whatever_the_learning_rate_does(tmp_path):
    """The learning rate may begin at 0. Decoupled decay does not count."""
    model = nn.Linear(8, 8, bias=False).double()
    optimizer = bw.NSF(model.parameters(), lr=0.1, betas=(0, 0.9), p=0.0, scale="none")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step % 50 / 50)
    with Lens(model, optimizer, out=tmp_path, quantities=[Temporal(window=64)]):
        for _ in range(128):
            model.weight.grad = torch.randn(8, 8, dtype=torch.float64)
            optimizer.step()
            schedule.step()
    rows = rows_of(tmp_path, "temporal", "weight")
    assert [row["step"] for row in rows] == [64, 128]
    for row in rows:
        # Each window has steps with a learning rate of 0. They do not count.
        assert row["steps"] in (62, 63)
        assert row["coordinates"] == 64
        assert row["gain"] == pytest.approx([1] * 9, abs=1e-4)


def test_hooks_are_gone_after_an_exception(tmp_path):
    model = small_model()
    optimizer = OPTIMIZERS["smi"](model.parameters())

    def fail_at_ten():
        if lens.step == 10:
            raise KeyboardInterrupt

    lens = Lens(model, optimizer, every=1, out=tmp_path)
    with pytest.raises(KeyboardInterrupt), lens:
        train(model, optimizer, 40, fail_at_ten)
    assert hooks(optimizer) == 0
    assert rows_of(tmp_path, "spatial")[-1]["step"] == 10


def test_a_step_within_a_step_is_one(tmp_path):
    """torch hooks the ``step`` of every class: an optimizer's own, and its parent's."""

    class Parent(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    class Doubled(Parent):
        def step(self, closure=None):
            before = [p.detach().clone() for p in self.param_groups[0]["params"]]
            super().step(closure)
            with torch.no_grad():
                for p, old in zip(self.param_groups[0]["params"], before, strict=True):
                    p += p - old

    logs = []
    for parent_is_hooked in (False, True):
        if parent_is_hooked:
            Parent(small_model().parameters(), lr=0.1)
        model = small_model()
        optimizer = Doubled(model.parameters(), lr=0.1)
        folder = tmp_path / str(parent_is_hooked)
        with Lens(model, optimizer, every=8, out=folder) as lens:
            train(model, optimizer, 40)
        assert lens.step == 40
        logs.append((folder / "lens.jsonl").read_bytes())
        (row,) = rows_of(folder, "temporal")
        assert row["gain"] == pytest.approx([2] * len(row["gain"]), rel=1e-3)
    assert logs[0] == logs[1]


def test_a_step_that_fails_does_not_count(tmp_path):
    param = nn.Parameter(torch.ones(3, 3))
    optimizer = bw.NSF([param])
    with Lens(nn.ParameterList([param]), optimizer, out=tmp_path) as lens:
        param.grad = torch.eye(3).to_sparse()
        with pytest.raises(RuntimeError, match="sparse"):
            optimizer.step()
        assert lens.step == 0
        param.grad = torch.eye(3)
        optimizer.step()
        assert lens.step == 1


def test_a_step_that_fails_leaves_no_rows(tmp_path):
    """Neither when it is repeated, nor at the end: its number is that of the step to come."""

    class Failing(torch.optim.SGD):
        fails = False

        def step(self, closure=None):
            if self.fails:
                raise ArithmeticError
            return super().step(closure)

    model = nn.Linear(4, 4, bias=False)
    optimizer = Failing(model.parameters(), lr=0.1)
    with Lens(model, optimizer, every=1, out=tmp_path) as lens:
        for optimizer.fails in (True, False, True, False, True):
            model.weight.grad = torch.randn(4, 4)
            with pytest.raises(ArithmeticError) if optimizer.fails else nullcontext():
                optimizer.step()
            on_disk(lens.state_dict())
    assert lens.step == 2
    assert [row["step"] for row in rows_of(tmp_path, "spatial")] == [1, 2]


def test_a_log_that_was_cut_off_can_be_read_and_gone_on_with(tmp_path):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, every=5, out=tmp_path, quantities=[Spatial()]):
        train(model, optimizer, 10)
    path = tmp_path / "lens.jsonl"
    whole = Lens.read(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    assert Lens.read(tmp_path) == whole[:-1]

    with Lens(model, optimizer, every=5, out=tmp_path, quantities=[Spatial()], start=10) as lens:
        assert lens.step == 10
        train(model, optimizer, 10)
    rows = Lens.read(tmp_path)
    assert rows[: len(whole) - 1] == whole[:-1]
    assert rows[-1]["step"] == 20

    with Lens(model, optimizer, out=tmp_path, start=5) as lens:
        assert lens.step == 5
    assert {row["step"] for row in Lens.read(tmp_path)} == {1, 5}


def test_a_second_training_does_not_join_the_log_of_the_first(tmp_path):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, every=5, out=tmp_path):
        train(model, optimizer, 10)
    log = (tmp_path / "lens.jsonl").read_bytes()
    lens = Lens(model, optimizer, every=5, out=tmp_path)
    with pytest.raises(FileExistsError) as refused, lens:
        raise AssertionError("it was entered")
    for words in (f"got {tmp_path}", "holds steps 1 to 10 of a training", "start=0", "state_dict"):
        assert words in str(refused.value)
    assert hooks(optimizer) == 0
    assert (tmp_path / "lens.jsonl").read_bytes() == log

    with Lens(model, optimizer, every=5, out=tmp_path, start=0) as lens:
        assert lens.step == 0
        lens.record("mine", {"figure": 1.5})
        train(model, optimizer, 5)
    assert {row["step"] for row in Lens.read(tmp_path)} == {0, 1, 5}
    with Lens(model, optimizer, every=5, out=tmp_path, start=0):
        assert Lens.read(tmp_path) == []


def test_a_log_without_a_row_is_no_training(tmp_path):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for left in (b"", b'{"step": 1, "quan'):
        (tmp_path / "lens.jsonl").write_bytes(left)
        with Lens(model, optimizer, out=tmp_path):
            assert Lens.read(tmp_path) == []


def test_a_lens_entered_again_continues_its_own_log(tmp_path):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    lens = Lens(model, optimizer, every=5, out=tmp_path, quantities=[Spatial()], start=0)
    for epoch in range(3):
        with lens:
            lens.record("epoch", {"number": epoch})
            train(model, optimizer, 5)
    assert lens.step == 15
    assert [row["step"] for row in rows_of(tmp_path, "spatial")] == [1, 5, 10, 15]
    assert [row["step"] for row in rows_of(tmp_path, "epoch")] == [0, 5, 10]


@pytest.mark.parametrize("how", ["start", "state"])
def test_the_log_of_another_model_is_not_continued(tmp_path, how):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, every=5, out=tmp_path, quantities=[Spatial()]) as lens:
        train(model, optimizer, 10)
        state = on_disk(lens.state_dict())
    log = (tmp_path / "lens.jsonl").read_bytes()
    other = nn.Sequential(nn.Linear(6, 3))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    start = 5 if how == "start" else None
    lens = Lens(other, optimizer, every=5, out=tmp_path, quantities=[Spatial()], start=start)
    if how == "state":
        lens.load_state_dict(state)
    with (
        pytest.raises(ValueError, match=r"has a tensor '3\.weight', which this model does not"),
        lens,
    ):
        raise AssertionError("it was entered")
    assert (tmp_path / "lens.jsonl").read_bytes() == log
    with Lens(other, optimizer, out=tmp_path, start=0):
        train(other, optimizer, 1)
    assert {row["tensor"] for row in Lens.read(tmp_path)} == {"0.weight", "all"}


def on_disk(state):
    """The state as a checkpoint returns it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def watched(model, optimizer, folder):
    chosen = Temporal(window=32, budget=40), Spatial(budget=1), Weights(every=3)
    return Lens(model, optimizer, every=7, out=folder, quantities=chosen)


@pytest.mark.parametrize("name", ["adamw", "smi around nsf"])
@pytest.mark.parametrize(("cut", "lost"), [(0, 0), (0, 40), (20, 0), (50, 0), (50, 20), (100, 0)])
def test_a_training_cut_off_and_resumed_leaves_the_same_log(tmp_path, name, cut, lost):
    """It is saved after ``cut`` steps and stops ``lost`` steps later, with its closing rows."""

    def made():
        model = small_model()
        return model, OPTIMIZERS[name](model.parameters())

    def steps(model, optimizer, numbers):
        for number in numbers:
            torch.manual_seed(number)
            optimizer.zero_grad()
            model(torch.randn(5, 6)).square().mean().backward()
            optimizer.step()

    model, optimizer = made()
    with watched(model, optimizer, tmp_path / "whole"):
        steps(model, optimizer, range(100))

    model, optimizer = made()
    with watched(model, optimizer, tmp_path / "cut") as lens:
        steps(model, optimizer, range(cut))
        lens.record("mine", {"figure": 1.5})
        saved = on_disk([model.state_dict(), optimizer.state_dict(), lens.state_dict()])
        steps(model, optimizer, range(cut, cut + lost))
    model, optimizer = made()
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    lens = watched(model, optimizer, tmp_path / "cut")
    lens.load_state_dict(saved[2])
    with lens:
        assert lens.step == cut
        steps(model, optimizer, range(cut, 100))

    mine = json.dumps({"step": cut, "quantity": "mine", "tensor": "all", "figure": 1.5}) + "\n"
    log, right = ((tmp_path / folder / "lens.jsonl").read_text() for folder in ("cut", "whole"))
    assert log.count(mine) == 1
    assert log.replace(mine, "") == right
    assert len(rows_of(tmp_path / "whole", "temporal")) == 4
    assert {row["quantity"] for row in lens.summary()} == {"mine", "temporal", "spatial", "weights"}


def test_a_parameter_that_joined_changes_nothing_when_resumed(tmp_path):
    """The lens keeps the coordinates of the first step."""
    logs = []
    for cut in (False, True):
        params = nn.ParameterList(nn.Parameter(torch.ones(9, 9)) for _ in range(3))
        optimizer = torch.optim.SGD([params[0]], lr=0.1)
        folder = tmp_path / str(cut)
        lens = watched(params, optimizer, folder)
        lens.__enter__()
        for step in range(40):
            if step == 10:
                optimizer.add_param_group({"params": [params[1]]})
            if step == 20 and cut:
                state = on_disk(lens.state_dict())
                lens.__exit__(None, None, None)
                lens = watched(params, optimizer, folder)
                lens.load_state_dict(state)
                lens.__enter__()
            for i, param in enumerate(params):
                torch.manual_seed(7 * step + i)
                param.grad = torch.randn(9, 9)
            optimizer.step()
        lens.__exit__(None, None, None)
        logs.append((folder / "lens.jsonl").read_bytes())
    assert logs[0] == logs[1]


def test_a_state_that_does_not_fit_is_refused(tmp_path):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    lens = watched(model, optimizer, tmp_path)
    for use in (lens.state_dict, lambda: lens.record("mine", {})):
        with pytest.raises(RuntimeError, match="within its `with` alone"):
            use()
    with lens:
        train(model, optimizer, 10)
        state = on_disk(lens.state_dict())
        size = (tmp_path / "lens.jsonl").stat().st_size
        with pytest.raises(RuntimeError, match="before its `with`"):
            lens.load_state_dict(state)

    with pytest.raises(ValueError, match="has 3 quantities, the lens 1"):
        Lens(model, optimizer, out=tmp_path, quantities=[Spatial()]).load_state_dict(state)
    with pytest.raises(ValueError, match="window must be the state_dict's, 32, got 256"):
        Lens(model, optimizer, out=tmp_path).load_state_dict(state)
    part = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"follows '3\.bias', which is not among the optimizer's"):
        watched(model, part, tmp_path).load_state_dict(state)
    (tmp_path / "lens.jsonl").write_bytes(b"\n")
    with pytest.raises(ValueError, match=f"it has 1 bytes, and had {state['log_bytes']}"):
        watched(model, optimizer, tmp_path).load_state_dict(state)
    assert state["log_bytes"] == size


def test_a_log_that_was_changed_is_not_continued(tmp_path):
    """A flipped bit leaves the length alone."""
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watched(model, optimizer, tmp_path) as lens:
        train(model, optimizer, 10)
        state = on_disk(lens.state_dict())
    path = tmp_path / "lens.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"energy"', b'"enemgy"'))
    with pytest.raises(ValueError, match=r"lens\.jsonl is not what it was: its checksum"):
        watched(model, optimizer, tmp_path).load_state_dict(state)


def test_rows_are_strict_json_and_flushed(tmp_path):
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, out=tmp_path, quantities=[Weights()]):
        model.weight.data.zero_()
        optimizer.step()
        lines = (tmp_path / "lens.jsonl").read_text().splitlines()

    def refuse(constant):
        raise AssertionError(constant)

    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert rows[0]["tensor"] == "weight"
    assert rows[0]["condition_number"] is None


def test_frozen_and_unused_parameters_and_several_groups(tmp_path):
    model = nn.ModuleDict({name: nn.Linear(6, 6) for name in ("used", "unused", "frozen")})
    model["frozen"].requires_grad_(False)
    groups = [{"params": layer.parameters(), "lr": 0.1} for layer in model.values()]
    outside = nn.Parameter(torch.randn(6, 6))
    optimizer = bw.SMI(torch.optim.SGD([*groups, {"params": [outside]}], lr=0.2), alpha=0.5)
    with Lens(model, optimizer, out=tmp_path) as lens:
        for _ in range(40):
            optimizer.zero_grad()
            (model["used"](torch.randn(5, 6)) @ outside).square().mean().backward()
            optimizer.step()
    seen = {(row["quantity"], row["tensor"]) for row in Lens.read(tmp_path)}
    used = {"used.weight", "group3.0"}
    assert {tensor for quantity, tensor in seen if quantity == "spatial"} == {*used, "all"}
    assert {t for quantity, t in seen if quantity == "temporal"} == {*used, "used.bias", "all"}
    assert lens.step == 40


def test_a_parameter_with_few_gradients_is_left_out(tmp_path):
    model = nn.ModuleList([nn.Linear(6, 6, bias=False) for _ in range(2)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, out=tmp_path, quantities=[Temporal(window=64)]):
        for step in range(64):
            model[0].weight.grad = torch.randn(6, 6)
            model[1].weight.grad = torch.randn(6, 6) if step % 4 == 0 else None
            optimizer.step()
    assert {row["tensor"] for row in Lens.read(tmp_path)} == {"0.weight", "all"}


@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler_is_seen_through(tmp_path, fused):
    """The lens unscales gradients and does not count a step that the scaler skips."""
    results = []
    for scale in (None, 2.0**10):
        model = small_model()
        model[2] = nn.Identity()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        torch.manual_seed(2)
        folder = tmp_path / str(scale)
        with Lens(model, optimizer, every=10, out=folder) as lens:
            for step in range(41):
                optimizer.zero_grad()
                x = torch.randn(5, 6)
                if step == 20:
                    if scale is None:
                        continue
                    x[0] = torch.inf
                scaler.scale(model(x).square().mean()).backward()
                scaler.step(optimizer)
                # Keep the scale. A skipped step would halve it.
                scaler.update(scale) if scale is not None else None
        assert lens.step == 40
        results.append(Lens.read(folder))
    for plain, scaled in zip(*results, strict=True):
        assert plain.keys() == scaled.keys()
        for key, value in plain.items():
            if key in ("gain_low", "energy", "low", "entropy", "response_high"):
                assert scaled[key] == pytest.approx(value, rel=1e-3)


def test_closures_are_seen_through(tmp_path):
    folders = []
    for name in ("plain", "closure", "keyword"):
        model = small_model()
        optimizer = OPTIMIZERS["smi"](model.parameters())
        torch.manual_seed(3)

        def closure(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = model(torch.randn(5, 6)).square().mean()
            loss.backward()
            return loss

        with Lens(model, optimizer, every=5, out=tmp_path / name):
            for _ in range(40):
                if name == "plain":
                    closure()
                    optimizer.step()
                elif name == "closure":
                    assert optimizer.step(closure) > 0
                else:
                    assert optimizer.step(closure=closure) > 0
        folders.append(Lens.read(tmp_path / name))
    assert folders[0] == folders[1] == folders[2]


def test_an_optimizer_that_asks_its_closure_often(tmp_path):
    model = small_model()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    x = torch.randn(5, 6)

    def closure():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    with Lens(model, optimizer, every=1, out=tmp_path) as lens:
        for _ in range(3):
            optimizer.step(closure)
    assert lens.step == 3
    assert len(rows_of(tmp_path, "spatial")) == 3


def test_gradient_accumulation_counts_steps_not_batches(tmp_path):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, every=1, out=tmp_path, quantities=[Spatial()]):
        for _ in range(3):
            for _ in range(4):
                (model(torch.randn(5, 6)).square().mean() / 4).backward()
            energy = model[0].weight.grad.square().sum().item()
            optimizer.step()
            optimizer.zero_grad()
    rows = rows_of(tmp_path, "spatial", "0.weight")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[-1]["energy"] == pytest.approx(energy, rel=1e-4)


def test_a_compiled_model_has_the_names_of_the_original(tmp_path):
    model = torch.compile(small_model(), backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, out=tmp_path):
        train(model, optimizer, 2)
    assert {row["tensor"] for row in Lens.read(tmp_path)} == {"0.weight", "3.weight", "all"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64])
def test_other_dtypes_and_layouts(tmp_path, dtype):
    param = nn.Parameter(torch.randn(8, 4, 3, 3, dtype=dtype))
    param.data = param.data.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD([param], lr=0.5)
    with Lens(nn.ParameterList([param]), optimizer, every=16, out=tmp_path):
        for _ in range(64):
            param.grad = torch.randn_like(param)
            optimizer.step()
    (row,) = rows_of(tmp_path, "temporal", "0")
    assert row["gain_mid"] == pytest.approx(1, rel=0.05)
    assert len(rows_of(tmp_path, "spatial", "0")) == 5


def test_gradients_that_are_not_finite_are_passed_over(tmp_path):
    model = nn.Linear(8, 8, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, every=4, out=tmp_path):
        for step in range(1, 65):
            model.weight.grad = torch.randn(8, 8)
            if step == 64:
                model.weight.grad[0, 0] = torch.nan
            optimizer.step()
    (row,) = rows_of(tmp_path, "temporal", "weight")
    assert row["steps"] == 63
    assert rows_of(tmp_path, "spatial")[-1]["step"] == 60


def test_memory_is_bounded(tmp_path):
    model = nn.ParameterList(nn.Parameter(torch.randn(9, 9)) for _ in range(300))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    temporal = Temporal(window=32, coordinates=64, budget=200)
    spatial = Spatial(budget=100)

    def held(quantity):
        """The bytes of all tensors in a quantity."""
        found, seen = [quantity], 0
        while found:
            value = found.pop()
            if isinstance(value, torch.Tensor):
                seen += value.untyped_storage().nbytes()
            elif isinstance(value, dict):
                found += value.values()
            elif isinstance(value, (list, tuple)):
                found += value
            elif hasattr(value, "__dict__"):
                found += vars(value).values()
        return seen

    sizes = []
    with Lens(model, optimizer, every=32, out=tmp_path, quantities=[temporal, spatial]):
        for step in range(1, 129):
            for param in model:
                param.grad = torch.randn(9, 9)
            optimizer.step()
            if step % 32 == 0:
                sizes.append((held(temporal), held(spatial)))
    assert len(set(sizes)) == 1
    # Two buffers, and for each coordinate its place and a NaN.
    assert sizes[0][0] <= 200 * (2 * 32 * 4 + 8 + 4)
    # A mask of 9 x 5 for each tensor, and its generator.
    assert sizes[0][1] <= 100 * 45
    seen = {(row["quantity"], row["tensor"]) for row in Lens.read(tmp_path)}
    assert len([tensor for quantity, tensor in seen if quantity == "temporal"]) == 200 + 1
    assert len([tensor for quantity, tensor in seen if quantity == "spatial"]) == 100 + 1


def test_weights_keep_within_their_budget(tmp_path):
    model = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(16, 16)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    budget = 2 * 8**3
    with Lens(model, optimizer, every=1, out=tmp_path, quantities=[Weights(2, budget)]):
        for _ in range(5):
            optimizer.step()
    assert {row["tensor"] for row in Lens.read(tmp_path)} == {"0.weight", "1.weight", "all"}
    assert [row["step"] for row in rows_of(tmp_path, "weights")] == [1, 3, 5]


def test_weights_are_measured_at_the_end_as_they_are_then(tmp_path):
    """They are measured once, and only after a step. An exception is an end too."""
    model = nn.Linear(8, 8, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, every=5, out=tmp_path / "a", quantities=[Weights(2)]) as lens:
        train_linear(model, optimizer, 10)
    assert [row["step"] for row in rows_of(tmp_path / "a", "weights")] == [1, 10]
    norm = torch.linalg.matrix_norm(model.weight, 2).item()
    (last,) = lens.summary()
    assert last["spectral_norm"] == pytest.approx(norm, rel=1e-5)
    assert last["spectral_norm"] != rows_of(tmp_path / "a", "weights")[0]["spectral_norm"]

    with Lens(model, optimizer, every=5, out=tmp_path / "a", quantities=[Weights(2)], start=10):
        pass
    with Lens(model, optimizer, every=5, out=tmp_path / "b", quantities=[Weights(1)]):
        train_linear(model, optimizer, 10)
    lens = Lens(model, optimizer, every=5, out=tmp_path / "c", quantities=[Weights(2)])
    with pytest.raises(KeyboardInterrupt), lens:
        train_linear(model, optimizer, 100, stop=7)
    steps = [[row["step"] for row in rows_of(tmp_path / name, "weights")] for name in "abc"]
    assert steps == [[1, 10], [1, 5, 10], [1, 7]]


def train_linear(model, optimizer, steps, stop=None):
    for step in range(steps):
        if step == stop:
            raise KeyboardInterrupt
        model.weight.grad = torch.randn(8, 8)
        optimizer.step()


def test_a_lens_keeps_no_gradient_alive(tmp_path):
    model = nn.Linear(8, 8, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, out=tmp_path):
        train_linear(model, optimizer, 2)
        gradient = weakref.ref(model.weight.grad)
        optimizer.zero_grad()
        assert gradient() is None


def test_a_long_window_wraps_around(tmp_path):
    """At the end the log has the last window's steps in their order."""
    model = nn.Linear(8, 8, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    t = torch.arange(64)
    with Lens(model, optimizer, out=tmp_path, quantities=[Temporal(window=64)]):
        for step in range(100):
            model.weight.grad = torch.sin(2 * torch.pi * step / 24 + t).view(8, 8)
            optimizer.step()
    rows = rows_of(tmp_path, "temporal")
    assert [row["step"] for row in rows] == [64, 100]
    for row in rows:
        # A jump in the series would contain all frequencies.
        assert row["gradient_power_high"] < 1e-4


def test_the_paper_gpt_s_shapes_and_the_summary(tmp_path):
    model = GPT(GPTConfig(vocabulary=11, context=8, layers=2, heads=2, width=16))
    optimizer = bw.SMI(bw.NSF(model.parameters()), alpha=0.5)
    with Lens(model, optimizer, out=tmp_path) as lens:
        for _ in range(33):
            optimizer.zero_grad()
            model(torch.randint(11, (4, 8))).square().mean().backward()
            optimizer.step()
    assert {row["tensor"] for row in Lens.read(tmp_path)} == {
        "all",
        *(name for name, _ in model.named_parameters()),
    }
    summary = {row["quantity"]: row for row in lens.summary()}
    assert summary["temporal"]["gain_low"] > summary["temporal"]["gain_high"] > 0
    assert 0 < summary["spatial"]["kept"] < 1
    assert 0 < summary["spatial"]["entropy"] < 1
    assert summary["weights"]["spectral_norm"] > 0


def test_numbers_go_to_tensorboard(tmp_path):
    class Writer:
        def __init__(self):
            self.seen = {}

        def add_scalar(self, tag, scalar_value, global_step):
            self.seen[tag, global_step] = scalar_value

    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    writer = Writer()
    with Lens(model, optimizer, every=5, out=tmp_path, writer=writer):
        train(model, optimizer, 5)
    assert 0 < writer.seen["spatial/entropy/3.weight", 5] < 1
    assert ("spatial/overlap/all", 1) not in writer.seen
    assert ("spatial/overlap/all", 5) in writer.seen


def test_wrong_arguments_are_named(tmp_path):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer, got Linear"):
        Lens(model, model[0], out=tmp_path)
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        Lens(model, optimizer, every=0, out=tmp_path)
    with pytest.raises(ValueError, match="window must be at least 32, got 8"):
        Temporal(window=8)
    with Lens(model, optimizer, out=tmp_path) as lens, pytest.raises(RuntimeError, match="in use"):
        lens.__enter__()


# --- figures of the whole model -----------------------------------------------------------------


def test_a_model_in_training_is_looked_at_in_evaluation(tmp_path):
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(2, 2), nn.ReLU())
    probe = torch.randn(64, 2), torch.zeros(64, dtype=torch.int64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, out=tmp_path, quantities=[]) as lens:
        for _ in range(2):
            lens.look(probe, ((-1, -1), (1, 1)), activations=True)
        lens.look()
        lens.look(plane=((-1, -1), (1, 1)), activations=True)
    rows = Lens.read(tmp_path)
    looks = [row["quantity"] for row in rows]
    assert looks == 2 * ["decisions", "boundary", "activations"] + ["boundary"]
    assert rows[:3] == rows[3:6]
    assert all(module.training for module in model.modules())


def test_a_model_without_known_layers_has_no_activations(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, out=tmp_path, quantities=[]) as lens:
        lens.look((torch.randn(8, 2), torch.zeros(8).long()), activations=True)
    assert [row["quantity"] for row in Lens.read(tmp_path)] == ["decisions"]


OWN = ("temporal", "spatial", "weights", "decisions", "boundary", "activations")


@pytest.mark.parametrize("name", OWN)
def test_a_name_of_the_lens_s_own_is_refused(tmp_path, name):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, out=tmp_path) as lens:
        with pytest.raises(ValueError, match=f"measures itself .* got '{name}'"):
            lens.record(name, {"accuracy": 0.5})
        lens.record("mine", {"accuracy": 0.5})
    assert [row["quantity"] for row in Lens.read(tmp_path)] == ["mine"]


def test_agreement_is_with_the_last_decisions():
    def row(step, predicted):
        figures = {"accuracy": 0.5, "loss": 1.0, "predicted": predicted}
        return {"step": step, "quantity": "decisions", **figures}

    other = {"step": 1, "quantity": "mine", "energy": 1.0}
    rows = [row(0, [1, 1, 1, 1]), other, row(5, [0, 1, 2, 0]), row(9, [0, 1, 2, 3])]
    before = json.dumps(rows)
    found = with_agreement(rows)
    assert [row.get("agreement") for row in found] == [0.25, None, 0.75, 1.0]
    assert found[1] == other
    assert found[0].keys() == {"step", "quantity", "accuracy", "loss", "agreement"}
    assert json.dumps(rows) == before
    assert with_agreement([other]) == [other]


@pytest.mark.parametrize("figures", [{}, {"predicted": 3}, {"predicted": []}, {"predicted": [1]}])
def test_an_old_log_s_decisions_of_the_user_s_have_no_agreement(figures):
    strange = {"step": 1, "quantity": "decisions", **figures}
    last = {"step": 2, "quantity": "decisions", "predicted": [0, 1]}
    found = with_agreement([strange, last])
    assert found == [strange, {"step": 2, "quantity": "decisions", "agreement": 1.0}]
