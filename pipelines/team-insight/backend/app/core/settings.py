"""Settings from the environment: values into one frozen object, or one error that names the setting. Nothing else reads the environment.

Every setting `NAME` can also be given as `NAME_FILE`, the path of a file that holds it (Docker secrets); the file wins.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL

from app.core import vault

# HMAC-SHA256 keys shorter than its output are weaker than it.
SHORTEST_SECRET_KEY = 32


class SettingsError(Exception):
    """A setting is missing or cannot be right."""


class Environment:
    """The settings as text, with their `_FILE` twins followed."""

    def __init__(self, variables: Mapping[str, str]):
        self.variables = variables

    def get(self, name: str, default: str | None = None) -> str | None:
        file = self.variables.get(f"{name}_FILE")
        try:
            value = Path(file).read_text().strip() if file else self.variables.get(name)
        except OSError as error:
            raise SettingsError(f"{name}_FILE: cannot read {file}: {error.strerror}") from error
        if value and "${" in value:
            # Some versions of Docker Compose hand an env_file on as it is written.
            raise SettingsError(f"{name} still holds a reference (${{...}}): whatever read the env file did not fill it in")
        return value or default

    def need(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise SettingsError(f"{name} is not set (or {name}_FILE, the path of a file that holds it)")
        return value

    def number(self, name: str, default: int) -> int:
        text = self.get(name, str(default))
        if not text.isdecimal():
            raise SettingsError(f"{name} must be a whole number, not {text!r}")
        return int(text)

    def words(self, name: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in self.get(name, "").split(",") if word.strip())


def database_url(environment: Environment) -> URL | str:
    """Where the database is: what Vault says, else DATABASE_URL, else the parts DB_*. A password may hold any character."""
    if environment.get("USE_VAULT", "false").lower() == "true":
        address, token = environment.get("VAULT_ADDR", "http://vault:8200"), environment.need("VAULT_TOKEN")
        return url_of(vault.VaultClient(address, token).database_credentials())
    return environment.get("DATABASE_URL") or url_of(
        {
            "username": environment.need("DB_USER"),
            "password": environment.need("DB_PASSWORD"),
            "host": environment.get("DB_HOST", "postgres"),
            "port": environment.number("DB_PORT", 5432),
            "database": environment.need("DB_NAME"),
        }
    )


def url_of(credentials: Mapping[str, str | int]) -> URL:
    return URL.create("postgresql", **{**credentials, "port": int(credentials["port"])})


def redis_url(environment: Environment) -> str:
    given = environment.get("REDIS_URL")
    if given:
        return given
    password = quote(environment.get("REDIS_PASSWORD", ""), safe="")
    return f"redis://:{password}@{environment.get('REDIS_HOST', 'redis')}:6379/0"


@dataclass(frozen=True)
class Backlog:
    """The OAuth client of one Backlog space."""

    address: str
    client_id: str
    client_secret: str
    redirect_uri: str


def backlog(environment: Environment) -> Backlog | None:
    """None where no space is configured: the rest of the product works without."""
    space = environment.get("BACKLOG_SPACE_KEY")
    if not space:
        return None
    return Backlog(
        address=environment.get("BACKLOG_ADDRESS", f"https://{space}.backlog.com"),
        client_id=environment.need("BACKLOG_CLIENT_ID"),
        client_secret=environment.need("BACKLOG_CLIENT_SECRET"),
        redirect_uri=environment.need("BACKLOG_REDIRECT_URI"),
    )


@dataclass(frozen=True)
class Settings:
    version: str
    color: str
    database: URL | str
    pool_size: int
    max_overflow: int
    redis: str
    redis_max_connections: int
    secret_key: str
    allowed_hosts: tuple[str, ...]
    cors_origins: tuple[str, ...]
    uploads: Path
    log_level: str
    log_shipping: str | None
    backlog: Backlog | None


def secret_key(environment: Environment) -> str:
    key = environment.need("SECRET_KEY")
    if len(key) < SHORTEST_SECRET_KEY:
        raise SettingsError(f"SECRET_KEY has {len(key)} characters, at least {SHORTEST_SECRET_KEY} are needed (openssl rand -hex 32)")
    return key


def read(variables: Mapping[str, str]) -> Settings:
    environment = Environment(variables)
    return Settings(
        version=environment.get("APP_VERSION", "development"),
        color=environment.get("SERVICE_COLOR", "none"),
        database=database_url(environment),
        pool_size=environment.number("DB_POOL_SIZE", 5),
        max_overflow=environment.number("DB_MAX_OVERFLOW", 5),
        redis=redis_url(environment),
        redis_max_connections=environment.number("REDIS_MAX_CONNECTIONS", 50),
        secret_key=secret_key(environment),
        allowed_hosts=environment.words("ALLOWED_HOSTS"),
        cors_origins=environment.words("CORS_ORIGINS"),
        uploads=Path(environment.get("UPLOADS_DIR", "/app/uploads")),
        log_level=environment.get("LOG_LEVEL", "INFO"),
        log_shipping=environment.get("LOG_SHIPPING"),
        backlog=backlog(environment),
    )


@cache
def settings() -> Settings:
    return read(os.environ)
