"""An S3 server that knows several people's keys."""

import json
from pathlib import Path

from deeplab_ray.local.s3_server import EmbeddedS3

RIGHTS = {
    "team": ["Read:shared/team/*", "Write:shared/team/*", "List:shared/team/*"],
    "reader": ["Read:shared/team/*", "List:shared/team/*"],
    "one-file": ["Read:shared/team/weights*"],
}
SECRET = "{}-has-this-secret"


class SharedServer(EmbeddedS3):
    """Beside the owner's keys it knows those of RIGHTS, by their names."""

    def _write_keys(self, path: Path) -> Path:
        file = super()._write_keys(path)
        known = json.loads(file.read_text())
        known["identities"] += [
            {
                "name": name,
                "credentials": [{"accessKey": name, "secretKey": SECRET.format(name)}],
                "actions": rights,
            }
            for name, rights in RIGHTS.items()
        ]
        file.write_text(json.dumps(known))
        return file
