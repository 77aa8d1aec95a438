"""What browser jobs may ask for: strict models in camelCase. No field is accepted that does nothing."""
