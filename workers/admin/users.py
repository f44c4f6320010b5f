"""Users: Django's own page, on which nobody but a superuser touches a superuser or hands out rights.

Must not import families.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.http import HttpRequest

from workers.admin.pages import OnlyDeclared, superuser

if TYPE_CHECKING:  # Django's classes take no parameter at run time
    DjangosPage = UserAdmin[User]
else:
    DjangosPage = UserAdmin

#: What makes a superuser, or as good as one.
_RIGHTS = ("is_staff", "is_superuser", "groups", "user_permissions")

admin.site.unregister(User)


@admin.register(User)
class UsersAdmin(OnlyDeclared, DjangosPage):
    """Who may log in."""

    list_filter = ("is_staff", "is_superuser", "is_active")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        mine = tuple(super().get_readonly_fields(request, obj))
        return mine if superuser(request) else (*mine, *_RIGHTS)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)


def _may_touch(request: HttpRequest, user: Any) -> bool:
    return superuser(request) or not getattr(user, "is_superuser", False)
