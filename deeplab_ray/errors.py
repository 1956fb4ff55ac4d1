"""The one exception that a job turns into a line for its user."""


class UserError(Exception):
    """Something that the user gave is wrong. Its text is one line: what is wrong, and what to do.

    A job prints it as `error: …` and exits with 2 (see `deeplab_ray.cli.run_job`).
    """
