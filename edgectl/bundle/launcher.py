"""The program `bin/edgectl-agent` of a bundle. PURE: text."""

_TEXT = """\
#!/bin/sh
# Starts the agent of the bundle that this file lies in; a link to it will do.
root=$(readlink -f -- "$0") && root=${{root%/bin/*}} || exit 1
unset PYTHONHOME
# Inherited by the workers. SAFEPATH: nothing is imported from the folder that it happens to be started in.
export PYTHONPATH="$root/lib" PYTHONNOUSERSITE=1 PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1
python=${{EDGECTL_AGENT_PYTHON:-}}
# By its whole path: without a PATH in its environment Python does not know itself, and the agent starts it again.
[ -n "$python" ] || python=$(command -v python{python}) || python=
if [ -z "$python" ] && python3 -c 'import sys; sys.exit(sys.version_info[:2] != ({major}, {minor}))' 2>/dev/null; then
    python=$(command -v python3)
fi
[ -z "$python" ] || exec "$python" -m agent_daemon "$@"
echo "edgectl-agent: this agent was bundled for Python {python}, and no python{python} is on the PATH" >&2
echo "  hint: name one in EDGECTL_AGENT_PYTHON, or install a bundle for the Python that is here" >&2
exit 1
"""


def text(python: str) -> str:
    """A POSIX shell script for that minor version (`3.12`)."""
    major, _, minor = python.partition(".")
    return _TEXT.format(python=python, major=major, minor=minor)
