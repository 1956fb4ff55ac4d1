"""Both clients of S3 see the same endpoint, keys, certificates and proxy, wherever the AWS tools take them from."""

import json
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tiny
from forwarder import Forwarder, Request, make_certificates
from shared_server import SECRET, SharedServer

from deeplab_ray.errors import UserError
from deeplab_ray.shards import Manifest, Split, write_shard
from deeplab_ray.storage import s3
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import Location, locate

Be = Callable[[str], None]
PLACE = "s3://shared/team/settings"
NAME = "s3.example.invalid"


def both_work(place: Location) -> None:
    check_access(read=[place], write=[place], write_files=[place / "a"])
    (place / "a").write_bytes(b"a")
    assert (place / "a").read_bytes() == b"a"
    assert "a" in place.files()


def both_say(uri: str = PLACE) -> str:
    """Why neither can be made."""
    with pytest.raises(UserError) as refused:
        check_access(read=[locate(uri)])
    with pytest.raises(UserError) as failed:
        locate(uri).read_bytes()
    assert str(failed.value) == str(refused.value)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Writes the AWS tools' two files; nothing but they and the given variables is left in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    def write(config: str = "", credentials: str = "", **variables: str) -> None:
        (tmp_path / "config").write_text(textwrap.dedent(config))
        (tmp_path / "credentials").write_text(textwrap.dedent(credentials))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return write


KEYS = f"aws_access_key_id = team\naws_secret_access_key = {SECRET.format('team')}\n"
CONFIGS = {
    "profile": "[profile here]\nendpoint_url = {url}\n",
    "service": "[profile here]\nservices = ours\n[services ours]\ns3 =\n  endpoint_url = {url}\n",
    "keys": "[profile here]\nendpoint_url = {url}\n" + KEYS,
    "default": "[default]\nendpoint_url = {url}\n" + KEYS,
}


@pytest.mark.parametrize("case", CONFIGS)
def test_endpoint_and_keys_of_a_profile(case: str, shared_server: SharedServer, files: Callable[..., None]) -> None:
    config = CONFIGS[case].format(url=shared_server.environment["AWS_ENDPOINT_URL"])
    profile = {} if case == "default" else {"AWS_PROFILE": "here"}
    files(config, "" if KEYS in config else f"[here]\n{KEYS}", **profile)
    both_work(locate(PLACE))
    # A process that was sent a place or its filesystem finds the keys for itself.
    sent = pickle.dumps((locate(PLACE), locate(PLACE).filesystem))
    for secret in ("team-has-this-secret", os.environ["AWS_CONFIG_FILE"], "127.0.0.1"):
        assert secret.encode() not in sent
    code = f"import pickle; place, fs = pickle.loads({sent!r}); print(place.files(), fs.get_file_info(place.path).type)"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert there.stdout == "['a'] 3\n", there.stderr


def test_the_environment_goes_before_the_files(shared_server: SharedServer, files: Callable[..., None]) -> None:
    config = "[default]\nendpoint_url = http://127.0.0.1:9\nregion = eu-west-1\nca_bundle = /nowhere\n"
    environment = shared_server.environment
    del environment["AWS_ENDPOINT_URL"]
    files(config, "[default]\naws_access_key_id = x\naws_secret_access_key = x\n", **environment)
    both_work(locate(PLACE))
    assert s3.settings().region == "us-east-1"


def test_endpoints_that_are_to_be_ignored(files: Callable[..., None]) -> None:
    files("[default]\nendpoint_url = http://127.0.0.1:9\n" + KEYS, AWS_IGNORE_CONFIGURED_ENDPOINT_URLS="true")
    assert s3.settings().endpoint is None


def test_a_file_that_changes_is_read_again(shared_server: SharedServer, files: Callable[..., None]) -> None:
    config = f"[default]\nendpoint_url = {shared_server.environment['AWS_ENDPOINT_URL']}\n"
    files(config, KEYS.replace("team", "stranger").join(("[default]\n", "")))
    with pytest.raises(UserError, match="refuses these keys"):
        check_access(read=[locate(PLACE)])
    files(config, f"[default]\n{KEYS}")
    both_work(locate(PLACE))


