#!/usr/bin/env bash
# Run cvae_jax. What a command needs is installed into .venv, beside this file, the first time it is needed.

set -euo pipefail
here=$PWD
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
root=$PWD
# A relative path, unlike a name on PATH, starts where the user stands.
if [[ ${PYTHON:-} == */* && $PYTHON != /* ]]; then PYTHON=$here/$PYTHON; fi

venv=.venv
stamps=$venv/stamps          # one file per installed extra: what it was installed from
unfinished=$venv/unfinished  # there while something is being installed

usage() {
  cat <<'USAGE'
usage: ./launch.sh COMMAND [FLAG...]

  train          train one model:            ./launch.sh train --beta=1
  sweep          train many as one program:  ./launch.sh sweep --beta=0.5,1,2 --seed=0,1
  sample         draw samples from a trained model
  evaluate       compute a trained model's metrics, or compare two models
  pictures       draw a trained model's latents and classes: traversals, interpolations, styles, scatter
  explorer       write a web page whose sliders move a trained model's latents
  export_member  write one model of a sweep as an ordinary run
  complete       compare three models that complete images from some of their quadrants
  reproduce      repeat a published result:  ./launch.sh reproduce --experiment=iwae-k1 --stages=4
  prepare        download and prepare a TFDS dataset (installs TensorFlow and librosa)
  test           run the tests; arguments go to pytest
  setup          install only:  ./launch.sh setup [test] [bench] [prepare] [audio] [cuda]
  help           show this

`./launch.sh COMMAND --help` lists a command's flags. Relative paths, and the folders runs/ and sweeps/ of results, start
in the folder you call from. Only test runs in the checkout.

The first start makes .venv with the newest of Python 3.13, 3.12 and 3.11, or the one named by PYTHON=..., and
installs the versions of constraints.txt, with CUDA where nvidia-smi finds a GPU. Later starts install only what
changed. To begin anew, delete .venv.
USAGE
}

say() { echo "launch.sh: $*" >&2; }

die() {
  echo "error: $*" >&2
  exit 1
}

version_of() { "$1" -I -S -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || true; }

# A name on PATH proves little: pyenv's shims may fail, and Debian ships Python without ensurepip.
is_usable() {
  "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' </dev/null >/dev/null 2>&1
}

find_python() {
  if [[ -n ${PYTHON:-} ]]; then
    is_usable "$PYTHON" || die "PYTHON=$PYTHON is no working Python 3.11 or newer with venv"
    echo "$PYTHON"
    return
  fi
  local name path
  for name in python3.13 python3.12 python3.11 python3 python python3.14; do
    while read -r path; do
      if is_usable "$path"; then
        echo "$path"
        return
      fi
    done < <(type -ap "$name")
  done
  die "found no Python 3.11 or newer with venv: install one (on Debian with python3-venv), or set PYTHON=/path/to/python3"
}

# What an extra was installed from. A change of any of it installs again.
stamp() { echo "$(version_of $venv/bin/python) $PWD $(cat pyproject.toml constraints.txt | cksum)"; }

# Those of the extras EXTRA... that are not installed as the files say now.
missing() {
  local extra now
  now=$(stamp)
  for extra in "$@"; do
    if [[ -e $unfinished || ! -f $stamps/$extra || $(<"$stamps/$extra") != "$now" ]]; then echo "$extra"; fi
  done
}

has_right_python() {
  local version
  version=$(version_of $venv/bin/python)
  [[ -n $version && (-z ${PYTHON:-} || $(version_of "$PYTHON") == "$version") ]]
}

# A .venv whose making or filling was cut short, whose Python is gone, or is not the one asked for, is made anew.
make_venv() {
  if has_right_python && [[ ! -e $unfinished ]] && $venv/bin/python -m pip --version >/dev/null 2>&1; then return; fi
  local python
  python=$(find_python)
  say "making $venv with Python $(version_of "$python") ($python)"
  rm -rf $stamps
  "$python" -m venv --clear --without-pip $venv
  touch $unfinished
  $venv/bin/python -m ensurepip >/dev/null
  rm $unfinished
}

# Install the extras EXTRA..., skipping what is there.
install() {
  local wanted extra
  # Once CUDA is there, nvidia-smi is not asked again: it can take seconds.
  if [[ -e $stamps/cuda ]] || nvidia-smi -L >/dev/null 2>&1; then set -- "$@" cuda; fi
  if has_right_python && [[ -z $(missing "$@") ]]; then return; fi

  # One start installs, others wait for it; where flock is missing, they do not.
  exec 9<.
  flock 9 2>/dev/null || true
  make_venv
  wanted=$(missing "$@" | paste -sd, -)
  if [[ -n $wanted ]]; then
    say "installing cvae_jax[$wanted] into $venv (once: a minute or two, longer with CUDA)"
    touch $unfinished
    # When pip itself gives up it leaves the folder in order; when it is interrupted the mark stays.
    trap 'exit 130' INT
    $venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$wanted]" >&2 ||
      { rm $unfinished; die "pip could not install cvae_jax[$wanted], see above"; }
    mkdir -p $stamps
    for extra in ${wanted//,/ }; do stamp >"$stamps/$extra"; done
    rm $unfinished
  fi
  exec 9<&-
}

wants_help() {
  local argument
  for argument in "$@"; do
    case $argument in --help | -help | -h | '-?' | --helpshort | --helpfull) return 0 ;; esac
  done
  return 1
}

# Run a script in the user's folder. With -P, a folder `experiments` there does not hide that of the checkout.
start() {
  cd -- "$here"
  PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$root/$venv/bin/python" -P -m "experiments.$1" "${@:2}"
}

main() {
  local command=${1:-help} extra
  if (($#)); then shift; fi
  case $command in
    train | sweep | evaluate | sample | complete | pictures | explorer | reproduce | export_member)
      install experiments
      start "$command" "$@"
      ;;
    prepare)
      if wants_help "$@"; then install experiments; else install experiments prepare audio; fi
      start prepare "$@"
      ;;
    test)
      install experiments test
      exec $venv/bin/python -m pytest "$@"
      ;;
    setup)
      for extra in "$@"; do
        case $extra in
          experiments | test | bench | prepare | audio | cuda) ;;
          *) die "unknown extra '$extra', expected experiments, test, bench, prepare, audio or cuda" ;;
        esac
      done
      install experiments "$@"
      say "$venv is ready, Python $(version_of $venv/bin/python)"
      ;;
    help | -h | --help) usage ;;
    *) die "unknown command '$command', see ./launch.sh help" ;;
  esac
}

main "$@"
