"""The benchmark: its rounds, the ratios computed from them, its files and its pictures.

No test depends on speed.
"""

import json
import math
import time
from contextlib import nullcontext
from dataclasses import replace

import benchmarks as bench
import pytest
import torch
from benchmarks import distributed, memory, nsf, runner, smi, training
from benchmarks.__main__ import app
from benchmarks.algorithm1 import Algorithm1, _quantile
from benchmarks.plan import Plan, Workload, matrices
from benchmarks.results import Case, Law, Row
from benchmarks.timing import Contender, Rounds, clock_of, interleaved
from rich.console import Console
from typer.testing import CliRunner

from bandwise import SMI, Lens
from bandwise.tasks.gpt import GPTConfig

CPU = torch.device("cpu")
TINY = bench.Extent(
    Rounds(warmup=1, least=3, most=3, seconds=0),
    sides=(4, 8),
    gpt=GPTConfig(vocabulary=5, context=4, layers=1, heads=1, width=8),
    batch=2,
    stacks=(1, 2, 3),
    stack_side=8,
)


class FakeClock:
    """A clock that only the test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nsf, "_OTHERS", {})
        results = bench.run("all", folder, extent=TINY, console=Console(quiet=True))
    return results, folder


# Timing


def test_contenders_take_turns_in_orders_of_their_own():
    clock, ran = FakeClock(), []
    contenders = [Contender(name, lambda name=name: ran.append(name)) for name in "abcd"]
    rounds = Rounds(warmup=2, least=20, most=20, seconds=0)
    rows, orders = interleaved(contenders, rounds, clock)
    assert ran == [*"abcd" * 2, *(name for order in orders for name in order)]
    assert all(sorted(order) == [*"abcd"] for order in orders)
    assert len({tuple(order) for order in orders}) > 5
    assert [len(row.seconds) for row in rows] == [20] * 4


def test_only_the_call_is_timed_and_a_round_is_the_mean_of_its_calls():
    clock = FakeClock()
    lengths = iter([1.0, 2.0, 6.0] * 3)
    contender = Contender(
        "a", lambda: clock.spend(next(lengths)), lambda: clock.spend(100), calls=3
    )
    rounds = Rounds(warmup=1, least=2, most=2, seconds=0)
    (row,), _ = interleaved(
        [contender], rounds, clock, renew=lambda: clock.spend(7), each_round=lambda: clock.spend(7)
    )
    assert row.seconds == [3.0, 3.0]


@pytest.mark.parametrize(("seconds", "expected"), [(0, 3), (5, 5), (100, 8)])
def test_rounds_go_on_until_the_time_is_over(seconds, expected):
    clock = FakeClock()
    rounds = Rounds(warmup=4, least=3, most=8, seconds=seconds)
    _, orders = interleaved([Contender("a", lambda: clock.spend(1))], rounds, clock)
    assert len(orders) == expected


def test_garbage_is_collected_before_and_not_during():
    import gc

    during = []
    interleaved(
        [Contender("a", lambda: during.append(gc.isenabled()))], Rounds(1, 1, 1, 0), FakeClock()
    )
    assert during == [False, False]
    assert gc.isenabled()


def test_the_clock_of_the_cpu_counts_seconds_and_never_goes_back():
    clock = clock_of(CPU)
    before, start = time.monotonic(), clock()
    while time.monotonic() < before + 0.02:
        pass
    assert clock() - start == pytest.approx(time.monotonic() - before, rel=0.5)
    times = [clock() for _ in range(1000)]
    assert times == sorted(times)


@pytest.mark.parametrize("fails", [False, True])
def test_threads_are_what_they_were_after_a_benchmark(monkeypatch, tmp_path, fails):
    seen = []

    def plans(extent, device):
        seen.append(torch.get_num_threads())
        if fails:
            raise RuntimeError("no plan")
        yield from ()

    monkeypatch.setitem(runner._SUBJECTS, "lens", runner._Subject(plans))
    before = torch.get_num_threads()
    wanted = before + 1
    with pytest.raises(RuntimeError) if fails else nullcontext():
        results = bench.run("lens", tmp_path, threads=wanted, console=Console(quiet=True))
        assert results.machine["threads"] == str(wanted)
    assert seen == [wanted]
    assert torch.get_num_threads() == before


# Figures computed from the rounds


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    # In a slow round both are slow. The ratio of the medians would be 20 / 4 = 5.
    case = Case(
        "case",
        10,
        [Row("a", [4.0, 20.0, 300.0], against="floor"), Row("floor", [2.0, 4.0, 100.0])],
        [["a", "floor"]] * 3,
    )
    assert case.ratio("a", "floor") == (2.5, 3.0, 4.0)


def test_the_law_is_found_where_it_holds():
    def case(parameters, ratio):
        rows = [Row("a", [2 * ratio] * 3), Row("b", [2.0] * 3)]
        return Case("", parameters, rows, [], finding=("a", "b"))

    sizes = [10**3, 10**5, 10**7]
    holds = Law.fit([case(size, 1 + 0.05 * math.log(size)) for size in sizes])
    assert holds.gamma == pytest.approx(0.05)
    assert holds.r_squared == pytest.approx(1)
    constant = Law.fit([case(size, 1.5 + 1e-3 * math.sin(size)) for size in sizes])
    assert constant.r_squared < 0


# Algorithm 1


def test_algorithm_1_is_what_smi_does():
    # There are 63 coefficients. The largest, the mean, has no conjugate. So the quantile's place,
    # 15.5, lies between two pairs, and rounding cannot change which coefficients are kept.
    grads = [torch.randn(7, 9) + 5 for _ in range(3)]
    ours = torch.nn.Parameter(torch.zeros(7, 9))
    theirs = torch.empty(7, 9)
    optimizer, literal = SMI(smi.Idle([ours]), alpha=0.3), Algorithm1([theirs], 0.3)
    for grad in grads:
        ours.grad = grad.clone()
        theirs.copy_(grad)
        optimizer.step()
        literal.step()
        torch.testing.assert_close(ours.grad, theirs)
        assert not torch.allclose(theirs, grad)


@pytest.mark.parametrize("q", [0.0, 0.25, 0.5, 1.0])
def test_its_quantile_goes_on_beyond_torchs_limit(monkeypatch, q):
    values = torch.randn(6, 7)
    expected = torch.quantile(values, q)
    monkeypatch.setattr("benchmarks.algorithm1._QUANTILE_LIMIT", 10)
    torch.testing.assert_close(_quantile(values, q), expected)


# The measured cases


def test_gradients_are_equal_for_all_and_new_each_round():
    work = Workload([torch.Size((3, 4)), torch.Size((2, 2))], CPU)
    first = [param.grad.clone() for param in work.params]
    work.params[0].grad.zero_()
    work.params[1].grad = None
    work.restore()
    assert all(torch.equal(p.grad, g) for p, g in zip(work.params, first, strict=True))
    work.renew()
    work.restore()
    assert not any(torch.equal(p.grad, g) for p, g in zip(work.params, first, strict=True))


def test_the_papers_gpt_has_26_matrices():
    shapes = matrices(bench.Extent(TINY.rounds, sides=()).gpt)
    assert len(shapes) == 26
    assert sum(shape.numel() for shape in shapes) == 10_740_096


def test_every_ratio_and_finding_has_its_rows(measured):
    results, _ = measured
    assert len(results.cases) == 4 + 2 * len(TINY.sides)
    for case in results.cases:
        names = [row.name for row in case.rows]
        assert len(set(names)) == len(names)
        assert {row.against for row in case.rows} - {None} <= set(names)
        assert set(case.finding or ()) <= set(names)
        assert all(len(row.seconds) == 3 and min(row.seconds) > 0 for row in case.rows)
    assert not results.skipped


def test_the_floors_of_nsf_move_the_bytes_they_say():
    floors = nsf._floors(100, CPU)
    for streams, contender in floors.items():
        changed = contender.call.__self__  # Read and written.
        assert 2 * changed.nbytes == contender.moves == streams * 4 * 100


def test_a_library_that_is_missing_or_fails_is_told(monkeypatch):
    others = {
        "none": ("no_such_module", "Adam", {}),
        "fails": ("torch.optim", "AdamW", {"betas": (2, 2)}),
        "torch's": ("torch.optim", "Adam", {}),
    }
    monkeypatch.setattr(nsf, "_OTHERS", others)
    plan = next(nsf.plans(TINY, CPU))
    lineup = plan.build()
    assert lineup.absent["none"] == "no_such_module is not installed"
    assert "ValueError" in lineup.absent["fails"]
    names = [contender.name for contender in lineup.contenders]
    assert "torch's" in names
    assert "fails" not in names


def built(plan: Plan) -> Case:
    lineup = plan.build()
    rows, orders = interleaved(lineup.contenders, TINY.rounds, clock_of(CPU), renew=lineup.renew)
    return Case(
        plan.title, plan.parameters, rows, orders, plan.note, sweep=plan.sweep,
        finding=plan.finding, added=plan.added,
    )  # fmt: skip


def test_what_only_a_gpu_measures_runs(tmp_path):
    """The GPU's cases run on the CPU here."""
    makers = {smi.BASE: smi._adamw, smi.AROUND: smi._smi_around_adamw}
    cases = [built(smi.training(TINY, CPU, makers)), *map(built, smi.stacks(TINY, CPU))]
    machine = dict.fromkeys(("device", "processor", "threads", "torch"), "?")
    results = bench.Bench("command", machine, cases)
    console = Console(width=80)
    with console.capture() as shown:
        console.print(bench.table(results))
    assert "%" in shown.get()
    assert "Fitted: T = T_base (1 +" in shown.get()
    (path,) = bench.draw(results, tmp_path)
    assert path.name == "bench-smi-parameters.html"


