"""What every bonus keeps to, as functions: the tests walk them over every method of the project, ``farlands check`` over one of yours."""
