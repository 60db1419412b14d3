"""A local server that speaks S3's protocol (moto's), which s3fs reaches as it reaches any other."""

import contextlib
import uuid
from collections.abc import Iterator

import pytest


class Bucket:
    """An S3 bucket of a server on this machine that can be stopped and started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from moto.server import ThreadedMotoServer

        self._new = lambda port: ThreadedMotoServer("127.0.0.1", port=port, verbose=False)
        self._server = self._new(0)
        self._server.start()
        _, self._port = self._server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            monkeypatch.setenv(name, value)
        self.name = f"shelf-{uuid.uuid4().hex[:8]}"
        self.url = f"s3://{self.name}"
        self.files().mkdir(self.name)

    def files(self):
        """Return a fresh connection, which knows nothing that another one has listed."""
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        return s3fs.S3FileSystem()

    def contents(self) -> dict[str, bytes]:
        files = self.files()
        return {name.removeprefix(f"{self.name}/"): files.cat_file(name) for name in files.find(self.name)}

    def put(self, name: str, data: bytes) -> None:
        self.files().pipe_file(f"{self.name}/{name}", data)

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server = self._new(self._port)
        self._server.start()


@contextlib.contextmanager
def local_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    pytest.importorskip("s3fs", reason="needs the extra s3")
    pytest.importorskip("moto.server", reason="needs moto's server")
    bucket = Bucket(monkeypatch)
    try:
        yield bucket
    finally:
        with contextlib.suppress(Exception):
            bucket.stop()