def test_a_lens_measures_one_step_of_every_block(monkeypatch):
    blocks = []

    class Told(Lens):
        def __exit__(self, *error):
            super().__exit__(*error)
            blocks.append({row["step"] for row in self.summary()})

    monkeypatch.setattr(training, "Lens", Told)
    (plan,) = training.watched(TINY, CPU)
    case = built(plan)
    assert blocks == [{100}] * (TINY.rounds.warmup + TINY.rounds.least)
    assert [row.against for row in case.rows] == [None, case.rows[0].name]


def test_a_case_too_large_for_the_memory_is_skipped_and_told(monkeypatch, tmp_path):
    def too_large(*args, **kwargs):
        raise torch.OutOfMemoryError("of 1 EiB")

    monkeypatch.setattr(smi, "_around", too_large)
    results = bench.run("smi", tmp_path, extent=TINY, console=Console(quiet=True))
    ((title, reason),) = results.skipped.items()
    assert title.startswith("SMI around an optimizer")
    assert reason == "out of memory: of 1 EiB"
    assert len(results.cases) == 1 + len(TINY.sides)


# Memory


def test_the_peak_is_what_is_there_at_a_time():
    x = torch.zeros(1000)

    def call():
        y = x + 1  # 4000 bytes
        z = y + y  # 8000
        del y
        return (z + z).sum()  # 8000 again

    call()
    assert memory.peak_extra(call, CPU) == pytest.approx(8000, abs=200)


