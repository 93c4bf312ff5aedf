"""An index for the newest audit event of an action, which the overview asks for."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("backups_app", "0015_actions"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(fields=["action", "-at"], name="audit_by_action"),
        ),
    ]
