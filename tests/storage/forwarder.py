"""A server that hands requests on to another: as a proxy, as an endpoint with TLS, or as one with ways of its own."""

import http.client
import select
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_NOT_FORWARDED = {"connection", "proxy-connection", "proxy-authorization", "transfer-encoding", "expect"}


@dataclass
class Request:
    """What was asked."""

    method: str
    target: str
    """As in the first line: a path, a whole URL (of a proxy), or host:port (of CONNECT)."""
    headers: http.client.HTTPMessage


@dataclass
class Forwarder:
    """Listens at `url` inside a `with`, hands everything on to host:port `target`, remembers what was asked."""

    target: str
    certificate: Path | None = None
    """PEM file with certificate and key: then it speaks TLS."""
    refuse: Callable[[Request, int], tuple[int, str] | None] = lambda request, status: None
    """May replace an answer, whose status it is given, by another status and body."""
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        outer = self

        class Handler(_Handler):
            forwarder = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{'https' if self.certificate else 'http'}://{self.address}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def clients(self) -> set[str]:
        """Which of the two have asked."""
        agents = (request.headers.get("User-Agent", "").lower() for request in self.requests)
        return {"botocore" if "botocore" in agent else "pyarrow" for agent in agents if "aws-sdk-cpp" in agent or agent}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    forwarder: Forwarder

    def _forward(self) -> None:
        request = Request(self.command, self.path, self.headers)
        self.forwarder.requests.append(request)
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        body = self._read_chunks() if chunked else self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection(self.forwarder.target, timeout=30)
        url = urlsplit(self.path)
        path = url.path + (f"?{url.query}" if url.query else "")
        connection.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _NOT_FORWARDED:
                connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders((body,), encode_chunked=True)
        else:
            connection.endheaders(body)
        answer = connection.getresponse()
        content, status, headers = answer.read(), answer.status, answer.getheaders()
        connection.close()
        if other := self.forwarder.refuse(request, status):
            status, text = other
            content, headers = text.encode(), [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if status != 204 and "content-length" not in {name.lower() for name, _ in headers}:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _read_chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return content

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward

    def do_CONNECT(self) -> None:
        self.forwarder.requests.append(Request(self.command, self.path, self.headers))
        host, port = self.forwarder.target.split(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response_only(200)
            self.end_headers()
            ends = {self.connection: there, there: self.connection}
            while ready := select.select(list(ends), [], [], 30)[0]:
                for end in ready:
                    if not (data := end.recv(65536)):
                        self.close_connection = True
                        return
                    ends[end].sendall(data)

    def log_message(self, *_: object) -> None:
        pass


def make_certificates(folder: Path, name: str) -> tuple[Path, Path]:
    """A private CA's certificate, and a certificate that it signed for host `name` and 127.0.0.1, with its key."""
    now = datetime.now(UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a private CA")])

    def start(subject: x509.Name, of: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(of.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )

    ca = start(ca_name, ca_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    host = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ip_address("127.0.0.1"))])
    signed = start(host, key).add_extension(names, critical=False).sign(ca_key, hashes.SHA256())
    ca_file, server_file = folder / "ca.pem", folder / "server.pem"
    pem = serialization.Encoding.PEM
    ca_file.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    server_file.write_bytes(signed.public_bytes(pem) + private)
    return ca_file, server_file
