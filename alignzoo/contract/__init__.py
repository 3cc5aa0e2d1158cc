"""What a plug-in keeps to: values, base classes and hooks. Imports no other room."""
