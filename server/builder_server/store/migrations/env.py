"""Run by Alembic: it migrates on the connection that the database hands over."""

import sqlalchemy as sa
from alembic import context

TEXT = """
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = current_schema() AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'
"""

connection = context.config.attributes["connection"]
context.configure(connection=connection, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
    if connection.dialect.name == "postgresql":
        # names compare by their bytes, as they do in SQLite, whatever language the database was made for
        for table, column in connection.execute(sa.text(TEXT)).all():
            connection.exec_driver_sql(f'ALTER TABLE "{table}" ALTER COLUMN "{column}" TYPE text COLLATE "C"')
