"""The errors of the core, one tree.

::

    EngineError
    ├── StateError            load: the arrays are not a state
    ├── Tainted               an earlier violation; only dump still answers
    └── InvariantViolation    the state contradicts itself

Wrong argument types raise TypeError or ValueError, before anything is touched.
A command that the rules refuse raises nothing: it is answered by REJECTED.
"""


class EngineError(Exception):
    """Root of everything that this package raises on purpose."""


class StateError(EngineError):
    """`load` was given arrays that are not a state.

    Parameters
    ----------
    section : str
        Section of the state (`types.SECTIONS`) in which it was seen.
    problem : str
        What is wrong with it.
    """

    def __init__(self, section: str, problem: str) -> None:
        super().__init__(f"section {section}: {problem}; restore an older checkpoint")
        self.section = section
        self.problem = problem

    def __reduce__(self) -> tuple[type["StateError"], tuple[str, str]]:
        return type(self), (self.section, self.problem)


class Tainted(EngineError):
    """The engine broke an invariant earlier and refuses to go on.

    Only `dump` still answers, for the post-mortem.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(f"tainted by an earlier failure ({cause}); recover from the log in a new process")
        self.cause = cause

    def __reduce__(self) -> tuple[type["Tainted"], tuple[str]]:
        return type(self), (self.cause,)


class InvariantViolation(EngineError):
    """Two quantities that are kept apart and must agree do not.

    Parameters
    ----------
    invariant : str
        "I1" to "I9", as in README.
    sequence : int
        The command after which it was seen.
    account, asset : int
        Where; 0 where that has no meaning (I5, I6: `asset` is the market).
    delta : int
        How far the two are apart.
    """

    def __init__(self, invariant: str, sequence: int, account: int, asset: int, delta: int) -> None:
        super().__init__(
            f"invariant {invariant} broken at sequence {sequence}: "
            f"account {account}, asset {asset}, off by {delta}; trading must halt"
        )
        self.invariant = invariant
        self.sequence = sequence
        self.account = account
        self.asset = asset
        self.delta = delta

    def __reduce__(self) -> tuple[type["InvariantViolation"], tuple[str, int, int, int, int]]:
        return type(self), (self.invariant, self.sequence, self.account, self.asset, self.delta)
