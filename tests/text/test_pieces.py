"""Pieces of other libraries: the same numbers as theirs but for the special ones."""

import base64
import io

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from vocabularies import TEXTS, kept, source_of

from multidiff.text.data.subwords import HuggingFaceVocabulary, SentencePieceVocabulary
from multidiff.text.data.vocabulary import BLANK, END, FIRST, PAD, UNKNOWN, Vocabulary, with_blanks
from multidiff.utils.errors import InputError

SIZE = 80

# ---------------------------------------------------------------------------- SentencePiece


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def trained(request, tmp_path_factory):
    source = source_of(tmp_path_factory.mktemp("pieces"), TEXTS * 3)
    return SentencePieceVocabulary(SIZE, source, kind=request.param)


def test_texts_come_back_as_they_were(trained):
    for text in (*TEXTS, "", " ", "   the   cat ", "🙂🙂", "\t"):
        numbers = trained.numbers(text)
        assert all(FIRST <= number < SIZE for number in numbers)
        assert trained.text(numbers) == text and trained.unknown(text) == []


@given(st.text(sorted({*"".join(TEXTS)})))
def test_any_text_of_known_characters_comes_back(trained, text):
    assert trained.text(trained.numbers(text)) == text


@given(st.text())
def test_any_text_is_read(trained, text):
    numbers = trained.numbers(text)
    assert all(UNKNOWN <= number < SIZE for number in numbers)
    assert len(trained.unknown(text)) == numbers.count(UNKNOWN)
    trained.text(numbers)


@given(st.data())
def test_any_numbers_are_written(trained, data):
    numbers = data.draw(st.lists(st.integers(UNKNOWN, SIZE - 1)))
    text = trained.text(numbers)
    assert trained.text([PAD, *numbers, PAD, END, 5]) == text
    with pytest.raises(ValueError, match=f"number {SIZE} is outside"):
        trained.text([SIZE])


def test_the_policy_of_pieces(trained):
    assert isinstance(trained, Vocabulary)
    assert trained.unknown("the жжq cat Ω") == ["жжq", "Ω"]
    assert trained.text([UNKNOWN]) == "\ufffd"
    assert not {PAD, END} & {*trained.numbers("a </s> <pad> <unk>")}


def test_the_same_texts_make_the_same_pieces(trained, tmp_path):
    again = SentencePieceVocabulary(SIZE, trained.source, kind=trained.kind)
    assert again.assets() == trained.assets()
    (text,) = trained.assets().values()
    assert text.isascii()
    shipped = SentencePieceVocabulary(SIZE)
    shipped.load_assets(kept(trained, tmp_path / "model"))
    assert [shipped.numbers(text) for text in TEXTS] == [trained.numbers(text) for text in TEXTS]


def test_half_a_character_is_unknown(trained, bytes_vocabulary):
    assert trained.unknown("the \ud83d cat") == ["\ufffd"]
    assert bytes_vocabulary.text(bytes_vocabulary.numbers("a \udce9")) == "a \ufffd"


def test_blanks_among_pieces(trained):
    the, sat = trained.numbers("the"), trained.numbers("sat")
    assert with_blanks(trained, f"the {BLANK} {BLANK} sat") == [*the, None, None, *sat]


def test_long_texts_are_not_left_out(tmp_path):
    source = source_of(tmp_path, ["a b", "é" * 3000 + "z"])
    assert UNKNOWN not in SentencePieceVocabulary(9, source, kind="bpe").numbers("az é")


@pytest.mark.parametrize(("size", "reason"), [(5, "smaller than required"), (5000, "too high")])
def test_a_size_that_cannot_be_made(tmp_path, size, reason):
    source = source_of(tmp_path, TEXTS)
    with pytest.raises(
        InputError, match=rf"not yield a unigram vocabulary of size {size} .*{reason}"
    ) as e:
        SentencePieceVocabulary(size, source).numbers("a")
    assert str(e.value).startswith(source.path) and "\n" not in str(e.value)


