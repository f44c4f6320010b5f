"""Routes of /api/v1. A trailing slash is taken off before routing."""

from __future__ import annotations

from django.urls import path

from workers.api.callbacks import views as callbacks
from workers.api.keys import views as keys
from workers.api.nodes import views as nodes
from workers.api.records import views as records
from workers.api.registries import views as registries
from workers.api.runs import views as runs
from workers.api.tenancy import tokens
from workers.api.tenancy import views as tenants

urlpatterns = [
    path("runs", runs.RunsView.as_view()),
    path("runs/<int:run_id>", runs.RunView.as_view()),
    path("runs/<int:run_id>/logs", runs.RunLogsView.as_view()),
    path("runs/<int:run_id>/cancel", runs.RunCancelView.as_view()),
    path("runs/<int:run_id>/retry", runs.RunRetryView.as_view()),
    path("runs/<int:run_id>/explain", runs.RunExplainView.as_view()),
    path("nodes", nodes.NodesView.as_view()),
    path("nodes/<str:name>", nodes.NodeView.as_view()),
    path("nodes/<str:name>/drain", nodes.NodeDrainView.as_view()),
    path("nodes/<str:name>/undrain", nodes.NodeUndrainView.as_view()),
    path("limits", records.LimitsView.as_view()),
    path("usage", records.UsageView.as_view()),
    path("audit", records.AuditView.as_view()),
    path("callbacks", callbacks.CallbacksView.as_view()),
    path("callbacks/replay", callbacks.CallbacksReplayView.as_view()),
    path("callbacks/test", callbacks.CallbackTestView.as_view()),
    path("callbacks/disabled", callbacks.DisabledUrlsView.as_view()),
    path("callbacks/disabled/<int:disabled_id>/enable", callbacks.DisabledUrlEnableView.as_view()),
    path("callbacks/secrets", callbacks.CallbackSecretsView.as_view()),
    path("callbacks/secrets/<int:secret_id>", callbacks.CallbackSecretView.as_view()),
    path("callbacks/<int:callback_id>", callbacks.CallbackView.as_view()),
    path("callbacks/<int:callback_id>/replay", callbacks.CallbackReplayView.as_view()),
    path("registries", registries.RegistriesView.as_view()),
    path("registries/<str:registry>", registries.RegistryView.as_view()),
    path("keys", keys.KeysView.as_view()),
    path("me", tokens.MeView.as_view()),
    path("tokens", tokens.TokensView.as_view()),
    path("tokens/<int:token_id>", tokens.TokenView.as_view()),
    path("tenants", tenants.TenantsView.as_view()),
    path("tenants/<str:name>", tenants.TenantView.as_view()),
    path("tenants/<str:name>/members", tenants.MembersView.as_view()),
    path("tenants/<str:name>/members/<str:user>", tenants.MemberView.as_view()),
    path("users", tenants.UsersView.as_view()),
    path("users/<str:user>", tenants.UserView.as_view()),
]
