"""The S3 server for trying things: usable by who sources its file, by nobody else, and gone after Ctrl-C."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).parents[2] / "jobs" / "serve_s3.py"


@pytest.mark.slow
def test_what_it_keeps_is_there_after_a_restart_and_its_keys_are_new(tmp_path: Path) -> None:
    keys = set()
    for name in ("first", "second"):
        command = [sys.executable, str(JOB), "--data", str(tmp_path / "s 3"), "--bucket", "tried"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            told = re.fullmatch(r"bucket s3://tried is served; now: source (.*)\n", line)
            assert told, line
            file = Path(shlex.split(told[1])[0])
            assert file.stat().st_mode & 0o077 == 0
            keys.add(file.read_text(encoding="utf-8"))
            use = (
                "from deeplab_ray.storage.location import locate\n"
                f"(locate('s3://tried') / '{name}').write_bytes(b'kept')\n"
                "print(locate('s3://tried').files())"
            )
            shell = f"source {told[1]} && {shlex.join([sys.executable, '-c', use])}"
            listed = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
            assert listed.stdout == {"first": "['first']\n", "second": "['first', 'second']\n"}[name], listed.stderr
        finally:
            server.send_signal(signal.SIGINT)
            rest = server.communicate(timeout=30)[0]
        assert server.returncode == 0
        assert rest.startswith('RESULT {"bucket": "tried"')
        assert not file.exists()
    assert len(keys) == 2
