"""What is kept of a study: small enough to be committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bandwise.study import Results
from bandwise.study.statistics import compare_runs


def condensed(results: Results, lens: Sequence[str] = ()) -> dict[str, Any]:
    """A study's comparisons and the curve of every run, as plain data.

    Args:
        results: of the study.
        lens: the quantities of the lens whose rows are kept, without their lists.

    Returns:
        ``task``, ``metric``, ``direction``, ``steps``, ``seeds``, ``versions``; ``comparisons``,
        a row an optimizer; ``test``, the same of the metric on the test split, where there is one;
        ``runs``.
    """
    kept = ("optimizer", "seed", "final", "evals", "diverged", "seconds_per_step")
    data: dict[str, Any] = {
        name: getattr(results, name)
        for name in ("task", "metric", "direction", "steps", "seeds", "versions")
    }
    data["comparisons"] = [asdict(row) for row in results.comparisons]
    tested = results.metric.replace("val_", "test_")
    if tested in results.runs[0].final:
        groups = [results.runs_of(row.optimizer) for row in results.comparisons]
        data["test"] = [asdict(row) for row in compare_runs(groups, tested, results.direction)]
        for row in data["test"]:
            # Read off the validation curve, which the test split does not have.
            del row["steps_to_baseline"]
    data["runs"] = [
        {
            **{name: getattr(run, name) for name in kept},
            "lens": [
                {key: value for key, value in row.items() if not isinstance(value, list)}
                for row in run.lens
                if row["quantity"] in lens
            ],
        }
        for run in results.runs
    ]
    return data
