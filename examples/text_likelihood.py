"""Bound the likelihood of a text: the negative ELBO of a masked diffusion model, in nats a token.

    python examples/text_likelihood.py "the eagle is a cheap coffee shop near burger king ."

Prints the bound of the text and of the same words in random order, with the length's part.
"""

import argparse
import random

import multidiff as md

EXAMPLE = "the eagle is a cheap coffee shop near burger king ."


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Return the nats a token of the text, and of its words in random order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", nargs="?", default=EXAMPLE)
    text = parser.parse_args(arguments).text

    model = md.load("masked")  # sentences about restaurants, lower case
    words = text.split()
    shuffled = " ".join(random.Random(0).sample(words, len(words)))
    totals = []
    for sentence in (text, shuffled):
        nats = model.nats_per_token([sentence], [{}], seed=0)  # {}: no meaning representation
        totals.append(nats["total"])
        print(f"{nats['total']:.2f} nats a token ({nats['length']:.2f} for the length): {sentence}")
    return totals[0], totals[1]


if __name__ == "__main__":
    main()
