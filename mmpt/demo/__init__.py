"""The main job: embedded data, three trainings, a table and a picture."""