def keys_that_expire(folder: Path) -> tuple[Be, str]:
    """Gives a person's keys for a minute, so that they are renewed at once; and the profile's line that finds them."""

    def give(name: str) -> None:
        keys = {"Version": 1, "AccessKeyId": name, "SecretAccessKey": SECRET.format(name), "SessionToken": ""}
        expires = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
        (folder / "keys").write_text(json.dumps({**keys, "Expiration": expires}))

    return give, f"credential_process = cat {folder / 'keys'}\n"


def test_keys_that_expire_are_renewed(shared_server: SharedServer, files: Callable[..., None], tmp_path: Path) -> None:
    """Also in a filesystem that was made before, such as Ray Train's."""
    give, process = keys_that_expire(tmp_path)
    give("reader")
    files(f"[default]\nendpoint_url = {shared_server.environment['AWS_ENDPOINT_URL']}\n{process}")
    place, filesystem = locate(PLACE), locate(PLACE).filesystem
    check_access(read=[place])
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        (place / "b").write_bytes(b"b")
    give("team")
    with filesystem.open_output_stream((place / "b").path) as stream:
        stream.write(b"b")
    both_work(place)


def test_a_shard_that_is_open_is_read_on_with_renewed_keys(
    shared_server: SharedServer, files: Callable[..., None], tmp_path: Path
) -> None:
    give, process = keys_that_expire(tmp_path)
    expired: set[str] = set()

    def refuse(request: Request, status: int) -> tuple[int, str] | None:
        is_expired = any(f"Credential={name}/" in request.headers["Authorization"] for name in expired)
        return (403, "<Error><Code>ExpiredToken</Code></Error>") if is_expired else None

    with Forwarder(shared_server.environment["AWS_ENDPOINT_URL"].removeprefix("http://"), refuse=refuse) as server:
        files(f"[default]\nendpoint_url = {server.url}\n{process}")
        give("team")
        rows = [{"id": str(i), "image": b"i", "label": b"l", "height": 1, "width": 1} for i in range(2)]
        folder = locate("s3://shared/team/split")
        shard = write_shard(folder / "shards", "0.parquet", rows)
        assert shard
        split = Split(folder, Manifest("scenes", "train", tiny.classes(2), [0, 0], [shard], []))
        assert split.read(0).id == "0"
        give("reader")
        expired.add("team")
        assert split.read(1).id == "1"


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE", "profile"])
def test_a_private_ca(
    variable: str,
    shared_server: SharedServer,
    files: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ca, certificate = make_certificates(tmp_path, NAME)
    target = shared_server.environment["AWS_ENDPOINT_URL"].removeprefix("http://")
    with Forwarder(target, certificate) as server:
        files("", f"[default]\n{KEYS}", AWS_ENDPOINT_URL=server.url)
        with pytest.raises(UserError, match=r"a certificate that .* does not vouch for: set AWS_CA_BUNDLE"):
            check_access(read=[locate(PLACE)])
        with pytest.raises(OSError, match="curlCode: 60"):
            locate(PLACE).files()
        assert server.requests == []
        if variable == "profile":
            files(f"[default]\nca_bundle = {ca}\n", f"[default]\n{KEYS}")
        else:
            monkeypatch.setenv(variable, str(ca))
        both_work(locate(PLACE))
        assert server.clients == {"botocore", "pyarrow"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTP_PROXY", "{url}"),
        ("http_proxy", "{address}"),
        ("ALL_PROXY", "{url}"),
        ("HTTP_PROXY", "http://me:p%40ss@{address}"),
    ],
)
def test_a_proxy(
    variable: str,
    value: str,
    shared_server: SharedServer,
    files: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = shared_server.environment["AWS_ENDPOINT_URL"]
    with Forwarder(endpoint.removeprefix("http://")) as proxy:
        # Of a name that nobody but the proxy could reach.
        files("", f"[default]\n{KEYS}", AWS_ENDPOINT_URL=f"http://{NAME}")
        monkeypatch.setenv(variable, value.format(url=proxy.url, address=proxy.address))
        both_work(locate(PLACE))
        assert proxy.clients == {"botocore", "pyarrow"}
        said = {request.headers.get("Proxy-Authorization") for request in proxy.requests}
        assert said == ({"Basic bWU6cEBzcw=="} if "@" in value else {None})
        assert "p@ss" not in repr(s3.settings())
        assert "p%40ss" not in repr(s3.settings())
        proxy.requests.clear()

        monkeypatch.setenv("NO_PROXY", f"other, {NAME}")
        with pytest.raises(UserError, match="cannot be reached"):
            check_access(read=[locate(PLACE)])
        with pytest.raises(OSError, match="resolve host"):
            locate(PLACE).files()
        monkeypatch.delenv("NO_PROXY")
        # No proxy is asked for the way to this machine.
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        both_work(locate(PLACE))
        # Another package of this process may call home through it, by CONNECT.
        assert [request for request in proxy.requests if request.method != "CONNECT"] == []


def test_a_proxy_on_the_way_to_a_private_ca(
    shared_server: SharedServer, files: Callable[..., None], tmp_path: Path
) -> None:
    ca, certificate = make_certificates(tmp_path, NAME)
    target = shared_server.environment["AWS_ENDPOINT_URL"].removeprefix("http://")
    with Forwarder(target, certificate) as server, Forwarder(server.address) as proxy:
        variables = {"AWS_ENDPOINT_URL": f"https://{NAME}", "AWS_CA_BUNDLE": str(ca), "HTTPS_PROXY": proxy.url}
        files("", f"[default]\n{KEYS}", **variables)
        both_work(locate(PLACE))
        assert {(request.method, request.target) for request in proxy.requests} == {("CONNECT", f"{NAME}:443")}
        assert server.clients == {"botocore", "pyarrow"}


@pytest.mark.parametrize(
    ("config", "variables", "says"),
    [
        ("", {"AWS_ENDPOINT_URL_S3": "127.0.0.1:9000"}, "write http://host:port or https://host in AWS_ENDPOINT_URL"),
        ("[default]\nendpoint_url = ftp://x\n", {}, "the S3 endpoint is 'ftp://x'"),
        ("[default]\nservices = none\n", {"AWS_ENDPOINT_URL": ""}, "names no section [services none]"),
        ("", {"AWS_REGION": "not a region!"}, "'not a region!' is no region's name"),
        ("[default]\nregion = über\n", {}, "'über' is no region's name"),
        ("[half\n", {}, "fix the file, or point AWS_CONFIG_FILE to another"),
        ("", {"AWS_PROFILE": "absent"}, "AWS_PROFILE names a profile that does not exist"),
        ("", {"AWS_CA_BUNDLE": "/nowhere/ca.pem"}, "there is no file /nowhere/ca.pem of CA certificates"),
        ("", {"HTTPS_PROXY": "socks5://me:hush@x:1"}, "behind a proxy that cannot be used (HTTPS_PROXY or ALL_PROXY)"),
        ("", {"AWS_SECRET_ACCESS_KEY": ""}, "set AWS_ACCESS_KEY_ID"),
        ("", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "set AWS_ACCESS_KEY_ID"),
        (
            "[default]\ncredential_process = false\n",
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            "the AWS settings give no keys",
        ),
    ],
)
def test_settings_that_cannot_be_used(
    config: str, variables: dict[str, str], says: str, files: Callable[..., None]
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "team", "AWS_SECRET_ACCESS_KEY": "hush"}
    files(config, **{**keys, **variables})
    said = both_say()
    assert says in said
    assert "hush" not in said


def test_what_has_no_use_for_s3_does_not_load_its_client() -> None:
    code = "import sys, deeplab_ray.storage.access; print({'botocore', 'boto3', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr
