"""What Sidejob's HTTP functions and its worker share. Importing the package imports nothing else."""
