"""Whole networks. Each is registered when its module is imported, by one line here."""

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.models.network import Network
from deeplab_ray.models.networks import deeplab_v2, fcn

__all__ = ["create", "deeplab_v2", "fcn", "network_class"]


def network_class(config: NetworkConfig) -> type[Network]:
    """Return the class of the network that these options are for. Raises ValueError if none is registered."""
    found: type[Network] | None = config.built_by
    if found is None:
        raise ValueError(f"{type(config).__name__} has no network: decorate its class with models.network.register")
    return found


def create(config: NetworkConfig, classes: int) -> Network:
    """Make the network with random weights, for this many classes."""
    return network_class(config)(config, classes)
