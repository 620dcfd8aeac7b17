"""Before a Ray cluster is joined: is there one, does it let us in, is it of our versions.

Ray itself would answer with pages of text, after a minute, or by ending the process. Here each
reason is one line, after seconds.
"""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from trainables.errors import InputError

FLAG = "--address"

# Seconds for a connection, and for what the head then has to say.
_CONNECT = 5.0
_ANSWER = 15.0

_ALLOWED = "allowed: host:port of a running head, or 'auto'"
_HOST_PORT = re.compile(r"(?P<host>\[[^\[\]]+\]|[^\[\]:/\s]+):(?P<port>\d{1,5})")


def check_head(address: str) -> str:
    """HOST:PORT of the cluster at `address`, which this process can join.

    Sets RAY_AUTH_MODE to token where the cluster asks for one, there is one, and nobody has said
    otherwise; so it has to come before Ray is imported. A token that lies here says nothing of the
    cluster, since Ray leaves one behind wherever it has started by itself; and a driver that asks
    for it where the others have none does not hear of its own trials.

    Raises:
        InputError: nobody answers, no token or a wrong one, one that nobody asks for, other
            versions, or this machine is no node of the cluster.
    """
    place = _resolved(address)
    source = _token()
    probe = _probe(place, "disabled")
    closed = probe is not None and "refused" in probe
    if closed and source is not None:
        probe = _probe(place, "token")
    if probe is None:
        raise InputError(
            f"{place} takes connections, but does not answer as a Ray head; {_ALLOWED}", FLAG
        )
    if "refused" in probe:
        raise _refused(place, source)
    if closed:
        _send_token()
    elif os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        raise InputError(
            f"the cluster at {place} asks for no token, but RAY_AUTH_MODE is 'token', and no trial "
            "would begin; allowed: RAY_AUTH_MODE=disabled, or none",
            FLAG,
        )
    _check_versions(place, probe)
    if not probe["here"]:
        raise InputError(
            f"this machine is no node of the cluster at {place}, which has "
            f"{', '.join(probe['nodes']) or 'no nodes'}; allowed: vqtune on one of its nodes, or "
            f"to make this one a node: ray start --address={place} --num-cpus=0",
            FLAG,
        )
    return place


def _resolved(address: str) -> str:
    """HOST:PORT where somebody listens."""
    if address == "auto":
        address = _found_here()
    if "@" in address:  # not repeated, since there may be a password before it
        raise InputError(f"no Ray cluster answers at an address with an '@'; {_ALLOWED}", FLAG)
    found = _HOST_PORT.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise InputError(f"no Ray cluster answers at {address!r}: not host:port; {_ALLOWED}", FLAG)
    host, port = found["host"].strip("[]"), int(found["port"])
    try:
        socket.create_connection((host, port), timeout=_CONNECT).close()
    except socket.gaierror:
        raise InputError(
            f"no Ray cluster answers at {address!r}: there is no such host; {_ALLOWED}", FLAG
        ) from None
    except TimeoutError:
        raise InputError(
            f"no Ray cluster answers at {address!r} within {_CONNECT:.0f} seconds; {_ALLOWED} that "
            "this machine can reach",
            FLAG,
        ) from None
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"no Ray cluster answers at {address!r}: {reason}; {_ALLOWED}", FLAG
        ) from None
    return address


def _found_here() -> str:
    """What `auto` means: RAY_ADDRESS, else a head on this machine."""
    from ray._private.services import canonicalize_bootstrap_address  # noqa: PLC0415

    try:
        found = canonicalize_bootstrap_address("auto")
    except (OSError, ValueError):
        found = None
    if not found:
        told = os.environ.get("RAY_ADDRESS")
        where = f"RAY_ADDRESS is {told!r}" if told else "no Ray cluster runs on this machine"
        raise InputError(f"found 'auto', but {where}; {_ALLOWED} where one runs", FLAG)
    return str(found)


def _token() -> str | None:
    """Where Ray will find its token, in its own order; None where there is none.

    Raises:
        InputError: the file that RAY_AUTH_TOKEN_PATH names cannot be read.
    """
    mode = os.environ.get("RAY_AUTH_MODE")
    if mode is not None and mode.lower() != "token":
        return None
    source = None
    if os.environ.get("RAY_AUTH_TOKEN"):
        source = "RAY_AUTH_TOKEN"
    elif named := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        try:
            empty = not Path(named).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise InputError(f"cannot be read: {reason}", f"RAY_AUTH_TOKEN_PATH {named}") from None
        if empty:
            raise InputError("holds no token", f"RAY_AUTH_TOKEN_PATH {named}")
        source = f"RAY_AUTH_TOKEN_PATH ({named})"
    elif (file := Path("~/.ray/auth_token").expanduser()).is_file():
        source = str(file)
    if source is None and mode is not None:
        raise InputError(
            f"RAY_AUTH_MODE is token, but there is none; {_allowed_tokens()}", "Ray's token"
        )
    return source


def _send_token() -> None:
    """With an address Ray would not, unless told to; nor any other than one that it has sent."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if "ray" in sys.modules:
        from ray._raylet import (  # type: ignore[attr-defined]  # noqa: PLC0415
            AuthenticationTokenLoader,
            Config,
        )

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def _allowed_tokens() -> str:
    return (
        "allowed: the cluster's own in RAY_AUTH_TOKEN, or in a file named by RAY_AUTH_TOKEN_PATH "
        "or at ~/.ray/auth_token"
    )


def _refused(place: str, source: str | None) -> InputError:
    if source is not None:
        told = f"the cluster at {place} refuses the token in {source}"
    elif os.environ.get("RAY_AUTH_MODE"):
        told = (
            f"the cluster at {place} asks for a token, but RAY_AUTH_MODE is "
            f"{os.environ['RAY_AUTH_MODE']!r}"
        )
    else:
        told = f"the cluster at {place} asks for a token, and there is none here"
    return InputError(f"{told}; {_allowed_tokens()}", FLAG)


def _check_versions(place: str, probe: dict[str, Any]) -> None:
    import ray  # noqa: PLC0415

    theirs = str(probe["ray"]), str(probe["python"])
    ours = str(ray.__version__), platform.python_version()
    level = os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "patch")
    parts = 2 if level == "minor" else 3
    if theirs[0] == ours[0] and theirs[1].split(".")[:parts] == ours[1].split(".")[:parts]:
        return
    minor = theirs[1].split(".")[:2] == ours[1].split(".")[:2] and theirs[0] == ours[0]
    hint = " (RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor lets the last part differ)"
    raise InputError(
        f"the cluster at {place} runs Ray {theirs[0]} on Python {theirs[1]}, this is Ray {ours[0]} "
        f"on Python {ours[1]}; allowed: the same versions{hint if minor else ''}",
        FLAG,
    )


def _probe(place: str, mode: str) -> dict[str, Any] | None:
    """What the head says, asked with a token or without, as Ray's RAY_AUTH_MODE has it.

    None where it says nothing that can be understood.
    """
    # -P: or the folder's own modules would stand before the library's.
    command = [sys.executable, "-P", str(Path(__file__).with_name("head_probe.py")), place]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_ANSWER,
            check=False,
            env={**os.environ, "RAY_AUTH_MODE": mode},
        )
        told = json.loads(done.stdout.decode().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return None
    return told if isinstance(told, dict) else None
