"""A Kerberos credential that no server takes, but libpq does.

Without one libpq never asks for GSSAPI encryption, whatever `gssencmode` says.
"""

import os
import struct
import time

REALM = "EXAMPLE.TEST"
LIFETIME_SECONDS = 86400
AES256_KEY_BYTES = 32
AES256_TYPE = 18

CONFIGURATION = f"""\
[libdefaults]
default_realm = {REALM}
dns_lookup_kdc = false
dns_lookup_realm = false
dns_canonicalize_hostname = false
rdns = false
"""


def counted(content):
    return struct.pack(">I", len(content)) + content


def principal(*names):
    parts = [REALM, *names]
    return struct.pack(">II", 1, len(names)) + b"".join(counted(part.encode()) for part in parts)


def cache():
    """A credential cache, version 4 of its format, with a ticket-granting ticket in it."""
    client = principal("somebody")
    now = int(time.time())
    key = struct.pack(">H", AES256_TYPE) + counted(bytes(AES256_KEY_BYTES))
    times = struct.pack(">IIII", now, now, now + LIFETIME_SECONDS, 0)
    # Not a session key, no flags, no addresses, no authorization data.
    rest = b"\0" + struct.pack(">III", 0, 0, 0) + counted(b"no ticket") + counted(b"")
    ticket = client + principal("krbtgt", REALM) + key + times + rest
    return b"\x05\x04" + struct.pack(">H", 0) + client + ticket


def install(directory):
    """Writes it, and points every Kerberos library of this process and its children to it."""
    path = os.path.join(directory, "krb5cc")
    with open(path, "wb") as file:
        file.write(cache())
    configuration = os.path.join(directory, "krb5.conf")
    with open(configuration, "w", encoding="ascii") as file:
        file.write(CONFIGURATION)
    os.environ["KRB5CCNAME"] = f"FILE:{path}"
    os.environ["KRB5_CONFIG"] = configuration
