"""Results of succeeded jobs: where their outputs lie, and their files as images and arrays."""
