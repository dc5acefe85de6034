"""What ends a command before its end: a fault that the user can mend, and a signal."""


class InputError(ValueError):
    """What was given cannot be used.

    The message is one line that names the file or the option, the value, and the mend. The
    command line prints it and ends with status 2.

    Args:
        faults: a line each; line breaks in them, as values may have, are written out.
    """

    def __init__(self, *faults: str):
        super().__init__("\n".join("\\n".join(str(fault).splitlines()) for fault in faults))


class Interrupted(Exception):
    """Work stopped on a signal, after saving.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by signal {number}, after saving")
        self.number = number
