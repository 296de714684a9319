"""What runs on the hosts, sent there by the provider. `arrival` and `environment` need nothing but Python itself."""
