"""builder-db user-… and access-…"""

import secrets
import sys
from pathlib import Path

import click
import sqlalchemy as sa

from builder_web import access
from builder_web.administration.options import datadir
from builder_web.directory import DataDirectory
from builder_web.store import opening
from builder_web.store.schema import access as access_list
from builder_web.store.schema import job, user


@click.command("user-add")
@datadir
@click.option("--unrestricted", is_flag=True, help="Let the user upload builds of any job.")
@click.argument("username")
def user_add(datadir: Path, unrestricted: bool, username: str) -> None:
    """Add a user, whose password is read from standard input."""
    password = sys.stdin.buffer.readline().removesuffix(b"\n")
    salt = secrets.token_bytes(access.SALT_SIZE)
    with opening.transaction(DataDirectory(datadir).database) as connection:
        connection.execute(
            sa.insert(user).values(
                username=username,
                password_hash=access.hash_password(password, salt=salt, n=access.SCRYPT_N, r=access.SCRYPT_R, p=access.SCRYPT_P),
                password_salt=salt,
                scrypt_n=access.SCRYPT_N,
                scrypt_r=access.SCRYPT_R,
                scrypt_p=access.SCRYPT_P,
                restricted=not unrestricted,
            )
        )


@click.command("access-add")
@datadir
@click.argument("username")
@click.argument("job_name", metavar="JOB")
def access_add(datadir: Path, username: str, job_name: str) -> None:
    """Let a restricted user upload builds of a job."""
    with opening.transaction(DataDirectory(datadir).database) as connection:
        connection.execute(
            sa.insert(access_list).values(
                user=sa.select(user.c.id).where(user.c.username == username).scalar_subquery(),
                job=sa.select(job.c.id).where(job.c.name == job_name).scalar_subquery(),
            )
        )
