"""How libpq connects, in every combination of its settings that concern the first packets.

Arguments: port, user (and database), password, directory of the certificates, name of the host
that is connected to, mode of the server. Prints `ok <settings> -> <what came of it>` for each
combination: what is compared between servers is the whole line. The libpq of PostgreSQL 18 is the
one inside psycopg; that of PostgreSQL 15 is the one of the installed `psql`.
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

import credential
import psycopg

PORT, USER, PASSWORD, CERTIFICATES, HOST, MODE = sys.argv[1:]
# Connections that do not come about, and queries that are not cancelled, end after so long.
CONNECT_SECONDS = 10
SLEEP_SECONDS = 5
# A request that comes before its query cancels nothing, without pgs too: where a loaded machine is
# that late, the second try gives it longer.
CANCEL_AFTER_SECONDS = [0.2, 1.5]
WORKERS = 12

SSLMODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
GSSENCMODES = ["disable", "prefer", "require"]
NEGOTIATIONS = ["postgres", "direct"]
# What the client shows. The authority that signed the server's certificate signed the right one.
FILES = "sslcert={0}/{1}.crt sslkey={0}/{1}.key"
CLIENT_CERTIFICATES = {
    "none": "sslcertmode=disable",
    "right": f"sslcertmode=allow {FILES.format(CERTIFICATES, 'client')}",
    "right and the server must ask": f"sslcertmode=require {FILES.format(CERTIFICATES, 'client')}",
    "another user's": f"sslcertmode=allow {FILES.format(CERTIFICATES, 'other')}",
    "wrong": f"sslcertmode=allow {FILES.format(CERTIFICATES, 'foreign')}",
}
# Each in every sslmode, with the right certificate.
OTHERS = [
    "max_protocol_version=3.0",
    "max_protocol_version=latest",
    "channel_binding=require",
    "sslsni=0",
]


def base(sslmode):
    text = f"host={HOST} hostaddr=127.0.0.1 port={PORT} user={USER} dbname={USER} "
    text += f"connect_timeout={CONNECT_SECONDS} sslmode={sslmode} "
    if sslmode.startswith("verify"):
        text += f"sslrootcert={CERTIFICATES}/ca.crt "
    else:
        # Else libpq would look for one in the home directory.
        text += "sslrootcert=/nonexistent "
    return text


def attempts(message):
    """What libpq says of each of its attempts: it tries in the clear after TLS, and so on.

    Of one that GSSAPI was declined to, it says nothing.
    """
    parts = re.split(r"connection to server at .*? failed: ?", message)[1:]
    return [part.strip() for part in parts if part.strip()]


def reason(message, settings):
    """Which of the ways not to be let in this is; wording and addresses may differ.

    An attempt with GSSAPI that something else followed is left out: some servers begin what cannot
    succeed, others decline at once.
    """
    tried = attempts(message) or [message.strip()]
    tried = [text for text in tried if "GSSAPI" not in text] or tried
    reasons = [reason_of_one(text, "foreign.crt" in settings) for text in tried]
    return ", then ".join(dict.fromkeys(reasons))


# A server that breaks a handshake off says why in an alert, which a reset may overtake.
BROKEN_OFF = (
    "alert unknown ca",
    "server closed the connection unexpectedly",
    "Connection reset by peer",
    "EOF detected",
    "Broken pipe",
)


def reason_of_one(text, foreign):
    if "FATAL" in text:
        return "refused by the server"
    if foreign and any(known in text for known in BROKEN_OFF):
        return "handshake broken off by the server"
    for known in (
        "server does not support SSL",
        "certificate verify failed",
        "server did not request",
        "server closed the connection unexpectedly",
        "weak sslmode",
        "GSSAPI",
        "channel binding",
        "direct SSL",
        "ALPN",
        "timeout",
    ):
        if known in text:
            return f"client: {known}"
    return "client: " + re.sub(r'"[^"]*"|\d+', "…", text.splitlines()[-1])


def cancelled(connection, cancel):
    """Whether a cancel request ends a query, and leaves the session usable."""
    for after in CANCEL_AFTER_SECONDS:
        timer = threading.Timer(after, cancel)
        timer.start()
        begun = time.monotonic()
        try:
            connection.execute(f"select pg_sleep({SLEEP_SECONDS})")
            how = "not cancelled"
        except psycopg.errors.QueryCanceled:
            early = time.monotonic() - begun < SLEEP_SECONDS - 1
            how = "cancelled" if early else "cancelled late"
        timer.join()
        connection.rollback()
        if how == "cancelled":
            break
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
        return reason(str(error), settings)


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
            + CLIENT_CERTIFICATES[certificate]
        )
    for sslmode, other in itertools.product(SSLMODES, OTHERS):
        name = f"sslmode={sslmode} {other}"
        cells[name] = f"{base(sslmode)}{other} {CLIENT_CERTIFICATES['right']}"
    return cells


def psql(settings):
    for after in CANCEL_AFTER_SECONDS:
        how = psql_cancelled(settings, after)
        if not how.endswith("not cancelled"):
            break
    return how


def psql_cancelled(settings, after):
    environment = {**os.environ, "PGPASSWORD": PASSWORD}
    command = ["psql", "--no-psqlrc", "-At", "-v", "ON_ERROR_STOP=0", settings]
    command += ["-c", r"\conninfo", "-c", f"select pg_sleep({SLEEP_SECONDS})"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        # Its first line says that it is connected; then the query is under way. Unbuffered: what
        # is read ahead here is lost for what follows.
        first = process.stdout.readline()
        begun = time.monotonic()
        if first:
            time.sleep(after)
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SLEEP_SECONDS + CONNECT_SECONDS)
    out, err = (first + out).decode(), err.decode()
    if not first:
        return reason(err, settings)
    how = "encrypted" if "SSL connection" in out else "in the clear"
    early = time.monotonic() - begun < SLEEP_SECONDS - 1
    ended = "cancelled" if "canceling statement" in err and early else "not cancelled"
    return f"{how}, {ended}"


def libpq_15():
    cells = {}
    for sslmode, gss, certificate in itertools.product(
        SSLMODES, GSSENCMODES, CLIENT_CERTIFICATES
    ):
        wish = CLIENT_CERTIFICATES[certificate]
        # It has no sslcertmode.
        if "sslcertmode=require" in wish:
            continue
        wish = re.sub("sslcertmode=disable", "sslcert=/nonexistent", wish)
        wish = re.sub("sslcertmode=allow ", "", wish)
        name = f"sslmode={sslmode} gssencmode={gss} client certificate {certificate}"
        cells[name] = f"{base(sslmode)}gssencmode={gss} {wish}"
    return cells


def main():
    credential.install(os.path.dirname(CERTIFICATES))
    with ThreadPoolExecutor(WORKERS) as workers:
        for label, act, cells in (
            ("libpq 18", attempt, libpq_18()),
            ("psql", psql, libpq_15()),
        ):
            for name, result in zip(cells, workers.map(act, cells.values())):
                print(f"ok {label}, server {MODE}: {name} -> {result}", flush=True)


main()
