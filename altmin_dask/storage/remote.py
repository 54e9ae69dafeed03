"""What goes wrong with a store at a URL, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from altmin_dask.errors import AltMinError, DataError, MissingError

# by the name of the exception's class: botocore is there only if s3fs is
_ADVICE = {
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "PartialCredentialsError": "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "EndpointConnectionError": "check AWS_ENDPOINT_URL and the network",
    "ConnectTimeoutError": "check AWS_ENDPOINT_URL and the network",
    "ReadTimeoutError": "check AWS_ENDPOINT_URL and the network",
    "PermissionError": "check that the credentials allow it",
}


@contextmanager
def explained_errors(location: str, action: str) -> Iterator[None]:
    """Turn what a file system plug-in raises into a sentence that names the URL.

    Parameters
    ----------
    location : str
        A URL.
    action : str
        What cannot be done with it: "opened", "read" or "written".

    Raises
    ------
    MissingError
        If the plug-in of its kind is not installed, or there is no such bucket.
    DataError
        If the service does not answer or refuses.
    """
    try:
        yield
    except AltMinError:
        raise
    except ImportError as error:
        package = "'altmin-dask[s3]'" if location.startswith(("s3://", "s3a://")) else "its fsspec plug-in"
        advice = f"`pip install {package}`" if "altmin" in package else f"install {package}"
        raise MissingError(f"{location} cannot be {action}: {reason(error)}; {advice}") from error
    except FileNotFoundError as error:
        raise MissingError(
            f"{location} cannot be {action}: {reason(error)}; check the URL, and make the bucket first"
        ) from error
    except Exception as error:
        advice = _ADVICE.get(type(error).__name__, "check the URL")
        raise DataError(f"{location} cannot be {action}: {reason(error)}; {advice}") from error


def reason(error: BaseException) -> str:
    """Say what went wrong in one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
