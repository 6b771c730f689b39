"""Finding the globals that functions change, by reading source that is never run.

A tool beside the package: it may import nothing of it.

``scopes`` tells whose a name is, ``changes`` what a piece of source changes, ``sources`` reads the files,
``names`` follows imports between them. ``uses`` brings these together; ``findings`` and ``private`` judge,
``advice`` says what to write, ``report`` is the text.
"""

from .report import Report, scan

__all__ = ["Report", "scan"]
