#!/usr/bin/env bash
# Entry point of an image that keeps the contract of the official PostgreSQL 18 image.
#
# An empty PGDATA is initialised once: cluster, password, database, then every file of
# /docker-entrypoint-initdb.d in the order of its name. Then `postgres` becomes PID 1.
set -Eeuo pipefail

initdb_directory=/docker-entrypoint-initdb.d
socket_directory=/var/run/postgresql

note() { printf '%s: %s\n' "${0##*/}" "$*"; }
fail() {
    note "error: $*" >&2
    exit 1
}

# secret NAME [DEFAULT]: NAME from the environment, or from the file that NAME_FILE names.
secret() {
    local name=$1 default=${2:-} file_name="${1}_FILE"
    if [[ -n ${!name:-} && -n ${!file_name:-} ]]; then
        fail "both $name and $file_name are set; set one of them"
    fi
    local value=$default
    if [[ -n ${!name:-} ]]; then
        value=${!name}
    elif [[ -n ${!file_name:-} ]]; then
        [[ -r ${!file_name} ]] || fail "$file_name names '${!file_name}', which cannot be read"
        value=$(<"${!file_name}")
    fi
    export "$name"="$value"
    unset "$file_name"
}

read_environment() {
    secret POSTGRES_PASSWORD
    secret POSTGRES_USER postgres
    secret POSTGRES_DB "$POSTGRES_USER"
    secret POSTGRES_INITDB_ARGS
    : "${POSTGRES_HOST_AUTH_METHOD:=}"
}

# wants_help ARG…: whether postgres would only print something and end.
wants_help() {
    local argument
    for argument; do
        case $argument in
            -'?' | --help | --describe-config | -V | --version) return 0 ;;
        esac
    done
    return 1
}

create_directories() {
    mkdir -p "$PGDATA" "$socket_directory"
    chmod 00700 "$PGDATA" || note "cannot set the mode of $PGDATA; going on"
    chmod 03775 "$socket_directory" || note "cannot set the mode of $socket_directory; going on"
    local wal=${POSTGRES_INITDB_WALDIR:-}
    if [[ -n $wal ]]; then
        mkdir -p "$wal"
        chmod 700 "$wal"
    fi
    if [[ $EUID -eq 0 ]]; then
        [[ -z $wal ]] || find "$wal" \! -user postgres -exec chown postgres {} +
        find "$PGDATA" \! -user postgres -exec chown postgres {} +
        find "$socket_directory" \! -user postgres -exec chown postgres {} +
    fi
}

# The server refuses to run as root, so the script starts itself again as its user.
drop_privileges() {
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- \
        env HOME=/var/lib/postgresql "$BASH_SOURCE" "$@"
}

check_environment() {
    if [[ -d /var/lib/postgresql/data/base ]]; then
        fail "/var/lib/postgresql/data holds a cluster of an older layout;" \
            "PostgreSQL 18 keeps its own in $PGDATA, so run pg_upgrade first"
    fi
    if [[ -z $POSTGRES_PASSWORD && $POSTGRES_HOST_AUTH_METHOD != trust ]]; then
        fail "the database is not initialised and no superuser password is given;" \
            "set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE," \
            "or POSTGRES_HOST_AUTH_METHOD=trust to let everyone in without one"
    fi
    if [[ $POSTGRES_HOST_AUTH_METHOD == trust ]]; then
        note "warning: POSTGRES_HOST_AUTH_METHOD=trust lets anyone who reaches the port in" >&2
    fi
}

create_cluster() {
    local arguments=()
    [[ -z ${POSTGRES_INITDB_WALDIR:-} ]] || arguments+=(--waldir "$POSTGRES_INITDB_WALDIR")
    # The arguments come as one shell-quoted string: that is the contract.
    eval "initdb --username=\"\$POSTGRES_USER\" \
        --pwfile=<(printf '%s\n' \"\$POSTGRES_PASSWORD\") \
        \"\${arguments[@]}\" $POSTGRES_INITDB_ARGS"
}

