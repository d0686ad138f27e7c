"""Settings of load shedding."""

from dataclasses import dataclass, field

from failsoft.settings import kinds
from failsoft.settings.criticality import Criticalities, FieldName
from failsoft.settings.sources import about

__all__ = ["SheddingSettings"]


@dataclass(frozen=True, kw_only=True, repr=False)
class SheddingSettings:
    """Part of `Settings`, which has the slots."""

    __slots__ = ()

    shed: bool = field(
        default=False,
        metadata=about(
            41,
            kinds.Flag(),
            "Refuse some requests with 503 while there are more than this process can serve in time.",
        ),
    )
    shed_min: int = field(
        default=20,
        metadata=about(
            42,
            kinds.Whole(1, 10_000, "requests"),
            "How many requests one process serves at once in any case, however slow they are. A quarter of that while it "
            "is out of CPU time.",
        ),
    )
    shed_max: int = field(
        default=200,
        metadata=about(
            43,
            kinds.Whole(1, 10_000, "requests"),
            "How many requests one process serves at once at most, however quick they are.",
        ),
    )
    criticality: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=about(
            44,
            Criticalities(),
            "Which requests are refused first when not all can be served, where their view is not decorated with "
            "criticality. Without it all are 'critical'; /healthz, /livez and /readyz are exempt.",
        ),
    )
    queue_header: str | None = field(
        default=None,
        metadata=about(
            45,
            FieldName(),
            "The header field in which a trusted proxy says when it received a request, such as X-Request-Start: how "
            "long requests wait in front of this process.",
        ),
    )
