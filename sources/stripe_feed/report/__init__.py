"""The report: figures of the models as one HTML page, and the charts, for notebooks too."""
