#!/usr/bin/env bash
# Set-up, then the main job on embedded data (./run.sh) or the test suite (./run.sh test [pytest arguments]).
# `./run.sh setup` stops after the set-up. PYTHON=/path/to/python3.11 chooses the interpreter of a new environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

VENV=.venv
STAMP=$VENV/.setup-complete   # present only while the environment is whole; holds what it was made from
MARK=$VENV/.made-by-run.sh    # run.sh removes no environment without it
LOG=runs/setup.log
NEED_GB=6

fail() { printf '\nerror: %s\n' "$1" >&2; exit 1; }

fingerprint() { pwd -P; cat requirements.txt requirements-fairseq.txt setup.py | cksum; }

ready() { [[ -f $STAMP && $(<"$STAMP") == "$(fingerprint)" ]] && "$VENV/bin/python" -c '' 2>/dev/null; }

find_python() {
    local candidate version candidates=(python3.11 python3 python)
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        command -v "$candidate" >/dev/null || continue
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        [[ $version == 3.11 ]] && { PY=$candidate; return; }
        fail "Python 3.11 is needed, but $candidate is Python $version. Install Python 3.11 and run: PYTHON=/path/to/python3.11 ./run.sh"
    done
    fail "Python 3.11 is needed, but ${PYTHON:-python3.11} was not found. Install Python 3.11 and run: PYTHON=/path/to/python3.11 ./run.sh"
}

check_machine() {
    local include free
    "$PY" -c 'import venv, ensurepip' 2>/dev/null || fail "$PY cannot make virtual environments. Install its venv package (Debian, Ubuntu: python3.11-venv)."
    command -v "${CXX:-g++}" >/dev/null || fail "A C++ compiler is needed to build fairseq, and ${CXX:-g++} was not found. Install g++ (Debian, Ubuntu: build-essential)."
    include=$("$PY" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    [[ -f $include/Python.h ]] || fail "The headers of $PY are needed to build fairseq, and $include/Python.h is not there. Install them (Debian, Ubuntu: python3.11-dev)."
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
    ((free >= NEED_GB)) || fail "The environment needs $NEED_GB GB of disk, and $PWD has $free GB free. Free some space, or move this folder to a larger disk."
}

check_torchaudio() {
    local found
    found=$(find "$VENV"/lib/python3*/site-packages -maxdepth 1 -name torchaudio 2>/dev/null || true)
    [[ -z $found ]] || fail "torchaudio is installed in $VENV; it is not needed and can keep transformers from loading. Run: $VENV/bin/python -m pip uninstall -y torchaudio"
}

step() {  # step "what happens" command...: one line on the terminal, the rest in the log
    local what=$1 start=$SECONDS
    shift
    printf '%s ... ' "$what"
    : >"$LOG.step"
    if ! "$@" >"$LOG.step" 2>&1; then
        cat "$LOG.step" >>"$LOG"
        explain "$what"
    fi
    cat "$LOG.step" >>"$LOG"
    printf '%d s\n' $((SECONDS - start))
}

explain() {
    local said="$1 failed"
    if grep -q 'No space left on device' "$LOG.step"; then
        fail "$said: the disk is full. Free $NEED_GB GB (here, in the temporary folder and in pip's cache) and run again. Details: $LOG"
    elif grep -qE 'Max retries|NewConnectionError|ReadTimeout|Connection(Reset|Refused)|name resolution|No matching distribution|IncompleteRead' "$LOG.step"; then
        fail "$said: a download did not succeed. Check the network (or pip's index and proxy settings) and run again. Details: $LOG"
    elif grep -qE 'THESE PACKAGES DO NOT MATCH THE HASHES|BadZipFile' "$LOG.step"; then
        fail "$said: a downloaded file is damaged. Run: ${PY:-python3.11} -m pip cache purge, then run again. Details: $LOG"
    fi
    fail "$said. The last lines of $LOG say why; run again once that is cured: $(tail -n 1 "$LOG.step")"
}

remove_env() {  # renamed first: an interrupted removal leaves nothing under the environment's name
    rm -rf runs/.venv.old
    if [[ -e $VENV ]]; then mv "$VENV" runs/.venv.old; rm -rf runs/.venv.old; fi
}

begin_env() {  # appears under its name with the mark already inside
    rm -rf runs/.venv.new
    mkdir runs/.venv.new
    touch "runs/.venv.new/${MARK##*/}"
    mv runs/.venv.new "$VENV"
}

discard() {
    rm -f "$LOG.step"
    if [[ -f $MARK && ! -f $STAMP ]]; then echo "removing the unfinished environment $VENV" >&2; remove_env; fi
}

setup() {
    mkdir -p runs
    if command -v flock >/dev/null; then
        exec 9>runs/.setup.lock
        flock -n 9 || { echo "waiting for another run.sh to finish its set-up"; flock 9; }
    fi
    ready && { exec 9>&-; return; }
    [[ ! -e $VENV || -f $MARK ]] || fail "$VENV exists and was not made by run.sh. Move it away (mv $VENV $VENV.old) and run again."
    find_python
    if [[ ! -f $STAMP || $(head -n 1 "$STAMP") != "$(pwd -P)" ]]; then remove_env; fi   # unfinished, or made in another folder
    check_machine
    echo "setting up $VENV with $("$PY" --version): a few minutes, details in $LOG"
    : >"$LOG"
    trap discard EXIT
    trap 'exit 130' INT TERM
    rm -f "$STAMP"
    [[ -e $VENV ]] || begin_env
    local pip=("$VENV/bin/python" -m pip install --disable-pip-version-check)
    step '[1/6] making the environment' "$PY" -m venv "$VENV"
    step '[2/6] installing torch and build tools' "${pip[@]}" -c requirements.txt $(grep -E '^(torch|numpy|Cython|setuptools|wheel|ninja)==' requirements.txt)
    step '[3/6] installing the other pinned packages' "${pip[@]}" --no-build-isolation -r requirements.txt
    step '[4/6] building fairseq (several minutes the first time)' "${pip[@]}" --no-deps --no-build-isolation -r requirements-fairseq.txt
    step '[5/6] installing mmpt' "${pip[@]}" --no-deps --no-build-isolation -e .
    step '[6/6] checking that it loads' "$VENV/bin/python" -c 'import fairseq, mmpt, torch; from transformers import BertModel'
    fingerprint >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
    trap - EXIT INT TERM
    rm -f "$LOG.step"
    exec 9>&-
}

case "${1:-}" in
    '' | -*) job=(-m mmpt.demo.main_job "$@") ;;
    test) export OMP_NUM_THREADS=1; job=(-m pytest -n 2 --dist loadfile "${@:2}") ;;  # two workers of one thread each
    setup) job=() ;;
    *) fail "unknown command $1. Use ./run.sh, ./run.sh test or ./run.sh setup." ;;
esac
setup
check_torchaudio
((${#job[@]} == 0)) || exec "$VENV/bin/python" "${job[@]}"
