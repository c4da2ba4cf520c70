"""The built-in components: ordinary plugins, discovered through this distribution's entry points."""
