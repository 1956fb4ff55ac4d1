"""A real S3 server on this machine, to try the path through S3 without a cloud account.

uv run jobs/serve_s3.py --data s3-data --bucket demo &
source s3-data/environment
"""

import dataclasses
import shlex
import signal
import threading
from pathlib import Path
from typing import Any

from deeplab_ray import cli, presets
from deeplab_ray.embedded_s3 import EmbeddedS3
from deeplab_ray.storage import locate


@dataclasses.dataclass(frozen=True)
class Args:
    data: str = "s3-data"
    """Local folder that keeps the objects, and the file `environment` with this server's address and keys."""
    bucket: str = "demo"
    """Bucket to make."""


def main() -> dict[str, Any]:
    args = cli.parse(
        Args,
        prog="serve_s3.py",
        description="Serve a folder as S3 (SeaweedFS) on loopback until it is interrupted. Its keys are new at every "
        "start: source the file `environment` in --data before other jobs.\n\nPresets, for jobs/train.py:\n"
        f"{presets.overview()}",
    )
    folder = Path(locate(args.data).path)
    folder.mkdir(parents=True, exist_ok=True)
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    with EmbeddedS3(folder / "objects") as server:
        server.make_bucket(args.bucket)
        environment = folder / "environment"
        environment.touch(mode=0o600)
        environment.write_text("".join(f"export {k}='{v}'\n" for k, v in server.environment.items()))
        print(f"bucket s3://{args.bucket} is served; now: source {shlex.quote(str(environment))}", flush=True)
        interrupted.wait()
    environment.unlink()
    return {"bucket": args.bucket, "data": str(folder)}


if __name__ == "__main__":
    cli.run_job(main)
