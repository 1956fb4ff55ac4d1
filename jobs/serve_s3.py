"""Run a real S3 server on this machine, to try the path through S3 without a cloud account.

uv run jobs/serve_s3.py --data s3-data --bucket demo &
source s3-data/environment
"""

import dataclasses
import shlex
import signal
import threading
from pathlib import Path
from typing import Any

from deeplab_ray import cli
from deeplab_ray.errors import UserError
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.storage.access import check_folder
from deeplab_ray.storage.location import locate


@dataclasses.dataclass(frozen=True)
class Args:
    data: str = "s3-data"
    """Local folder for the objects, and for the file `environment` with the server's address and keys."""
    bucket: str = "demo"
    """Bucket to make, unless it exists."""


def main() -> dict[str, Any]:
    args = cli.parse(
        Args,
        prog="serve_s3.py",
        description="Serve a folder as S3 (SeaweedFS) on loopback until interrupted. The keys are new at every start: "
        "source the file `environment` in --data before other jobs.",
    )
    place = locate(args.data)
    if place.is_s3:
        raise UserError(f"--data {args.data} is on S3 already: give a local folder")
    check_folder(place)
    folder = Path(place.path)
    folder.mkdir(parents=True, exist_ok=True)
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    with EmbeddedS3(folder / "objects") as server:
        server.make_bucket(args.bucket)
        environment = folder / "environment"
        environment.touch()
        environment.chmod(0o600)
        lines = ["unset AWS_PROFILE", *(f"export {k}='{v}'" for k, v in server.environment.items())]
        environment.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        print(f"bucket s3://{args.bucket} is served; now: source {shlex.quote(str(environment))}", flush=True)
        try:
            while not interrupted.wait(1):
                server.check_alive()
        finally:
            environment.unlink()
    return {"bucket": args.bucket, "data": str(folder)}


if __name__ == "__main__":
    cli.run_job(main)