@pytest.fixture
def own_model(tmp_path):
    """A model as others make them: begin and end elsewhere, a control and a user's piece."""

    def written(size=34, **more):
        model, path = io.BytesIO(), tmp_path / "own.model"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["the cat sat on the mat"] * 9), model_writer=model,
            vocab_size=size, model_type="bpe", unk_id=3, bos_id=0, eos_id=1, pad_id=-1,
            control_symbols="<task>", user_defined_symbols="<br>", minloglevel=2,
            hard_vocab_limit=False, **more,
        )  # fmt: skip
        path.write_bytes(model.getvalue())
        return str(path), sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())

    return written


def test_a_model_of_ones_own(own_model, tmp_path):
    path, library = own_model()
    plain = [i for i in range(library.GetPieceSize()) if not library.IsControl(i) and i != 3]
    vocabulary = SentencePieceVocabulary(len(plain) + FIRST, model=path)
    ids = library.EncodeAsIds("the mat<br>cat")
    assert [plain[number - FIRST] for number in vocabulary.numbers("the mat<br>cat")] == ids
    assert vocabulary.text(vocabulary.numbers("the mat<br>cat")) == "the mat<br>cat"
    assert vocabulary.unknown("the dog") == ["d", "g"]
    assert vocabulary.numbers("d")[-1] == UNKNOWN
    assert vocabulary.text([*vocabulary.numbers("the"), UNKNOWN]) == "the ⁇ "
    shipped = SentencePieceVocabulary(vocabulary.size, model="not/there.model")
    shipped.load_assets(kept(vocabulary, tmp_path / "model"))
    assert shipped.numbers("the dog sat") == vocabulary.numbers("the dog sat")


def test_a_model_that_falls_back_to_bytes(own_model):
    path, library = own_model(size=290, byte_fallback=True)
    size = sum(not library.IsControl(i) and i != 3 for i in range(library.GetPieceSize())) + FIRST
    vocabulary = SentencePieceVocabulary(size, model=path)
    text = "the 🙂 dog"
    assert vocabulary.unknown(text) == [] and vocabulary.text(vocabulary.numbers(text)) == text


def test_faults_of_a_given_model(own_model, tmp_path):
    path, library = own_model()
    held = sum(not library.IsControl(i) and i != 3 for i in range(library.GetPieceSize()))
    with pytest.raises(InputError, match=rf"own\.model: has {held} .* size {held + 3}, not 99"):
        SentencePieceVocabulary(99, model=path).numbers("a")
    with pytest.raises(InputError, match=r"gone\.model: no such file"):
        SentencePieceVocabulary(99, model=str(tmp_path / "gone.model")).assets()
    (tmp_path / "bad.model").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"bad\.model: is not a SentencePiece model"):
        SentencePieceVocabulary(99, model=str(tmp_path / "bad.model")).text([])
    with pytest.raises(InputError, match=r"sentencepiece\.txt: is not in the model's folder"):
        SentencePieceVocabulary(99).numbers("a")
    with pytest.raises(InputError, match="a model is not trained again"):
        SentencePieceVocabulary(99, source_of(tmp_path, ["a"]), model=path)


@pytest.mark.parametrize("content", ["", "not base64!", base64.b64encode(b"junk").decode()])
def test_a_faulty_file_beside_the_weights(tmp_path, content):
    (tmp_path / "sentencepiece.txt").write_text(content)
    with pytest.raises(InputError, match=r"sentencepiece\.txt: is not a SentencePiece model"):
        SentencePieceVocabulary(99).load_assets(tmp_path)


# ---------------------------------------------------------------------------- Hugging Face


def word_pieces():
    """As BERT's: special pieces in the midst, and what it was last used with."""
    words = ["[PAD]", "the", "cat", "[UNK]", "[CLS]", "[SEP]", "##s", "sat", "."]
    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 5), ("[CLS]", 4))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=4)
    return tokenizer


