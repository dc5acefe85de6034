"""Running commands inside the test's own process, where a second each is saved."""

import json

from multidiff.cli.main import run


def does(capsys, *arguments):
    """What a command that succeeds printed."""
    capsys.readouterr()
    status = run([str(one) for one in arguments])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    return printed.out


def facts(capsys, *arguments):
    """The JSON object that ends the output of a command that succeeds."""
    return json.loads(does(capsys, *arguments, "--json").splitlines()[-1])


def complains(capsys, *arguments, lines=1):
    """The one line, or the lines, with which a command ends that cannot use its input."""
    capsys.readouterr()
    status = run([str(one) for one in arguments])
    printed = capsys.readouterr()
    assert status == 2, (status, printed)
    reported = printed.err.splitlines()
    assert len(reported) == lines and all(one.startswith("multidiff: ") for one in reported), (
        reported
    )
    return printed.err
