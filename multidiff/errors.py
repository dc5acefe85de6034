"""The one error that is the user's to mend."""


class InputError(ValueError):
    """What was given cannot be used.

    The message is one line that names the file or the option, the value, and the mend. The
    command line prints it and ends with status 2.
    """
