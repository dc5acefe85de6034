"""``train --data FILE --minutes N``: what is inferred from a file, and the run itself."""

import random
import re
import time

import pytest
import torch
from commands import complains
from vocabularies import source_of

import multidiff as md
from multidiff.cli.main import run
from multidiff.config.build import check_section
from multidiff.config.recipe import parse
from multidiff.config.registry import COMPONENTS
from multidiff.models.loading import SECTIONS
from multidiff.text.auto_recipe import NETWORKS, TOKENS_PER_WEIGHT, chosen, planned, recipe_text
from multidiff.text.data.contents import choose_vocabulary, contents_of, is_running
from multidiff.text.data.vocabulary import WordVocabulary
from multidiff.text.masked.model import TokenDomain

WORDS = "a the red green big small dog bird tree sings runs sleeps here there".split()  # noqa: SIM905
WRAPPED = ["It was a bright cold day in spring, and the clocks of the", "town were striking.", ""]


def sentences(count, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 7))) + "." for _ in range(count)]


def written(path, lines, encoding="utf-8", end="\n"):
    path.write_bytes(end.join([*lines, ""]).encode(encoding))
    return str(path)


def test_wrapped_lines_and_paragraphs_are_running_text():
    assert is_running(WRAPPED * 20)
    assert is_running(["word " * 90 + "end."] * 20)
    assert not is_running(sentences(50))
    assert not is_running(["小猫不吃旧书。", "老师看见了苹果。"] * 20)
    assert not is_running(["Anna", "Benedikt", "Clara"] * 20)


def test_columns_of_tables(tmp_path):
    pairs = [f"{one},{' '.join(reversed(one.split()))}" for one in sentences(40)]
    found = contents_of(written(tmp_path / "named.csv", ["tgt,src", *pairs]))
    assert found.kind == "pairs"
    assert (found.source.column, found.source.source_column) == ("tgt", "src")
    found = contents_of(written(tmp_path / "two.csv", ["en,back", *pairs]))
    assert (found.source.column, found.source.source_column) == ("back", "en")
    tabs = [one.replace(",", "\t") for one in pairs]
    found = contents_of(written(tmp_path / "bare.tsv", tabs))
    assert not found.source.header and found.source.column == "1"
    assert len(found.trained) + len(found.held_out) == 40
    assert not {*found.sources} & {one.split("\t")[0] for one in found.held_out}
    one = contents_of(
        written(tmp_path / "one.jsonl", [f'{{"story": "{n} dogs."}}' for n in range(40)])
    )
    assert one.kind == "sentences" and one.source.column == "story"


def test_words_where_they_are_known_and_pieces_elsewhere(tmp_path):
    english = contents_of(written(tmp_path / "en.txt", sentences(80)))
    choice = choose_vocabulary(english, 10)
    assert choice.use == "WordVocabulary" and choice.unknown == 0
    subjects, objects = ["小猫", "老师", "孩子", "奶奶"], ["旧书", "苹果", "帽子", "大狗"]
    lines = [f"{one}喜欢{other}。" for one in subjects for other in objects]
    choice = choose_vocabulary(contents_of(written(tmp_path / "zh.txt", lines)), 10)
    assert choice.use == "SentencePieceVocabulary" and choice.unknown == 0
    assert choice.size > len({*"".join(lines)})


def test_the_network_grows_with_the_time_and_stays_small_for_little_text(tmp_path):
    path = written(tmp_path / "en.txt", sentences(4000))
    networks = []
    for minutes in (1, 20, 500):
        plan = planned(path, minutes)
        plan = chosen(plan, lambda text: 0.05, time.monotonic())
        networks.append(NETWORKS.index(plan.network))
        weights = 12 * plan.network[1] * plan.network[0] ** 2
        assert plan.steps * plan.tokens_a_step >= 0.5 * TOKENS_PER_WEIGHT * weights
        assert plan.steps * 0.05 <= minutes * 60
    assert networks == sorted(networks) and networks[0] < networks[-1]
    little = planned(written(tmp_path / "little.txt", sentences(30)), 500)
    little = chosen(little, lambda text: 0.001, time.monotonic())
    assert little.network == NETWORKS[0] and little.steps <= 1000 * 30


