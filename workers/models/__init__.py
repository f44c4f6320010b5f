"""The engine's tables. Invariants stand in the schema as CHECK constraints and partial indexes."""

from workers.models.audit import AuditBegun, AuditEntry
from workers.models.books import TenantLoad, UsageDay
from workers.models.callbacks import (
    Callback,
    CallbackAttempt,
    CallbackReceiver,
    CallbackSecret,
    Deliverer,
    DisabledUrl,
)
from workers.models.idempotency import IdempotencyKey
from workers.models.keys import SigningKey
from workers.models.nodes import Installation, Node, NodeRequest
from workers.models.registries import Registry
from workers.models.runs import Attempt, HostPort, LogChunk, Run, RunEvent, Shape
from workers.models.secrets import Secret
from workers.models.tenancy import Membership, Tenant, Token

__all__ = [
    "Attempt",
    "AuditBegun",
    "AuditEntry",
    "Callback",
    "CallbackAttempt",
    "CallbackReceiver",
    "CallbackSecret",
    "Deliverer",
    "DisabledUrl",
    "HostPort",
    "IdempotencyKey",
    "Installation",
    "LogChunk",
    "Membership",
    "Node",
    "NodeRequest",
    "Registry",
    "Run",
    "RunEvent",
    "Secret",
    "Shape",
    "SigningKey",
    "Tenant",
    "TenantLoad",
    "Token",
    "UsageDay",
]
