"""Parquet in Google Cloud Storage and on the Hugging Face hub, by the libraries' own clients."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from store_servers import store_server

from multidiff.data.object_store import ObjectStore
from multidiff.data.row_groups import GroupedTable, RowGroups
from multidiff.utils.errors import InputError

ADDRESSES = ("gs://bucket/data", "hf://datasets/owner/name/data")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIDIFF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))  # no token
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = tmp_path / "served" / "data"
    folder.mkdir(parents=True)
    for file in range(2):
        texts = [f"number {30 * file + n}" for n in range(30)]
        pq.write_table(pa.table({"text": texts}), folder / f"{file}.parquet", row_group_size=10)
    with store_server(folder.parent) as address:
        yield ObjectStore(address, anonymous=True, patience_s=0.3)


def test_rows_are_those_of_local_files(store, tmp_path):
    reading = RowGroups(store=store)
    local = GroupedTable(str(tmp_path / "served" / "data"), ["text"], RowGroups())
    for url in ADDRESSES:
        table = GroupedTable(url, ["text"], reading)
        assert [*table.sizes] == [10] * 6
        for row in (0, 29, 30, 59):
            assert table.row(row) == local.row(row) == {"text": f"number {row}"}
        assert table.fingerprint() == local.fingerprint()
        one = GroupedTable(f"{url}/1.parquet", ["text"], reading)
        assert one.row(7) == local.row(37)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("gs://bucket/gone", "no such file or folder"),
        ("gs://403/data", "access denied .* GOOGLE_APPLICATION_CREDENTIALS"),
        ("gs://503/data", "its server was away for . s .UNAVAILABLE.*--resume"),
        ("hf://datasets/owner/name/gone", "no such file or folder"),
        ("hf://datasets/401/name/data", "access denied .* HF_TOKEN"),
        ("hf://datasets/403/name/data", "access denied .* HF_TOKEN"),
        ("hf://datasets/503/name/data", "its server was away for . s .*--resume"),
    ],
)
def test_what_cannot_be_read_is_one_line(store, monkeypatch, url, line):
    monkeypatch.setattr("multidiff.data.object_store.GOOGLE_SECONDS", 0.2)
    with pytest.raises(InputError, match=f"^{url}: {line}") as reported:
        GroupedTable(url, ["text"], RowGroups(store=store))
    assert "\n" not in str(reported.value)


def test_google_without_credentials_is_not_waited_for(store, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("GCE_METADATA_ROOT", "127.0.0.1:9")
    monkeypatch.setattr("multidiff.data.object_store.GOOGLE_SECONDS", 0.2)
    with pytest.raises(InputError, match=r"^gs://bucket/data: access denied .*OAuth2"):
        GroupedTable("gs://bucket/data", ["text"], RowGroups())
    assert not caplog.records
