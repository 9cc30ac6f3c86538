"""The main job: synthetic data, three trainings, a table and a picture."""
