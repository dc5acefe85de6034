"""Many threads of one process, each as if it were alone."""

import threading

import torch

from benchmarks.threads import stress


def test_loading_building_training_and_sampling_at_once():
    """Every result equals that of the same work alone, to the bit; nothing lacks its values."""
    torch.manual_seed(5)
    before = threading.active_count()  # such as those of services in other tests
    found = stress(5)
    assert not found.faults, found.faults[:5]
    assert len(found.done) == 8 and min(found.done.values()) > 0, found.done
    assert threading.active_count() < before + 7
