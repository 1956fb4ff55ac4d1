"""Flags that are needed before a command line is parsed, since they decide what the other flags start from."""


def value_of(flag: str, argv: list[str]) -> str:
    """The value of a flag on a command line that is not parsed yet; empty if it is not there."""
    for index, argument in enumerate(argv):
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
        if argument == flag and index + 1 < len(argv):
            return argv[index + 1]
    return ""