def test_states_are_weighed():
    shapes = [torch.Size((64, 64))] * 3
    by_name = {footprint.name: footprint for footprint in memory.smi(shapes, CPU)}
    # 33 of 64 columns.
    assert by_name["SMI state, float32 history"].ratio == pytest.approx(33 / 64, rel=0.05)
    assert by_name["SMI state, bfloat16 history"].ratio == pytest.approx(33 / 128, rel=0.05)
    assert by_name["SMI, peak extra in a step"].against_bytes == 3 * 64 * 64 * 4
    assert memory.nsf(shapes, CPU)[0].ratio == pytest.approx(1)


# Files and pictures


def test_the_file_is_strict_json_and_comes_back(measured):
    results, folder = measured

    def refuse(constant):
        raise AssertionError(constant)

    text = (folder / "bench.json").read_text()
    data = json.loads(text, parse_constant=refuse)
    assert {"command", "machine", "cases", "memory", "skipped", "crc32"} == data.keys()
    assert {"processor", "threads", "torch", "device", "load before"} <= data["machine"].keys()
    for case in data["cases"]:
        for row in case["rows"]:
            assert len(row["seconds"]) == len(case["orders"]) == 3
            assert row["quartiles"][1] == sorted(row["seconds"])[1]
            assert (row["ratio"] is None) == (row["against"] is None)
    assert bench.Bench.load(folder / "bench.json") == results


def test_a_file_that_is_none_of_ours_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m benchmarks"):
        bench.Bench.load(tmp_path / "bench.json")
    (tmp_path / "bench.json").write_text("[]")
    with pytest.raises(ValueError, match="not a benchmark"):
        bench.Bench.load(tmp_path / "bench.json")


