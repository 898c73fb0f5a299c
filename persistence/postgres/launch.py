"""Runs one PostgreSQL program so that it dies with us and is not root. A script, not a module.

    python -I -S launch.py PARENT SIGNAL IDENTITY DIRECTORY SOCKETS -- PROGRAM ARGUMENT...

It becomes PROGRAM (exec), so the pid is PostgreSQL's own. Before that:

1. PR_SET_PDEATHSIG: SIGNAL arrives when the *thread* that started us ends. If
   PARENT is already gone the signal would never come, so we stop.
2. PostgreSQL refuses to run as root. IDENTITY says how not to be:
   `self` (we are not), `namespace` (a user namespace in which root is nobody:
   no user is switched, the files stay ours), `setuid` (become nobody; DIRECTORY
   with all that is in it, and SOCKETS, are given to it). `namespace` falls
   back to `setuid` where the kernel forbids it.

Only the standard library, and little of it: this is on the way to every start.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
NOBODY = 65534

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _own(directory: str, user: int) -> None:
    """Give a tree to `user`, unless its top already is."""
    if not os.path.isdir(directory) or os.stat(directory).st_uid == user:
        return
    for path, _, names in os.walk(directory, topdown=False):
        for name in names:
            os.lchown(os.path.join(path, name), user, user)
        os.chown(path, user, user)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _enter_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    _call("unshare", CLONE_NEWUSER)
    _write("/proc/self/uid_map", f"{NOBODY} {user} 1")
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/gid_map", f"{NOBODY} {group} 1")


def _become_nobody(directory: str, sockets: str) -> None:
    _own(directory, NOBODY)
    os.chown(sockets, NOBODY, NOBODY)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def main() -> None:
    parent, signal_number, identity, directory, sockets = sys.argv[1:6]
    program = sys.argv[7:]
    if identity == "namespace":
        _own(directory, os.geteuid())
        os.chown(sockets, os.geteuid(), os.getegid())
        try:
            _enter_namespace()
        except OSError as error:
            print(f"no user namespace ({error}); running as user {NOBODY} instead", file=sys.stderr)
            identity = "setuid"
    if identity == "setuid":
        _become_nobody(directory, sockets)
    if signal_number != "0":
        # After the change of user: that clears the setting.
        _call("prctl", PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
        if os.getppid() != int(parent):
            sys.exit("the process that asked for this server is gone")
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