def byte_pairs():
    """As GPT-2's: every text is known."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_tokens([AddedToken("<br>")])
    return tokenizer


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    def written(tokenizer):
        folder = tmp_path_factory.mktemp("tokenizer")
        tokenizer.save(str(folder / "tokenizer.json"))
        return str(folder)

    return written


@pytest.fixture(scope="module")
def bytes_vocabulary(folder_of):
    tokenizer = byte_pairs()
    return HuggingFaceVocabulary(tokenizer.get_vocab_size() - 1 + FIRST, folder_of(tokenizer))


def test_word_pieces_without_the_special_ones(folder_of, tmp_path):
    vocabulary = HuggingFaceVocabulary(8, folder_of(word_pieces()))
    assert isinstance(vocabulary, Vocabulary)
    assert vocabulary.numbers("The cats sat.") == [3, 4, 5, 6, 7]
    assert vocabulary.text([PAD, 3, 4, 5, 6, 7, END, 3]) == "the cats sat."
    assert vocabulary.numbers("the Dog [SEP] [PAD]") == [3, UNKNOWN, UNKNOWN, UNKNOWN]
    assert vocabulary.unknown("the Dog [SEP] sat") == ["Dog", "[SEP]"]
    assert vocabulary.text([3, UNKNOWN]) == "the [UNK]"
    assert with_blanks(vocabulary, "the [MASK] sat") == [3, None, 6]
    shipped = HuggingFaceVocabulary(8, "not/there")
    shipped.load_assets(kept(vocabulary, tmp_path / "model"))
    assert shipped.numbers("The cats sat.") == [3, 4, 5, 6, 7]


def test_a_unigram_tokenizer_names_its_unknown_by_number(folder_of):
    pieces = [("<pad>", 0.0), ("a", -1.0), ("<unk>", -9.0), ("b", -2.0)]
    vocabulary = HuggingFaceVocabulary(5, folder_of(Tokenizer(models.Unigram(pieces, unk_id=2))))
    with pytest.raises(InputError, match="has 3 pieces besides the special ones"):
        vocabulary.numbers("a")
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.add_special_tokens(["<pad>"])
    vocabulary = HuggingFaceVocabulary(5, folder_of(tokenizer))
    assert vocabulary.numbers("abz") == [3, 4, UNKNOWN] and vocabulary.unknown("abz") == ["z"]


@given(st.text())
def test_bytes_keep_any_text(bytes_vocabulary, text):
    assert bytes_vocabulary.text(bytes_vocabulary.numbers(text)) == text
    assert bytes_vocabulary.unknown(text) == []


@given(st.data())
def test_any_bytes_are_written(bytes_vocabulary, data):
    numbers = data.draw(st.lists(st.integers(0, bytes_vocabulary.size - 1)))
    assert isinstance(bytes_vocabulary.text(numbers), str)


def test_a_special_piece_in_a_text_is_unknown(bytes_vocabulary):
    assert bytes_vocabulary.unknown("a<|endoftext|><br>") == ["<|endoftext|>"]
    assert bytes_vocabulary.numbers("<br>") == [bytes_vocabulary.size - 1]
    assert bytes_vocabulary.text([UNKNOWN]) == ""


def test_faults_of_a_tokenizer(folder_of, tmp_path):
    folder = folder_of(word_pieces())
    with pytest.raises(InputError, match=r"tokenizer\.json: has 5 .* of size 8, not 30522"):
        HuggingFaceVocabulary(30522, folder).numbers("a")
    with pytest.raises(InputError, match=r"tokenizer\.json: no such file; name a folder"):
        HuggingFaceVocabulary(8, str(tmp_path)).numbers("a")
    with pytest.raises(InputError, match=r"tokenizer\.json: is not in the model's folder"):
        HuggingFaceVocabulary(8).assets()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json: is not a tokenizer"):
        HuggingFaceVocabulary(8).load_assets(tmp_path)
