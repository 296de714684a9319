"""From a bare machine to a running agent: user data, installation, and the service that keeps the agent alive."""
