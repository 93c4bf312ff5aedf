"""What must not happen, whoever asks: tests of the promises in docs/threat-model.md."""
