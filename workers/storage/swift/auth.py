"""A token and the address of the storage: from Swift's own authentication (v1) or from Keystone (v2.0, v3).

Sources: https://docs.openstack.org/swift/latest/api/object_api_v1_overview.html "Authentication",
https://docs.openstack.org/api-ref/identity/v3/ "Password authentication with scoped authorization" and
"List versions". Which of them an address speaks is told by its path, else by Keystone's list of versions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from workers.addresses import parse
from workers.addresses.sessions import GuardedSession
from workers.storage.base import StorageFailed, Trouble
from workers.storage.swift import errors
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.staging import Store

if TYPE_CHECKING:
    from keystoneauth1.identity.base import BaseIdentityPlugin

#: Ends of a path that tell the version; what a client adds to Keystone's is cut off.
_PATHS: Final = {
    "1": re.compile(r"/v?1(\.0)?$"),
    "2": re.compile(r"/v2(\.0)?(/tokens)?$"),
    "3": re.compile(r"/v3(\.\d+)?(/auth/tokens)?$"),
}
_ENDS: Final = {"1": "/auth/v1.0", "2": "/v2.0", "3": "/v3"}
#: Of a list of versions.
_LONGEST_LIST: Final = 256 * 1024


@dataclass(frozen=True)
class Access:
    """Where the account is, and the token that opens it."""

    url: str
    token: str = field(repr=False)


class Identity:
    """Who we are for one storage: asks for tokens."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: tuple[str, str] | None = None
        try:
            self._server = parse(store.auth_url, field="auth_url").authority
        except InvalidInput as error:
            raise StorageFailed(error.message, Trouble.REFUSED) from None

    def access(self, session: GuardedSession) -> Access:
        """A new token. StorageFailed: DENIED when it is refused."""
        errors.silence()
        with errors.told(f"Swift at {self._server}", "authentication"):
            if self._known is None:
                self._known = self._version(session)
            version, url = self._known
        name = f"Swift at {self._server}" if version == "1" else f"Keystone at {self._server}"
        with errors.told(name, "authentication"):
            found = self._ask(session, name, self._plugin(version, url))
        try:
            parse(found.url, field="the storage's address")
        except InvalidInput as error:
            raise StorageFailed(f"{name}: {error.message}", Trouble.REFUSED) from None
        return found

    def _ask(self, session: GuardedSession, name: str, plugin: BaseIdentityPlugin) -> Access:
        from keystoneauth1 import exceptions
        from keystoneauth1.session import Session

        errors.silence()  # loggers that the import has made
        try:
            told = plugin.get_access(Session(session=session, redirect=False))
            catalog: Any = told.service_catalog
            url = catalog.url_for(service_type="object-store", interface="public")
            return Access(str(url).rstrip("/"), str(told.auth_token))
        except exceptions.HttpError as error:
            status = error.http_status or 0
            if status in (401, 403):
                raise errors.said(name, status, "", f"{self._who()} is refused", Trouble.DENIED) from None
            raise errors.said(name, status, "", "authentication", self._not_found(status)) from None
        except exceptions.CatalogException:
            raise StorageFailed(
                f"{name} knows no object-store for {self._who()}: is it the right project?", Trouble.OTHER
            ) from None
        except exceptions.ConnectionError as error:
            raise StorageFailed(
                f"{name}: the connection broke ({type(error).__name__})", Trouble.AWAY
            ) from None
        except (exceptions.ClientException, KeyError, TypeError, ValueError):
            raise StorageFailed(f"{name} gave no token: is this its address?", Trouble.OTHER) from None

    @staticmethod
    def _not_found(status: int) -> Trouble | None:
        """No such address is a mistake in the address, and no missing object."""
        return Trouble.OTHER if status == 404 else None

    def _who(self) -> str:
        return f"user {self._store.user!r} of tenant {self._store.tenant!r}"

    def _plugin(self, version: str, url: str) -> BaseIdentityPlugin:
        store = self._store
        if version == "3":
            from keystoneauth1.identity import v3

            return v3.Password(
                url,
                username=store.user,
                password=store.key,
                user_domain_name=store.user_domain,
                project_name=store.tenant,
                project_domain_name=store.project_domain,
            )
        if version == "2":
            from keystoneauth1.identity import v2

            return v2.Password(url, username=store.user, password=store.key, tenant_name=store.tenant)
        from swiftclient.authv1 import PasswordPlugin

        user = store.user if ":" in store.user or not store.tenant else f"{store.tenant}:{store.user}"
        # Headers go out as Latin-1, and the octets are to be UTF-8.
        user, key = (text.encode().decode("latin-1") for text in (user, store.key))
        plugin: BaseIdentityPlugin = PasswordPlugin(url, user, key)
        return plugin

    def _version(self, session: GuardedSession) -> tuple[str, str]:
        """The version that is spoken, and the address with its path."""
        base = self._store.auth_url.partition("#")[0].partition("?")[0].rstrip("/")
        wanted = self._store.auth_version.removeprefix("v").partition(".")[0]
        if wanted not in ("", *_ENDS):
            raise StorageFailed(f"auth_version {wanted!r} is none of 1, 2 and 3", Trouble.OTHER)
        for version, path in _PATHS.items():
            if match := path.search(base):
                wanted = wanted or version
                if wanted == version == "1":
                    # As it is, since a Swift may have its authentication anywhere; but none knows plain v1.
                    return wanted, base + ".0" if base.endswith("/v1") else base
                base = base[: match.start()]
                break
        else:
            wanted = wanted or self._offered(session, base)
        end = _ENDS[wanted]
        if wanted == "1" and base.endswith("/auth"):
            end = end.removeprefix("/auth")
        return wanted, base + end

    def _offered(self, session: GuardedSession, base: str) -> str:
        """The newest version in Keystone's list; what has none is a Swift with its own authentication."""
        answer = session.get(f"{base}/", headers={"Accept": "application/json"}, stream=True)
        try:
            if answer.status_code not in (200, 300):
                return "1"
            text = answer.raw.read(_LONGEST_LIST, decode_content=True)
        finally:
            answer.close()
        ids = re.findall(rb'"id"\s*:\s*"v([0-9])[0-9.]*"', text)
        return "3" if b"3" in ids else "2" if b"2" in ids else "1"
