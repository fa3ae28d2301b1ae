"""How libpq connects, in every combination of its settings that concern the first packets.

Arguments: port, user (and database), password, directory of the certificates, mode of the server.
Prints `ok <settings> -> <what came of it>` for each combination: what is compared between servers
is the whole line. The libpq of PostgreSQL 18 is the one inside psycopg; that of PostgreSQL 15 is
the one of the installed `psql`.
"""

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg

PORT, USER, PASSWORD, CERTIFICATES, MODE = sys.argv[1:]
# Connections that do not come about, and queries that are not cancelled, end after so long.
CONNECT_SECONDS = 10
SLEEP_SECONDS = 8
WORKERS = 4

SSLMODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
GSSENCMODES = ["disable", "prefer", "require"]
NEGOTIATIONS = ["postgres", "direct"]
# What the client does with a certificate of its own.
CLIENT_CERTIFICATES = {
    "none": "sslcertmode=disable",
    "offered": "sslcertmode=allow sslcert={0}/client.crt sslkey={0}/client.key",
    "demanded": "sslcertmode=require sslcert={0}/client.crt sslkey={0}/client.key",
}
VERSIONS = ["max_protocol_version=3.0", "max_protocol_version=latest"]


def base(sslmode):
    text = f"host=localhost hostaddr=127.0.0.1 port={PORT} user={USER} dbname={USER} "
    text += f"connect_timeout={CONNECT_SECONDS} sslmode={sslmode} "
    if sslmode.startswith("verify"):
        text += f"sslrootcert={CERTIFICATES}/ca.crt "
    else:
        # Else libpq would look for one in the home directory.
        text += "sslrootcert=/nonexistent "
    return text


def reason(message):
    """Which of the ways not to be let in this is; wording and addresses may differ."""
    last = message.strip().splitlines()[-1]
    if "FATAL" in message:
        return "refused by the server"
    for known in (
        "server does not support SSL",
        "certificate verify failed",
        "server did not request",
        "server closed the connection unexpectedly",
        "weak sslmode",
        "GSSAPI",
        "direct SSL",
        "ALPN",
        "timeout",
    ):
        if known in message:
            return f"client: {known}"
    return "client: " + re.sub(r'"[^"]*"|\d+', "…", last)


def cancelled(connection, cancel):
    """Whether a cancel request ends a query, and leaves the session usable."""
    timer = threading.Timer(0.2, cancel)
    timer.start()
    begun = time.monotonic()
    try:
        connection.execute(f"select pg_sleep({SLEEP_SECONDS})")
        how = "not cancelled"
    except psycopg.errors.QueryCanceled:
        how = "cancelled" if time.monotonic() - begun < SLEEP_SECONDS / 2 else "cancelled late"
    timer.join()
    connection.rollback()
    if connection.execute("select 42").fetchone() != (42,):
        how += ", then unusable"
    return how


def attempt(settings):
    try:
        with psycopg.connect(settings, password=PASSWORD) as connection:
            how = "encrypted" if connection.pgconn.ssl_in_use else "in the clear"
            version = connection.pgconn.full_protocol_version
            safe = cancelled(connection, connection.cancel_safe)
            plain = cancelled(connection, connection.pgconn.get_cancel().cancel)
            return f"{how}, protocol {version}, {safe}; old cancel request: {plain}"
    except psycopg.OperationalError as error:
        return reason(str(error))


def libpq_18():
    cells = {}
    for sslmode, gss, negotiation, certificate in itertools.product(
        SSLMODES, GSSENCMODES, NEGOTIATIONS, CLIENT_CERTIFICATES
    ):
        name = f"sslmode={sslmode} gssencmode={gss} sslnegotiation={negotiation}"
        name += f" client certificate {certificate}"
        cells[name] = (
            base(sslmode)
            + f"gssencmode={gss} sslnegotiation={negotiation} "
            + CLIENT_CERTIFICATES[certificate].format(CERTIFICATES)
        )
    for sslmode, version in itertools.product(SSLMODES, VERSIONS):
        cells[f"sslmode={sslmode} {version}"] = base(sslmode) + version
    return cells


def psql(settings):
    environment = {**os.environ, "PGPASSWORD": PASSWORD, "PGGSSENCMODE": "disable"}
    command = ["psql", "--no-psqlrc", "-At", "-v", "ON_ERROR_STOP=0", settings]
    command += ["-c", r"\conninfo", "-c", f"select pg_sleep({SLEEP_SECONDS})"]
    begun = time.monotonic()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        # Its first line says that it is connected; then the query is under way. Unbuffered: what
        # is read ahead here is lost for what follows.
        first = process.stdout.readline()
        if first:
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SLEEP_SECONDS + CONNECT_SECONDS)
    out, err = (first + out).decode(), err.decode()
    if not first:
        return reason(err)
    how = "encrypted" if "SSL connection" in out else "in the clear"
    early = time.monotonic() - begun < SLEEP_SECONDS / 2
    ended = "cancelled" if "canceling statement" in err and early else "not cancelled"
    return f"{how}, {ended}"


def libpq_15():
    cells = {}
    for sslmode, gss, certificate in itertools.product(
        SSLMODES, GSSENCMODES, ("none", "offered")
    ):
        name = f"sslmode={sslmode} gssencmode={gss} client certificate {certificate}"
        text = base(sslmode) + f"gssencmode={gss} "
        if certificate == "offered":
            text += f"sslcert={CERTIFICATES}/client.crt sslkey={CERTIFICATES}/client.key"
        else:
            text += "sslcert=/nonexistent"
        cells[name] = text
    return cells


def main():
    with ThreadPoolExecutor(WORKERS) as workers:
        for label, act, cells in (
            ("libpq 18", attempt, libpq_18()),
            ("psql", psql, libpq_15()),
        ):
            for name, result in zip(cells, workers.map(act, cells.values())):
                print(f"ok {label}, server {MODE}: {name} -> {result}", flush=True)


main()
