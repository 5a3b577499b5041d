"""What can go wrong, named once.

Every message answers three questions: what was given, what was expected, what to change. The classes exist so
that callers (command line, trainer, evaluator, server) can tell a user's mistake from a broken file without reading text.
"""


class VedereError(Exception):
    """Base of all errors that vedere raises on purpose; the command line prints it without a traceback."""


class ConfigError(VedereError):
    """A configuration names something that does not exist or has a value of the wrong kind."""


class MediaError(VedereError):
    """A picture or a video cannot be read, is too large, or is not what its name says."""


class PromptError(VedereError):
    """Template, placeholders and media of a conversation do not fit together."""


class ContextError(PromptError):
    """A prompt and its answer need more positions than the model has; raised before anything is computed."""


class RecordError(VedereError):
    """A record of a data set cannot become a sample, or a sample cannot be trained on."""


class CheckpointError(VedereError):
    """A checkpoint has missing, surplus or misshapen tensors, or cannot be read or written."""


class PackageError(VedereError):
    """A package of a public registry cannot be fetched or unpacked."""


class TrainingError(VedereError):
    """Training must stop: a non-finite loss, no trained token, or a state that cannot be resumed."""
