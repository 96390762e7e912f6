"""Database credentials out of HashiCorp Vault's KV version 2 engine."""

import logging

import hvac
from hvac.exceptions import VaultError
from requests import RequestException

log = logging.getLogger(__name__)

DATABASE = "team-insight/database"
FIELDS = ("username", "password", "host", "port", "database")


class VaultUnavailable(Exception):
    """Vault did not give what was asked for; the text says what, never a value."""


class VaultClient:
    def __init__(self, address: str, token: str):
        self.address = address
        self.client = hvac.Client(url=address, token=token, timeout=10)

    def secrets(self, path: str) -> dict[str, str]:
        """The newest version of the secret at `path` below the mount `secret`."""
        try:
            answer = self.client.secrets.kv.v2.read_secret_version(path=path, mount_point="secret", raise_on_deleted_version=True)
            return answer["data"]["data"]
        except (VaultError, RequestException, KeyError, TypeError) as error:
            log.error("Vault at %s gave no secret at %s: %s", self.address, path, type(error).__name__)
            raise VaultUnavailable(f"Vault at {self.address} gave no secret at secret/{path}: {type(error).__name__}") from error

    def database_credentials(self) -> dict[str, str]:
        found = self.secrets(DATABASE)
        missing = [field for field in FIELDS if field not in found]
        if missing:
            raise VaultUnavailable(f"secret/{DATABASE} lacks {', '.join(missing)}")
        return {field: found[field] for field in FIELDS}
