"""How S3 is reached: one answer for both clients, botocore (it tells what is wrong) and pyarrow (it moves the data).

Endpoint, region, keys, CA certificates and proxy come from where the AWS tools look for them:

    endpoint  AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, endpoint_url of the profile or of its `services` section
    region    AWS_REGION, AWS_DEFAULT_REGION, region of the profile
    keys      AWS_ACCESS_KEY_ID …, the profile (AWS_PROFILE) with its keys, process, role or SSO, a role of the machine
    CA        AWS_CA_BUNDLE, ca_bundle of the profile, SSL_CERT_FILE, the system's certificates, botocore's
    proxy     HTTPS_PROXY or HTTP_PROXY by the endpoint's scheme, ALL_PROXY, NO_PROXY; none for this machine itself

Every process finds them out for itself, so that no secret is ever pickled into a task, printed, or saved with a config.
"""

import ipaddress
import os
import ssl
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from pyarrow import fs

from deeplab_ray.errors import UserError

if TYPE_CHECKING:
    from botocore.session import Session

NO_KEYS = "no S3 keys found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"

_DEFAULT_REGION = "us-east-1"
_TIMEOUT_S = 30
# Of Debian, Red Hat, SUSE, Alpine and macOS, for a Python that was built elsewhere and looks for them elsewhere.
_SYSTEM_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
# Sources of keys that pyarrow's own chain finds, too. It renews them also for files that are open already.
_FOUND_BY_PYARROW = ("env", "iam-role", "container-role", "assume-role-with-web-identity")
_PROXY_PORTS = {"http": 80, "https": 443}
_VARIABLES = ("SSL_CERT_FILE", "HOME", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Settings:
    """What both clients are made of."""

    endpoint: str | None
    """http://host[:port] or https://…, or None for AWS itself."""
    region: str | None
    """None: whatever the clients take for AWS."""
    ca_file: str | None
    """Certificates in PEM format that an https endpoint is checked against; None for an http endpoint."""
    proxy: str | None = field(repr=False)
    """URL of the proxy on the way, with its user and password if it has any."""
    virtual_hosts: bool
    """Whether the bucket stands in the host's name at an endpoint other than AWS's."""
    session: "Session" = field(repr=False)
    """Where botocore takes the keys from."""

    @property
    def where(self) -> str:
        """The endpoint, in words for a message."""
        return self.endpoint or "AWS"


def settings() -> Settings:
    """How this process reaches S3, by its environment and the files that it names, as they are now.

    Raises UserError, naming what is wrong, for a broken file, an unknown profile, missing keys, and an endpoint,
    region, CA file or proxy that cannot be used.
    """
    named = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
    files = [Path(os.environ.get(name) or default).expanduser() for name, default in named.items()]
    environment = {
        name: value for name, value in os.environ.items() if name.startswith("AWS_") or name.upper() in _VARIABLES
    }
    return _settings(frozenset(environment.items()), tuple(map(_changed, files)))


def _changed(file: Path) -> int:
    """When the file was last changed, in nanoseconds; 0 if there is none."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=4)
def _settings(environment: frozenset[tuple[str, str]], files: tuple[int, ...]) -> Settings:
    """The arguments are what the answer depends on: as long as they stay, so does the answer."""
    import botocore.session
    from botocore import exceptions
    from botocore.utils import validate_region_name

    session = botocore.session.Session()
    try:
        profile = session.get_scoped_config()
        endpoint = _endpoint(session, profile)
        region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
        region = region or (_DEFAULT_REGION if endpoint else None)
        if region:
            validate_region_name(region)
        if session.get_credentials() is None:
            raise UserError(NO_KEYS)
    except exceptions.ProfileNotFound:
        raise UserError("AWS_PROFILE names a profile that does not exist: correct or unset it") from None
    except exceptions.ConfigParseError as error:
        raise UserError(f"{error}: fix the file, or point AWS_CONFIG_FILE to another") from None
    except exceptions.InvalidRegionError:
        raise UserError(
            f"{region!r} is no region's name: correct AWS_REGION, AWS_DEFAULT_REGION or the profile's region"
        ) from None
    except exceptions.PartialCredentialsError:
        raise UserError(NO_KEYS) from None
    except exceptions.BotoCoreError as error:
        raise UserError(no_keys(error)) from None
    url = endpoint or f"https://s3.{region or _DEFAULT_REGION}.amazonaws.com"
    style = profile["s3"].get("addressing_style") if isinstance(profile.get("s3"), dict) else None
    return Settings(
        endpoint,
        region,
        ca_file=_ca_file(session) if url.startswith("https://") else None,
        proxy=_proxy(url),
        virtual_hosts=style == "virtual" and not _ip_address(urlsplit(url).hostname or ""),
        session=session,
    )


def _endpoint(session: "Session", profile: dict[str, Any]) -> str | None:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint and not session.get_config_variable("ignore_configured_endpoint_urls"):
        endpoint = _service(session, profile).get("endpoint_url") or profile.get("endpoint_url")
    if not endpoint:
        return None
    if not _is_url(endpoint, ("http", "https")):
        raise UserError(
            f"the S3 endpoint is {endpoint!r}: write http://host:port or https://host in AWS_ENDPOINT_URL or in the "
            "profile's endpoint_url"
        )
    return endpoint.rstrip("/")


def _service(session: "Session", profile: dict[str, Any]) -> dict[str, str]:
    """What the profile's `services` section says of S3."""
    if not (name := profile.get("services")):
        return {}
    section = session.full_config.get("services", {}).get(name)
    if section is None:
        raise UserError(f"the profile's services = {name!r} names no section [services {name}]: add or correct it")
    return section.get("s3", {})


def _ca_file(session: "Session") -> str:
    chosen = session.get_config_variable("ca_bundle")
    if chosen:
        if not os.path.isfile(chosen):
            raise UserError(f"there is no file {chosen} of CA certificates: correct AWS_CA_BUNDLE or unset it")
        return chosen
    # SSL_CERT_FILE, or where this Python's OpenSSL looks.
    usual = ssl.get_default_verify_paths().cafile
    found = next((file for file in (usual, *_SYSTEM_CA_FILES) if file and os.path.isfile(file)), None)
    if found:
        return found
    from botocore.httpsession import where

    return where()


def _proxy(url: str) -> str | None:
    address = urlsplit(url)
    ip = _ip_address(address.hostname or "")
    # No proxy reaches this machine by such a name.
    if (ip and ip.is_loopback) or proxy_bypass(address.netloc):
        return None
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not _is_url(proxy, tuple(_PROXY_PORTS)):
        raise UserError(
            f"S3 at {url} is behind a proxy that cannot be used ({address.scheme.upper()}_PROXY or ALL_PROXY): write "
            "http://host:port, or name the endpoint's host in NO_PROXY"
        )
    return proxy


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        return None


def client() -> Any:
    """botocore's client of S3. Raises UserError as `settings` does."""
    return _client(settings())


@lru_cache(maxsize=4)
def _client(current: Settings) -> Any:
    from botocore.config import Config

    options = Config(
        connect_timeout=5,
        read_timeout=10,
        retries={"total_max_attempts": 2},
        proxies=dict.fromkeys(_PROXY_PORTS, current.proxy) if current.proxy else {},
    )
    return current.session.create_client(
        "s3", region_name=current.region, endpoint_url=current.endpoint, verify=current.ca_file, config=options
    )


def filesystem() -> fs.S3FileSystem:
    """pyarrow's client of S3. Do not pickle it, for it may hold keys. Raises UserError as `settings` does."""
    current = settings()
    return _filesystem(current, _keys(current))


def _keys(current: Settings) -> tuple[str, str, str | None] | None:
    """Access key, secret key and session token, valid for some minutes at least; None if pyarrow finds the same."""
    from botocore.exceptions import BotoCoreError

    found = current.session.get_credentials()
    if found is None:
        raise UserError(NO_KEYS)
    if found.method in _FOUND_BY_PYARROW:
        return None
    try:
        keys = found.get_frozen_credentials()
    except BotoCoreError as error:
        raise UserError(no_keys(error)) from None
    return keys.access_key, keys.secret_key, keys.token


@lru_cache(maxsize=4)
def _filesystem(current: Settings, keys: tuple[str, str, str | None] | None) -> fs.S3FileSystem:
    options: dict[str, Any] = {
        "connect_timeout": _TIMEOUT_S,
        "request_timeout": _TIMEOUT_S,
        "force_virtual_addressing": current.virtual_hosts,
        # Parts written in the background wait for the threads that `copy_files` takes (Arrow issue 32372).
        "background_writes": False,
    }
    if keys:
        options["access_key"], options["secret_key"], options["session_token"] = keys
    if current.endpoint:
        options["scheme"], _, options["endpoint_override"] = current.endpoint.partition("://")
    if current.region:
        options["region"] = current.region
    if current.ca_file:
        options["tls_ca_file_path"] = current.ca_file
    if current.proxy:
        proxy = urlsplit(current.proxy)
        options["proxy_options"] = {
            "scheme": proxy.scheme,
            "host": proxy.hostname,
            "port": proxy.port or _PROXY_PORTS[proxy.scheme],
            "username": unquote(proxy.username or ""),
            "password": unquote(proxy.password or ""),
        }
    return fs.S3FileSystem(**options)


def no_keys(error: Exception) -> str:
    """What to say if botocore cannot get keys from where the settings say."""
    reason = " ".join(str(error).split())
    return f"the AWS settings give no keys ({reason}): correct the profile, or set AWS_ACCESS_KEY_ID"