def test_the_recipe_states_path_and_size_once(tmp_path):
    path = written(tmp_path / "en.txt", sentences(80))
    text = recipe_text(planned(path, 1))
    body = text[text.index("model:") :]
    assert body.count(str(path)) == 1
    # Whole numbers outside the path, which has digits of its own.
    numbers = re.findall(r"\d+", body.replace(str(path), ""))
    assert numbers.count(str(planned(path, 1).vocabulary.size)) == 1
    parts = check_section(parse(text, "recipe"), SECTIONS, COMPONENTS)
    assert set(parts) == {"model", "data", "validation", "trainer"}


def test_lengths_begin_at_their_frequencies(tmp_path):
    words = WordVocabulary(6, source_of(tmp_path, ["a b c"]))
    domain = TokenDomain(words, 6, source_length=4)
    texts, sources = ["a", "a b", "a b", "a b c a b c a"], ["a", "a", "a b", "c"]
    domain.count_lengths(texts, sources)
    counts = torch.tensor([0, 0, 1, 2, 0, 0, 1.0]) + 0.5
    assert torch.allclose(domain.lengths.softmax(0), counts / counts.sum())
    longer = torch.zeros(11) + 0.5
    for difference in (0, 1, 0, 4):
        longer[4 + difference] += 1
    assert torch.allclose(domain.lengths_by_source[0].softmax(0), longer / longer.sum())


def test_a_model_from_a_file(tmp_path, capsys):
    """Line ends of another system, and no setting by hand."""
    path = written(tmp_path / "en.txt", sentences(120), end="\r\n")
    out = tmp_path / "run"
    assert run(["train", "--data", path, "--minutes", "0.1", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "0.00% of the held-out tokens are UNKNOWN" in printed.err
    assert "2-gram" in printed.out and "unconditional" in printed.out
    assert (out / "chosen.yaml").is_file()
    model = md.load(out)
    assert isinstance(model, md.MaskedText) and model.generate([md.TextRequest()])[0]
    assert "is not empty" in complains(
        capsys, "train", "--data", path, "--minutes", 1, "--out", out
    )


@pytest.mark.long
def test_words_are_reversed(tmp_path, capsys):
    """5,000 pairs of 3 to 9 words; the lengths of held-out ones are the model's own."""
    rng = random.Random(0)
    rows = [rng.choices([*WORDS, "old", "new"], k=rng.randint(3, 9)) for _ in range(5000)]
    lines = [f"{' '.join(row)},{' '.join(reversed(row))}" for row in rows]
    path = written(tmp_path / "pairs.csv", ["src,tgt", *lines])
    words = ["train", "--data", path, "--minutes", "5", "--out", str(tmp_path / "run")]
    assert run(words) == 0
    source = contents_of(path).source
    found = source.listing()
    held = source.rows(found, True)[:200]
    asked = [md.TextRequest(source=(found.sources or [])[row]) for row in held]
    made = md.load(tmp_path / "run").generate(asked)
    assert sum(one == found.texts[row] for one, row in zip(made, held, strict=True)) >= 195


def test_files_that_cannot_be_used(tmp_path, capsys):
    (tmp_path / "empty.txt").touch()
    written(tmp_path / "wide.txt", sentences(20), "utf-16")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "page.pdf").write_bytes(b"%PDF-1.4")
    written(tmp_path / "few.txt", sentences(5))
    written(tmp_path / "strange.txt", [chr(0x4E00 + 7 * i) * 3 for i in range(40)])
    written(tmp_path / "columns.csv", ["a,b,c", *["1,2,3"] * 20])
    reasons = {
        "empty.txt": "is empty", "wide.txt": "UTF-16", "binary.txt": "zero byte",
        "page.pdf": "--data reads texts", "few.txt": "has 5 different",
        "strange.txt": "give more",
        "columns.csv": "name the texts", "none.txt": "no such file",
    }  # fmt: skip
    for name, reason in reasons.items():
        reported = complains(capsys, "train", "--data", tmp_path / name, "--minutes", 1,
                             "--out", tmp_path / "run")  # fmt: skip
        assert reason in reported and not (tmp_path / "run").exists(), name
    for words in (["--data", "a.txt"], ["--minutes", "3"], [], ["a.yaml", "--data", "a.txt"]):
        complains(capsys, "train", *words)
