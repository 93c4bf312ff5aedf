from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("backups_app", "0014_space"),
    ]

    operations = [
        migrations.AddField(
            model_name="triagerun",
            name="upload_name",
            field=models.CharField(
                blank=True,
                editable=False,
                help_text="What the sender called the file; text only. Empty: it was not uploaded.",
                max_length=255,
                verbose_name="uploaded as",
            ),
        ),
        migrations.AddField(
            model_name="triagerun",
            name="upload_removed_at",
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name="upload removed"),
        ),
    ]
