"""``python -m tests.registries`` judges every model of the registries and writes the table of supported models."""

from tests.registries.run import main
from tests.registries.table import main as write_table

if __name__ == "__main__":
    main()
    write_table()
