"""Observing a build: console lines as they come, and at the end the result, which comes as a last line."""

from collections.abc import Iterable, Iterator

from attrs import frozen

from builder.errors import BuilderError
from builder.messages import Output
from builder.model import Result, parse_result, text


@frozen(kw_only=True)
class Ending:
    """The last output of an observation and the result that it tells."""

    output: Output
    result: Result


def split_result(outputs: Iterable[Output]) -> Iterator[Output | Ending]:
    """Return the console lines and then the Ending.

    Only that nothing follows tells the result from a line of the job that reads the same, so a line that could be a
    result is held back until the next one; every other line is passed on at once. Where the last line is no result,
    there is no Ending.
    """
    held: Ending | None = None
    try:
        for output in outputs:
            if held is not None:
                yield held.output
                held = None
            result = parse_result(text(output.line))
            if result is None:
                yield output
            else:
                held = Ending(output=output, result=result)
    except BuilderError:
        # the observation broke off, so that line was none of the server's
        if held is not None:
            yield held.output
        raise
    if held is not None:
        yield held
