"""Addresses of the console: the admin, and the way there."""

from django.apps import apps
from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

# The queue's own admin can schedule any Python function and unpickles task rows when a list is
# opened. The console shows our own records in its place.
for model in apps.get_app_config("django_q").get_models():
    if admin.site.is_registered(model):
        admin.site.unregister(model)

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
]
