import pytest

from ti_pipeline.e621.client import SiteError
from ti_pipeline.resources import E621Site


@pytest.mark.parametrize(
    ("rate", "words"),
    [("3", "limit is 2"), ("0", "not allowed"), ("fast", "TI_E621_PER_SECOND is 'fast'"), ("nan", "not allowed")],
)
def test_the_rate_of_the_environment_cannot_be_an_unmannerly_one(monkeypatch, rate, words):
    monkeypatch.setenv("TI_E621_USERNAME", "tester")
    monkeypatch.setenv("TI_E621_PER_SECOND", rate)
    with pytest.raises(SiteError, match=words):
        E621Site().client()


def test_credentials_come_from_the_environment_and_are_not_shown(monkeypatch):
    monkeypatch.setenv("TI_E621_USERNAME", "tester")
    monkeypatch.setenv("TI_E621_API_KEY", "secret-key-123")
    site = E621Site(url="http://127.0.0.1:9")
    client = site.client()
    assert client.logged_in
    assert "secret-key-123" not in f"{site!r} {site.model_dump()} {client!r}"
