# Sourced by the scripts: sets $python to a Python that modelpool runs on (3.11 to 3.13, able to make virtual
# environments), or says what is missing and ends.
python=
unfit=
for candidate in python3 python3.13 python3.12 python3.11; do
    found=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    case $found in
    3.11 | 3.12 | 3.13)
        if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
            python=$candidate
            break
        fi
        unfit="$unfit $candidate ($found, without venv: install the package python$found-venv)"
        ;;
    *) unfit="$unfit $candidate ($found)" ;;
    esac
done
if [ -z "$python" ]; then
    echo "modelpool needs Python 3.11, 3.12 or 3.13 with the venv module; found:${unfit:- none}." >&2
    echo "Install one of them so that python3, python3.13, python3.12 or python3.11 is on the PATH." >&2
    exit 3
fi
