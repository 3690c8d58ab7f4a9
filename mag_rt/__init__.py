"""mag_rt finds which pixels of a photograph were pasted in from another one.

from mag_rt import Scanner

with Scanner() as scanner:
    for finding in scanner.scan(["inbox/"]):
        print(finding.source, finding.verdict, finding.score)
"""

from mag_rt.errors import BackendError, BundleError, MagrtError, PictureError, ResultsError, SourceError
from mag_rt.findings import Failure, Finding, Region, SeenObject
from mag_rt.scanner import Scanner
from mag_rt.video import Sampling

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "BundleError",
    "Failure",
    "Finding",
    "MagrtError",
    "PictureError",
    "Region",
    "ResultsError",
    "Sampling",
    "Scanner",
    "SeenObject",
    "SourceError",
]
