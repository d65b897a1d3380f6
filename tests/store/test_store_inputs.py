"""Models and stamps in an object store: copied once per machine, known by what the store says of them."""

import shutil

import pytest
from s3_server import BUCKET
from toy_stamps import make_stamps

from lenspipe.errors import ConfigError
from lenspipe.nn.card import digest, find_model
from lenspipe.nn.checkpoint import load_model
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.models import choose_readers
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.joined import absolute, digest_of_data, open_stamps, parse_sources
from lenspipe.store.objects import write_bytes
from lenspipe.survey.layout import read_layout


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(folder, url):
    for path in folder.iterdir():
        write_bytes(f"{url}/{path.name}", path.read_bytes())


def test_a_model_in_a_store_is_the_model_and_is_fetched_once(s3, tiny_model):
    url = f"s3://{BUCKET}/models/tiny"
    put(tiny_model, url)
    with s3.counted():
        folder = find_model(url)
        assert digest(folder) == digest(tiny_model)
        first = s3.gets
        load_model(find_model(url))
    assert s3.gets == first > 0
    config = ScanConfig.model_validate({"score": {"model": url}})
    (reader,) = choose_readers(config, ("g", "r", "i"), read_layout("generic")).readers
    assert reader.digest == digest(tiny_model)
    shutil.rmtree(folder)  # as on a node that was not there when the scan began
    assert load_model(folder)[1].name == "tiny"
    with pytest.raises(ConfigError, match="nothing at this URL"):
        find_model(f"s3://{BUCKET}/models/none")


def test_a_model_that_is_replaced_in_its_store_is_another_and_a_run_underway_does_not_take_it(s3, tiny_model):
    url = f"s3://{BUCKET}/models/replaced"
    put(tiny_model, url)
    before = find_model(url)
    card = (tiny_model / "card.json").read_text()
    write_bytes(f"{url}/card.json", card.replace('"tiny"', '"other"').encode())
    assert find_model(url) != before
    shutil.rmtree(before)
    with pytest.raises(ConfigError, match="has changed since the work began"):
        load_model(before)


def test_stamps_in_a_store_are_the_stamps(s3, tmp_path):
    make_stamps(tmp_path / "stamps", 12, bands=("g", "r", "i"), size=17)
    url = f"s3://{BUCKET}/stamps"
    put(tmp_path / "stamps", url)
    here, there = StampSet.open(tmp_path / "stamps"), open_stamps(parse_sources([url]))
    assert digest_of_data(here) == digest_of_data(there) and here.n == there.n
    sources = parse_sources([f"{url}:2", str(tmp_path / "stamps")])
    assert [source.path for source in absolute(sources)] == [url, str(tmp_path / "stamps")]
