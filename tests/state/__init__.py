"""One store and its names: settings, bindings, migration."""
