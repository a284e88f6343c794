"""Settings for all tests."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Set before Triton is imported, so that it runs the kernels for GPUs on the CPU.
    os.environ["TRITON_INTERPRET"] = "1"
from hypothesis import HealthCheck, Phase, settings

# An example has no time limit. The whole suite has one.
settings.register_profile(
    "bandwise", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
# For mutmut (pyproject.toml). It needs to know that a test fails, not the smallest example.
settings.register_profile(
    "mutants",
    settings.get_profile("bandwise"),
    max_examples=20,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile("bandwise")


@pytest.fixture(autouse=True)
def _one_thread_and_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)
