"""The engine's tables. Invariants stand in the schema as CHECK constraints and partial indexes."""

from workers.models.idempotency import IdempotencyKey
from workers.models.nodes import Installation, Node, NodeRequest
from workers.models.runs import Attempt, LogChunk, Run, RunEvent, Shape
from workers.models.secrets import Secret
from workers.models.tenancy import Membership, Tenant, Token

__all__ = [
    "Attempt",
    "IdempotencyKey",
    "Installation",
    "LogChunk",
    "Membership",
    "Node",
    "NodeRequest",
    "Run",
    "RunEvent",
    "Secret",
    "Shape",
    "Tenant",
    "Token",
]
