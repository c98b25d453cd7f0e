"""Every kind of record that is kept. Stores make a table for each; whoever adds one adds a migration too."""

from __future__ import annotations

from typing import Any

from serverfull.domain.capacity import CAPACITY_PROVIDERS, FUNCTION_SCALING, RUNTIME_MANAGEMENT
from serverfull.domain.code_signing import CODE_SIGNING_CONFIGS
from serverfull.domain.concurrency import PROVISIONED_CONCURRENCY
from serverfull.domain.deployed import ALIASES, FUNCTIONS, PREPARATIONS, VERSIONS
from serverfull.domain.invoke_configs import EVENT_INVOKE_CONFIGS
from serverfull.domain.layers import LAYER_VERSIONS, LAYERS
from serverfull.domain.mappings import EVENT_SOURCE_MAPPINGS
from serverfull.domain.permissions import POLICIES
from serverfull.domain.publication import PUBLISHED_FUNCTIONS
from serverfull.domain.records import Kind
from serverfull.domain.urls import FUNCTION_URLS

KINDS: tuple[Kind[Any], ...] = (
    FUNCTIONS,
    VERSIONS,
    ALIASES,
    PREPARATIONS,
    POLICIES,
    LAYERS,
    LAYER_VERSIONS,
    CODE_SIGNING_CONFIGS,
    PROVISIONED_CONCURRENCY,
    FUNCTION_URLS,
    EVENT_INVOKE_CONFIGS,
    EVENT_SOURCE_MAPPINGS,
    CAPACITY_PROVIDERS,
    FUNCTION_SCALING,
    RUNTIME_MANAGEMENT,
    PUBLISHED_FUNCTIONS,
)
