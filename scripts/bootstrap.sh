# shellcheck shell=bash
# Sourced by scripts/farlands and scripts/test, which set `root` (the checkout) and then call `ensure_environment`.
#
# The lock is requirements-cuda.lock (Linux on x86_64, Python 3.12 or newer) where an NVIDIA driver is, else requirements.lock;
# FARLANDS_LOCK=... chooses. An environment keeps the lock that it was made from.
# `.venv/stamp` says what the environment was made from: the checkout's path and the checksums of the lock and of pyproject.toml.
# Equal: nothing to do, a few milliseconds. Different: pip runs again in place. "unfinished" or gone: made afresh.

venv=$root/.venv
log=$root/.cache/install.log
driver=/proc/driver/nvidia/version

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 1; }

ensure_environment() {
    local wanted lock oldest=11
    choose_lock
    wanted=$(cd "$root" && echo "$root" && cksum "$lock" pyproject.toml) || die "$lock or pyproject.toml is missing in $root"
    up_to_date || make_environment
}

# Sets `lock`, and `oldest`: the Python 3 that it needs.
choose_lock() {
    local stamped=
    [[ -r $venv/stamp ]] && stamped=$(grep -oE 'requirements(-cuda)?\.lock$' "$venv/stamp")
    lock=${FARLANDS_LOCK:-${stamped:-requirements.lock}}
    [[ $lock == requirements.lock || $lock == requirements-cuda.lock ]] ||
        die "FARLANDS_LOCK=$lock: there is no such lock; it is requirements.lock or requirements-cuda.lock"
    if [[ -z ${FARLANDS_LOCK:-}$stamped && -e $driver && $(uname -sm) == "Linux x86_64" ]]; then
        if newer_python 12 || command -v uv >/dev/null; then
            lock=requirements-cuda.lock
        else
            say "an NVIDIA driver is here, but requirements-cuda.lock needs Python 3.12: .venv will be without CUDA"
        fi
    fi
    [[ $lock == requirements.lock ]] || oldest=12
}

up_to_date() {
    local have=
    [[ -r $venv/stamp ]] && have=$(<"$venv/stamp")
    [[ $have == "$wanted" && -x $venv/bin/python ]]
}

make_environment() {
    local python had=
    find_python
    mkdir -p "$root/.cache"
    exec 9>>"$root/.cache/bootstrap.lock"
    trap 'say "interrupted; run it again to finish"; exit 130' INT
    take_lock
    if ! up_to_date; then # another first call may have made it while this one waited
        : >"$log"
        [[ -r $venv/stamp ]] && had=$(<"$venv/stamp")
        if [[ ${had%%$'\n'*} == "$root" ]] && fits "$venv/bin/python" "$oldest"; then
            say "$lock or pyproject.toml changed: updating .venv"
        else
            create_venv
            had=unfinished
        fi
        echo unfinished >"$venv/stamp"
        install_packages || { echo "$had" >"$venv/stamp"; failed; }
        echo "$wanted" >"$venv/stamp.new" && mv -f "$venv/stamp.new" "$venv/stamp"
        say "ready"
    fi
    trap - INT
    exec 9>&- # the command that follows must not keep the lock
}

# Sets `python` to the first interpreter that is new enough; uv can do without one.
find_python() {
    newer_python "$oldest"
    # The interpreter behind an activated environment, which may be the very .venv that is about to be made again.
    [[ $python ]] && python=$("$python" -c 'import sys; print(sys._base_executable)')
    command -v uv >/dev/null && return
    [[ $python ]] ||
        die "$lock needs Python 3.$oldest or newer (found ${found:-none}): install it with its venv module (Debian, Ubuntu: apt install python3 python3-venv)"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        die "$python has no venv or pip module: install them (Debian, Ubuntu: apt install python3-venv) and run this again"
}

# Sets `python` to the first interpreter that is Python 3.$1 or newer, or to nothing, and `found` to one that is too old.
newer_python() {
    found=
    for python in python3 python3.{11,12,13,14} python; do
        fits "$python" "$1" && return
        found=${found:-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)} python=
    done
    return 1
}

fits() { "$1" -c "import sys; sys.exit(sys.version_info < (3, $2))" 2>/dev/null; }

# The lock belongs to the open file 9, so it outlives the Python that takes it, and holds on macOS too, which has no flock(1).
take_lock() {
    [[ $python ]] || return 0
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null && return
    say "waiting for another call that is making .venv"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
}

create_venv() {
    if [[ -e $venv/stamp ]]; then
        say "making .venv again: the one here is unfinished, was moved, or lost its Python"
        rm -rf "$venv"
    elif [[ -e $venv || -L $venv ]]; then
        say "making .venv; the one here was not made by this script and goes to .cache/venv.$$"
        mv "$venv" "$root/.cache/venv.$$"
    else
        say "first use: making .venv with $(wc -l <"$root/$lock" | tr -d ' ') packages of $lock; this takes a minute or more"
    fi
    mkdir -p "$venv"
    echo unfinished >"$venv/stamp"
    if command -v uv >/dev/null; then
        logged uv venv --allow-existing --seed --python "${python:->=3.$oldest}" "$venv" || failed
    else
        logged "$python" -I -m venv "$venv" || failed
    fi
}

# setuptools and wheel come first, so that what has to be built (antlr4 for Hydra, this project) is built with the locked ones.
install_packages() {
    local install=("$venv/bin/python" -I -m pip install --disable-pip-version-check --no-input --progress-bar off)
    command -v uv >/dev/null && install=(uv pip install --python "$venv/bin/python" --compile-bytecode)
    local builders
    builders=$(grep -E '^(setuptools|wheel)==' "$root/$lock")
    # shellcheck disable=SC2086
    PIP_USER=0 logged "${install[@]}" $builders &&
        PIP_USER=0 logged "${install[@]}" --no-build-isolation -r "$root/$lock" &&
        PIP_USER=0 logged "${install[@]}" --no-build-isolation --no-deps -e "$root"
}

# Runs a command with its output in the log; on a terminal one line shows how far it is.
logged() {
    set -o pipefail
    "$@" 2>&1 </dev/null | {
        while IFS= read -r line; do
            printf '%s\n' "$line" >>"$log"
            [[ -t 2 && $line == [A-Z]* ]] && printf '\r\033[K%.79s' "$line" >&2
        done
        [[ -t 2 ]] && printf '\r\033[K' >&2
        true
    }
}

failed() {
    grep -v 'is ignored' "$log" | tail -n 20 >&2
    die "could not make the environment; the whole log is $log"
}
