"""What can go wrong, for callers to catch: few and exact."""


class MagrtError(RuntimeError):
    """Base of every error that mag_rt raises on purpose; the message is one line for a person."""


class BundleError(MagrtError):
    """The model bundle is missing, damaged, incomplete or of a newer format."""


class BackendError(MagrtError):
    """What is to run the network is not installed or cannot do what it was asked for."""


class SourceError(MagrtError):
    """A source that does not exist, or sources in which there is nothing to scan."""


class ResultsError(MagrtError):
    """A folder holds results that are in the way, of another scan, or damaged."""


class PictureError(MagrtError):
    """A picture or video that cannot be read. `kind` is an error type of docs/formats.md, as `truncated`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
