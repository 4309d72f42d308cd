"""Run by Alembic. The connection, with its transaction already begun, comes from `inventory.database`."""

from alembic import context
from sqlmodel import SQLModel

from edgectl.inventory import models

assert models.DeviceRow.metadata is SQLModel.metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
)
context.run_migrations()
