"""The variables of the host's environment that package installers may have: where indexes are, how they are reached.

They get nothing else of it: no settings of the host, and none of AWS's variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_PASSED = re.compile(
    r"""
    HOME | XDG_CONFIG_HOME | XDG_CONFIG_DIRS | NETRC
  | (HTTPS?|ALL|NO|https?|all|no)_(PROXY|proxy)
  | SSL_CERT_(FILE|DIR) | REQUESTS_CA_BUNDLE | CURL_CA_BUNDLE | NODE_EXTRA_CA_CERTS
  | PIP_(CONFIG_FILE|INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|TRUSTED_HOST|CERT|CLIENT_CERT|PROXY|RETRIES|
         (DEFAULT_)?TIMEOUT|UPLOADED_PRIOR_TO)
  | UV_(CONFIG_FILE|INDEX|INDEX_URL|DEFAULT_INDEX|EXTRA_INDEX_URL|INDEX_STRATEGY|INDEX_\w+_(USERNAME|PASSWORD)|
        FIND_LINKS|NO_INDEX|INSECURE_HOST|HTTP_TIMEOUT|HTTP_RETRIES|NATIVE_TLS|SYSTEM_CERTS|EXCLUDE_NEWER)
  | (NPM_CONFIG|npm_config)_(REGISTRY|registry|USERCONFIG|userconfig|GLOBALCONFIG|globalconfig|CAFILE|cafile|
                             PROXY|proxy|HTTPS_PROXY|https_proxy|NOPROXY|noproxy|FETCH_TIMEOUT|fetch_timeout|
                             FETCH_RETRIES|fetch_retries|BEFORE|before)
    """,
    re.VERBOSE,
)


def installer_variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give them.

    :param environ: the environment; None is the process's own.
    """
    environ = os.environ if environ is None else environ
    return {name: value for name, value in environ.items() if _PASSED.fullmatch(name)}