def test_the_pictures_are_of_the_results_alone(measured, tmp_path):
    results, _ = measured
    paths = bench.draw(results, tmp_path)
    assert [path.name for path in paths] == ["bench-smi.html", "bench-nsf.html"]
    before = [path.read_bytes() for path in paths]
    assert all(b"milliseconds a step" in content for content in before)
    bench.draw(results, tmp_path)
    assert [path.read_bytes() for path in paths] == before


def test_the_title_says_what_was_found():
    from benchmarks.draw import finding

    rows = [Row("SMI", [6.0], "floor"), Row("other", [24.0], "floor"), Row("floor", [2.0])]
    case = Case("", 4096, rows, [["SMI", "other", "floor"]], finding=("SMI", "other"))
    found = "SMI, at 4,096 parameters: 3 times its floor (floor), 1/4 of other"
    assert finding("smi", [case]) == found
    slow = replace(case, finding=("other", "SMI"))
    found = "other, at 4,096 parameters: 12 times its floor (floor), 4 times SMI"
    assert finding("smi", [slow]) == found


def test_the_table_fits_a_terminal_and_tells_what_is_missing(measured):
    results, _ = measured
    case = replace(results.cases[0], absent={"Another": "it is not installed"})
    console = Console(width=80)
    with console.capture() as shown:
        console.print(bench.table(replace(results, cases=[case], skipped={"big": "no room"})))
    text = shown.get()
    assert max(map(len, text.splitlines())) <= 80
    assert "Another: not measured, it is not installed" in text
    assert "not measured: big: no room" in text


@pytest.mark.parametrize(("spread", "warned"), [(1.1, False), (2.0, True)])
def test_a_busy_machine_is_told(measured, spread, warned):
    rows = [Row("a", [1.0, 1.0, spread, spread])]
    results = replace(measured[0], cases=[Case("case", 10, rows, [["a"]] * 4)])
    console = Console(width=80)
    with console.capture() as shown:
        console.print(bench.table(results))
    assert ("the machine was busy" in " ".join(shown.get().split())) == warned


@pytest.mark.parametrize(
    ("subject", "pictures"),
    [("smi", {"bench-smi.html"}), ("nsf", {"bench-nsf.html"}), ("lens", set())],
)
def test_the_command(monkeypatch, tmp_path, subject, pictures):
    monkeypatch.setattr("benchmarks.runner.QUICK", TINY)
    monkeypatch.setattr(nsf, "_OTHERS", {})
    words = [subject, "--quick", "--threads", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    files = {path.name for path in tmp_path.iterdir()}
    assert files - {".lock"} == {"bench.json"} | pictures
    results = bench.Bench.load(tmp_path / "bench.json")
    assert results.command == f"python -m benchmarks {subject} --device cpu --threads 1 --quick"
    for picture in pictures:
        (tmp_path / picture).unlink()
    again = CliRunner().invoke(app, ["--redraw", "--out", str(tmp_path)])
    assert again.exit_code == 0, again.output
    assert all((tmp_path / picture).exists() for picture in pictures)
    assert "(18)" not in again.output


def test_a_subject_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match="subject must be one of smi, nsf, lens, all, got 'lion'"):
        bench.run("lion", tmp_path)


# Several processes


def test_the_costs_of_ranks_are_drawn(tmp_path):
    with pytest.raises(FileNotFoundError, match="measure first"):
        distributed.figure(tmp_path)
    for ranks in (1, 2):
        costs = {scheme: distributed.computed(scheme, ranks) for scheme in distributed.SCHEMES}
        (tmp_path / f"distributed-{ranks}.json").write_text(json.dumps(costs))
    figure = distributed.figure(tmp_path)
    counted = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert len(counted) == 4 * 3
    # Without sharding a rank keeps the whole history, half a matrix and one column.
    history = next(t for t in counted if (t.name, t.xaxis) == ("SMI, DDP", "x2"))
    assert list(history.y) == pytest.approx([0.5, 0.5], rel=0.01)
    # Two ranks share it.
    (shared,) = [t for t in counted if (t.name, t.xaxis) == ("SMI, FSDP2", "x2")]
    assert shared.y[1] == pytest.approx(shared.y[0] / 2, rel=0.01)
