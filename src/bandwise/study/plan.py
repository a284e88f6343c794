"""The runs of a study, planned and checked before any of them starts."""

import io
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from bandwise import tasks, userfile
from bandwise.study import by_name, spec
from bandwise.study.config import RunConfig, code_versions, user_files
from bandwise.study.training import isolated
from bandwise.tasks import Recipe, Task


def configure(
    task: str,
    optimizers: str | Sequence[str],
    seeds: Sequence[int],
    steps: int | None = None,
    device: str = "cpu",
    task_options: Mapping[str, Any] | None = None,
    lr: float | None = None,
    lens: bool = False,
) -> tuple[Task, list[RunConfig]]:
    """The task, and the runs of every optimizer with every seed, checked as far as is possible.

    The arguments are those of ``compare``, but the seeds are listed.
    """
    specs = _read(optimizers)
    options = dict(task_options or {})
    try:
        json.dumps(options)
    except TypeError as error:
        raise TypeError(f"task_options must be plain data: {error}") from error
    try:
        torch.zeros((), device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device must be one that torch can use here, got {device!r}: {reason}"
        ) from error
    given: dict[str, Any] = {"steps": steps, "lr": lr}
    with isolated(device):
        made = tasks.load(task, options)
        recipe = replace(made.recipe, **{k: v for k, v in given.items() if v is not None})
        _check_optimizers(specs, task, made, recipe)
        with userfile.blamed(task):
            data = made.fingerprint()
    return made, [
        RunConfig(
            task=task,
            task_options=options,
            # Of the run's own files alone: an edit of another optimizer must not start it anew.
            data=data | user_files(task, s.text),
            optimizer=s.text,
            seed=seed,
            # With lists for tuples, as the stored configuration has.
            recipe=json.loads(json.dumps(asdict(recipe))),
            device=device,
            versions=code_versions(task, s.text),
            lens=lens,
        )
        for seed in seeds
        for s in specs
    ]


def _read(optimizers: str | Sequence[str]) -> list[spec.Spec]:
    """The optimizers, from their texts or from one list separated by commas."""
    if isinstance(optimizers, str):
        specs = spec.parse_list(optimizers)
    elif isinstance(optimizers, Sequence):
        specs = [spec.parse(text) for text in optimizers]
    else:
        raise TypeError(f"optimizers must be a text or several, got {optimizers!r}")
    texts = [s.text for s in specs]
    if not specs:
        raise ValueError("optimizers must name at least one optimizer")
    if len(set(texts)) < len(texts):
        raise ValueError(f"optimizers must differ, got {', '.join(texts)}")
    # The recorded command is such a list.
    if spec.parse_list(",".join(texts)) != specs:
        raise ValueError(f"optimizers cannot be told apart in a list: {', '.join(texts)}")
    return specs


def _check_optimizers(specs: Sequence[spec.Spec], task: str, made: Task, recipe: Recipe) -> None:
    """Raise now what would make every run fail."""
    with userfile.blamed(task):
        model = made.model()
    if not isinstance(model, nn.Module):
        raise TypeError(f"task {task!r}: model() must return a torch.nn.Module, got {model!r}")
    for s in specs:
        own = [(name, nn.Parameter(param.detach())) for name, param in model.named_parameters()]
        optimizer = by_name.build(s, own, recipe.lr, recipe)
        if any("lr" not in group for group in optimizer.param_groups):
            raise ValueError(f"optimizer {s.text!r}: its parameter groups have no lr to schedule")
        saved = io.BytesIO()
        torch.save(optimizer.state_dict(), saved)
        saved.seek(0)
        try:
            torch.load(saved, weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"optimizer {s.text!r}: its state_dict must hold tensors and plain data alone, or "
                f"a run could not be resumed: {error}"
            ) from error
