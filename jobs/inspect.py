"""Tell what a prepared set holds, as text and as a page with samples; verify that its shards are whole.

    uv run jobs/inspect.py s3://bucket/camvid --output camvid.html
    uv run jobs/inspect.py s3://bucket/camvid --verify
    uv run jobs/inspect.py s3://bucket/camvid --split train --against val --output difference.html

It needs no Ray, and does not read all of the set unless it is to verify it.
"""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

if __name__ == "inspect":
    # Python looks into the folder of the script that it runs first, so that this file is found by whoever imports
    # `inspect` of the standard library in any job. That one takes this one's place.
    standard = PathFinder.find_spec("inspect", [os.path.dirname(os.__file__)])
    assert standard
    assert standard.loader
    sys.modules["inspect"] = module_from_spec(standard)
    standard.loader.exec_module(sys.modules["inspect"])
else:
    import dataclasses
    from typing import Any

    from tyro.conf import Positional

    from deeplab_ray import cli
    from deeplab_ray.errors import JobError, UserError
    from deeplab_ray.storage.access import check_access
    from deeplab_ray.storage.location import locate

    @dataclasses.dataclass(frozen=True)
    class Args:
        uri: Positional[str]
        """A prepared set (the --output of jobs/prepare.py), or the folder of one of its splits: a local path or s3://
        URI."""
        split: str = ""
        """Split to look at. Empty: all of them."""
        output: str = ""
        """HTML file to write: a local path or s3:// URI. Empty: only the text is printed."""
        samples: int = 12
        """Images of each split that the page shows, drawn at random."""
        seed: int = 0
        """What they are drawn by, and the shards of which sizes and ids are read if a split is very large."""
        verify: bool = False
        """Read every shard and compare its sha256 with the manifest's; exit code 1 if one is damaged or missing."""
        against: str = ""
        """Another split of the set, to compare with."""

    def main() -> dict[str, Any]:
        args = cli.parse(
            Args,
            prog="inspect.py",
            description="Tell what a prepared set holds, as text and as a page: counts, classes, sizes, samples with "
            "their labels; verify its shards; compare two splits.",
        )
        if args.samples < 0 or args.seed < 0:
            raise UserError("--samples and --seed must not be negative")
        page = locate(args.output) if args.output else None
        check_access(read=[locate(args.uri)], write_files=[page] if page else [])
        from deeplab_ray.report.inspection import format_text, inspect, write_page

        found = inspect(
            args.uri,
            args.split or None,
            args.against or None,
            args.samples if page else 0,
            args.seed,
            args.verify,
            cli.say,
        )
        print(format_text(found), flush=True)
        if page:
            page.write_bytes(write_page(found).encode())
        if found.problems:
            raise JobError(
                f"{len(found.problems)} shards of {args.uri} are damaged or missing ({found.problems[0]}): copy them "
                "again from where they are whole, or prepare the set again with --overwrite"
            )
        return {
            "splits": {
                each.name: {
                    "images": each.manifest.images,
                    "labelled": each.manifest.labelled,
                    "shards": len(each.manifest.shards),
                    "bytes": each.bytes,
                    "digest": each.manifest.digest,
                }
                for each in found.facts
            },
            "verified": args.verify,
            "page": page and page.uri,
        }


if __name__ == "__main__":
    cli.run_job(main)
