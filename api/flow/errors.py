"""The errors of recorded flow, one tree.

::

    FlowError
    └── UnusableInput    the file is not one of the formats, or asks for what is not built
"""


class FlowError(Exception):
    """Root of everything that this package raises on purpose."""


class UnusableInput(FlowError):
    """A file cannot be read as order flow, or as the truth about it.

    Parameters
    ----------
    path : str
        The file.
    problem : str
        What is wrong with it, and where.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem
