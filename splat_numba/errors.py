"""Exceptions, and a warning. Every message names the argument or row, what was wanted, what came, and the next step."""


class SplatError(Exception):
    """Base of all errors raised by splat_numba."""


class PatternError(SplatError, ValueError):
    """A pattern's parameters are impossible, or do not fit the sequence lengths."""


class PatternTypeError(PatternError, TypeError):
    """A pattern's parameter has the wrong type."""


class FormatError(SplatError, ValueError):
    """A mask or its stored form (ACSR, CSR, dense) is malformed."""


class FormatTypeError(FormatError, TypeError):
    """A mask's arrays have the wrong type."""


class ArgumentError(SplatError, ValueError):
    """An operator's argument has the wrong shape or value."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An operator's argument has the wrong type or dtype."""


class PlanError(SplatError):
    """No plan exists for the problem on the chosen target."""


class CompileError(SplatError):
    """Generated source did not compile; the message names the file and the plan."""


class BackendError(SplatError):
    """The backend or target is unknown or not available on this machine."""


class AlignmentWarning(UserWarning):
    """A causal mask with fewer queries than keys, and not aligned at the end: the wrong keys, if this is decoding."""


class EmulationError(SplatError):
    """An emulated kernel did what hardware would hide, or can never end; the message says what, and in which line."""
