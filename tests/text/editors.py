"""Small editors whose answers are strong enough to see a leak, and one that edits at random."""

import torch

from multidiff.text.diffuser.network import Editor

CPU = torch.device("cpu")
SIZE = 12


def strong_editor(seed=0, kind=Editor, **options):
    """An editor with large random weights, so that whatever reaches an output moves it."""
    torch.manual_seed(seed)
    given = {"size": SIZE, "width": 16, "layers": 2, "heads": 2, "length": 20, "writer_layers": 2}
    editor = kind(**given | options).eval().requires_grad_(False)
    for parameter in editor.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return editor


class MoodyEditor(Editor):
    """Tags by a table of tokens and places, so that all edits come about; writes as it does."""

    def __init__(self, *arguments, keep=1.0, **options):
        super().__init__(*arguments, **options)
        rng = torch.Generator().manual_seed(3)
        positions = self.length + 1
        likes = torch.tensor([keep, 0.0, 0.0])
        self.likes = torch.randn(self.size, positions, 3, generator=rng) + likes
        self.fills = 2 * torch.randn(self.size, positions, generator=rng) - 2

    def tags(self, encoding):
        tokens = encoding.drafts.tokens
        positions = torch.arange(tokens.shape[1])
        return self.likes[tokens, positions], self.fills[tokens, positions]
