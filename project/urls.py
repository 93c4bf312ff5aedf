"""Addresses of the console: the admin, the way there, and what monitors ask."""

from django.apps import apps
from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

# The queue's own admin can schedule any Python function and unpickles task rows when a list is
# opened. The console shows our own records in its place.
for model in apps.get_app_config("django_q").get_models():
    if admin.site.is_registered(model):
        admin.site.unregister(model)

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("", include("backups_app.urls")),
    path("admin/", admin.site.urls),
]
