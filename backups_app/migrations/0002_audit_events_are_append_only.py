"""The database itself refuses to change or remove an audit event."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

_REFUSAL = "audit events are append-only"

_INSTALL = {
    "sqlite": [
        f"""CREATE TRIGGER backups_app_auditevent_no_{verb.lower()} BEFORE {verb} ON backups_app_auditevent
            BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"""
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        f"""CREATE FUNCTION backups_app_refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$""",
        """CREATE TRIGGER backups_app_auditevent_no_change BEFORE UPDATE OR DELETE ON backups_app_auditevent
            FOR EACH ROW EXECUTE FUNCTION backups_app_refuse_audit_change()""",
        """CREATE TRIGGER backups_app_auditevent_no_truncate BEFORE TRUNCATE ON backups_app_auditevent
            FOR EACH STATEMENT EXECUTE FUNCTION backups_app_refuse_audit_change()""",
    ],
}

_REMOVE = {
    "sqlite": [f"DROP TRIGGER backups_app_auditevent_no_{verb}" for verb in ("update", "delete")],
    "postgresql": ["DROP FUNCTION backups_app_refuse_audit_change() CASCADE"],
}


def _execute(statements: dict[str, list[str]], schema_editor: BaseDatabaseSchemaEditor) -> None:
    vendor = schema_editor.connection.vendor
    if vendor not in statements:
        raise NotImplementedError(f"The catalogue is supported on SQLite and PostgreSQL, not on {vendor}.")
    for statement in statements[vendor]:
        schema_editor.execute(statement)


def install(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Create the triggers."""
    _execute(_INSTALL, schema_editor)


def remove(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Drop the triggers."""
    _execute(_REMOVE, schema_editor)


class Migration(migrations.Migration):
    dependencies = [("backups_app", "0001_initial")]

    operations = [migrations.RunPython(install, remove)]
