"""Settings of Gantry: one file, driven by the environment, in groups.

Every GANTRY_ variable is listed in docs/operations or the README where a user needs it. Must not import
any app.
"""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"

# --- Process -----------------------------------------------------------------------------------------

DEBUG = False
#: Signs sessions and log URLs. The launcher scripts keep one in the data folder; without it sessions end
#: with the process.
SECRET_KEY = env.str("DJANGO_SECRET_KEY", default="") or secrets.token_urlsafe(48)
#: Fernet keys, newest first, comma separated: encrypt with the first, decrypt with any.
GANTRY_SECRET_KEYS: list[str] = env.list("GANTRY_SECRET_KEYS", default=[])
GANTRY_DATA_DIR = Path(env.str("GANTRY_DATA_DIR", default=str(BASE_DIR / "var"))).absolute()

ALLOWED_HOSTS: list[str] = env.list("GANTRY_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
FORMAT_MODULE_PATH = "config.formats"
APPEND_SLASH = False

#: What this process is. "web" keeps one connection per thread; "worker" (`node`, `callbacks`) borrows one per
#: transaction and shows no page.
GANTRY_ROLE = env.str("GANTRY_ROLE", default="web")

INSTALLED_APPS = [
    # Its pages import the whole API: in a worker that is a third of its start and of its code in memory.
    "django.contrib.admin.apps.SimpleAdminConfig" if GANTRY_ROLE == "worker" else "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "workers",
    "tasks_api",
    "jobs",
    "queues",
    "workqueue",
    "config.apps.ProjectConfig",
]

MIDDLEWARE = [
    "config.http.middleware.GuardMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    # Sessions, users and messages: Django's own, for the admin and for requests with its cookie only.
    "config.http.middleware.BrowserSessions",
    "django.middleware.csrf.CsrfViewMiddleware",
    "config.http.middleware.BrowserUsers",
    "config.http.middleware.BrowserMessages",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

STATIC_URL = "/static/"
#: Served from the packages themselves: there is no collectstatic step.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
WHITENOISE_ALLOW_ALL_ORIGINS = False

# --- Database ----------------------------------------------------------------------------------------


def _database(url: str) -> dict[str, object]:
    """DATABASE_URL to Django's form; a percent-encoded host is the folder of a unix socket."""
    parts = urlsplit(url)
    return {
        "ENGINE": "config.database",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.netloc.rpartition("@")[2].partition(":")[0])
        if "%2F" in parts.netloc.upper()
        else (parts.hostname or ""),
        "PORT": "" if "%2F" in parts.netloc.upper() else str(parts.port or ""),
        "CONN_MAX_AGE": 0 if GANTRY_ROLE == "worker" else None,
        "CONN_HEALTH_CHECKS": True,
        "DISABLE_SERVER_SIDE_CURSORS": False,
        "OPTIONS": {
            "pool_size": env.int("GANTRY_DB_POOL", default=12 if GANTRY_ROLE == "worker" else 64),
            # A worker waits for its database as long as it takes; a client of the API does not.
            "mind_silence": GANTRY_ROLE == "web",
            "connect_timeout": 3 if GANTRY_ROLE == "web" else 5,
            "application_name": f"gantry-{GANTRY_ROLE}",
            # A server that falls silent (cut cable, frozen host) is noticed in seconds, not in hours.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            "options": "-c timezone=UTC -c lock_timeout=20s -c idle_in_transaction_session_timeout=60s",
        },
    }


DATABASES = {"default": _database(env.str("DATABASE_URL", default="postgres://gantry@127.0.0.1:5432/gantry"))}

# --- Broker ------------------------------------------------------------------------------------------

REDIS_URL = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")
#: Longest time that anything waits for Redis, in seconds: it only wakes, so it may never hold us up.
REDIS_TIMEOUT_S = 0.5


def _broker(url: str) -> str:
    """redis-py's unix:// form to kombu's redis+socket:// form; other URLs stay as they are."""
    if not url.startswith("unix://"):
        return url
    parts = urlsplit(url)
    db = dict(item.split("=", 1) for item in parts.query.split("&") if "=" in item).get("db", "0")
    password = f":{quote(unquote(parts.password), safe='')}@" if parts.password else ""
    return f"redis+socket://{password}{parts.path}?virtual_host={db}"


CELERY_BROKER_URL = _broker(REDIS_URL)

# --- Identity ----------------------------------------------------------------------------------------

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
#: A token's look-up is kept this long in each API process; a revoked token may work for as long.
TOKEN_CACHE_S = env.float("GANTRY_TOKEN_CACHE_S", default=5.0)
#: "10.0.0.0/8=default+lab,192.168.1.5/32=default": peers that may act for these tenants without credentials.
GANTRY_TRUSTED_NETWORKS: list[str] = env.list("GANTRY_TRUSTED_NETWORKS", default=[])
#: CIDR list of proxies whose X-Forwarded-For is believed.
GANTRY_TRUSTED_PROXIES: list[str] = env.list("GANTRY_TRUSTED_PROXIES", default=[])

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Strict"
CSRF_COOKIE_SAMESITE = "Strict"
#: Set to 1 behind TLS: cookies only over https, HSTS, redirect.
GANTRY_HTTPS = env.bool("GANTRY_HTTPS", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = GANTRY_HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if GANTRY_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = GANTRY_HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if GANTRY_HTTPS else None
SECURE_REDIRECT_EXEMPT = [r"^healthz/?$", r"^readyz/?$"]
X_FRAME_OPTIONS = "DENY"

# --- API ---------------------------------------------------------------------------------------------

#: Largest body of a request in bytes.
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["config.http.authentication.GantryAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["config.http.authentication.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["config.http.negotiation.JSONBody"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "config.http.negotiation.IgnoreAccept",
    "DEFAULT_METADATA_CLASS": "config.http.negotiation.Methods",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "config.http.errors.handle",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Gantry",
    "DESCRIPTION": "One job server that speaks the documented APIs of five job systems.",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["config.http.authentication.HasScope"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "config.http.openapi.add_error_answers",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": r"/(v1|api/v1|api)",
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "RunState": "workers.vocabulary.states.State",
        "RunReason": "workers.vocabulary.states.Reason",
        "NodeState": ["ready", "draining", "removed", "silent"],
        "CallbackState": "workers.models.callbacks.Callback.State",
        "ReplayState": ["dead", "delivered", "disabled"],
        # "status" and "Status" would become one name otherwise, and one of the two be described wrongly.
        "ReadinessStatus": ["ready", "not ready"],
        "EntryStatus": ["queued", "running", "finished", "cancelled", "failed"],
        "EntryCallbackState": ["undeliverable", "due", "delivered", "dead"],
        "TransferState": ["NEW", "DONE", "FAILED", "SUBMITTED", "RUNNING"],
        "TransferAttemptState": ["DONE", "FAILED"],
        "ModeEnum": "queues.models.capacity.TypePolicy.Mode",
        "SiteBanMode": ["cancel", "wait", "wait_as"],
        "TargetStatus": ["STARTING", "CREATED", "CREATE_FAILED", "RUNNING", "RUNNING_FAILED", "FINISHED"],
    },
}
#: Most entries of a family's list that is asked for without a limit; beyond it a Link leads on.
GANTRY_LIST_CAP = env.int("GANTRY_LIST_CAP", default=100_000)
#: How many bodies one API process reads at once, half of them for one tenant; beyond it 503. Fewer than the
#: process has threads: slow clients must leave some to others.
GANTRY_BODIES_AT_ONCE = env.int("GANTRY_BODIES_AT_ONCE", default=8)
#: How many log followers one API process serves at once; the next one gets 503 with Retry-After.
GANTRY_FOLLOW_LIMIT = env.int("GANTRY_FOLLOW_LIMIT", default=8)

# --- Families: name -> module with the hooks that the engine calls (workers.vocabulary.families) -------

GANTRY_FAMILIES = {
    "tasks": "tasks_api.wire",
    "jobs": "jobs.saved.hooks",
    "runtask": "jobs.runtask.hooks",
    "queues": "queues.hooks",
    "workqueue": "workqueue.hooks",
}
#: Families whose runs carry batches: name -> module that keeps their books (workers.vocabulary.transfers).
GANTRY_BATCHES: dict[str, str] = {"workqueue": "workqueue.book"}
#: What families delete of their own when it is old: functions limit -> {what: how many}
#: (workers.upkeep.retention).
GANTRY_PRUNERS = ["jobs.saved.retention.prune", "queues.entries.retention.prune", "workqueue.retention.prune"]
#: What families look after every few seconds: name -> dotted path of a Duty (workers.vocabulary.duties).
GANTRY_DUTIES: dict[str, str] = {
    "queue_settling": "queues.duty.SETTLING",  # first: what is given back can be admitted in the same turn
    "queues": "queues.duty.DUTY",
    "queue_providers": "queues.duty.ASKING",
    "queue_estimates": "queues.duty.ESTIMATING",
    "transfer_settling": "workqueue.duty.SETTLING",  # first: it gives back what can be handed out again
    "transfers": "workqueue.duty.DISPATCHING",
    "transfer_links": "workqueue.duty.LINKS",
}


def _ranges(text: str) -> list[tuple[int, int]]:
    """ "1024-7999, 9000" to [(1024, 7999), (9000, 9000)]."""
    found = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = item.partition("-")
        if not (
            first.isdecimal()
            and (last or first).isdecimal()
            and 1 <= int(first) <= int(last or first) <= 65535
        ):
            raise ImproperlyConfigured(f"GANTRY_HOST_PORTS has {item!r}: write ranges such as 1024-7999,9000")
        found.append((int(first), int(last or first)))
    return found


# --- Engine ------------------------------------------------------------------------------------------

#: Name of this node. One worker per name.
GANTRY_NODE_NAME = env.str("GANTRY_NODE_NAME", default=socket.gethostname())
#: "rack_id=r1,zone=a"; hostname is added by itself.
GANTRY_NODE_ATTRIBUTES: list[str] = env.list("GANTRY_NODE_ATTRIBUTES", default=[])
#: Capacity offered; 0 = what the machine has.
GANTRY_NODE_CPUS = env.float("GANTRY_NODE_CPUS", default=0.0)
GANTRY_NODE_MEM_MB = env.int("GANTRY_NODE_MEM_MB", default=0)
#: How many runs at once, whatever their size.
GANTRY_NODE_SLOTS = env.int("GANTRY_NODE_SLOTS", default=64)
#: Runtimes offered, e.g. "process"; empty = all that work on this machine.
GANTRY_RUNTIMES: list[str] = env.list("GANTRY_RUNTIMES", default=[])
#: 0 forbids commands on nodes where every run would share the worker's own account.
GANTRY_COMMANDS_UNISOLATED = env.bool("GANTRY_COMMANDS_UNISOLATED", default=True)
#: Where this node keeps its control files and scratch folders.
GANTRY_NODE_DIR = Path(env.str("GANTRY_NODE_DIR", default=str(GANTRY_DATA_DIR / "nodes" / GANTRY_NODE_NAME)))

#: A run's lease in seconds; after it only the run's own node may adopt it.
GANTRY_LEASE_S = env.int("GANTRY_LEASE_S", default=30)
#: Silence of a node after which its attempts are given up, in seconds.
GANTRY_NODE_LOST_AFTER_S = env.int("GANTRY_NODE_LOST_AFTER_S", default=600)
#: The guard kills that much earlier, so that attempts never overlap.
GANTRY_GUARD_MARGIN_S = env.int("GANTRY_GUARD_MARGIN_S", default=60)
GANTRY_HEARTBEAT_S = env.float("GANTRY_HEARTBEAT_S", default=5.0)
#: How often an agent looks for work when no ring wakes it.
GANTRY_LOOK_S = env.float("GANTRY_LOOK_S", default=2.0)
#: A handed run that has not started after this goes to the local pool.
GANTRY_HANDOVER_S = env.float("GANTRY_HANDOVER_S", default=2.0)
#: Most runs claimed in one query.
GANTRY_CLAIM_BATCH = env.int("GANTRY_CLAIM_BATCH", default=16)
#: A run that waits this long although a node could hold it reserves that node.
GANTRY_RESERVE_AFTER_S = env.float("GANTRY_RESERVE_AFTER_S", default=60.0)
#: A run of high priority goes before normal ones submitted up to this many seconds earlier.
GANTRY_AGING_S = env.int("GANTRY_AGING_S", default=300)
#: Longest wait before a run starts, in seconds.
GANTRY_EXPIRE_S = env.int("GANTRY_EXPIRE_S", default=86_400)
#: Retry backoff: base * 2^n seconds, at most the cap.
GANTRY_RETRY_BASE_S = env.float("GANTRY_RETRY_BASE_S", default=2.0)
GANTRY_RETRY_CAP_S = env.float("GANTRY_RETRY_CAP_S", default=300.0)
#: A run is stopped when its worker died this often while watching it.
GANTRY_MAX_CRASHES = env.int("GANTRY_MAX_CRASHES", default=5)
#: From TERM to KILL for a cancelled command, in seconds.
GANTRY_GRACE_S = env.int("GANTRY_GRACE_S", default=10)
GANTRY_RECONCILE_S = env.float("GANTRY_RECONCILE_S", default=5.0)
#: Queues, in seconds: between two looks at what waits when nobody rings; until an admission that its client
#: cannot be told of is taken back; until a provider's own usage counts instead of our booking.
GANTRY_QUEUE_LOOK_S = env.float("GANTRY_QUEUE_LOOK_S", default=2.0)
GANTRY_QUEUE_UNTOLD_S = env.float("GANTRY_QUEUE_UNTOLD_S", default=600.0)
GANTRY_QUEUE_HANDOVER_S = env.float("GANTRY_QUEUE_HANDOVER_S", default=600.0)
#: External providers, in seconds: between two questions; the longest time of one; how old an answer may be.
GANTRY_QUEUE_SNAPSHOT_S = env.float("GANTRY_QUEUE_SNAPSHOT_S", default=5.0)
GANTRY_QUEUE_PROVIDER_S = env.float("GANTRY_QUEUE_PROVIDER_S", default=10.0)
GANTRY_QUEUE_STALE_S = env.float("GANTRY_QUEUE_STALE_S", default=30.0)
#: Transfers (workqueue), in seconds: between two looks at what is to be handed out when nobody rings, and at
#: how links do; an element's wait before its second try, doubled each time, at most the cap.
GANTRY_TRANSFER_LOOK_S = env.float("GANTRY_TRANSFER_LOOK_S", default=2.0)
GANTRY_LINK_LOOK_S = env.float("GANTRY_LINK_LOOK_S", default=10.0)
GANTRY_TRANSFER_RETRY_BASE_S = env.float("GANTRY_TRANSFER_RETRY_BASE_S", default=5.0)
GANTRY_TRANSFER_RETRY_CAP_S = env.float("GANTRY_TRANSFER_RETRY_CAP_S", default=300.0)
#: Streams at once from one site to another to begin with (adapted, at most four times as many), and out of
#: and into one site where it names no limit of its own.
GANTRY_LINK_STREAMS = env.int("GANTRY_LINK_STREAMS", default=16)
GANTRY_SITE_STREAMS = env.int("GANTRY_SITE_STREAMS", default=32)
#: Days.
GANTRY_KEEP_RUNS_D = env.int("GANTRY_KEEP_RUNS_D", default=90)
GANTRY_KEEP_LOGS_D = env.int("GANTRY_KEEP_LOGS_D", default=14)
#: What one tenant may have unless an operator says otherwise (/api/v1/tenants); 0 = no limit.
GANTRY_TENANT_WAITING_RUNS = env.int("GANTRY_TENANT_WAITING_RUNS", default=200_000)
GANTRY_TENANT_RUNNING_RUNS = env.int("GANTRY_TENANT_RUNNING_RUNS", default=10_000)
#: Over all API processes, with a burst of two seconds' worth.
GANTRY_TENANT_REQUESTS_PER_S = env.int("GANTRY_TENANT_REQUESTS_PER_S", default=2_000)
#: Days that the audit log is kept; 0 = for ever.
GANTRY_KEEP_AUDIT_D = env.int("GANTRY_KEEP_AUDIT_D", default=400)
#: Days that the usage report reaches back; 0 = for ever.
GANTRY_KEEP_USAGE_D = env.int("GANTRY_KEEP_USAGE_D", default=800)
#: Networks (CIDR) that callbacks, and uris, may reach although they are private: neither opens the other.
GANTRY_CALLBACK_ALLOW_NETWORKS: list[str] = env.list("GANTRY_CALLBACK_ALLOW_NETWORKS", default=[])
GANTRY_URI_ALLOW_NETWORKS: list[str] = env.list("GANTRY_URI_ALLOW_NETWORKS", default=[])
#: What is kept of one exec's output, in MiB: half from its start, half from its end.
GANTRY_EXEC_LOG_MB = env.int("GANTRY_EXEC_LOG_MB", default=1024)
#: runtask: the folder of job definitions, one folder each; the container of jobs that name none.
GANTRY_RUNTASK_DEFINITIONS = Path(
    env.str("GANTRY_RUNTASK_DEFINITIONS", default=str(BASE_DIR / "jobs" / "runtask" / "definitions"))
).absolute()
GANTRY_RUNTASK_CONTAINER = env.str("GANTRY_RUNTASK_CONTAINER", default="runtask")
#: What a job of runtask may use unless its definition says otherwise: CPUs, MiB, seconds of its
#: command (fetching and storing not counted).
GANTRY_RUNTASK_CPUS = env.float("GANTRY_RUNTASK_CPUS", default=1.0)
GANTRY_RUNTASK_MEM_MB = env.int("GANTRY_RUNTASK_MEM_MB", default=1024)
GANTRY_RUNTASK_TIMEOUT_S = env.int("GANTRY_RUNTASK_TIMEOUT_S", default=86_400)
#: What is kept, and shown in `out` and `error`, of each of a job's two streams, in MiB: half from its start,
#: half from its end.
GANTRY_RUNTASK_LOG_MB = env.int("GANTRY_RUNTASK_LOG_MB", default=2)
#: Networks (CIDR) in which object storages and their authentication (runtask), and sites (workqueue), may be
#: although they are private.
GANTRY_SWIFT_ALLOW_NETWORKS: list[str] = env.list("GANTRY_SWIFT_ALLOW_NETWORKS", default=[])
GANTRY_SITE_ALLOW_NETWORKS: list[str] = env.list("GANTRY_SITE_ALLOW_NETWORKS", default=[])
#: The same for external providers of the queues' capacity.
GANTRY_QUEUE_ALLOW_NETWORKS: list[str] = env.list("GANTRY_QUEUE_ALLOW_NETWORKS", default=[])
#: The same for registries that are opened by name.
GANTRY_REGISTRY_ALLOW_NETWORKS: list[str] = env.list("GANTRY_REGISTRY_ALLOW_NETWORKS", default=[])
#: Folders of this node at or below which LOCAL sites (workqueue) may begin; none: no LOCAL sites.
GANTRY_LOCAL_SITES: list[str] = env.list("GANTRY_LOCAL_SITES", default=[])
#: Longest report of a workqueue's pull worker (a listing), in MiB.
GANTRY_WORKER_REPORT_MB = env.int("GANTRY_WORKER_REPORT_MB", default=512)
#: Largest file that `uris` fetches, in MiB.
GANTRY_URI_LIMIT_MB = env.int("GANTRY_URI_LIMIT_MB", default=4096)
# How long inputs and outputs outlast a storage that does not answer, in seconds.
GANTRY_STAGING_PATIENCE_S = env.int("GANTRY_STAGING_PATIENCE_S", default=900)
#: How long all inputs of a run together, and all its outputs, may take in one go, in seconds.
GANTRY_STAGING_TIMEOUT_S = env.int("GANTRY_STAGING_TIMEOUT_S", default=86_400)
#: Outputs larger than that, in MiB, are stored in an object storage as segments of that size.
GANTRY_SWIFT_SEGMENT_MB = env.int("GANTRY_SWIFT_SEGMENT_MB", default=128)
#: A name of the process that delivers callbacks; several may run.
GANTRY_CALLBACKS_NAME = env.str("GANTRY_CALLBACKS_NAME", default=socket.gethostname())
#: File in which it shows that the database takes its heartbeats, for `gantry health callbacks`; empty: none.
GANTRY_CALLBACKS_PULSE = env.str("GANTRY_CALLBACKS_PULSE", default="")
#: Deliveries at once: to receivers that accepted the last time (as many again to unknown ones), and to those
#: that have timed out lately.
GANTRY_CALLBACK_THREADS = env.int("GANTRY_CALLBACK_THREADS", default=16)
GANTRY_CALLBACK_SLOW_THREADS = env.int("GANTRY_CALLBACK_SLOW_THREADS", default=32)
#: Longest time of one delivery in seconds, look-up and answer included.
GANTRY_CALLBACK_TIMEOUT_S = env.float("GANTRY_CALLBACK_TIMEOUT_S", default=15.0)
#: After a failed delivery: base * 2^n seconds with jitter, at most the cap, until given up; about 3 days.
GANTRY_CALLBACK_RETRY_BASE_S = env.float("GANTRY_CALLBACK_RETRY_BASE_S", default=5.0)
GANTRY_CALLBACK_RETRY_CAP_S = env.float("GANTRY_CALLBACK_RETRY_CAP_S", default=21_600.0)
GANTRY_CALLBACK_GIVE_UP_S = env.float("GANTRY_CALLBACK_GIVE_UP_S", default=259_200.0)
#: A receiver's lease in seconds, at least 1.5 times one delivery. After it another deliverer takes over.
GANTRY_CALLBACK_LEASE_S = env.float("GANTRY_CALLBACK_LEASE_S", default=60.0)
#: How clients reach this service, for URLs that it hands out (signed log URLs in callbacks).
GANTRY_PUBLIC_URL = env.str(
    "GANTRY_PUBLIC_URL", default=f"http://127.0.0.1:{env.str('GANTRY_PORT', default='8000')}"
).rstrip("/")
#: How long a signed log URL works, in seconds.
GANTRY_SIGNED_URL_S = env.int("GANTRY_SIGNED_URL_S", default=7 * 86_400)
#: Ports of the host that containers may ask for (hostPort): "1024-7999,8001-65535".
GANTRY_HOST_PORTS: list[tuple[int, int]] = _ranges(env.str("GANTRY_HOST_PORTS", default="1024-65535"))
#: What net BRIDGE gives a container: "guarded" (cannot reach the node, other containers, metadata; where that
#: cannot be had such runs wait and say so), "plain" (the engine's own bridge) or "none" (no network).
GANTRY_CONTAINER_NETWORK = env.str("GANTRY_CONTAINER_NETWORK", default="guarded")
if GANTRY_CONTAINER_NETWORK not in ("guarded", "plain", "none"):
    raise ImproperlyConfigured(
        f"GANTRY_CONTAINER_NETWORK is {GANTRY_CONTAINER_NETWORK!r}: it must be guarded, plain or none"
    )
#: File in which the process `network` says how it guards that network, for a worker in a container of its
#: own; empty: the worker guards it itself.
GANTRY_NETWORK_GUARD = env.str("GANTRY_NETWORK_GUARD", default="")
#: Networks (CIDR) beyond the node that guarded containers cannot reach: clouds' metadata.
GANTRY_CONTAINER_DENY_NETWORKS: list[str] = env.list(
    "GANTRY_CONTAINER_DENY_NETWORKS", default=["169.254.0.0/16", "100.100.100.200/32"]
)
#: Registries that tenants may name, in images and for credentials, unless their policy `registries` says
#: otherwise: host[:port], "=" and the host of its token service where that is another one ("any": whatever it
#: names, it is not asked); http:// in front: it has no TLS. "any" alone: every registry.
GANTRY_REGISTRIES: list[str] = env.list(
    "GANTRY_REGISTRIES",
    default=[
        *("docker.io=auth.docker.io", "ghcr.io", "quay.io", "gcr.io", "registry.k8s.io", "public.ecr.aws"),
        *("mcr.microsoft.com", "registry.gitlab.com=gitlab.com"),
    ],
)
#: How long a registry that cannot be reached is tried again, in seconds.
GANTRY_REGISTRY_RETRY_S = env.float("GANTRY_REGISTRY_RETRY_S", default=60.0)
#: Images that one node pulls at once.
GANTRY_PULLS = env.int("GANTRY_PULLS", default=3)
#: A node with less free space than this takes no new work, in MiB.
GANTRY_MIN_FREE_MB = env.int("GANTRY_MIN_FREE_MB", default=256)
#: Processes and threads that one command may have at once.
GANTRY_COMMAND_PROCESSES = env.int("GANTRY_COMMAND_PROCESSES", default=4096)

#: Longest time that one image may take to arrive, in seconds.
GANTRY_PULL_TIMEOUT_S = env.float("GANTRY_PULL_TIMEOUT_S", default=1800.0)
#: What lies on a node for a run that the database does not know is removed after this, in seconds.
GANTRY_ORPHAN_GRACE_S = env.float("GANTRY_ORPHAN_GRACE_S", default=600.0)
#: User ("65534:65534") of containers whose image names none; empty: as the image says, which means root
#: without any capability.
GANTRY_CONTAINER_USER = env.str("GANTRY_CONTAINER_USER", default="")

# --- Logging -----------------------------------------------------------------------------------------

LOGGING_CONFIG = "config.logs.configure"
GANTRY_LOG_LEVEL = env.str("GANTRY_LOG_LEVEL", default="INFO")
#: "json" or "text".
GANTRY_LOG_FORMAT = env.str("GANTRY_LOG_FORMAT", default="json")
LOGGING = {"level": GANTRY_LOG_LEVEL, "format": GANTRY_LOG_FORMAT}

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