# Host connections use the asked method, else the one passwords are stored with.
allow_hosts() {
    local method=$POSTGRES_HOST_AUTH_METHOD
    [[ -n $method ]] || method=$(postgres -C password_encryption)
    {
        printf '\n'
        [[ $method != trust ]] || printf '# anyone who reaches this server is let in\n'
        printf 'host all all all %s\n' "$method"
    } >>"$PGDATA/pg_hba.conf"
}

# A server that only this container reaches, for the set-up below.
start_setup_server() {
    local options="-c listen_addresses='' -p ${PGPORT:-5432}"
    [[ ${1:-} != postgres ]] || shift
    [[ $# -eq 0 ]] || options=$(printf ' %q' "$@")" $options"
    NOTIFY_SOCKET= PGUSER=${PGUSER:-$POSTGRES_USER} pg_ctl -D "$PGDATA" -w -o "$options" start
}

stop_setup_server() {
    PGUSER=${PGUSER:-$POSTGRES_USER} pg_ctl -D "$PGDATA" -m fast -w stop
}

# docker_process_sql [psql arguments]: as the superuser, in the database asked for once it exists.
# Init scripts written for the official image call it by this name.
docker_process_sql() {
    local target=(--dbname "$POSTGRES_DB")
    [[ -n ${database_exists:-} ]] || target=(--dbname postgres)
    PGHOST= PGHOSTADDR= psql -v ON_ERROR_STOP=1 --no-psqlrc \
        --username "$POSTGRES_USER" --no-password "${target[@]}" "$@"
}

create_database() {
    local found
    found=$(docker_process_sql --tuples-only --no-align --set name="$POSTGRES_DB" \
        <<<"SELECT 1 FROM pg_database WHERE datname = :'name';")
    if [[ -z $found ]]; then
        docker_process_sql --set name="$POSTGRES_DB" <<<'CREATE DATABASE :"name";'
    fi
    database_exists=1
}

run_init_files() {
    local file
    for file in "$initdb_directory"/*; do
        case $file in
            *.sh)
                if [[ -x $file ]]; then
                    note "running $file"
                    "$file"
                else
                    note "sourcing $file"
                    # shellcheck source=/dev/null
                    . "$file"
                fi
                ;;
            *.sql) note "running $file" && docker_process_sql --file "$file" ;;
            *.sql.gz) note "running $file" && gunzip -c "$file" | docker_process_sql ;;
            *.sql.xz) note "running $file" && xzcat "$file" | docker_process_sql ;;
            *.sql.zst) note "running $file" && zstd -dc "$file" | docker_process_sql ;;
            "$initdb_directory/*") ;;
            *) note "ignoring $file" ;;
        esac
    done
}

initialise() {
    check_environment
    create_cluster
    allow_hosts
    # For init scripts whose psql meets a `local` rule that asks for a password.
    export PGPASSWORD=${PGPASSWORD:-$POSTGRES_PASSWORD}
    start_setup_server "$@"
    create_database
    run_init_files
    stop_setup_server
    unset PGPASSWORD
    note 'initialisation complete; starting the server'
}

main() {
    # `docker run IMAGE -c setting=value` means the server with that setting.
    if [[ ${1:-} == -* ]]; then
        set -- postgres "$@"
    fi
    if [[ ${1:-} == postgres ]] && ! wants_help "$@"; then
        read_environment
        create_directories
        if [[ $EUID -eq 0 ]]; then
            drop_privileges "$@"
        fi
        if [[ -s $PGDATA/PG_VERSION ]]; then
            note 'PGDATA holds a cluster; initialisation is skipped'
        else
            initialise "$@"
        fi
        # The server has no use for it, and its environment can be read for as long as it runs.
        unset POSTGRES_PASSWORD
    fi
    exec "$@"
}

# Sourced (by a test or a derived image) the functions are there and nothing runs.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    main "$@"
fi
