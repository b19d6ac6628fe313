"""``farlands report``: one page that shows what runs found. From the files of a run directory to tables, figures and HTML."""
