"""What every test shares."""

import pytest
import torch
from hypothesis import HealthCheck, settings

# Examples take as long as the machine lets them; the suite has its own time limit.
settings.register_profile(
    "bandwise", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("bandwise")


@pytest.fixture(autouse=True)
def _one_thread_and_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)
