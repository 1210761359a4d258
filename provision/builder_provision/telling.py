"""What the server is told of the workers that are to come, for those who look at a queue. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

from builder.extension.provisioning import MAX_NAME, MAX_REASON, MAX_TOLD, Coming, Provision, Stage
from builder.model import Instant
from builder_provision.fleet import Asked, EngineState

CUT = "…"

TAIL = MAX_REASON // 3
"""Characters of the end of a reason that is cut."""


def provision(
    by: str, engine: str, asked: Iterable[Asked], why_not: Sequence[str], *, now: float, server_now: Instant
) -> Provision:
    """Return what is told. ``server_now`` is the server's clock at ``now``."""
    coming = [each for each in asked if each.is_coming]
    groups = Counter(
        (Stage.STARTING if each.state is EngineState.STARTED else Stage.PENDING, _brief(each.reason)) for each in coming
    )
    since = min((each.asked_at for each in coming), default=None)
    return Provision(
        by=by[:MAX_NAME],
        engine=engine[:MAX_NAME],
        since=None if since is None else Instant(server_now.ms - max(0, round((now - since) * 1000))),
        coming=tuple(
            Coming(count=count, stage=stage, reason=reason)
            for (stage, reason), count in sorted(
                groups.items(), key=lambda item: (item[0][0].value, -item[1], item[0][1])
            )
        )[:MAX_TOLD],
        why_not=tuple(map(_brief, why_not))[:MAX_TOLD],
    )


def _brief(reason: str) -> str:
    """Return a reason as far as there is room: what failed stands at its begin, and why at its end."""
    if len(reason) <= MAX_REASON:
        return reason
    return reason[: MAX_REASON - len(CUT) - TAIL] + CUT + reason[-TAIL:]
