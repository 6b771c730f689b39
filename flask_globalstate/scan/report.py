"""What was found, as text for a terminal."""

from __future__ import annotations

import ast
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import click

from .advice import Advice, advise
from .findings import MISSING, NONE, Finding, Judge
from .names import Names
from .private import Private, private_things
from .sources import Module, Unreadable, read_modules
from .uses import Use, Uses
from .values import CALL, COUNT, OBJECT, UNKNOWN

MAX_USES = 3
WIDTH = 100
#: what is said of a kind that is no type
WORDS = {
    NONE: "",
    MISSING: "made by functions only",
    UNKNOWN: "",
    CALL: "the result of a call",
    COUNT: "an itertools.count",
    OBJECT: "an object",
}
UNKNOWABLE = """\
What reading can't tell: whether a global is changed after it was returned, kept in an object, or handed
to code outside of PATH; what is changed through a local name that is bound more than once; what setattr,
globals() and exec do; what objects of your own classes and of
libraries do with themselves; what modules outside of PATH do. Nor what is meant: a function that runs
only while modules are imported leaves the same in every worker, a flag like "is set up" may be right as
each worker's own, and connections, locks, threads and open files can't be shared at all."""


class Report(NamedTuple):
    """What a scan has found.

    :ivar sure: the globals that functions change.
    :ivar perhaps: those that they may change.
    :ivar private: what else each worker has for itself.
    :ivar unreadable: the files that could not be read.
    :ivar files: the number of those that were.
    """

    sure: list[Finding]
    perhaps: list[Finding]
    private: list[Private]
    unreadable: list[Unreadable]
    files: int

    def text(self) -> str:
        """All of it, for a terminal."""
        names = stored_names([*self.sure, *self.perhaps])
        parts = [*_in_modules(self.sure, names)]
        if self.perhaps:
            parts.append("\n".join(["Perhaps:", *(_block(one, names) for one in self.perhaps)]))
        if self.private:
            lines = [_line(one.module, one.line, one.subject, one.what, one.uses) for one in self.private]
            parts.append("\n".join(["Also private to each worker:", *lines]))
        return "\n\n".join([*parts, textwrap.fill(self._summary(), WIDTH), textwrap.fill(UNKNOWABLE, WIDTH)])

    def _summary(self) -> str:
        count, files = len(self.sure), f"{self.files} file{'' if self.files == 1 else 's'}"
        if not count:
            return f"Functions change no global in {files}, as far as can be told."
        globals_ = "1 global is" if count == 1 else f"{count} globals are"
        return (
            f"{globals_} changed by functions in {files}: each worker changes its own. In the new lines, "
            "state is the GlobalState of the application."
        )


def scan(paths: Sequence[Path]) -> Report:
    """What is found in files and folders of source, none of which is run."""
    modules, unreadable = read_modules(paths)
    names = Names(modules, [path.absolute() for path in paths])
    uses = Uses(modules, names)
    findings = sorted(
        Judge(modules, names, uses).findings(),
        key=lambda one: (one.thing.module.path.parts, one.line, one.thing.name),
    )
    private = sorted(
        private_things(modules, names, uses), key=lambda one: (one.module.path.parts, one.line, one.subject)
    )
    return Report(
        [one for one in findings if not one.reason],
        [one for one in findings if one.reason],
        private,
        unreadable,
        len(modules),
    )


def stored_names(findings: Sequence[Finding]) -> dict[int, str]:
    """What each is called in the store, by its id: no two alike."""
    choices = [
        (one.thing.name, f"{one.thing.module.name}.{one.thing.name}", _from_path(one)) for one in findings
    ]
    taken = [Counter(level) for level in zip(*choices, strict=True)]
    return {
        id(one): next((name for name, count in zip(names, taken, strict=True) if count[name] == 1), names[-1])
        for one, names in zip(findings, choices, strict=True)
    }


def _from_path(finding: Finding) -> str:
    parts = finding.thing.module.path.with_suffix("").parts
    return ".".join([*(part for part in parts if part.strip("./")), finding.thing.name])


def _in_modules(findings: Sequence[Finding], names: dict[int, str]) -> Iterator[str]:
    """The findings of each module, and how they are shared without an edit."""
    for module, group in groupby(findings, key=lambda one: one.thing.module):
        those = list(group)
        lines = [_block(one, names) for one in those]
        shared = [text for one in those if (text := advise(one, "").shared)]
        if shared and not module.name.endswith("__main__"):
            arguments = ", ".join([f'"{module.name}"', *sorted(shared, key=lambda text: text[0] != '"')])
            lines.append("or, without an edit of the module:")
            lines.append(f"    state.share_globals({arguments})")
        yield "\n".join(lines)


def _block(finding: Finding, names: dict[int, str]) -> str:
    thing = finding.thing
    subject = thing.name
    if finding.value:
        subject += f" = {thing.module.source(finding.value, 40) or _shortened(finding)}"
    what = WORDS.get(finding.kind, finding.kind)
    advice = advise(finding, names[id(finding)])
    lines = [_line(thing.module, finding.line, subject, what, finding.uses)]
    if finding.reason:
        lines.append(f"    {finding.reason}:")
    return "\n".join([*lines, f"    {_sentence(advice)}"])


def _sentence(advice: Advice) -> str:
    where = f"{advice.where}: " if advice.where else ""
    return f"{where}{advice.code}" + "".join(f"\n      and {note}" for note in advice.notes)


def _shortened(finding: Finding) -> str:
    return {"dict": "{...}", "set": "{...}", "list": "[...]", "tuple": "(...)", "str": '"..."'}.get(
        finding.kind, "..."
    )


def _line(module: Module, line: int, subject: str, what: str, uses: Sequence[Use]) -> str:
    place = f"{click.format_filename(module.path)}:{line}: {subject}"
    # ``X.setdefault(key, []).append(1)`` is told once.
    inner = {id(node) for use in uses for node in ast.walk(use.change.place)}
    uses = [use for use in uses if id(use.change.node) not in inner] or uses
    changes = [_change(module, use) for use in uses[:MAX_USES]]
    if len(uses) > MAX_USES:
        changes.append(f"and {len(uses) - MAX_USES} more")
    said = ", ".join(part for part in (what, f"changed in {', '.join(changes)}" if changes else "") if part)
    return f"{place}  {said}"


def _change(module: Module, use: Use) -> str:
    place = (
        f"line {use.line}" if use.module is module else f"{click.format_filename(use.module.path)}:{use.line}"
    )
    return f"{use.scope.label or 'the module'} ({place}: {use.text()})"
