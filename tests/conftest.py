"""One thread, fixed seeds, no display."""

import os
import random
import sys

import pytest

# Before anything imports numpy or torch: more threads are slower on small arrays.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def _reproducible():
    """Seed what is loaded; tests that need neither numpy nor torch do not pay for them."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.set_num_threads(1)
        torch.manual_seed(0)
        # Training flushes denormals for the whole process; other tests count on them.
        torch.set_flush_denormal(False)
