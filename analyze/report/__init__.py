"""The report: one HTML page of all results under the outputs folder, and the files of its tables and figures."""
