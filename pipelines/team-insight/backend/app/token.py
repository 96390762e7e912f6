"""Prints an access token, for whoever may run a command in the container: `python -m app.token --account health-check`.

The deployment's health check can use it to see more than a 401.
"""

import argparse

from sqlalchemy.orm import Session

from app import people
from app.core import tokens
from app.core.database import engine


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--account", required=True, help="the account of Backlog, or a name of your own for a machine")
    account = arguments.parse_args().account
    with Session(engine()) as database:
        print(tokens.issue(people.known(database, account, account)))


if __name__ == "__main__":
    main()
