"""The hub: a stand-in of its client, which keeps repositories as folders."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from commands import complains, does
from huggingface_hub import ModelCard, errors

import multidiff as md
from multidiff.config.build import locate
from multidiff.config.registry import COMMANDS, COMPONENTS
from multidiff.models.hub import pinned, split_revision
from multidiff.models.hub_model import HubModel
from multidiff.models.loading import shipped
from multidiff.models.model_card import hub_license
from multidiff.models.moving import is_stored_in_half
from multidiff.utils.errors import InputError

# What the client's errors ask of a response.
RESPONSE: Any = SimpleNamespace(headers={}, request=None, status_code=404)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Repositories as folders: ``root/owner+name/snapshots/COMMIT``."""
    root, branches, calls = tmp_path / "hub", {}, []

    class Api:
        def __init__(self, token=None):
            calls.append(("token", token))

        def create_repo(self, repository, private, exist_ok):
            calls.append(("create", repository, private))
            branches.setdefault(repository, {})
            return f"https://hub/{repository}"

        def create_branch(self, repository, branch, exist_ok):
            branches[repository].setdefault(branch, None)

        def upload_folder(self, repo_id, folder_path, revision, commit_message):
            calls.append(("commit", commit_message))
            commit = f"{len(calls):040x}"
            shutil.copytree(folder_path, root / repo_id.replace("/", "+") / "snapshots" / commit)
            branches[repo_id][revision or "main"] = commit
            return type("Commit", (), {"oid": commit})

    def snapshot_download(repository, revision=None, allow_patterns=None):
        if repository not in branches:
            raise errors.RepositoryNotFoundError("404", response=RESPONSE)
        commit = branches[repository].get(revision or "main", revision)
        folder = root / repository.replace("/", "+") / "snapshots" / commit
        if not folder.is_dir():
            raise errors.RevisionNotFoundError("404", response=RESPONSE)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_mine")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return calls


@pytest.mark.parametrize("kind", sorted(COMMANDS))
def test_every_model_class_reads_and_writes_the_hub(kind):
    found = locate(COMPONENTS.get(kind, "multidiff.image.metrics.classifier:ImageClassifier"))
    assert issubclass(found, HubModel)
    assert found.pipeline_tag != "other" or kind == "ImageDiffusion"


def test_a_folder_holds_the_same_model(tmp_path):
    name = "edits"  # with assets beside its weights
    model = md.load(name)
    folder = model.save_pretrained(tmp_path / "copy")
    read = type(model).from_pretrained(folder)
    wanted = model.state_dict()
    assert all(torch.equal(one, wanted[key]) for key, one in read.state_dict().items())
    assert {one.name for one in folder.iterdir()} >= {
        "README.md", "recipe.yaml", "model.safetensors",
        *(one.name for one in shipped()[name].glob("*.json")),
    }  # fmt: skip
    weights = folder / "model.safetensors"
    assert weights.stat().st_size == (shipped()[name] / weights.name).stat().st_size  # float16
    assert not is_stored_in_half(shipped()["digits-fast"] / weights.name)  # a difference
    card: Any = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "multidiff" and card.data.pipeline_tag == model.pipeline_tag
    assert card.data.license in ("cc-by-sa-3.0", "cc-by-4.0", "cc-by-sa-4.0")
    assert card.data.eval_results and card.text.strip().startswith("# ")
    assert read.recipe == model.recipe


def test_push_and_pinned_revisions(hub, tmp_path, capsys):
    name = "me/eagle"
    does(capsys, "push", "masked", name, "--private", "--license", "Apache 2.0")
    assert ("create", name, True) in hub
    model = md.MaskedText.from_pretrained(name)
    first = pinned(name)
    repository, commit = split_revision(first)
    assert repository == name and len(str(commit)) == 40 and pinned(first) == first
    card: Any = ModelCard.load(Path(str(model.home)) / "README.md")
    assert card.data.license == hub_license("Apache 2.0") == "apache-2.0"
    with torch.no_grad():
        next(model.denoiser.parameters()).add_(1)
    made = model.push_to_hub(f"{name}@draft", token="hf_given", message="Tuned")
    assert ("token", "hf_given") in hub and ("commit", "Tuned") in hub
    weights = [
        next(md.load(one).denoiser.parameters()).float().mean().item()
        for one in (name, first, f"{name}@draft", f"{name}@{made.commit}")
    ]
    assert weights[0] == weights[1] != weights[2] == weights[3]
    again = md.MaskedText.from_pretrained(name, revision="draft")
    assert again.generate([md.TextRequest(length=4)], seed=3)
    with pytest.raises(InputError, match="is a MaskedText, not a Vocoder"):
        md.Vocoder.from_pretrained(name)


def test_training_writes_the_commit_it_started_from(hub, tmp_path):
    from multidiff.models.train import _with_commits

    md.load("masked").push_to_hub("me/eagle")
    found = _with_commits({"weights": [{"model": "me/eagle"}, {"model": "digits"}], "model": 1})
    assert [one["model"] for one in found["weights"]] == [pinned("me/eagle"), "digits"]
    assert _with_commits({"model": 1}) == {"model": 1}


def test_what_cannot_be_pushed_or_read(hub, tmp_path, monkeypatch, capsys):
    assert "owner/name" in complains(capsys, "push", "masked", "eagle")
    md.load("masked").push_to_hub("me/eagle")
    assert "no revision 'v9'" in complains(capsys, "sample", "me/eagle@v9")
    assert "not on the hub" in complains(capsys, "sample", "me/hawk")
    assert "no model" in complains(capsys, "sample", "me/eagle@../x")
    with pytest.raises(InputError, match="goes with a name on the hub"):
        md.MaskedText.from_pretrained("masked", revision="v1")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").touch()
    assert "holds other files" in complains(
        capsys, "push", "masked", "me/eagle", "-o", tmp_path / "mine"
    )
    model = md.load("masked")
    model.recipe = ""
    with pytest.raises(InputError, match="has no recipe"):
        model.save_pretrained(tmp_path / "new")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "no token" in complains(capsys, "push", "masked", "me/eagle")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "switched off" in complains(capsys, "push", "masked", "me/eagle")

    def not_there(*arguments, **options):
        raise errors.LocalEntryNotFoundError("Cannot find\nan appropriate snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", not_there)
    assert "switched off" in complains(capsys, "sample", "me/hawk")
    assert not (tmp_path / "new").exists()


def test_a_recipe_is_written_in_utf_8_wherever_it_is(tmp_path, monkeypatch):
    write, unstated = Path.write_text, []

    def noted(path, text, encoding=None, **options):
        unstated.extend([path.name] if encoding is None else [])
        return write(path, text, encoding, **options)

    monkeypatch.setattr(Path, "write_text", noted)
    md.load("digits").save_pretrained(tmp_path / "copy")
    assert not unstated


def test_a_model_without_a_card_is_described(tmp_path):
    copied = shutil.copytree(shipped()["masked"], tmp_path / "bare")
    (copied / "card.md").unlink()
    folder = md.load(copied).save_pretrained(tmp_path / "copy")
    text = (folder / "README.md").read_text()
    assert "million\nparameters" in text and 'md.load("copy")' in text
