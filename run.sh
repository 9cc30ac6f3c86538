#!/usr/bin/env bash
# Set-up, then the main job on synthetic data (./run.sh) or the test suite (./run.sh test [pytest arguments]).
# `./run.sh docs` makes the site of the pages in runs/site; `./run.sh setup` stops after the set-up.
# PYTHON=/path/to/python chooses the interpreter; the environment is made anew where it was another.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

VENV=.venv
STAMP=$VENV/.setup-complete   # present only while the environment is whole; holds what it was made from
MARK=$VENV/.made-by-run.sh    # run.sh removes no environment without it
LOG=runs/setup.log
NEED_GB=7   # 6.1 with CUDA's libraries, 2.4 with a torch for the CPU
PROBE='
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 14):
    sys.exit(print("is Python %d.%d" % sys.version_info[:2]))
try:
    import ensurepip, venv
except ImportError:
    sys.exit(print("lacks its venv package (Debian, Ubuntu: python%d.%d-venv)" % sys.version_info[:2]))
print("usable")
'

fail() { printf '\nerror: %s\n' "$1" >&2; exit 1; }

fingerprint() { pwd -P; cat requirements.txt requirements-fairseq.txt pyproject.toml setup.py | cksum; }

ready() { [[ -f $STAMP && $(<"$STAMP") == "$(fingerprint)" ]] && "$VENV/bin/python" -c '' 2>/dev/null; }

probe() { "$1" -c "$PROBE" 2>/dev/null || echo 'does not start'; }   # a name on PATH may lead nowhere: it is run

chosen() {  # is the environment of the Python that PYTHON names?
    local version='import sys; print(sys.version_info[:2])'
    [[ -z ${PYTHON:-} || $("$PYTHON" -c "$version" 2>/dev/null) == "$("$VENV/bin/python" -c "$version" 2>/dev/null)" ]]
}

find_python() {
    local candidate said reasons='' candidates=(python3.11 python3.12 python3.13 python3.10 python3.14 python3 python)  # the most tried first
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        command -v "$candidate" >/dev/null || continue
        said=$(probe "$candidate")
        [[ $said == usable ]] && { PY=$candidate; return; }
        reasons+="; $candidate $said"
    done
    [[ -n $reasons ]] || reasons="; ${PYTHON:-python3} was not found"
    fail "Python 3.10 to 3.14 is needed${reasons}. Install one (3.11 is tried most) and run: PYTHON=/path/to/python3.11 ./run.sh"
}

check_disk() {
    local free
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
    ready && chosen && { exec 9>&-; return; }
    [[ ! -e $VENV || -f $MARK ]] || fail "$VENV exists and was not made by run.sh. Move it away (mv $VENV $VENV.old) and run again."
    if [[ -f $STAMP && $(head -n 1 "$STAMP") == "$(pwd -P)" && $(probe "$VENV/bin/python") == usable ]] && chosen; then
        PY=$VENV/bin/python   # whole, but made from other requirements: brought up to date
    else
        find_python
        remove_env
    fi
    check_disk
    echo "setting up $VENV with $("$PY" --version): a minute or two, details in $LOG"
    : >"$LOG"
    trap discard EXIT
    trap 'exit 130' INT TERM
    rm -f "$STAMP"
    [[ -e $VENV ]] || begin_env
    local pip=("$VENV/bin/python" -m pip install --disable-pip-version-check)
    [[ -x $VENV/bin/python ]] || step '[1/6] making the environment' "$PY" -m venv "$VENV"
    step '[2/6] installing torch' "${pip[@]}" -c requirements.txt torch setuptools wheel
    step '[3/6] installing the other pinned packages' "${pip[@]}" --no-build-isolation -r requirements.txt
    step '[4/6] installing fairseq' env READTHEDOCS=1 "${pip[@]}" --no-cache-dir --no-deps --no-build-isolation -r requirements-fairseq.txt
    step '[5/6] installing mmpt' "${pip[@]}" --no-deps --no-build-isolation -e .
    step '[6/6] checking that it loads' "$VENV/bin/python" -c 'import fairseq, mmpt, torch; from transformers import AutoTokenizer'
    fingerprint >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
    trap - EXIT INT TERM
    rm -f "$LOG.step"
    exec 9>&-
}

kernels() {  # their tests run in Triton's interpreter; a torch for CUDA has brought a Triton of its own, and 3.9 has none for Python 3.10
    "$VENV/bin/python" -c 'import triton' 2>/dev/null && return
    step 'installing Triton, for the tests of kernels' "$VENV/bin/python" -m pip install --disable-pip-version-check --no-deps 'triton==3.9.0; python_version > "3.10"'
    rm -f "$LOG.step"
}

case "${1:-}" in
    '' | -*) job=(-m mmpt_cli demo "$@") ;;
    test) export OMP_NUM_THREADS=1; job=(-m pytest -n 2 --dist loadfile "${@:2}") ;;  # two workers of one thread each
    docs) export NO_MKDOCS_2_WARNING=1; job=(-m mkdocs build --strict -f scripts/docs/mkdocs.yml) ;;
    setup) job=() ;;
    *) fail "unknown command $1. Use ./run.sh, ./run.sh test, ./run.sh docs or ./run.sh setup." ;;
esac
setup
check_torchaudio
[[ ${1:-} != test ]] || kernels
((${#job[@]} == 0)) || exec "$VENV/bin/python" "${job[@]}"
echo "$VENV is ready. In every new shell, for \`mmpt\` and \`python\` of it: source $VENV/bin/activate"
