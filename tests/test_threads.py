"""Many threads of one process, each as if it were alone."""

import threading

import torch

from benchmarks.threads import stress


def test_loading_building_training_and_sampling_at_once():
    """Every result equals that of the same work alone, to the bit; nothing lacks its values."""
    torch.manual_seed(5)
    found = stress(5)
    assert not found.faults, found.faults[:5]
    assert len(found.done) == 8 and min(found.done.values()) > 0, found.done
    assert threading.active_count() < 8


def test_the_text_encoder_is_built_without_exchanging_functions_of_torch(monkeypatch):
    """The library would put its own in the place of torch.nn.init's, in every thread."""
    import transformers.modeling_utils as library

    from multidiff.image.diffusion.text_encoder import TextEncoder

    def refuse(*_):
        raise AssertionError("initialised by the library")

    monkeypatch.setattr(library.PreTrainedModel, "initialize_weights", refuse)
    encoder = TextEncoder(48, 64, 128, 2, 4, length=12)
    assert not any(one.is_meta for one in [*encoder.parameters(), *encoder.buffers()])
    embedding = encoder.transformer.embeddings
    assert 0.01 < float(embedding.token_embedding.weight.detach().std()) < 0.03  # CLIP's 0.02
    assert embedding.position_ids.tolist() == [[*range(12)]]
    assert encoder(torch.zeros(2, 12, dtype=torch.int64)).isfinite().all()
